"""`dltool runs note` and `rm`: what a user writes into a run, and how a run goes."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from dltool import files, options
from dltool.commands.runs_options import RunArgument
from dltool.console import Console
from dltool.errors import ConfigError
from dltool.history import folders, removal
from dltool.history.folders import NOTE, NOTE_BYTES


def note(
    run: RunArgument,
    text: Annotated[
        str | None,
        typer.Argument(metavar="[TEXT|-]", help="Words to keep, - for stdin; '' removes them."),
    ] = None,
    append: Annotated[bool, typer.Option("--append", help="Add a line to what is there.")] = False,
    json: options.JsonOption = False,
) -> None:
    """Keep a note in a run, or show it; `runs list` finds it and `runs report` prints it."""
    console = Console("runs note", json=json)
    found = folders.find(run)
    if text is None and append:
        raise ConfigError("E201", "--append needs a text", cure="add the words to append")
    if text is not None:
        words = sys.stdin.read() if text == "-" else text
        before = f"{found.note}\n" if append and found.note else ""
        content = (before + words.strip()).strip().encode()
        if len(content) > NOTE_BYTES:
            raise ConfigError(
                "E202",
                "the note is too long",
                received=f"{len(content):,} bytes",
                expected=f"at most {NOTE_BYTES:,}",
            )
        if content:
            files.write_bytes_atomic(found.folder / NOTE, content + b"\n")
        else:
            with files.explained(found.folder / NOTE):
                (found.folder / NOTE).unlink(missing_ok=True)
    console.result({"run": str(found.folder), "note": found.note}, found.note)
    if not found.note:
        console.note(f"{found.folder} has no note")


def remove(
    run: Annotated[
        list[str], typer.Argument(metavar="RUN...", help="Run folders; latest is not taken.")
    ],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    json: options.JsonOption = False,
) -> None:
    """Remove run folders for good, after asking; nothing else, and never one that is running."""
    console = Console("runs rm", json=json)
    found = [folders.at(path) for path in dict.fromkeys(map(Path, run))]
    sizes = {}
    for each in found:
        removal.refuse(each)
        sizes[each] = files.folder_bytes(each.folder)
        console.note(
            f"{each.folder}  {each.topic}, {each.state}, {sizes[each] / 1e6:,.1f} MB  "
            f"{each.value('result')}".rstrip()
        )
    if not _agreed(len(found), yes=yes):
        console.result({"removed": [], "bytes": 0}, "nothing was removed")
        return
    for each in found:
        removal.remove(each)
    freed = sum(sizes.values())
    console.result(
        {"removed": [str(each.folder) for each in found], "bytes": freed},
        f"removed {len(found)} run{'s' * (len(found) != 1)}, {freed / 1e6:,.1f} MB",
    )


def _agreed(count: int, *, yes: bool) -> bool:
    """Ask for consent.

    Raises:
        ConfigError: E201, nobody can answer and `--yes` was not given.
    """
    if yes:
        return True
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise ConfigError(
            "E201", "this would remove runs for good, and nobody can be asked", cure="add --yes"
        )
    return bool(typer.confirm(f"remove {count} run{'s' * (count != 1)} for good?", err=True))
