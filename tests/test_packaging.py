"""The wheel, built from this tree, in a fresh environment outside of it."""

import os
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def wheel(tmp_path_factory):
    """Build the wheel without network."""
    folder = tmp_path_factory.mktemp("wheel")
    root = Path(__file__).parent.parent
    done = subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, root],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = folder.glob("*.whl")
    return path


@pytest.fixture(scope="session")
def fresh(wheel, tmp_path_factory):
    """Make an environment that has the wheel, and the heavy packages of this one."""
    folder = tmp_path_factory.mktemp("fresh")
    subprocess.run([sys.executable, "-m", "venv", folder / "env"], check=True)
    binaries = folder / "env" / ("Scripts" if os.name == "nt" else "bin")
    ask = "import sysconfig; print(sysconfig.get_paths()['purelib'])"
    packages = Path(
        subprocess.run(
            [binaries / "python", "-c", ask], capture_output=True, text=True, check=True
        ).stdout.strip()
    )
    # a path file does not make the other environment's own path files count: our code stays out
    borrowed = sysconfig.get_paths()["purelib"]
    (packages / "borrowed.pth").write_text(borrowed + "\n", encoding="utf-8")
    install = [binaries / "python", "-m", "pip", "install", "--no-deps", "--no-index", wheel]
    subprocess.run(install, check=True, capture_output=True)
    return binaries


def call(binaries, *arguments, cwd, environment):
    return subprocess.run(
        [binaries / "dltool", *map(str, arguments)],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
    )


def test_wheel_holds_our_packages_and_nothing_else(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    tops = {name.split("/")[0] for name in names if ".dist-info" not in name}
    topics = {
        "bert_finetune",
        "cnn",
        "detect",
        "gpu",
        "linreg",
        "mlp_xor",
        "seq2seq",
        "tensor_ops",
        "word2vec",
    }
    assert tops == {"dltool", *(f"dltool_{topic}" for topic in topics)}
    for needed in ("dltool/py.typed", *(f"{top}/plugin.toml" for top in tops - {"dltool"})):
        assert needed in names
    apart = ("dltool/templates/", "dltool_detect/shipped/")  # the model's card goes with it
    ours = [name for name in names if not name.startswith(apart)]
    assert not [name for name in ours if "/test_" in name or name.endswith(".md")]


def test_wheel_works_outside_the_source_tree(fresh, work, environment):
    probe = "import dltool, dltool_cnn; print(dltool.__file__, dltool_cnn.__file__)"
    where = subprocess.run(
        [fresh / "python", "-c", probe], cwd=work, capture_output=True, text=True, check=True
    ).stdout
    assert str(fresh.parent) in where
    assert str(Path(__file__).parent.parent / "dltool") not in where
    for arguments in (["--help"], ["plugin", "list"], ["gpu", "info"], ["doctor"]):
        done = call(fresh, *arguments, cwd=work, environment=environment)
        assert done.returncode == 0, done.stderr
    done = call(
        fresh, "cnn", "train", "--epochs", "3", "--out", "run", cwd=work, environment=environment
    )
    assert done.returncode == 0, done.stderr
    digits = Path(__file__).parent.parent / "examples" / "digits"
    done = call(fresh, "cnn", "predict", "run", digits, cwd=work, environment=environment)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 20


def test_module_and_script_are_the_same_door(fresh, work, environment):
    script = call(fresh, "--help", cwd=work, environment=environment).stdout
    module = subprocess.run(
        [fresh / "python", "-m", "dltool", "--help"],
        cwd=work,
        env=environment,
        capture_output=True,
        text=True,
    ).stdout
    assert script == module
