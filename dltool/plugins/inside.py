"""The child's side of a plugin check: import, watch, and report one JSON line on stdout."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import io
import json
import os
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from dltool.plugins import loading, places

WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
NETWORK = ("socket.connect", "socket.getaddrinfo", "socket.bind")
CHANGES = ("os.remove", "os.rename", "os.mkdir", "os.rmdir", "shutil.rmtree")


class Witness:
    """Note which heavy packages are imported and by whom, and what is written or connected to."""

    def __init__(self, heavy: Sequence[str]) -> None:
        self.heavy = frozenset(heavy)
        self.importers: dict[str, str] = {}
        self.acts: list[str] = []
        self.is_watching = False

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        """See an import pass by; find nothing, so that it goes on as always."""
        if self.is_watching and name in self.heavy and name not in self.importers:
            self.importers[name] = _importer()

    def audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        """See what Python tells of files and sockets."""
        if not self.is_watching or len(self.acts) >= 5:
            return
        if event in NETWORK:
            self.acts.append("opens a network connection at import")
        elif event in CHANGES or (event == "open" and _is_writing(arguments)):
            self.acts.append(f"writes files at import: {arguments[0]}")


def _importer() -> str:
    frame: Any = sys._getframe(2)
    while frame is not None and "importlib" in frame.f_code.co_filename:
        frame = frame.f_back
    if frame is None:
        return "unknown"
    return f"{frame.f_globals.get('__name__', '?')}, line {frame.f_lineno}"


def _is_writing(arguments: tuple[Any, ...]) -> bool:
    path, mode, flags = (*arguments, None, None, None)[:3]
    if not isinstance(path, str | bytes) or os.fsdecode(path) == os.devnull:
        return False
    if "__pycache__" in os.fsdecode(path):
        return False
    if isinstance(mode, str):
        return any(letter in mode for letter in "wax+")
    return isinstance(flags, int) and bool(flags & WRITING)


def main(job: Mapping[str, Any]) -> None:
    """Import the plugin that the job names and report."""
    sys.argv = ["dltool"]
    answer = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    started = {"path": list(sys.path), "folder": os.getcwd(), "threads": threading.active_count()}
    witness = Witness(job["heavy"])
    sys.meta_path.insert(0, witness)
    sys.addaudithook(witness.audit)
    printed = io.StringIO()
    problem, missing = "", ""
    commands: dict[str, Any] = {}
    clock = time.perf_counter()
    seconds = 0.0
    try:
        with contextlib.redirect_stdout(printed):
            witness.is_watching = True
            app = _imported(job)
            witness.is_watching = False
            seconds = time.perf_counter() - clock
            problem, commands = _described(app, job["entry"])
    except BaseException as error:
        witness.is_watching = False
        problem = f"cannot be imported: {loading.words(error)}"
        missing = loading.missing_package(error)
    faults = [*witness.acts, *_faults(started, printed.getvalue())]
    report = {
        "problem": problem,
        "missing": missing,
        "faults": faults,
        "heavy": witness.importers,
        "seconds": round(seconds, 4),
        "commands": commands,
    }
    answer.write("\n" + json.dumps(report) + "\n")
    answer.flush()
    os._exit(0)  # threads and exit handlers of a stranger have no say here


def _imported(job: Mapping[str, Any]) -> Any:
    module, _, attribute = job["reference"].partition(":")
    own = places.find_own(job["package"], job["entry"]) if job["is_own"] else None
    if own is not None:
        loading.prefer(own)
    found: Any = importlib.import_module(module)
    for part in attribute.split("."):
        found = getattr(found, part)
    return found


def _described(app: Any, name: str) -> tuple[str, dict[str, Any]]:
    """Return a problem, and of each command its help, options and arguments."""
    import typer

    if not isinstance(app, typer.Typer):
        return f"is not a Typer app but {type(app).__name__}", {}
    try:
        command = typer.main.get_command(app)
    except Exception as error:
        return f"cannot be built as a command: {loading.words(error)}", {}
    found: dict[str, Any] = {}
    _walk(command, name, found)
    return "", found


def _walk(command: Any, path: str, found: dict[str, Any]) -> None:
    found[path] = {
        "help": str(command.help or ""),
        "is_group": hasattr(command, "commands"),
        "hidden": bool(command.hidden),
        "parameters": [
            {
                "name": parameter.name,
                "flags": [*parameter.opts, *parameter.secondary_opts],
                "is_option": parameter.param_type_name == "option",
                "required": bool(parameter.required),
                "metavar": str(parameter.metavar or ""),
            }
            for parameter in command.params
        ],
    }
    for name, child in getattr(command, "commands", {}).items():
        _walk(child, f"{path} {name}", found)


def _faults(started: Mapping[str, Any], printed: str) -> list[str]:
    faults = []
    if printed:
        shown = " ".join(printed.split())[:60]
        faults.append(f"prints at import: {shown!r}")
    added = [entry for entry in sys.path if entry not in started["path"]]
    if sys.path != started["path"]:
        faults.append(f"changes sys.path at import{': adds ' + added[0] if added else ''}")
    with contextlib.suppress(OSError):
        if os.getcwd() != started["folder"]:
            faults.append("changes the working folder at import")
    if threading.active_count() > started["threads"]:
        faults.append("starts threads at import")
    shadowed = _replaced()
    if shadowed:
        faults.append(f"replaces a module of dltool at import: {shadowed}")
    return faults


def _replaced() -> str:
    """Return the name of a module of the host that is no longer the one beside the core."""
    root = Path(places.__file__).parent.parent
    for name, module in list(sys.modules.items()):
        if name.startswith("dltool.") and isinstance(module, ModuleType):
            file = getattr(module, "__file__", None)
            if file is None or root not in Path(file).parents:
                return name
    return ""
