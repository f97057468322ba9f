"""The command line as a process: help, streams, JSON, exit codes, lightness."""

import json
import os
import subprocess
import sys

import pytest

from dltool import cli, errors

HEAVY = {"torch", "torchvision", "numpy", "matplotlib", "gensim", "sklearn", "PIL", "transformers"}
COMMANDS = [
    [],
    ["bert-finetune"],
    ["bert-finetune", "train"],
    ["bert-finetune", "pretrain"],
    ["bert-finetune", "evaluate"],
    ["bert-finetune", "predict"],
    ["bert-finetune", "explain"],
    ["bert-finetune", "info"],
    ["bert-finetune", "export"],
    ["bert-finetune", "encode"],
    ["bert-finetune", "similarity"],
    ["bert-finetune", "tokens"],
    ["cnn"],
    ["cnn", "train"],
    ["cnn", "evaluate"],
    ["cnn", "predict"],
    ["cnn", "info"],
    ["cnn", "import"],
    ["detect"],
    ["detect", "predict"],
    ["detect", "train"],
    ["detect", "evaluate"],
    ["detect", "data"],
    ["detect", "convert"],
    ["detect", "export"],
    ["detect", "bench"],
    ["detect", "info"],
    ["detect", "anchors"],
    ["detect", "nms"],
    ["detect", "proposals"],
    ["gpu"],
    ["gpu", "info"],
    ["tensor-ops"],
    ["tensor-ops", "list"],
    ["tensor-ops", "run"],
    ["tensor-ops", "show"],
    ["tensor-ops", "check"],
    ["tensor-ops", "broadcast"],
    ["tensor-ops", "shape"],
    ["linreg"],
    ["linreg", "train"],
    ["linreg", "evaluate"],
    ["linreg", "predict"],
    ["linreg", "plot"],
    ["linreg", "info"],
    ["linreg", "demo"],
    ["mlp-xor"],
    ["mlp-xor", "train"],
    ["mlp-xor", "evaluate"],
    ["mlp-xor", "predict"],
    ["mlp-xor", "plot"],
    ["mlp-xor", "info"],
    ["word2vec"],
    ["word2vec", "train"],
    ["word2vec", "similar"],
    ["word2vec", "analogy"],
    ["word2vec", "odd-one-out"],
    ["word2vec", "vector"],
    ["word2vec", "text-similar"],
    ["word2vec", "neighbors"],
    ["word2vec", "vocab"],
    ["word2vec", "info"],
    ["word2vec", "evaluate"],
    ["word2vec", "plot"],
    ["word2vec", "export"],
    ["word2vec", "import"],
    ["word2vec", "quantize"],
    ["seq2seq"],
    ["seq2seq", "train"],
    ["seq2seq", "translate"],
    ["seq2seq", "evaluate"],
    ["seq2seq", "attention"],
    ["seq2seq", "trace"],
    ["seq2seq", "compare"],
    ["seq2seq", "info"],
    ["seq2seq", "attention-demo"],
    ["plugin"],
    ["plugin", "list"],
    ["check"],
    ["doctor"],
    ["explain"],
    ["guards"],
    ["guards", "list"],
    ["guards", "demo"],
    ["data"],
    ["data", "list"],
    ["data", "fetch"],
    ["data", "path"],
    ["data", "info"],
    ["data", "verify"],
    ["data", "prune"],
    ["data", "bundle"],
    ["data", "unbundle"],
    ["topics"],
    ["config"],
    ["config", "show"],
    ["config", "check"],
    ["config", "init"],
    ["sweep"],
    ["schema"],
    ["checkpoint"],
    ["checkpoint", "info"],
    ["checkpoint", "verify"],
    ["checkpoint", "diff"],
    ["checkpoint", "convert"],
    ["checkpoint", "prune"],
    ["runs"],
    ["runs", "list"],
    ["runs", "show"],
    ["runs", "best"],
    ["runs", "compare"],
    ["runs", "diff"],
    ["runs", "plot"],
    ["runs", "report"],
    ["runs", "export"],
    ["runs", "note"],
    ["runs", "rm"],
    ["resume"],
    ["reproduce"],
    ["verify"],
    ["verify", "resume"],
]
LIGHT = [
    ["bert-finetune", "--help"],
    ["bert-finetune", "train", "--help"],
    ["--help"],
    ["--version"],
    ["cnn", "--help"],
    ["cnn", "train", "--help"],
    ["detect", "--help"],
    ["detect", "photo.jpg", "--help"],
    ["detect", "tran"],
    ["gpu", "info"],
    ["gpu", "info", "--json"],
    ["tensor-ops", "list"],
    ["tensor-ops", "run", "--help"],
    ["tensor-ops", "broadcast", "3x1", "4"],
    ["tensor-ops", "shape", "--in", "8x8", "--kernel", "3"],
    ["mlp-xor", "--help"],
    ["mlp-xor", "train", "--help"],
    ["word2vec", "train", "--help"],
    ["plugin", "list"],
    ["runs", "list"],
    ["runs", "list", "--sort", "created", "--since", "7d"],
    ["runs", "compare", "--help"],
    ["topics"],
    ["config", "show", "cnn"],
    ["config", "init", "cnn"],
    ["data", "list"],
    ["data", "verify"],
    ["verify", "resume", "--help"],
    ["reproduce", "--help"],
    ["nonsense"],
    ["cnn", "train", "--nonsense"],
]
PROBE = """
import sys
from dltool.__main__ import main
sys.argv = ["dltool", *sys.argv[1:]]
try:
    main()
except SystemExit:
    pass
heavy = {heavy!r} & set(sys.modules)
sys.stderr.write("HEAVY " + ",".join(sorted(heavy)) + "\\n")
"""


def probe(arguments, environment, work):
    return subprocess.run(
        [sys.executable, "-c", PROBE.format(heavy=HEAVY), *arguments],
        capture_output=True,
        text=True,
        cwd=work,
        env=environment,
        check=True,
    )


@pytest.mark.parametrize("arguments", LIGHT, ids=" ".join)
def test_light_commands_import_nothing_heavy_and_write_nothing(
    arguments, environment, work, tmp_path
):
    done = probe(arguments, environment, work)
    assert done.stderr.splitlines()[-1] == "HEAVY "
    assert not list(work.iterdir())
    assert not (tmp_path / "home").exists()


@pytest.mark.parametrize("words", COMMANDS, ids=lambda words: " ".join(words) or "root")
def test_every_command_has_help(dltool, words):
    shown = dltool(*words, "--help")
    assert "Usage: dltool" in shown.out
    assert len(shown.out.splitlines()) > 4
    assert "\x1b" not in shown.out
    assert not shown.err
    assert ("--install-completion" in shown.out) == (words == [])


@pytest.mark.parametrize("words", [[], ["cnn"], ["cnn", "train"], ["plugin", "list"]], ids=" ".join)
def test_h_is_help(dltool, words):
    assert dltool(*words, "-h") == dltool(*words, "--help")


def test_command_list_above_is_complete(dltool):
    roots = {words[0] for words in COMMANDS if words}
    listed = dltool("--help").out.split("Commands:")[1]
    assert roots == {line.split()[0] for line in listed.splitlines() if line.startswith("  ")} - {
        "Try:"
    }


def test_version_is_the_packages(dltool):
    from dltool import __version__

    assert dltool("--version").out == f"dltool {__version__}\n"
    assert dltool("-V").out == f"dltool {__version__}\n"
    assert dltool("--no-plugins", "--version").out == f"dltool {__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["trian"], 2, "no command 'trian'"),
        (["plugn"], 2, "did you mean plugin"),
        (["cnn", "trian"], 2, "train"),
        (["cnn", "train", "--epoch", "3"], 2, "--epochs"),
        (["cnn", "train", "--epochs", "x"], 2, "--epochs"),
        (["cnn", "train", "--model", "resnet2"], 2, "did you mean resnet20"),
        (["cnn", "train", "--data", "minst"], 5, "did you mean --data mnist"),
        (["cnn", "train", "--device", "cuda:99"], 3, "cuda:99"),
        (["cnn", "train", "--device", "tpu"], 2, "auto, cpu"),
        (["cnn", "train", "--precision", "fp8"], 2, "fp8"),
        (["cnn", "train", "--lr", "-1"], 2, "--lr"),
        (["cnn", "train", "--resume", "nowhere"], 5, "nowhere"),
        (["cnn", "predict", "nowhere", "x.png"], 5, "nowhere"),
        (["detect", "evaluat"], 2, "did you mean dltool detect evaluate"),
        (["detect", "photo.jpg"], 5, "photo.jpg"),
        (["detect", "data", "nowhere"], 5, "nowhere"),
        (["detect", "evaluate", "nowhere", "--data", "nowhere"], 5, "nowhere"),
        (["data", "path", "imagenet"], 2, "imagenet"),
        (["data", "fetch", "mnist"], 5, "DLTOOL_OFFLINE"),
        (["checkpoint", "verify", "nowhere"], 5, "nowhere"),
        (["runs", "show", "nowhere"], 5, "nowhere"),
        (["resume", "nowhere"], 5, "nowhere"),
        (["reproduce", "nowhere"], 5, "nowhere"),
        (["cnn", "train", "--max-time", "2"], 2, "--max-time 2h"),
        (["cnn", "train", "--save-every", "500x"], 2, "--save-every 10m"),
        (["cnn", "train", "--on-nan", "ignore"], 2, "stop, skip, rollback"),
        (["cnn", "train", "--ema", "1"], 2, "--ema"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_wrong_input_is_one_line_with_a_cure_and_a_code(dltool, arguments, code, words):
    shown = dltool(*arguments, code=code)
    line = shown.err.strip().splitlines()[-1]
    assert line.startswith("error E")
    assert words in line
    assert "Cure:" in line
    assert not shown.out


def test_errors_are_one_json_object_too(dltool):
    shown = dltool("cnn", "train", "--data", "minst", "--json", code=5).json()
    assert shown["status"] == "error"
    assert shown["error"]["exit_code"] == 5
    assert shown["error"]["code"] in errors.CAUSES
    shown = dltool("cnn", "train", "--nonsense", "--json", code=2).json()
    assert shown["error"]["code"] == "E201"


@pytest.mark.parametrize(
    "arguments",
    [["plugin", "list"], ["gpu", "info"], ["runs", "list"], ["data", "list"], ["topics"]],
    ids=" ".join,
)
def test_json_is_exactly_one_object(dltool, arguments):
    shown = dltool(*arguments, "--json").json()
    assert shown["status"] == "ok"
    assert shown["schema"] == 1
    assert shown["command"] == " ".join(arguments)


def test_a_closed_pipe_is_no_error(environment, work):
    command = f"{sys.executable} -m dltool --help | head -1; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(
        ["bash", "-c", command], capture_output=True, text=True, cwd=work, env=environment
    )
    assert done.returncode == 0
    assert not done.stderr


def test_a_pipe_that_closes_between_two_writes_is_no_error_either(environment, work):
    command = f"{sys.executable} -m dltool gpu info | true; exit ${{PIPESTATUS[0]}}"
    unbuffered = {**environment, "PYTHONUNBUFFERED": "1"}
    done = subprocess.run(
        ["bash", "-c", command], capture_output=True, text=True, cwd=work, env=unbuffered
    )
    assert done.returncode == 0
    assert not done.stderr


def test_topics_can_be_left_out(dltool):
    assert "  cnn " not in dltool("--no-plugins", "--help").out.split("Commands:")[1]
    assert dltool("plugin", "list", "--json", DLTOOL_NO_PLUGINS="1").json()["data"]["plugins"] == []
    only = dltool("plugin", "list", "--json", DLTOOL_PLUGINS="gpu").json()["data"]["plugins"]
    assert [plugin["name"] for plugin in only] == ["gpu"]


def test_colour_only_where_it_is_wanted(dltool):
    assert "\x1b" not in dltool("trian", code=2).err
    assert "\x1b[31m" in dltool("trian", code=2, FORCE_COLOR="1").err


def test_every_cause_is_used_and_every_used_cause_is_listed(repository):
    import re

    sources = [*repository.glob("dltool/**/*.py"), *repository.glob("plugins/**/*.py")]
    text = "\n".join(
        path.read_text(encoding="utf-8") for path in sources if path.name != "errors.py"
    )
    used = set(re.findall(r'"(E\d{3})"', text)) | {"E303", "E130", "E143"}
    assert used <= set(errors.CAUSES)
    assert set(errors.CAUSES) <= used


def test_unexpected_failures_are_one_line_unless_debugged(dltool, monkeypatch):
    known = cli.explain(RuntimeError("surprise"), "cnn train")
    assert known.exit_code == 1
    assert "surprise" in known.one_line()
    assert cli.explain(MemoryError(), "").exit_code == 8


@pytest.mark.skipif(sys.platform == "win32", reason="sends a POSIX signal")
def test_termination_is_not_swallowed_by_a_library(dltool, environment, work):
    code = """
import os, signal, sys
from dltool import cli, plugins
def swallowing(*_):
    try:
        os.kill(os.getpid(), signal.SIGTERM)
    except Exception:
        pass
    return []
plugins.discover = swallowing
sys.exit(cli.run(["plugin", "list", "--json"]))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=work, env=environment
    )
    assert done.returncode == 143
    assert json.loads(done.stdout)["error"]["exit_code"] == 143


def test_core_command_cannot_be_replaced(monkeypatch):
    from dltool import plugins

    stranger = plugins.Plugin("doctor", "x:app", "evil", "1")
    monkeypatch.setattr(plugins, "discover", lambda: [stranger])
    group = cli.LazyGroup(name="dltool")
    assert "evil:doctor" in group.list_commands(None)
    assert group.get_command(None, "doctor").help == cli.CORE_COMMANDS["doctor"][1]


def test_every_core_command_resolves():
    import importlib

    for reference, _ in cli.CORE_COMMANDS.values():
        module, _, attribute = reference.partition(":")
        assert getattr(importlib.import_module(module), attribute)


def test_run_returns_json_safe_exit_code(capsys):
    assert cli.run(["plugin", "list", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["status"] == "ok"
    assert os.environ.get("DLTOOL_NO_PLUGINS") is None


INTERRUPTED = """
import os, signal, sys, time
from types import SimpleNamespace
signal.signal(signal.SIGINT, signal.SIG_IGN)
from dltool import cli
def main(*_, **__):
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(0)
cli.typer.main.get_command = lambda app: SimpleNamespace(main=main)
sys.exit(cli.run([]))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs kill")
def test_a_background_job_of_a_script_can_be_interrupted():
    done = subprocess.run([sys.executable, "-c", INTERRUPTED], capture_output=True, check=False)
    assert done.returncode == 130, done.stderr
