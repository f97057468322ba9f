"""Run the members of a sweep as processes, some at a time; what fails does not stop the others."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import IO, Any, Protocol

from dltool import machine, sweeps
from dltool.console import Console
from dltool.errors import Interrupted
from dltool.processes import INTERRUPT, SECONDS_TO_SAVE
from dltool.sweeps import Member

POLL_SECONDS = 0.05
DIVERGED = 7


@dataclass(frozen=True)
class Outcome:
    """How one member ended: its exit code, and in a few words why when it is not 0."""

    member: Member
    code: int
    told: str
    seconds: float
    was_there: bool = False


class Source(Protocol):
    """Where members come from: a list, or a search that learns from those that have ended."""

    total: int

    def next(self) -> Member | None:
        """Return another member, or None when there is none, or none until others have ended."""
        ...

    def ended(self, outcome: Outcome) -> None:
        """Take how a member ended."""
        ...


@dataclass
class _Running:
    member: Member
    process: subprocess.Popen[bytes]
    out: IO[bytes]
    started: float


def run_all(
    source: Source, jobs: int, console: Console, told: Callable[[Outcome], str]
) -> list[Outcome]:
    """Run all that a source gives, `jobs` at a time.

    Args:
        told: says in a few words what a run gave.

    Raises:
        Interrupted: Ctrl-C or SIGTERM came; every run has saved and ended.
    """
    running: list[_Running] = []
    outcomes: list[Outcome] = []

    def done(outcome: Outcome) -> None:
        outcomes.append(outcome)
        source.ended(outcome)
        if not outcome.was_there:
            place = f"[{len(outcomes)}/{source.total}]"
            text = f"{place} {outcome.member.name}: {told(outcome)}".rstrip(": ")
            console.note(f"{text} ({outcome.seconds:.0f} s)")

    try:
        while True:
            while len(running) < jobs:
                member = source.next()
                if member is None:
                    break
                there = _already(member)
                if there is not None:
                    done(there)
                    continue
                running.append(_start(member, jobs))
            if not running:
                return outcomes
            for each in [each for each in running if each.process.poll() is not None]:
                running.remove(each)
                done(_outcome(each))
            time.sleep(POLL_SECONDS)
    except KeyboardInterrupt as interrupt:
        number = 15 if type(interrupt).__name__ == "Terminated" else 2
        _stop(running, console)
        raise Interrupted(
            number,
            f"stopped; {len(outcomes)} of {source.total} runs are done, those begun are saved",
            cure="the same command goes on",
        ) from None
    finally:
        for each in running:
            _kill(each)


def _already(member: Member) -> Outcome | None:
    """Return the outcome of a member that needs no further work."""
    state = member.state()
    if state == "finished":
        return Outcome(member, 0, "", 0.0, was_there=True)
    if state == "diverged":
        return Outcome(member, DIVERGED, "diverged in an earlier call", 0.0, was_there=True)
    return None


def _start(member: Member, jobs: int) -> _Running:
    arguments = member.arguments()
    if "--resume" not in arguments:
        sweeps.clear(member)
    environment = dict(os.environ)
    if jobs > 1:
        # each would take all cores, and together they would only stand in each other's way
        share = max(1, machine.usable_cores() // jobs)
        environment.setdefault("OMP_NUM_THREADS", str(share))
    out = tempfile.TemporaryFile()  # noqa: SIM115  # closed when the process has ended
    with member.log.open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "dltool", *arguments, "--json"],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=log,
            env=environment,
            # a terminal's Ctrl-C comes to us alone; we pass it on once
            start_new_session=True,
            creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),
        )
    return _Running(member, process, out, time.monotonic())


def _outcome(ended: _Running) -> Outcome:
    ended.out.seek(0)
    answer = _answer(ended.out.read())
    ended.out.close()
    code = ended.process.returncode
    error = answer.get("error")
    told = str(error.get("message", "")) if isinstance(error, dict) else ""
    if code and not told:
        told = f"exit code {code}, see {ended.member.log}"
    elif not code and ended.member.state() != "finished":
        code, told = 1, f"it ended before its last epoch, see {ended.member.log}"
    return Outcome(ended.member, code, told, time.monotonic() - ended.started)


def _answer(text: bytes) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _stop(running: Sequence[_Running], console: Console) -> None:
    """Interrupt every run once, and wait until all have saved; a second Ctrl-C ends them."""
    if running:
        console.note(f"stopping {len(running)} runs, which save; Ctrl-C again ends them at once")
    for each in running:
        if each.process.poll() is None:
            each.process.send_signal(INTERRUPT)
    deadline = time.monotonic() + SECONDS_TO_SAVE
    try:
        for each in running:
            each.process.wait(max(0.0, deadline - time.monotonic()))
    except (subprocess.TimeoutExpired, KeyboardInterrupt):
        console.warn("not all runs have saved; they begin again at their last checkpoint")


def _kill(running: _Running) -> None:
    if running.process.poll() is None:
        running.process.kill()
        running.process.wait()
    running.out.close()
