"""A stranger's packages beside the built wheel, in a fresh environment, without a network."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
OFFLINE = ["--", "--no-build-isolation", "--no-deps", "--no-index", "--quiet"]

pytestmark = [
    pytest.mark.timeout(600),
    pytest.mark.skipif(os.name == "nt", reason="the environment's folders are those of POSIX"),
]


class Fresh:
    """A fresh environment with the built wheel; heavy packages are borrowed from this one."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.bin = folder / "bin"
        kept = {key: value for key, value in os.environ.items() if not key.startswith("DLTOOL_")}
        kept.pop("PYTHONPATH", None)
        self.environment = {
            **kept,
            "PATH": f"{self.bin}{os.pathsep}{os.environ['PATH']}",
            "VIRTUAL_ENV": str(folder),
            "DLTOOL_HOME": str(folder / "home"),
            "DLTOOL_OFFLINE": "1",
            "OMP_NUM_THREADS": "1",
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        }

    def run(self, *words: object, cwd: Path, code: int = 0, **variables: str) -> str:
        """Run a command and return its stdout."""
        done = subprocess.run(
            [str(word) for word in words],
            cwd=cwd,
            env={**self.environment, **variables},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == code, f"{words}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        assert "Traceback" not in done.stderr, done.stderr
        return done.stdout

    def dltool(self, *words: object, cwd: Path, code: int = 0, **variables: str) -> dict:
        """Run `dltool ... --json` and return its one object."""
        first, last = (words, ())
        if "--" in words:
            cut = words.index("--")
            first, last = words[:cut], words[cut:]
        out = self.run(
            self.bin / "dltool", *first, "--json", *last, cwd=cwd, code=code, **variables
        )
        return json.loads(out)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Our wheel, built from this source tree."""
    folder = tmp_path_factory.mktemp("dist")
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder)]
    subprocess.run([*build, str(ROOT)], check=True, capture_output=True)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def fresh(wheel, tmp_path_factory):
    """An environment that holds the wheel, and no source of ours."""
    folder = tmp_path_factory.mktemp("fresh") / "env"
    venv.create(folder, with_pip=True, symlinks=True)
    torch = importlib.util.find_spec("torch")
    packages = next((folder / "lib").glob("python*")) / "site-packages"
    borrowed = Path(torch.origin).parent.parent
    (packages / "zz_borrowed.pth").write_text(f"{borrowed}\n", encoding="utf-8")
    environment = Fresh(folder)
    pip = [environment.bin / "python", "-m", "pip", "install", "--no-deps", "--no-index", "-q"]
    environment.run(*pip, "--force-reinstall", wheel, cwd=folder)
    # Python 3.11 brings a setuptools of 2022; the borrowed one is today's
    shutil.rmtree(packages / "setuptools", ignore_errors=True)
    shutil.rmtree(packages / "pkg_resources", ignore_errors=True)
    for left in [*packages.glob("setuptools-*"), *packages.glob("distutils-precedence.pth")]:
        shutil.rmtree(left) if left.is_dir() else left.unlink()
    place = environment.run(
        environment.bin / "python", "-c", "import dltool; print(dltool.__file__)", cwd=folder
    )
    assert Path(place.strip()).is_relative_to(packages)
    return environment


def test_a_strangers_topic_lives_its_whole_life_beside_the_wheel(fresh, tmp_path):
    source = tmp_path / "source"
    shutil.copytree(ROOT / "examples" / "third_party_plugin", source)
    done = fresh.dltool("plugin", "install", source, "--yes", *OFFLINE, cwd=tmp_path)["data"]
    assert [item["name"] for item in done["plugins"]] == ["anomaly"]
    assert done["plugins"][0]["ok"]
    try:
        use_it(fresh, tmp_path)
        lock = tmp_path / "plugins.lock"
        frozen = fresh.dltool("plugin", "freeze", "--out", lock, cwd=tmp_path)["data"]
        assert frozen["packages"] == [f"dltool-anomaly==1.0.0 @ {source.as_uri()}"]
        assert lock.read_text(encoding="utf-8").splitlines()[1:] == frozen["packages"]
    finally:
        gone = fresh.dltool("plugin", "uninstall", "anomaly", "--yes", cwd=tmp_path)["data"]
    assert gone["removed"] == ["anomaly"]
    fresh.dltool("anomaly", "train", cwd=tmp_path, code=2)
    done = fresh.dltool("plugin", "sync", lock, "--yes", *OFFLINE, cwd=tmp_path)["data"]
    assert done["missing"] == frozen["packages"]
    assert fresh.dltool("plugin", "sync", lock, cwd=tmp_path)["data"]["commands"] == []
    assert fresh.dltool("plugin", "info", "anomaly", cwd=tmp_path)["data"]["state"] == "ok"
    empty = tmp_path / "empty.lock"
    empty.write_text("# nothing\n", encoding="utf-8")
    fresh.dltool("plugin", "sync", empty, "--prune", "--yes", cwd=tmp_path)
    fresh.dltool("plugin", "info", "anomaly", cwd=tmp_path, code=4)


def use_it(fresh, folder):
    trained = fresh.dltool("anomaly", "train", "--epochs", "20", "--device", "cpu", cwd=folder)
    assert trained["data"]["found"]["value"] > 0.5  # 0.05 by chance
    table = folder / "rows.csv"
    names = fresh.dltool("anomaly", "info", "latest", cwd=folder)["data"]["columns"]
    rows = [",".join(names), ",".join(["0"] * 64), ",".join(["16", "0"] * 32)]
    table.write_text("\n".join(rows) + "\n", encoding="utf-8")
    scored = fresh.dltool("anomaly", "predict", "latest", table, cwd=folder)["data"]["rows"]
    assert scored[1]["odd"]
    assert scored[1]["score"] > scored[0]["score"]


def test_the_conformance_kit_runs_beside_the_wheel(fresh, tmp_path):
    python = [fresh.bin / "python", "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    options = [
        "--dltool-plugin",
        "gpu",
        "--dltool-plugin",
        "cnn",
        "-k",
        "manifest or light or help",
    ]
    out = fresh.run(*python, *options, cwd=tmp_path)
    assert "8 passed" in out


SETUPTOOLS = """
[build-system]
requires = ["setuptools"]
build-backend = "setuptools.build_meta"

[project]
name = "dltool-tides"
version = "0.3"

[project.entry-points."dltool.plugins"]
tides = "dltool_tides.cli:app"

[tool.setuptools]
packages = ["dltool_tides"]
{data}
"""


def tides(folder: Path, data: str) -> Path:
    """Write a package that setuptools builds."""
    specification = importlib.util.spec_from_file_location("hostile_", ROOT / "tests/hostile.py")
    module = importlib.util.module_from_spec(specification)
    sys.modules["hostile_"] = module
    specification.loader.exec_module(module)
    module.install(folder, "tides", package="dltool_tides", summary="By setuptools")
    shutil.rmtree(next(folder.glob("*.dist-info")))
    (folder / "pyproject.toml").write_text(SETUPTOOLS.format(data=data), encoding="utf-8")
    return folder


@pytest.mark.parametrize("editable", [False, True], ids=["wheel", "editable"])
def test_setuptools_is_as_good_as_hatchling(fresh, tmp_path, editable):
    data = '[tool.setuptools.package-data]\ndltool_tides = ["plugin.toml"]'
    source = tides(tmp_path / "tides", data)
    flags = ["--editable"] if editable else []
    words = ["plugin", "install", source, "--yes", *flags, *OFFLINE]
    fresh.dltool(*words, cwd=tmp_path)
    try:
        facts = fresh.dltool("plugin", "info", "tides", cwd=tmp_path)["data"]
        assert (facts["summary"], facts["state"], facts["verbs"]) == (
            "By setuptools",
            "ok",
            ["say"],
        )
        assert fresh.dltool("tides", "say", cwd=tmp_path)["data"] == {"said": 1}
    finally:
        fresh.dltool("plugin", "uninstall", "tides", "--yes", cwd=tmp_path)


def test_a_wheel_without_its_manifest_works_without_a_summary(fresh, tmp_path):
    source = tides(tmp_path / "tides", "")
    fresh.dltool("plugin", "install", source, "--yes", *OFFLINE, cwd=tmp_path)
    try:
        facts = fresh.dltool("plugin", "info", "tides", cwd=tmp_path)["data"]
        assert (facts["summary"], facts["state"]) == ("", "ok")
        help_text = fresh.run(fresh.bin / "dltool", "--help", cwd=tmp_path)
        assert "(no summary; from dltool-tides)" in " ".join(help_text.split())
        assert fresh.dltool("tides", "say", cwd=tmp_path)["data"] == {"said": 1}
    finally:
        fresh.dltool("plugin", "uninstall", "tides", "--yes", cwd=tmp_path)


def test_a_zipped_path_works(fresh, tmp_path):
    folder = tmp_path / "loose"
    tides(folder, "")
    archive = tmp_path / "packages.zip"
    with zipfile.ZipFile(archive, "w") as target:
        for file in (folder / "dltool_tides").glob("*.*"):
            target.write(file, f"dltool_tides/{file.name}")
        head = "dltool_tides-0.3.dist-info"
        target.writestr(
            f"{head}/METADATA", "Metadata-Version: 2.1\nName: dltool-tides\nVersion: 0.3\n"
        )
        target.writestr(
            f"{head}/entry_points.txt", "[dltool.plugins]\ntides = dltool_tides.cli:app\n"
        )
    path = {"PYTHONPATH": str(archive)}
    facts = fresh.dltool("plugin", "info", "tides", cwd=tmp_path, **path)["data"]
    assert (facts["summary"], facts["state"]) == ("By setuptools", "ok")
    assert fresh.dltool("tides", "say", cwd=tmp_path, **path)["data"] == {"said": 1}
    assert fresh.dltool("plugin", "check", "tides", cwd=tmp_path, **path)["data"]["ok"]


def test_the_example_session(fresh, tmp_path):
    offline = "--no-build-isolation --no-deps --no-index --quiet"
    script = ROOT / "examples" / "plugin.sh"
    out = fresh.run("bash", script, tmp_path / "session", cwd=tmp_path, INSTALL_OPTIONS=offline)
    assert "stopped and saved at step" in out
    assert "going on from step-" in out
    assert "test accuracy" in out
    assert "row 1: class_" in out
    assert (
        "[broken] ModuleNotFoundError: No module named 'a_package_that_is_not_there'"
        in " ".join(out.split())
    )
    listed = out.rpartition("$ dltool plugin list")[2]
    assert "weather" not in listed
    assert "cnn" in listed


def test_a_new_topic_passes_its_own_tests_and_the_kit(fresh, tmp_path):
    fresh.dltool("plugin", "new", "my-topic", cwd=tmp_path)
    source = tmp_path / "dltool-my-topic"
    fresh.dltool("plugin", "install", source, "--editable", "--yes", *OFFLINE, cwd=tmp_path)
    try:
        python = [
            fresh.bin / "python",
            "-m",
            "pytest",
            "-q",
            "-p",
            "no:cacheprovider",
            "-W",
            "error",
        ]
        out = fresh.run(*python, cwd=source)
        assert "19 passed" in out
    finally:
        fresh.dltool("plugin", "uninstall", "my-topic", "--yes", cwd=tmp_path)
