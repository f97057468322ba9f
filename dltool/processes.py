"""Run `dltool` as a process of its own, so that one command can watch another of any topic."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dltool.errors import DltoolError

Event = dict[str, Any]
INTERRUPT = getattr(signal, "CTRL_BREAK_EVENT", signal.SIGINT)
SECONDS_TO_SAVE = 30.0


@dataclass
class Ended:
    """A process that has ended: its exit code and the events it wrote."""

    code: int
    events: list[Event] = field(default_factory=list)


def run(
    words: Sequence[str],
    *,
    folder: Path | None = None,
    stop_when: Callable[[Event], bool] = lambda event: False,
) -> Ended:
    """Run `dltool WORDS --events` and wait for it; what it says on stderr goes to ours.

    Args:
        folder: where it runs.
        stop_when: is asked about every event; the first yes sends an interrupt, as Ctrl-C does.
    """
    command = [sys.executable, "-m", "dltool", *words, "--events"]
    ended, stopping = Ended(0), False
    with _started(command, folder) as process:
        assert process.stdout is not None
        for line in process.stdout:
            event = _event(line)
            if event is None:
                continue
            ended.events.append(event)
            if not stopping and stop_when(event):
                stopping = True
                process.send_signal(INTERRUPT)
        ended.code = process.wait()
    return ended


@contextmanager
def _started(command: Sequence[str], folder: Path | None) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        cwd=folder,
        creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),
    )
    try:
        yield process
    finally:
        if process.stdout is not None:
            process.stdout.close()
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(SECONDS_TO_SAVE)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _event(line: str) -> Event | None:
    try:
        value = json.loads(line)
    except ValueError:
        return None
    return value if isinstance(value, dict) and "event" in value else None


def refuse_failure(ended: Ended, what: str, *fine: int) -> None:
    """Stop when a process ended otherwise than expected.

    Raises:
        DltoolError: with its exit code; the process has told the reason on stderr.
    """
    if ended.code not in (0, *fine):
        raise DltoolError(
            "E100", f"{what} ended with exit code {ended.code}", cure="see its message above"
        )
