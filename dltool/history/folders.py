"""Run folders as they lie on the disk, of any topic and any version."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dltool import files, runs
from dltool.errors import CheckpointError, DltoolError
from dltool.history import log, values
from dltool.history.values import Measured

# runs/TOPIC/RUN, and one level more for what trains many of them
DEPTH = 4
NOTE = "note.txt"
NOTE_BYTES = 64 * 1024


@dataclass(frozen=True, eq=False)
class PastRun:
    """One run folder; what an older version did not write is empty.

    Attributes:
        folder: where it lies.
        facts: what `run.json` says.
    """

    folder: Path
    facts: Mapping[str, Any]

    @property
    def topic(self) -> str:
        """The topic's command name."""
        return str(self.facts.get("topic", ""))

    @property
    def created(self) -> str:
        """When the run began: ISO 8601, UTC."""
        return str(self.facts.get("created", ""))

    @functools.cached_property
    def state(self) -> str:
        """The run's status; one that says running but has no process was killed: `stopped`."""
        status = str(self.facts.get("status", "unknown"))
        process = self.facts.get("process", 0)
        lives = isinstance(process, int) and process > 0 and files.process_lives(process)
        return "stopped" if status == "running" and not lives else status

    @functools.cached_property
    def stored(self) -> dict[str, Any]:
        """What `config.json` says; nothing where it is missing or damaged."""
        try:
            return self.part("config.json")
        except CheckpointError:
            return {}

    @property
    def config(self) -> dict[str, dict[str, Any]]:
        """The settings: name to `value` and, where it is known, `origin`."""
        return {
            name: item if isinstance(item, dict) and "value" in item else {"value": item}
            for name, item in self.stored.items()
        }

    @functools.cached_property
    def settings(self) -> dict[str, Any]:
        """The settings without their origins."""
        return {name: item["value"] for name, item in self.config.items()}

    @property
    def data(self) -> str:
        """What the run learnt from, as its setting names it."""
        found = (self.stored.get(name) for name in ("data", "task"))
        named = [item.get("value") if isinstance(item, dict) else item for item in found]
        chosen = named[0] or named[1] or ""
        return ", ".join(map(str, chosen)) if isinstance(chosen, list) else str(chosen)

    @functools.cached_property
    def scores(self) -> dict[str, Measured]:
        """The numbers of the result, by dotted name."""
        return values.flat(self.facts.get("result"))

    @functools.cached_property
    def record(self) -> dict[str, Any]:
        """The logged line of the best epoch, or the last one."""
        return log.best_record(self.folder)

    @property
    def damage(self) -> str:
        """What is wrong with the settings' file, in one line; an empty text where nothing is."""
        try:
            self.stored or self.part("config.json")
        except CheckpointError as error:
            return error.one_line()
        return ""

    @property
    def note(self) -> str:
        """The user's own words, see `dltool runs note`."""
        try:
            text = files.read_limited(self.folder / NOTE, NOTE_BYTES)
        except (OSError, ValueError):
            return ""
        return text.decode("utf-8", errors="replace").strip()

    def part(self, name: str) -> dict[str, Any]:
        """Return one of the folder's other JSON files, empty where there is none.

        Raises:
            CheckpointError: E511, the file is damaged.
        """
        return runs.read_json(self.folder, name) if (self.folder / name).exists() else {}

    def value(self, name: str) -> Any:
        """Return a fact, a number of the result, of the best epoch, or a setting; else None."""
        if name in FACTS:
            return FACTS[name](self)
        measured = values.named(self.scores, name)
        if measured is not None:
            return measured.value
        if name in self.record:
            return self.record[name]
        return self.settings.get(name)

    def names(self) -> set[str]:
        """Return every name that `value` knows for this run."""
        return {*FACTS, *self.scores, *self.record, *self.settings}


FACTS: dict[str, Callable[[PastRun], str]] = {
    "folder": lambda run: str(run.folder),
    "topic": lambda run: run.topic,
    "name": lambda run: str(run.facts.get("name", "")),
    "data": lambda run: run.data,
    "status": lambda run: run.state,
    "grade": lambda run: str(run.facts.get("grade", "")),
    "created": lambda run: run.created[:19].replace("T", " "),
    "result": lambda run: values.summary(run.scores),
    "note": lambda run: " ".join(run.note.split()),
}


def scan(root: Path) -> tuple[list[PastRun], list[DltoolError]]:
    """Return the runs in and below `root`, oldest first, and what could not be read."""
    found, problems = [], []
    for folder in _candidates(root, DEPTH):
        try:
            facts = runs.read_json(folder)
        except DltoolError as error:
            problems.append(error)
            continue
        if isinstance(facts.get("topic"), str):  # other programs write a run.json too
            found.append(PastRun(folder, facts))
    return sorted(found, key=lambda run: (run.created, str(run.folder))), problems


def _candidates(folder: Path, depth: int) -> Iterator[Path]:
    if (folder / "run.json").is_file():
        yield folder
        if depth < DEPTH:
            return
    if depth == 0:
        return
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError:
        return
    for entry in entries:
        if entry.is_dir(follow_symlinks=False) and not entry.name.startswith("."):
            yield from _candidates(folder / entry.name, depth - 1)


def find(text: str) -> PastRun:
    """Return the run that a user names: a path, `TOPIC/latest`, or `latest` of all topics.

    Raises:
        CheckpointError: there is none, or its `run.json` cannot be used.
    """
    topic, _, name = text.partition("/")
    if name == "latest" and not Path(text, "run.json").exists():
        folder = runs.locate(name, topic)
    elif text == "latest" and not Path(text, "run.json").exists():
        known = scan(runs.ROOT)[0]
        if not known:
            raise CheckpointError("E501", f"there is no run in {runs.ROOT}", cure=_CURE)
        return known[-1]
    else:
        folder = runs.locate(text, "")
    return PastRun(folder, _facts(folder))


_CURE = "name a run folder; see dltool runs list"


def _facts(folder: Path) -> dict[str, Any]:
    facts = runs.read_json(folder)
    if not isinstance(facts.get("topic"), str):
        raise CheckpointError("E511", f"{folder / 'run.json'} names no topic", cure=_CURE)
    return facts


def at(folder: Path) -> PastRun:
    """Return the run of exactly this folder: no `latest`, no link, no name below `runs`.

    Raises:
        CheckpointError: it is no run folder, or a link to one.
    """
    if folder.is_symlink():
        raise CheckpointError(
            "E511", f"{folder} is a link and not a run folder", cure=f"name {folder.resolve()}"
        )
    return PastRun(folder, _facts(folder))


def chosen(texts: Iterable[str]) -> list[PastRun]:
    """Return the runs that a user names, each once; a folder of runs stands for all of them.

    Raises:
        CheckpointError: a name leads to no run.
    """
    found: dict[Path, PastRun] = {}
    for text in texts:
        folder = Path(text)
        is_holder = folder.is_dir() and not (folder / "run.json").exists()
        inside = scan(folder)[0] if is_holder else []
        for run in inside or [find(text)]:
            found.setdefault(run.folder.resolve(), run)
    return list(found.values())
