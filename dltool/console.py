"""The one place that prints: results to stdout, everything else to stderr."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, Any

from dltool import ranks

if TYPE_CHECKING:
    from dltool.errors import DltoolError

SCHEMA = 1
LOG_EVERY_SECONDS = 10.0


def use_color(stream: IO[str]) -> bool:
    """Decide on colour for one stream: FORCE_COLOR, then NO_COLOR, then the terminal."""
    if os.environ.get("FORCE_COLOR"):
        return True
    if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return False
    return stream.isatty()


def table(rows: Sequence[Sequence[object]], header: Sequence[str]) -> str:
    """Lay out rows as aligned text columns; numbers to the right."""
    cells = [[str(value) for value in row] for row in rows]
    widths = [
        max(len(header[i]), *(len(row[i]) for row in cells)) if cells else len(header[i])
        for i in range(len(header))
    ]
    right = [
        bool(rows) and all(isinstance(row[i], int | float) for row in rows)
        for i in range(len(header))
    ]

    def line(row: Sequence[str]) -> str:
        parts = [
            value.rjust(width) if to_right else value.ljust(width)
            for value, width, to_right in zip(row, widths, right, strict=True)
        ]
        return "  ".join(parts).rstrip()

    return "\n".join([line(list(header)), *(line(row) for row in cells)])


class Console:
    """Print for one command: human text, one JSON object (`--json`) or JSON lines (`--events`).

    Args:
        dry_run: where the run would stand, when `--dry-run` asks only whether it would begin.

    Attributes:
        warnings: what was warned of; `--json` lists it.
        findings: what guards have found; a run folder keeps it.
    """

    def __init__(
        self, command: str, *, json: bool = False, events: bool = False, dry_run: str = ""
    ) -> None:
        self.command = command
        self.json = json
        self.events = events
        self.dry_run = dry_run
        self.silent = not ranks.speaks()
        self.warnings: list[str] = []
        self.findings: list[dict[str, Any]] = []
        self.started = time.monotonic()

    def note(self, text: str) -> None:
        """Tell something in passing, on stderr."""
        if not self.silent:
            print(text, file=sys.stderr, flush=True)

    def warn(self, text: str) -> None:
        """Warn on stderr; `--json` lists the warning beside the result."""
        self.warnings.append(text)
        prefix = "\x1b[33mwarning\x1b[0m" if use_color(sys.stderr) else "warning"
        self.note(f"{prefix}: {text}")

    def loading(self) -> None:
        """Give a sign of life on a terminal before the slow import of torch."""
        if sys.stderr.isatty() and not self.silent:
            print("loading torch ...", end="\r", file=sys.stderr, flush=True)

    def hint(self, command: str) -> None:
        """Name the next command to try, on stderr."""
        self.note(f"next: {command}")

    def result(self, data: Mapping[str, Any], text: str = "") -> None:
        """Print the command's result on stdout: `text` for people, `data` with `--json`."""
        if self.silent:
            return
        if self.json:
            envelope = {
                "schema": SCHEMA,
                "command": self.command,
                "status": "ok",
                "data": data,
                "warnings": self.warnings,
            }
            print(json.dumps(envelope, ensure_ascii=False, default=str), flush=True)
        elif self.events:
            self.event("result", **data)
        elif text:
            print(text, flush=True)

    def event(self, kind: str, **data: Any) -> None:
        """Write one JSON line on stdout when `--events` is on."""
        if self.events and not self.silent:
            line = {"event": kind, "time": time.time(), **data}
            print(json.dumps(line, ensure_ascii=False, default=str), flush=True)

    @contextmanager
    def progress(self, total: int | None, label: str, unit: str = "it") -> Iterator[Progress]:
        """Show progress on stderr: a bar on a terminal, a line now and then elsewhere."""
        bar = _Unseen(total, label, unit) if self.silent else Progress(total, label, unit)
        try:
            yield bar
        finally:
            bar.close()


class Progress:
    """Count work that is done; made by `Console.progress`."""

    def __init__(self, total: int | None, label: str, unit: str) -> None:
        self.total, self.label, self.unit = total, label, unit
        self.done = 0
        self.started = self.printed = time.monotonic()
        self.bar: Any = None
        if sys.stderr.isatty():
            from tqdm import tqdm

            self.bar = tqdm(total=total, desc=label, unit=unit, leave=False, mininterval=0.2)

    def advance(self, count: int = 1, info: str = "") -> None:
        """Add finished items; `info` is a short text beside the bar."""
        self.done += count
        if self.bar is not None:
            if info:
                self.bar.set_postfix_str(info, refresh=False)
            self.bar.update(count)
            return
        now = time.monotonic()
        if now - self.printed >= LOG_EVERY_SECONDS:
            self.printed = now
            self._print_line(now, info)

    def _print_line(self, now: float, info: str) -> None:
        rate = self.done / max(now - self.started, 1e-9)
        text = f"{self.label}: {self.done}"
        if self.total:
            left = (self.total - self.done) / max(rate, 1e-9)
            text += f"/{self.total}, {left:.0f} s left"
        print(f"{text}, {rate:.1f} {self.unit}/s {info}".rstrip(), file=sys.stderr, flush=True)

    def close(self) -> None:
        """Take the bar off the screen."""
        if self.bar is not None:
            self.bar.close()


class _Unseen(Progress):
    """Count what another rank shows."""

    def __init__(self, total: int | None, label: str, unit: str) -> None:
        self.total, self.label, self.unit = total, label, unit
        self.done, self.bar = 0, None

    def advance(self, count: int = 1, info: str = "") -> None:
        """Add finished items."""
        self.done += count


def print_error(error: DltoolError, *, command: str, as_json: bool) -> None:
    """Print an error: one line on stderr, and one object on stdout with `--json`.

    Another rank than the first writes to stderr alone.
    """
    if as_json and ranks.speaks():
        envelope = {
            "schema": SCHEMA,
            "command": command,
            "status": "error",
            "error": error.as_dict(),
            "warnings": [],
        }
        print(json.dumps(envelope, ensure_ascii=False), flush=True)
    prefix = f"error {error.code}"
    if use_color(sys.stderr):
        prefix = f"\x1b[31m{prefix}\x1b[0m"
    print(f"{ranks.label()}{prefix}: {error.one_line()}", file=sys.stderr, flush=True)
