"""The conformance kit: our own topics pass it, and every check finds the fault planted for it."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from dltool import conformance
from dltool.plugins import template

SPEC = importlib.util.spec_from_file_location("hostile", Path(__file__).parents[1] / "hostile.py")
assert SPEC is not None
assert SPEC.loader is not None
hostile = importlib.util.module_from_spec(SPEC)
sys.modules["hostile"] = hostile
SPEC.loader.exec_module(hostile)

PYTEST = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-p", "no:xdist"]


def pytest_run(folder, *words):
    """Run pytest in a folder without tests of its own."""
    return subprocess.run(
        [*PYTEST, *words], capture_output=True, text=True, cwd=folder, check=False, timeout=280
    )


WHOLE = ("cnn", "gpu")
TRAININGS = ("smoke_training", "exact_resume")


@pytest.mark.parametrize(
    ("topic", "checks"),
    [
        ("bert-finetune", 9),
        ("cnn", 9),
        ("detect", 9),
        ("gpu", 7),
        ("linreg", 9),
        ("mlp-xor", 9),
        ("seq2seq", 9),
        ("tensor-ops", 7),
        ("word2vec", 9),
    ],
)
def test_our_own_topics_hold_the_contract(tmp_path, topic, checks):
    # the trainings of the others take minutes, and their own tests stop and resume them
    left_out = TRAININGS if topic not in WHOLE and not os.environ.get("DLTOOL_FAULTS") else ()
    some = ["-k", " and ".join(f"not {name}" for name in left_out)] if left_out else []
    done = pytest_run(tmp_path, "-q", "--dltool-plugin", topic, *some)
    assert done.returncode == 0, done.stdout[-4000:]
    assert f"{checks - (2 if left_out and checks == 9 else 0)} passed" in done.stdout


def test_every_topic_of_ours_is_tested_above(repository):
    tested = {
        mark.args[1][i][0]
        for mark in test_our_own_topics_hold_the_contract.pytestmark
        for i in range(len(mark.args[1]))
    }
    assert tested == {path.name for path in (repository / "plugins").iterdir() if path.is_dir()}


def test_an_unknown_topic_is_a_usage_error(tmp_path):
    done = pytest_run(tmp_path, "--dltool-plugin", "nothing")
    assert done.returncode == 4
    assert "no plugin is named 'nothing'" in done.stderr


def test_the_pytest_plugin_imports_nothing_until_it_is_used():
    code = (
        "import sys; before = set(sys.modules); import pytest; known = set(sys.modules); "
        "import dltool.testing; print(sorted(set(sys.modules) - known))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['dltool', 'dltool.testing']"


@pytest.fixture
def site(tmp_path, monkeypatch):
    """A folder of installed packages, first on the path of this process and of its children."""
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setenv("PYTHONPATH", str(folder))
    return folder


APP = '''"""A topic."""
import typer
from dltool import options, runs
from dltool.console import Console
{top}
app = typer.Typer(help="A topic.", no_args_is_help=True, add_completion=False,
                  context_settings=options.HELP)
@app.callback()
def root() -> None:
    """A topic."""
@app.command()
def say(json: options.JsonOption = False) -> None:
    """Say something."""
    Console("say", json=json).result({{"said": 1}}, "said")
{more}
'''
INFO = '''
@app.command()
def info(run: options.RunArgument, json: options.JsonOption = False) -> None:
    """Tell something."""
    {line}
    Console("info", json=json).result({{"run": run}}, run)
'''
MANIFEST = 'name = "evil"\nsummary = "{summary}"\napi = "{api}"\nverbs = [{verbs}]\n'


def topic(site, tmp_path, *, top="", more="", summary="A topic", api=">=1,<2", verbs='"say"'):
    """Install a topic and return it under test."""
    manifest = MANIFEST.format(summary=summary, api=api, verbs=verbs)
    hostile.install(site, "evil", cli=APP.format(top=top, more=more), manifest=manifest)
    return conformance.Topic("evil", tmp_path / "scratch")


def test_a_sound_topic_passes_every_light_check(site, tmp_path):
    sound = topic(site, tmp_path)
    for check in conformance.LIGHT_CHECKS:
        check(sound)


FAULTS = {
    "no_summary": ("manifest", {"summary": ""}, "no summary"),
    "no_api": ("manifest", {"api": ""}, "which API levels"),
    "wrong_verbs": ("manifest", {"verbs": '"sing"'}, "declares ['sing'], the app has ['say']"),
    "heavy": ("light_import", {"top": "import numpy"}, "numpy"),
    "noisy": ("light_import", {"top": "print('noise')"}, "prints at import"),
    "slow": ("light_import", {"top": "import time; time.sleep(2.2)"}, "took 2."),
    "writing": (
        "light_import",
        {"top": "open(__file__ + '.log', 'w').close()"},
        "writes files at import",
    ),
    "no_help": (
        "help_texts",
        {"more": "@app.command()\ndef mute(json: options.JsonOption = False) -> None: ...\n"},
        "dltool evil mute has no help text",
    ),
    "command_without_help": (
        "help_of_every_command",
        {"more": "@app.command(add_help_option=False)\ndef mute() -> None:\n    'Be mute.'\n"},
        "the help failed",
    ),
    "no_json": (
        "json_of_every_command",
        {"more": "@app.command()\ndef mute() -> None:\n    '''Be mute.'''\n"},
        "dltool evil mute has no --json",
    ),
    "run_not_looked_for": (
        "bad_input",
        {"more": INFO.format(line="pass")},
        "expected exit code 5",
    ),
    "traceback": (
        "bad_input",
        {"more": INFO.format(line="import os; print('Traceback', file=__import__('sys').stderr)")},
        "expected exit code 5",
    ),
    "help_writes": (
        "help_of_every_command",
        {"top": "import os\nif 'say' in __import__('sys').argv: open('left', 'w').close()"},
        "files or sockets",
    ),
    "help_connects": (
        "help_of_every_command",
        {"top": "import socket\nsocket.socket(socket.AF_INET, socket.SOCK_DGRAM).bind(('', 0))"},
        "socket.bind",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_found(site, tmp_path, fault):
    name, change, words = FAULTS[fault]
    check = getattr(conformance, name)
    with pytest.raises(conformance.Breach, match=re.escape(words)):
        check(topic(site, tmp_path, **change))


@pytest.fixture
def trained_topic(site, tmp_path):
    """Write a topic by `plugin new`, change one of its files, return it under test."""

    def make(file="", old="", new=""):
        source = tmp_path / "source"
        template.write("faulty", source)
        package = site / "dltool_faulty"
        shutil.copytree(source / "dltool_faulty", package)
        hostile.install(site, "faulty", package="dltool_unused", value="dltool_faulty.cli:app")
        if file:
            text = (package / file).read_text(encoding="utf-8")
            assert old in text
            (package / file).write_text(text.replace(old, new), encoding="utf-8")
        return conformance.Topic("faulty", tmp_path / "scratch")

    return make


def test_a_resume_that_is_not_exact_is_found(trained_topic):
    faulty = trained_topic(
        "data.py", "device.generator(self.seed,", "device.generator(__import__('time').time_ns(),"
    )
    with pytest.raises(conformance.Breach, match="ends with another model"):
        conformance.exact_resume(faulty)


def test_a_resume_that_starts_anew_is_found(trained_topic):
    faulty = trained_topic("train.py", "resume=resume is not None", "resume=False")
    with pytest.raises(conformance.Breach, match="does not go on"):
        conformance.exact_resume(faulty)


def test_a_smoke_training_that_takes_too_long_is_found(trained_topic):
    slow = trained_topic()
    slow.smoke_seconds = 1.0
    with pytest.raises(conformance.Breach, match=r"allowed are 1|did not end in 4 s"):
        conformance.smoke_training(slow)


def test_a_run_that_never_says_finished_is_found(trained_topic):
    faulty = trained_topic("train.py", "run.finish(result)", "pass")
    with pytest.raises(conformance.Breach, match=r"run\.json says 'running'"):
        conformance.smoke_training(faulty)
