"""Run folders: what was asked, where each value came from, what happened, and what came out."""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import secrets
import shlex
import sys
import typing
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

from dltool import __version__, files
from dltool.configs import read_config_file as read_config_file
from dltool.configs import settle as settle
from dltool.environment import environment as environment
from dltool.environment import now as now
from dltool.errors import CheckpointError, ConfigError, DltoolError

if typing.TYPE_CHECKING:
    from dltool.tracking import Track

FORMAT = 1
ROOT = Path("runs")
LOCK = ".lock"
TRAIN = "train"

Config = TypeVar("Config")


@dataclasses.dataclass
class Run:
    """One run folder that this process writes.

    Attributes:
        folder: the run folder.
        topic: the topic's command name.
        save_failed, log_failed: why the last checkpoint or a line of metrics could not be written
            (a full disk), or an empty text.
        changed: settings that `--allow-changed` let differ from the run's own.
        track: another program's board that is told what is logged, see `tracking`.
    """

    folder: Path
    topic: str
    save_failed: str = ""
    log_failed: str = ""
    changed: dict[str, Any] = dataclasses.field(default_factory=dict)
    track: Track | None = None

    @property
    def writes(self) -> bool:
        """Whether what is written into `folder` stays; not in another rank than the first."""
        return True

    @property
    def home(self) -> Path:
        """Where the run's files are to be read; another rank than the first writes elsewhere."""
        return self.folder

    def facts(self) -> dict[str, Any]:
        """Return what `run.json` says."""
        return read_json(self.home)

    @functools.cached_property
    def identity(self) -> str:
        """The run's own id, which its checkpoints carry; a run without one gets it now."""
        known = self.facts().get("id")
        if not known:
            known = secrets.token_hex(8)
            self.update(id=known)
        return str(known)

    def settle_changes(self, step: int) -> None:
        """Record the changed settings in `config.json` and lower the run's grade, once."""
        if not self.changed:
            return
        config = read_json(self.folder, "config.json")
        for name, value in self.changed.items():
            before = config.get(name, {}).get("value")
            origin = f"changed at step {step} from {before}"
            config[name] = {"value": value, "origin": origin}
        files.write_json_atomic(self.folder / "config.json", config)
        self.update(grade="statistical")

    @property
    def resume_command(self) -> str:
        """The command that goes on with this run."""
        verb = verb_of(self.facts())
        return f"dltool {self.topic} {verb} --resume {shlex.quote(str(self.folder))}"

    def log(self, record: Mapping[str, Any]) -> None:
        """Append one line to `metrics.jsonl`; a full disk is remembered, not fatal."""
        line = json.dumps(dict(record), ensure_ascii=False) + "\n"
        try:
            with (self.folder / "metrics.jsonl").open("a", encoding="utf-8") as stream:
                stream.write(line)
        except OSError as error:
            self.log_failed = f"metrics.jsonl: {error.strerror}"
        if self.track is not None:
            self.track.write(record)

    def records(self) -> list[dict[str, Any]]:
        """Return the lines of `metrics.jsonl`; a half-written last line is left out."""
        return read_records(self.home)

    def truncate_log(self, step: int) -> None:
        """Forget what was logged after `step`, for a run that goes on from there."""
        kept = [record for record in self.records() if record.get("step", 0) <= step]
        text = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in kept)
        files.write_bytes_atomic(self.folder / "metrics.jsonl", text.encode())
        if self.track is not None:
            self.track.forget(step)

    def finish(self, result: Mapping[str, Any]) -> None:
        """Mark the run as finished with its result.

        Raises:
            DltoolError: E101, see `refuse_unsaved`.
        """
        self.update(status="finished", finished=now(), result=dict(result))
        if self.track is not None:
            self.track.result(result)
        self.refuse_unsaved()

    def refuse_unsaved(self) -> None:
        """Refuse to call a run done when something could not be written, though it trained on.

        Raises:
            DltoolError: E101.
        """
        missing = self.save_failed or self.log_failed
        if missing:
            raise DltoolError(
                "E101",
                f"the run reached its end, but not all was saved: {missing}",
                cure=f"free some space; what could be written is in {self.folder}",
            )

    def update(self, **values: Any) -> None:
        """Change fields of `run.json`."""
        files.write_json_atomic(self.folder / "run.json", {**read_json(self.folder), **values})


def claim(topic: str, name: str, out: Path | None) -> Path:
    """Choose and make the folder of a new run: `out`, or one below `runs/` that is free.

    Raises:
        ConfigError: `out` exists and is not empty.
        DltoolError: it cannot be made.
    """
    if out is not None:
        refuse_taken(out, topic)
        with files.explained(out):
            out.mkdir(parents=True, exist_ok=True)
        return out
    first = ROOT / topic / f"{datetime.now():%Y%m%d-%H%M%S}-{name}"
    folder, number = first, 2
    with files.explained(first):
        first.parent.mkdir(parents=True, exist_ok=True)
        while True:
            try:
                folder.mkdir()  # two commands of one second: only one of them makes it
                return folder
            except FileExistsError:
                folder = first.with_name(f"{first.name}-{number}")
                number += 1


def refuse_taken(folder: Path, topic: str) -> None:
    """Refuse a folder for a new run that holds something already.

    Raises:
        ConfigError: E204.
    """
    if not folder.exists():
        return
    if folder.is_dir() and all(path.name == LOCK for path in folder.iterdir()):
        return
    resume = ""
    if (folder / "run.json").exists():
        verb = verb_of(read_json(folder))
        resume = f"dltool {topic} {verb} --resume {shlex.quote(str(folder))}, or "
    raise ConfigError(
        "E204",
        f"the run folder {folder} exists already",
        cure=resume + "choose another folder with --out",
    )


def create(
    topic: str,
    name: str,
    out: Path | None,
    config: Any,
    origins: Mapping[str, str],
    grade: str,
    verb: str = TRAIN,
) -> Run:
    """Make a new run folder and write what was asked and where.

    Args:
        verb: the topic's command that trains, for those that go on with the run or repeat it.

    Raises:
        ConfigError: the folder exists and is not empty.
    """
    folder = claim(topic, name, out)
    values = dataclasses.asdict(config)
    described = {key: {"value": value, "origin": origins[key]} for key, value in values.items()}
    files.write_json_atomic(folder / "config.json", described)
    files.write_json_atomic(folder / "environment.json", environment())
    facts = {
        "format": FORMAT,
        "id": secrets.token_hex(8),
        "dltool": __version__,
        "topic": topic,
        "verb": verb,
        "name": name,
        "status": "running",
        "grade": grade,
        "created": now(),
        "command": ["dltool", *sys.argv[1:]],
        "process": os.getpid(),
    }
    files.write_json_atomic(folder / "run.json", facts)
    if folder.parent.name == topic:  # a folder of the user's choice gets no neighbour
        point_latest(folder)
    return Run(folder, topic)


def verb_of(facts: Mapping[str, Any]) -> str:
    """Return the topic's command that made a run, of what its `run.json` says."""
    return str(facts.get("verb", TRAIN))


def short_name(data: str) -> str:
    """Return what a run folder's name says of its data: the file's name, in plain letters."""
    name = Path(data).name.split(".")[0] or "data"
    return "".join(letter if letter.isalnum() or letter in "-_" else "-" for letter in name)[:40]


def point_latest(folder: Path) -> None:
    """Let `runs/<topic>/latest` point to the run: a link, or a text file where none can be."""
    pointer = folder.parent / "latest"
    if pointer.is_dir() and not pointer.is_symlink():
        return  # the user's own folder of that name
    temporary = files.temporary_name(pointer)
    try:
        temporary.symlink_to(folder.name, target_is_directory=True)
        os.replace(temporary, pointer)
    except OSError:
        temporary.unlink(missing_ok=True)
        files.write_bytes_atomic(pointer, folder.name.encode())


def locate(text: str, topic: str) -> Path:
    """Return the run folder that a user names: a path, `latest`, or a name below `runs/<topic>`.

    Raises:
        CheckpointError: there is none.
    """
    named = ROOT / topic / text
    for path in (named, Path(text)) if text == "latest" else (Path(text), named):
        if path.is_file() and path.name == "latest":
            path = path.parent / path.read_text(encoding="utf-8").strip()
        if path.is_dir():
            return path.resolve() if path.is_symlink() else path
    raise CheckpointError(
        "E501",
        f"there is no run at {text!r}",
        expected="a run folder, a model folder or latest",
        cure=f"see dltool runs list, or train one: dltool {topic} train",
    )


def open_run(folder: Path, topic: str) -> Run:
    """Open an existing run folder of this topic for going on.

    Raises:
        CheckpointError: it is no run folder, or one of another topic.
    """
    facts = read_json(folder)
    if facts.get("topic") != topic:
        owner = facts.get("topic")
        raise CheckpointError(
            "E511", f"{folder} is a run of {owner}, not of {topic}", cure=f"dltool {owner} --help"
        )
    return Run(folder, topic)


def read_json(folder: Path, name: str = "run.json") -> dict[str, Any]:
    """Read one of a run folder's JSON files.

    Raises:
        CheckpointError: it is missing, not JSON, or of a newer format.
    """
    path = folder / name
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        cure = "name a folder that a train command made; see dltool runs list"
        raise CheckpointError("E511", f"{folder} has no {name}", cure=cure) from error
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(
            "E511", f"{path} {files.describe_damage(path)}", cure="restore the file"
        ) from error
    if not isinstance(value, dict):
        raise CheckpointError("E511", f"{path} holds no JSON object", cure="restore the file")
    level = value.get("format", 0)
    if name == "run.json" and isinstance(level, int | float) and level > FORMAT:
        raise CheckpointError(
            "E514", f"{folder} was written by a newer dltool", cure="pip install -U dltool"
        )
    return value


def read_config(folder: Path, config_class: type[Config]) -> tuple[Config, dict[str, str]]:
    """Return the config of a run folder with the origins of its values."""
    stored = read_json(folder, "config.json")
    known = {field.name for field in dataclasses.fields(typing.cast(Any, config_class))}
    try:
        values = {key: item["value"] for key, item in stored.items() if key in known}
        origins = {key: item["origin"] for key, item in stored.items() if key in known}
        tuples = {key: tuple(value) for key, value in values.items() if isinstance(value, list)}
        return config_class(**{**values, **tuples}), origins
    except (TypeError, KeyError, AttributeError) as error:
        raise CheckpointError("E511", f"{folder / 'config.json'} is damaged") from error


def read_records(folder: Path) -> list[dict[str, Any]]:
    """Return the lines of a run's `metrics.jsonl`; a half-written last line is left out."""
    path = folder / "metrics.jsonl"
    if not path.exists():
        return []
    records = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            records.append(json.loads(line))
        except (ValueError, RecursionError):
            break
    return [record for record in records if isinstance(record, dict)]


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the run folder's lock, so that no second process trains in it.

    Raises:
        ConfigError: another living process holds it.
    """
    from filelock import FileLock, Timeout

    lock = FileLock(folder / LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise ConfigError(
            "E208",
            f"another process is using {folder}",
            cure="wait for it, stop it, or choose another folder with --out",
        ) from error
    except OSError as error:
        with files.explained(folder):
            raise error
    try:
        yield
    finally:
        lock.release()


def listed(root: Path) -> list[dict[str, Any]]:
    """Return the facts of every run in or below `root`, oldest first, without unreadable ones."""
    found = []
    patterns = ("run.json", "*/run.json", "*/*/run.json")
    for path in sorted({path for pattern in patterns for path in root.glob(pattern)}):
        if path.parent.is_symlink():
            continue
        try:
            facts = read_json(path.parent)
        except DltoolError:
            continue
        found.append({"folder": str(path.parent), **facts})
    return sorted(found, key=lambda facts: str(facts.get("created", "")))


def command_line(words: Sequence[str]) -> str:
    """Return words as a line that a shell reads back."""
    return shlex.join(words)
