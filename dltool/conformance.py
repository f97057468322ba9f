"""What every topic must hold, as checks that run its commands as a user would: as processes."""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from dltool import plugins
from dltool.console import SCHEMA
from dltool.plugins import Plugin, probe, watched

SMOKE_SECONDS = 30.0
COMMAND_SECONDS = 120.0
IMPORT_SECONDS = 2.0


class Breach(AssertionError):
    """A topic does not hold what the contract promises."""


def require(condition: object, message: str) -> None:
    """Raise a breach of the contract unless the condition holds."""
    if not condition:
        raise Breach(message)


@dataclass(frozen=True)
class Finished:
    """A finished command."""

    words: tuple[str, ...]
    code: int
    out: str
    err: str

    def told(self) -> str:
        """Return command, exit code and the ends of both streams, for messages."""
        return (
            f"dltool {' '.join(self.words)}\nexit code {self.code}\n"
            f"stdout: {self.out[-1500:]}\nstderr: {self.err[-1500:]}"
        )


class Topic:
    """One installed topic under test, with a folder of its own for homes and runs."""

    def __init__(self, name: str, folder: Path, smoke_seconds: float = SMOKE_SECONDS) -> None:
        self.name, self.folder, self.smoke_seconds = name, folder, smoke_seconds

    @cached_property
    def plugin(self) -> Plugin:
        """The plugin as it is installed."""
        return plugins.find(self.name)

    @cached_property
    def report(self) -> probe.Report:
        """What importing it in a child process showed."""
        return probe.probe(self.plugin)

    @property
    def commands(self) -> Mapping[str, Any]:
        """Each command's path, as `cnn train`, with its parameters."""
        return self.report.commands

    def leaves(self) -> Iterator[str]:
        """Yield the paths of the commands that do something."""
        for path, command in self.commands.items():
            if not command["is_group"]:
                yield path

    def flags(self, verb: str) -> set[str]:
        """Return the flags of one of the topic's commands; none when it is not there."""
        entry = self.plugin.entry
        command = self.commands.get(f"{entry} {verb}", {"parameters": []})
        return {flag for parameter in command["parameters"] for flag in parameter["flags"]}

    def run(self, *words: str, mode: str = "", timeout: float = COMMAND_SECONDS) -> Finished:
        """Run a command of this topic, offline, on the CPU, with empty homes."""
        start = ["-m", "dltool.plugins.watched", mode] if mode else ["-m", "dltool"]
        line = (self.plugin.name, *words)
        work = self.folder / "work"
        work.mkdir(parents=True, exist_ok=True)
        try:
            done = subprocess.run(
                [sys.executable, *start, *line],
                capture_output=True,
                cwd=work,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                timeout=timeout,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise Breach(f"dltool {' '.join(line)} did not end in {timeout:g} s") from error
        out, err = done.stdout.decode("utf-8", "replace"), done.stderr.decode("utf-8", "replace")
        return Finished(line, done.returncode, out, err)

    @property
    def environment(self) -> dict[str, str]:
        """The variables of a user with empty caches, no network and no accelerator."""
        kept = {key: value for key, value in os.environ.items() if not key.startswith("DLTOOL_")}
        return {
            **kept,
            "DLTOOL_HOME": str(self.folder / "home"),
            "DLTOOL_OFFLINE": "1",
            "HF_HUB_OFFLINE": "1",
            "CUDA_VISIBLE_DEVICES": "",
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONIOENCODING": "utf-8",
        }

    def training(self, *words: str) -> list[str]:
        """Return the words of the smoke training."""
        device = ["--device", "cpu"] if "--device" in self.flags("train") else []
        return ["train", *self.plugin.smoke, *device, *words]

    @cached_property
    def trained(self) -> Path:
        """The run folder of the unbroken smoke training."""
        folder = self.folder / "unbroken"
        shutil.rmtree(folder, ignore_errors=True)
        started, computed = time.monotonic(), _children_seconds()
        done = self.run(
            *self.training("--out", str(folder), "--json"), timeout=4 * self.smoke_seconds
        )
        # a busy machine makes it wait: what it computes counts, unless that is on many cores
        waited = time.monotonic() - started
        seconds = min(waited, _children_seconds() - computed) if computed < math.inf else waited
        require(done.code == 0, f"the smoke training failed\n{done.told()}")
        _one_object(done, "ok")
        require(
            seconds <= self.smoke_seconds,
            f"the smoke training took {seconds:.1f} s, allowed are {self.smoke_seconds:g}: "
            f"make it smaller by `smoke` in plugin.toml",
        )
        return folder


def _children_seconds() -> float:
    """Return the processor time of the processes that ended below this one; infinite on Windows."""
    if sys.platform == "win32":
        return math.inf
    import resource

    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _one_object(done: Finished, status: str) -> dict[str, Any]:
    try:
        value = json.loads(done.out)
    except ValueError:
        raise Breach(f"stdout is not exactly one JSON object\n{done.told()}") from None
    require(isinstance(value, dict), f"stdout is no JSON object\n{done.told()}")
    require(value.get("schema") == SCHEMA, f"the object has no schema {SCHEMA}\n{done.told()}")
    require(value.get("status") == status, f"the object's status is not {status}\n{done.told()}")
    return dict(value)


def _one_error(done: Finished, code: int) -> None:
    require(done.code == code, f"expected exit code {code}\n{done.told()}")
    require("Traceback" not in done.err, f"a traceback was shown\n{done.told()}")
    line = (done.err.strip().splitlines() or [""])[-1]
    require(
        "error E" in line and "Cure:" in line,
        f"the last line on stderr is no error with a cure\n{done.told()}",
    )


# The checks


def manifest(topic: Topic) -> None:
    """The manifest is there, fits this dltool, and tells the truth about the commands."""
    plugin = topic.plugin
    require(not plugin.problem, f"the plugin cannot be used: {plugin.problem}")
    require(not plugin.notes, "; ".join(plugin.notes))
    require(plugin.summary, "plugin.toml has no summary")
    require(plugin.api, "plugin.toml does not say which API levels it works with")
    require(plugin.declared_name == plugin.entry, f"plugin.toml is not of {plugin.entry!r}")
    verbs = [path.split()[1] for path in topic.commands if path.count(" ") == 1]
    require(
        sorted(plugin.verbs) == sorted(verbs),
        f"plugin.toml declares {sorted(plugin.verbs)}, the app has {sorted(verbs)}",
    )


def light_import(topic: Topic) -> None:
    """Importing the app is quick, silent, and pulls in nothing heavy."""
    report = topic.report
    require(not report.problem, f"the plugin {report.problem}")
    require(not report.heavy, f"imported before any command runs: {dict(report.heavy)}")
    require(not report.faults, "; ".join(report.faults))
    require(
        report.seconds <= IMPORT_SECONDS,
        f"the import took {report.seconds:.2f} s, allowed are {IMPORT_SECONDS:g}",
    )


def help_texts(topic: Topic) -> None:
    """Every command and option says what it is for."""
    for path, command in topic.commands.items():
        require(command["help"].strip(), f"dltool {path} has no help text")
    require(list(topic.leaves()), "the app has no command")


def help_of_every_command(topic: Topic) -> None:
    """`--help` and `-h` of every command work, on stdout, without writing or heavy imports."""
    for path in topic.commands:
        words = path.split()[1:]
        for flag in ("--help", "-h"):
            done = topic.run(*words, flag, mode="witness")
            require(done.code == 0, f"the help failed\n{done.told()}")
            require("Usage:" in done.out, f"no help on stdout\n{done.told()}")
            require("\x1b" not in done.out, f"colour codes outside a terminal\n{done.told()}")
            _left_nothing(done)


def _left_nothing(done: Finished) -> None:
    facts = json.loads(done.err.rpartition(watched.MARK)[2] or "{}")
    require(facts, f"the command ended the process itself\n{done.told()}")
    require(not facts["touched"], f"files or sockets: {facts['touched']}\n{done.told()}")
    require(not facts["heavy"], f"imports {facts['heavy']} for this\n{done.told()}")


def json_of_every_command(topic: Topic) -> None:
    """Every command has `--json`, and prints its errors as one object too."""
    for path in topic.leaves():
        words = path.split()[1:]
        require("--json" in topic.flags(" ".join(words)), f"dltool {path} has no --json")
        done = topic.run(*words, "--no-such-option", "--json")
        error = _one_object(done, "error")["error"]
        require(error["exit_code"] == done.code == 2, f"expected exit code 2\n{done.told()}")


def bad_input(topic: Topic) -> None:
    """Wrong words, names and values end with the documented code and one line with a cure."""
    _one_error(topic.run("no-such-command"), 2)
    for path in topic.leaves():
        words = path.split()[1:]
        _one_error(topic.run(*words, "--no-such-option"), 2)
        if "RUN" in _required(topic, path):
            rest = ["nothing"] * (len(_required(topic, path)) - 1)
            _one_error(topic.run(*words, "no-such-run", *rest), 5)
    flags = topic.flags("train")
    wrong = (
        ("--resume", "no-such-run", 5),
        ("--config", "no-such-file.toml", 2),
        ("--device", "no-such-device", 2),
        ("--device", "cuda:99", 3),
        ("--epochs", "0", 2),
        ("--epochs", "many", 2),
        ("--lr", "-1", 2),
        ("--seed", "-1", 2),
    )
    for flag, value, code in wrong:
        if flag in flags:
            _one_error(topic.run("train", flag, value), code)


def _required(topic: Topic, path: str) -> list[str]:
    parameters = topic.commands[path]["parameters"]
    return [
        item["metavar"] or item["name"].upper()
        for item in parameters
        if not item["is_option"] and item["required"]
    ]


def info_leaves_nothing(topic: Topic) -> None:
    """`info` writes no file, opens no socket, and works with `--json`."""
    path = f"{topic.plugin.entry} info"
    if path not in topic.commands:
        return
    needed = _required(topic, path)
    if needed not in ([], ["RUN"]):
        return
    words = ["info", *([str(topic.trained)] if needed else [])]
    for flag in ([], ["--json"]):
        done = topic.run(*words, *flag, mode="witness")
        require(done.code == 0 and done.out.strip(), f"info failed\n{done.told()}")
        facts = json.loads(done.err.rpartition(watched.MARK)[2] or "{}")
        require(facts and not facts["touched"], f"files or sockets: {facts}\n{done.told()}")
    _one_object(done, "ok")


def smoke_training(topic: Topic) -> None:
    """The smoke training ends in time and leaves a finished run with a model that verifies."""
    from dltool import checkpoint, runs

    facts = runs.read_json(topic.trained)
    require(facts.get("topic") == topic.plugin.entry, f"run.json is of {facts.get('topic')!r}")
    require(facts.get("status") == "finished", f"run.json says {facts.get('status')!r}")
    require(facts.get("result"), "run.json holds no result")
    runs.read_json(topic.trained, "config.json")
    runs.read_json(topic.trained, "environment.json")
    checkpoint.verify(topic.trained / "model")
    words = topic.training("--out", str(topic.trained))
    _one_error(topic.run(*words), 2)
    if "--resume" in topic.flags("train"):
        done = topic.run("train", "--resume", str(topic.trained), "--json")
        require(done.code == 0, f"resuming a finished run must be no error\n{done.told()}")
        _one_object(done, "ok")


def exact_resume(topic: Topic) -> None:
    """Interrupted by Ctrl-C and resumed, the training ends with the very bytes of the model."""
    from dltool import runs

    if "--resume" not in topic.flags("train"):
        raise Breach("train has no --resume")
    folder = topic.folder / "interrupted"
    shutil.rmtree(folder, ignore_errors=True)
    flags = topic.flags("train")
    often = ["--save-every", "0"] if "--save-every" in flags else []
    events = ["--events"] if "--events" in flags else []
    limit = 4 * topic.smoke_seconds
    words = topic.training("--out", str(folder), *often, *events)
    stopped = topic.run(*words, mode="interrupt", timeout=limit)
    require(
        stopped.code == 130, f"Ctrl-C while training must end with exit code 130\n{stopped.told()}"
    )
    require("--resume" in stopped.err, f"the resume command is not shown\n{stopped.told()}")
    facts = runs.read_json(folder)
    status, step = facts.get("status"), facts.get("step")
    require(status == "interrupted", f"run.json says {status!r} after Ctrl-C")
    again = topic.run("train", "--resume", str(folder), *events, mode="interrupt", timeout=limit)
    require(again.code == 130, f"the second Ctrl-C must end with 130 too\n{again.told()}")
    goes_on = "going on from step-" in again.err
    require(
        goes_on and (step is None or runs.read_json(folder)["step"] > step),
        f"the resumed run does not go on from step {step}, it starts anew\n{again.told()}",
    )
    resumed = topic.run("train", "--resume", str(folder), timeout=limit)
    require(resumed.code == 0, f"resuming failed\n{resumed.told()}")
    if runs.read_json(topic.trained).get("grade") != "bitwise":
        return  # the topic says itself that two runs differ
    name = Path("model", "model.safetensors")
    same = (folder / name).read_bytes() == (topic.trained / name).read_bytes()
    require(same, "the resumed run ends with another model than the unbroken one")


LIGHT_CHECKS: tuple[Callable[[Topic], None], ...] = (
    manifest,
    light_import,
    help_texts,
    help_of_every_command,
    json_of_every_command,
    bad_input,
    info_leaves_nothing,
)
TRAINING_CHECKS: tuple[Callable[[Topic], None], ...] = (smoke_training, exact_resume)


def checks_of(plugin: Plugin) -> tuple[Callable[[Topic], None], ...]:
    """Return the checks that apply: those of training only to a topic that declares `train`.

    A topic without a manifest gets them all, and its `manifest` check fails first.
    """
    trains = "train" in plugin.verbs or not plugin.verbs
    return (*LIGHT_CHECKS, *TRAINING_CHECKS) if trains else LIGHT_CHECKS
