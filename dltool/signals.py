"""Signals while training: Ctrl-C and SIGTERM save and stop, a second leaves, SIGUSR1 saves."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from dltool.errors import Interrupted

NAMES = {signal.SIGINT: "Ctrl-C", signal.SIGTERM: "SIGTERM"}
SAVE = getattr(signal, "SIGUSR1", None)  # Windows has none


class Watch:
    """Turn signals into `Interrupted` at moments where the training state is whole.

    While `hold()` is active a signal only leaves a note, and the end of the block raises; at other
    times the handler raises at once. A second signal ends the process without saving again.

    Attributes:
        pending: the number of the signal that asks to stop, or 0.
        save_requested: SIGUSR1 came; who saves sets it back.

    Args:
        patient: never raise here, as if `hold()` were always active: several ranks stop at a moment
            that they agree on.
        silent: say nothing about a signal.
    """

    def __init__(self, *, patient: bool = False, silent: bool = False) -> None:
        self.pending = 0
        self.depth = int(patient)
        self.silent = silent
        self.save_requested = False
        self.owner = os.getpid()
        self.previous: dict[int, Any] = {}

    def __enter__(self) -> Watch:
        if threading.current_thread() is threading.main_thread():
            for number in NAMES:
                self.previous[number] = signal.signal(number, self._receive)
            if SAVE is not None:
                self.previous[SAVE] = signal.signal(SAVE, self._request_save)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self.previous.items():
            signal.signal(number, handler)

    def _request_save(self, number: int, frame: FrameType | None) -> None:
        self.save_requested = True

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self.owner:
            if number != signal.SIGINT:  # a forked worker: Ctrl-C is the parent's business
                os._exit(128 + number)
            return
        if self.pending:
            leave_now(number)
        self.pending = number
        if not self.silent:
            name = NAMES[signal.Signals(number)]
            os.write(2, f"\n{name}: stopping and saving; a second one leaves at once\n".encode())
        if not self.depth:
            self.stop()

    def stop(self) -> None:
        """Raise for the signal that is waiting."""
        raise Interrupted(self.pending, "interrupted")

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Keep signals waiting until the block has ended."""
        self.depth += 1
        try:
            yield
        finally:
            self.depth -= 1
        if self.pending and not self.depth:
            self.stop()


def leave_now(number: int) -> None:
    """End this process and its workers at once; the last good checkpoint stays as it is."""
    for child in multiprocessing.active_children():
        child.kill()
    os.write(2, b"left at once; the last good checkpoint is kept\n")
    sys.stdout.flush()
    os._exit(128 + number)
