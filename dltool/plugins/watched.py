"""Run one `dltool` command under watch; the conformance kit starts it as a process.

`python -m dltool.plugins.watched witness ARGS...` notes files written, sockets and heavy imports;
`... interrupt ARGS...` sends this process the signal of Ctrl-C while it trains.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from dltool.plugins.probe import HEAVY

MARK = "DLTOOL-WITNESS "
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
SOCKETS = ("socket.connect", "socket.getaddrinfo", "socket.bind")
CHANGES = ("os.remove", "os.rename", "os.mkdir", "os.rmdir", "os.link", "os.symlink")
CHECKPOINTS_BEFORE_SIGNAL = 2


def witness() -> None:
    """Run the command and end with a line on stderr that tells what it touched."""
    touched: list[str] = []

    def audit(event: str, arguments: tuple[Any, ...]) -> None:
        if event in SOCKETS or event in CHANGES or (event == "open" and _writes(arguments)):
            touched.append(f"{event} {arguments[:1]}"[:200])

    sys.addaudithook(audit)
    code = _command()
    heavy = sorted(set(HEAVY) & set(sys.modules))
    facts = {"touched": touched, "heavy": heavy}
    sys.stdout.flush()
    sys.stderr.write(f"\n{MARK}{json.dumps(facts)}\n")
    sys.exit(code)


def _writes(arguments: tuple[Any, ...]) -> bool:
    path, mode, flags = (*arguments, None, None, None)[:3]
    if not isinstance(path, str | bytes):
        return False  # a descriptor that is open already
    name = os.fsdecode(path)
    if name == os.devnull or "__pycache__" in name or name.startswith("/proc/"):
        return False
    if isinstance(mode, str):
        return any(letter in mode for letter in "wax+")
    return isinstance(flags, int) and bool(flags & WRITING)


def interrupt() -> None:
    """Run the command; raise Ctrl-C's signal at the second checkpoint, or after the first epoch.

    It is the very signal that a terminal sends, at a moment that does not depend on the machine's
    speed: when the second `checkpoints/step-…` folder gets its name.
    """
    seen = {"checkpoints": 0, "sent": 0}

    def send() -> None:
        if not seen["sent"]:
            seen["sent"] = 1
            signal.raise_signal(signal.SIGINT)

    def audit(event: str, arguments: tuple[Any, ...]) -> None:
        if event != "os.rename" or seen["sent"]:
            return
        target = Path(os.fsdecode(arguments[1]))
        if target.parent.name == "checkpoints" and target.name.startswith("step-"):
            seen["checkpoints"] += 1
            if seen["checkpoints"] == CHECKPOINTS_BEFORE_SIGNAL:
                send()

    write = sys.stdout.write

    def watched_write(text: str) -> int:
        count = write(text)
        if '"event": "epoch"' in text:
            send()
        return count

    sys.stdout.write = watched_write  # type: ignore[method-assign]
    sys.addaudithook(audit)
    sys.exit(_command())


def _command() -> Any:
    from dltool.__main__ import main

    sys.argv = ["dltool", *sys.argv[2:]]
    try:
        main()
    except SystemExit as stop:
        return stop.code
    return 0


if __name__ == "__main__":
    {"witness": witness, "interrupt": interrupt}[sys.argv[1]]()
