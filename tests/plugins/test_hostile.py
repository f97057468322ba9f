"""Every kind of hostile plugin leaves the host whole, and is one visible line with its cause."""

from __future__ import annotations

import importlib.util
import os
import re
import string
import subprocess
import sys
from pathlib import Path

import pytest

SPEC = importlib.util.spec_from_file_location("hostile", Path(__file__).parents[1] / "hostile.py")
assert SPEC is not None
assert SPEC.loader is not None
hostile = importlib.util.module_from_spec(SPEC)
sys.modules["hostile"] = hostile
SPEC.loader.exec_module(hostile)

MATRIX = hostile.matrix()
OURS = {
    "bert-finetune",
    "cnn",
    "detect",
    "gpu",
    "linreg",
    "mlp-xor",
    "seq2seq",
    "tensor-ops",
    "word2vec",
}
ABOUT_OURS = ("shadows_our_topic", "claims_to_be_dltool", "our_name", "metadata_of_bytes")


@pytest.fixture
def site(tmp_path):
    """A folder of installed packages that comes first on the path."""
    folder = tmp_path / "site"
    folder.mkdir()
    return folder


def listed(shown):
    """Return the command names of a help text."""
    lines = shown.out.split("Commands:")[1].splitlines()
    return {line.split()[0] for line in lines if re.match(r"  \S", line)}


def help_is_whole(dltool, path):
    """Return what `--help` shows with these packages on the path."""
    shown = dltool("--help", PYTHONPATH=path)
    assert listed(shown) >= OURS | {"plugin", "doctor", "runs"}
    assert "\x1b" not in shown.out
    assert not shown.err
    return shown


def host_is_whole(dltool, path, work):
    """Run the other commands that no plugin may disturb."""
    assert dltool("--version", PYTHONPATH=path).out.startswith("dltool ")
    assert dltool("gpu", "info", "--json", PYTHONPATH=path).json()["status"] == "ok"
    assert "Classify images" in dltool("cnn", "--help", PYTHONPATH=path).out
    dltool("cnn", "predict", "nowhere", "x.png", code=5, PYTHONPATH=path)
    dltool("runs", "list", PYTHONPATH=path)
    assert not list(work.iterdir())


@pytest.mark.parametrize("kind", MATRIX)
def test_the_host_stays_whole(dltool, site, work, kind):
    case = MATRIX[kind]
    case.make(site)
    path = str(site)
    help_text = help_is_whole(dltool, path)
    known = dltool("plugin", "list", "--json", PYTHONPATH=path).json()["data"]["plugins"]
    assert {plugin["name"] for plugin in known if plugin["is_own"]} == OURS
    if kind in ABOUT_OURS:
        host_is_whole(dltool, path, work)
    strangers = [plugin for plugin in known if not plugin["is_own"]]
    assert strangers
    if case.name:
        assert case.name in {plugin["name"] for plugin in strangers}
    if case.is_known:
        (stranger,) = strangers
        assert case.cause in stranger["problem"]
        shown = " ".join(help_text.out.split())
        assert "[broken]" in shown
        assert case.cause[:20] in shown


@pytest.mark.parametrize("kind", [key for key, case in MATRIX.items() if case.name])
def test_the_check_names_the_cause(dltool, site, work, kind, tmp_path):
    case = MATRIX[kind]
    case.make(site)
    words = ["plugin", "check", case.name, "--timeout", "3"]
    shown = dltool(*words, code=case.check, PYTHONPATH=str(site), TMPDIR=str(tmp_path))
    assert case.cause in shown.out
    assert "\x1b" not in shown.out
    assert case.name in shown.out
    assert len(shown.out.splitlines()) <= 3
    # help knows now what the check has seen
    helped = " ".join(dltool("--help", PYTHONPATH=str(site)).out.split())
    assert ("[broken]" in helped) == (
        (case.check == 6 and kind != "heavy_import") or kind == "metadata_of_bytes"
    )


@pytest.mark.parametrize(
    "kind", [key for key, case in MATRIX.items() if case.name and case.call is not None]
)
def test_a_call_tells_the_cause_or_works(dltool, site, kind, tmp_path):
    case = MATRIX[kind]
    case.make(site)
    variables = {"PYTHONPATH": str(site), "TMPDIR": str(tmp_path)}
    shown = dltool(case.name, "say", "--json", code=case.call, **variables)
    answer = shown.json()  # exactly one object, whatever the import printed
    if case.call == 0:
        assert answer["data"] == {"said": 1}
        return
    assert answer["error"]["exit_code"] == 4
    line = shown.err.strip().splitlines()[-1]
    assert line.startswith("error E40")
    assert case.cause in line
    assert "Cure: " in line


def test_all_of_them_at_once(dltool, site, work):
    for kind, case in MATRIX.items():
        folder = site / kind
        folder.mkdir()
        case.make(folder)
    path = os.pathsep.join(str(folder) for folder in site.iterdir())
    help_is_whole(dltool, path)
    host_is_whole(dltool, path, work)
    shown = dltool("plugin", "list", PYTHONPATH=path)
    assert len(shown.out.splitlines()) == 1 + len(
        dltool("plugin", "list", "--json", PYTHONPATH=path).json()["data"]["plugins"]
    )


@pytest.mark.parametrize("kind", ["raises", "syntax_error", "other_api", "hangs", "prints"])
@pytest.mark.parametrize(
    "words",
    [
        ["plugin", "list", "--check", "--timeout", "3"],
        ["plugin", "info", "evil"],
        ["plugin", "disable", "evil"],
        ["plugin", "freeze"],
        ["plugin", "uninstall", "evil", "--dry-run"],
    ],
    ids=" ".join,
)
def test_commands_about_plugins_work_on_broken_ones(dltool, site, kind, words):
    MATRIX[kind].make(site)
    shown = dltool(*words, PYTHONPATH=str(site))
    assert "evil" in shown.out + shown.err


def test_the_doctors_name_broken_plugins(dltool, site):
    MATRIX["raises"].make(site)
    path = {"PYTHONPATH": str(site)}
    shown = dltool("plugin", "doctor", code=6, **path)
    assert "FAIL  plugin evil: dltool-evil 1.0: cannot be imported: RuntimeError" in shown.out
    assert "RuntimeError: no luck" in dltool("doctor", code=6, **path).out


def test_help_in_frames_survives_markup(dltool, site):
    pytest.importorskip("rich")
    MATRIX["markup_in_summary"].make(site)
    hostile.install(site, "worse", cli="import nothing_of_this_name\n")
    shown = dltool("--help", PYTHONPATH=str(site), TYPER_USE_RICH="1")
    assert "[/bold] [red]x[/nothing]" in shown.out
    assert "[broken]" in shown.out


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_gives_a_shell_nothing_to_run(environment, work, site, shell):
    for kind in ("markup_in_summary", "name_for_a_shell", "raises", "prints"):
        (site / kind).mkdir()
        MATRIX[kind].make(site / kind)
    path = os.pathsep.join(str(folder) for folder in site.iterdir())
    words = {"COMP_WORDS": "dltool ", "COMP_CWORD": "1", "_TYPER_COMPLETE_ARGS": "dltool "}
    done = subprocess.run(
        [sys.executable, "-m", "dltool"],
        capture_output=True,
        text=True,
        cwd=work,
        env={
            **environment,
            **words,
            "_TYPER_COMPLETE_FISH_ACTION": "get-args",
            "_DLTOOL_COMPLETE": f"complete_{shell}",
            "PYTHONPATH": path,
        },
        check=True,
    )
    assert "cnn" in done.stdout
    assert not done.stderr
    if shell == "zsh":
        assert not set("$`\\") & set(done.stdout)
        texts = done.stdout.split('"')[1::2]
        assert all(
            set(text) <= set(string.ascii_letters + string.digits + " ,.;/+=%@-_") for text in texts
        )
    if shell == "bash":
        assert not set("$`; ") & set(done.stdout)
