"""Remove run folders, and nothing that is not one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dltool import files, runs
from dltool.errors import CheckpointError, ConfigError
from dltool.history import folders
from dltool.history.folders import PastRun


def refuse(run: PastRun) -> None:
    """Refuse to remove what is in use, holds more than one run, or is no run.

    Raises:
        CheckpointError: it is no folder that a train command made.
        ConfigError: it holds other runs or the working folder, or is being written.
    """
    folder = run.folder
    if not (folder / "config.json").is_file() or "format" not in run.facts:
        raise CheckpointError(
            "E511",
            f"{folder} is no folder that a train command made: it lacks config.json or its format",
            cure="remove it by hand if you know what it is",
        )
    inside = [each.folder for each in folders.scan(folder)[0] if each.folder != folder]
    if inside:
        raise ConfigError(
            "E205",
            f"{folder} holds {len(inside)} other runs, such as {inside[0]}",
            cure="remove or move these first",
        )
    here = Path.cwd().resolve()
    if here == folder.resolve() or folder.resolve() in here.parents:
        raise ConfigError(
            "E205", f"the working folder is inside of {folder}", cure="leave it: cd .."
        )
    if run.state == "running":
        raise ConfigError(
            "E208",
            f"{folder} is being trained by process {run.facts.get('process')}",
            cure="stop it first with Ctrl-C",
        )


@contextmanager
def held(run: PastRun) -> Iterator[None]:
    """Look once more, under the run's own lock, that no process trains in it.

    Raises:
        ConfigError: E208, another process holds the lock.
    """
    with runs.locked(run.folder):
        refuse(PastRun(run.folder, runs.read_json(run.folder)))
        yield


def remove(run: PastRun) -> None:
    """Remove one run folder; links inside of it are removed and not followed.

    `latest` beside it goes to the newest run that is left.

    Raises:
        ConfigError, CheckpointError: see `refuse`.
        DltoolError: E101, the system does not let us.
    """
    folder = run.folder.resolve()
    pointer = folder.parent / "latest"
    was_latest = _target(pointer) == folder
    with held(run):
        pass  # an open lock file cannot be removed everywhere
    files.discard(folder)
    if not was_latest:
        return
    left = [each for each in folders.scan(folder.parent)[0] if each.folder.parent == folder.parent]
    if left:
        runs.point_latest(left[-1].folder)
    else:
        pointer.unlink(missing_ok=True)


def _target(pointer: Path) -> Path | None:
    if pointer.is_symlink():
        return pointer.resolve()
    if pointer.is_file():
        return (pointer.parent / pointer.read_text(encoding="utf-8").strip()).resolve()
    return None
