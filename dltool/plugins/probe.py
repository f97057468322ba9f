"""Import a plugin in a process of its own, within a time limit, and see what that does.

A plugin may raise, exit, hang, crash, print, change the path, start threads, write files or import
half the world: none of it reaches the process that asks.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from dltool.plugins import Plugin, manifest

TIMEOUT_SECONDS = 20.0
# what may not be loaded before a command runs; each costs a large part of a second
HEAVY = ("torch", "torchvision", "numpy", "matplotlib", "gensim")
START = (
    "import json, sys; job = json.loads(sys.stdin.buffer.readline()); "
    "sys.path[:] = job['path']; from dltool.plugins.inside import main; main(job)"
)


@dataclass(frozen=True)
class Report:
    """What an import did.

    Attributes:
        problem: why the plugin cannot be used, or an empty string.
        missing: the package whose absence stopped the import.
        faults: breaches of the contract that do not keep the plugin from working.
        heavy: package -> the module and line that imported it.
        seconds: time that the import took, without Python's and dltool's own start.
        commands: each command's path -> its help and its parameters' names and flags.
    """

    problem: str = ""
    missing: str = ""
    faults: tuple[str, ...] = ()
    heavy: Mapping[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    commands: Mapping[str, Any] = field(default_factory=dict)


def probe(plugin: Plugin, timeout: float = TIMEOUT_SECONDS) -> Report:
    """Import a plugin in a child process and report what happened there."""
    job = {
        "path": sys.path,
        "reference": plugin.reference,
        "package": plugin.package,
        "entry": plugin.entry,
        "is_own": plugin.is_own,
        "heavy": HEAVY,
    }
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "TYPER_USE_RICH": "0"}
    with subprocess.Popen(
        [sys.executable, "-c", START],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=environment,
        start_new_session=os.name != "nt",
    ) as child:
        try:
            output, _ = child.communicate(json.dumps(job).encode() + b"\n", timeout=timeout)
        except subprocess.TimeoutExpired:
            end_group(child)
            return Report(problem=f"its import does not end within {timeout:g} seconds")
        except BaseException:
            end_group(child)
            raise
        end_group(child)
    return _report(output, child.returncode)


def end_group(child: subprocess.Popen[Any]) -> None:
    """End a child and whatever it has started."""
    try:
        if os.name == "nt":
            child.kill()
        else:
            os.killpg(child.pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        child.kill()


def _report(output: bytes, code: int) -> Report:
    try:
        facts = json.loads(output.splitlines()[-1])
        return Report(
            problem=manifest.printable(str(facts["problem"])),
            missing=str(facts["missing"]),
            faults=tuple(manifest.printable(str(fault)) for fault in facts["faults"]),
            heavy={str(key): str(value) for key, value in facts["heavy"].items()},
            seconds=float(facts["seconds"]),
            commands=dict(facts["commands"]),
        )
    except (ValueError, LookupError, TypeError, AttributeError):
        return Report(problem=_death(code))


def _death(code: int) -> str:
    if code < 0:
        try:
            name = signal.Signals(-code).name
        except ValueError:
            name = f"signal {-code}"
        return f"its import crashes the process ({name})"
    return f"its import ends the process with exit code {code}"
