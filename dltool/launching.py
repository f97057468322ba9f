"""`--nproc N`: start a command N times on this machine, as torchrun does, and end all with one.

The ranks get what torchrun would tell them. Unlike there, the exit code is that of the command, and
what every rank says is shown once: rank 0 has our streams, the others are heard when one of them
ends the training. No torch is loaded here.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import IO

from dltool import ranks
from dltool.console import print_error
from dltool.errors import DltoolError

GRACE = 5.0  # seconds for the other ranks to end by themselves
POLL = 0.05
SHOWN = 20  # lines of a failed rank
FORWARDED = ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1")


@dataclass
class Rank:
    """One of the processes, and where what it says is kept; rank 0 speaks for itself."""

    number: int
    process: subprocess.Popen[bytes]
    said: IO[bytes] | None

    @property
    def code(self) -> int | None:
        """The exit code; negative: the signal that killed it; None: it is alive."""
        return self.process.poll()

    def words(self) -> str:
        """Return the end of what it said."""
        if self.said is None:
            return ""
        self.said.seek(0)
        lines = self.said.read().decode("utf-8", errors="replace").splitlines()
        return "\n".join(lines[-SHOWN:])


def launch(count: int, words: Sequence[str], *, command: str, as_json: bool) -> int:
    """Run `dltool WORDS` as `count` ranks, wait for their end, and return the exit code.

    Args:
        command: what the error is of that tells of a rank that was killed.
        as_json: whether that error is an object on stdout as well.
    """
    with tempfile.TemporaryDirectory(prefix="dltool-ranks-") as folder:
        started = _started(count, words, Path(folder))
        try:
            with _forwarded(started):
                failed = _watched(started)
        finally:
            _end(started)
        return 0 if failed is None else _told(started, failed, command, as_json=as_json)


def _started(count: int, words: Sequence[str], folder: Path) -> list[Rank]:
    shared = _environment(count)
    found = []
    for number in range(count):
        said = (folder / f"rank-{number}").open("w+b") if number else None
        process = subprocess.Popen(
            [sys.executable, *_path_flag(), "-m", "dltool", *words],
            env={**shared, "RANK": str(number), "LOCAL_RANK": str(number)},
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=said,
            # a terminal's Ctrl-C is for us alone: each rank gets it once, from here
            start_new_session=True,
        )
        found.append(Rank(number, process, said))
    return found


def _path_flag() -> list[str]:
    """Return what lets `python -m` find the modules that this process has found."""
    is_module = Path(sys.argv[0]).name == "__main__.py"
    return [] if is_module else ["-P"]


def _environment(count: int) -> dict[str, str]:
    """Return the environment of the ranks, but for their numbers."""
    threads = max(1, (os.cpu_count() or 1) // count)
    found = {"OMP_NUM_THREADS": str(threads), **os.environ}
    if Path("/sys/class/net/lo").exists():
        # on one machine the loop-back device works also where the host's name leads nowhere
        found.setdefault("GLOO_SOCKET_IFNAME", "lo")
    return {
        **found,
        "WORLD_SIZE": str(count),
        "LOCAL_WORLD_SIZE": str(count),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(_free_port()),
        ranks.PARENT: str(os.getpid()),
    }


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def _forwarded(started: Sequence[Rank]) -> Iterator[None]:
    """Pass on the signals that ask a training to stop or to save."""

    def forward(number: int, frame: FrameType | None) -> None:
        # a terminal that closes stops a training as SIGTERM does: with its checkpoint
        passed = signal.SIGTERM if signal.Signals(number).name == "SIGHUP" else number
        for rank in started:
            if rank.code is None:
                rank.process.send_signal(passed)

    known = [getattr(signal, name) for name in FORWARDED if hasattr(signal, name)]
    before: Mapping[int, object] = {number: signal.signal(number, forward) for number in known}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]  # as it was given to us


def _watched(started: Sequence[Rank]) -> Rank | None:
    """Wait until all have ended; return the rank that failed first, if any."""
    failed: Rank | None = None
    limit = 0.0
    while any(rank.code is None for rank in started):
        if failed is None:
            failed = _failed(started)
            limit = time.monotonic() + GRACE
        elif time.monotonic() > limit:
            break
        time.sleep(POLL)
    return failed or _failed(started)


def _failed(started: Sequence[Rank]) -> Rank | None:
    """Return a rank that has failed; of several one that was killed, for it dragged the others."""
    bad = [rank for rank in started if rank.code not in (None, 0)]
    return min(bad, key=lambda rank: (rank.code or 0) > 0, default=None)


def _end(started: Sequence[Rank]) -> None:
    for rank in started:
        if rank.code is None:
            rank.process.kill()
    for rank in started:
        rank.process.wait()


def _told(started: Sequence[Rank], failed: Rank, command: str, *, as_json: bool) -> int:
    """Say why the ranks have ended, unless rank 0 has said it; return the exit code."""
    first = started[0].code or 0
    if failed.number == 0 and first > 0:
        return first
    words = failed.words()
    if words:
        print(f"rank {failed.number} said:\n{words}", file=sys.stderr, flush=True)
    how = _ending(failed.code or 0)
    if first > 0:  # it has told its own end: an error that all have met, or that one has gone
        print(f"rank {failed.number} {how}", file=sys.stderr, flush=True)
        return first
    error = DltoolError(
        "E103",
        f"rank {failed.number} {how}, and the others were ended with it",
        cure=f"dltool {command} --resume RUN; dltool runs list names it",
    )
    print_error(error, command=command, as_json=as_json)
    return max(failed.code or 1, 1)


def _ending(code: int) -> str:
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        return f"was killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"was killed by signal {-code}"
