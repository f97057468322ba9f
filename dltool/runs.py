"""Run folders: what was asked, where each value came from, what happened, and what came out."""

from __future__ import annotations

import dataclasses
import difflib
import json
import os
import platform
import shlex
import sys
import typing
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, TypeVar

from dltool import __version__, files
from dltool.errors import CheckpointError, ConfigError, DltoolError

FORMAT = 1
ROOT = Path("runs")
# tomllib's time and memory grow with the square of a dotted name's parts
CONFIG_BYTES = 64 * 1024
CONFIG_DOTS = 500
RECORDED_PACKAGES = ("torch", "torchvision", "numpy", "safetensors", "pillow", "scikit-learn")
RECORDED_VARIABLES = ("CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS", "CUBLAS_WORKSPACE_CONFIG")

Config = TypeVar("Config")


def settle(
    config_class: type[Config],
    *,
    flags: Mapping[str, Any],
    file: Mapping[str, Any] | None = None,
    file_name: str = "",
    recipe: Mapping[str, Any] | None = None,
) -> tuple[Config, dict[str, str]]:
    """Build a config and say where each value came from: flag, file, recipe or default.

    Args:
        file: what `read_config_file` returned.

    Raises:
        ConfigError: whatever the config's own `__post_init__` refuses.
    """
    fields = [field.name for field in dataclasses.fields(typing.cast(Any, config_class))]
    layers = [
        ("recipe", dict(recipe or {})),
        (f"file {file_name}", dict(file or {})),
        ("flag", dict(flags)),
    ]
    values: dict[str, Any] = {}
    origins = dict.fromkeys(fields, "default")
    for origin, layer in layers:
        values.update(layer)
        origins.update(dict.fromkeys(layer, origin))
    return config_class(**values), origins


def read_config_file(path: Path, config_class: type[Any]) -> dict[str, Any]:
    """Read a flat TOML file and check its keys and types against a config dataclass.

    Raises:
        ConfigError: the file is missing, not TOML, or holds an unknown key or a wrong type.
    """
    import tomllib

    try:
        text = files.read_limited(path, CONFIG_BYTES).decode("utf-8-sig")
        if any(line.count(".") > CONFIG_DOTS for line in text.splitlines()):
            raise ValueError("a name has too many parts")
        values = tomllib.loads(text)
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(
            "E203", f"cannot read the configuration {path}: {error}", cure="give a TOML file"
        ) from error
    hints = typing.get_type_hints(config_class)
    return {key: _checked(path, key, value, hints) for key, value in values.items()}


def _checked(path: Path, key: str, value: Any, hints: Mapping[str, Any]) -> Any:
    name = key.replace("-", "_")
    if name not in hints:
        near = difflib.get_close_matches(name, hints, n=1)
        raise ConfigError(
            "E203",
            f"unknown key {key!r} in {path}",
            expected=f"{near[0]!r}" if near else f"one of {', '.join(hints)}",
            cure="correct or remove the key",
        )
    kinds = typing.get_args(hints[name]) or (hints[name],)
    if float in kinds and type(value) is int:
        return float(value)
    if isinstance(value, list):
        value = tuple(value)
    simple = [typing.get_origin(kind) or kind for kind in kinds]
    simple = [tuple] if typing.get_origin(hints[name]) is tuple else simple
    if type(value) not in simple:
        names = " or ".join(kind.__name__ for kind in simple)
        raise ConfigError(
            "E203", f"wrong type for {key!r} in {path}", received=value, expected=names
        )
    return value


@dataclasses.dataclass
class Run:
    """One run folder that this process writes.

    Attributes:
        folder: the run folder.
        topic: the topic's command name.
        log_failed: whether a line of metrics could not be written (a full disk).
    """

    folder: Path
    topic: str
    log_failed: bool = False

    @property
    def resume_command(self) -> str:
        """The command that goes on with this run."""
        return f"dltool {self.topic} train --resume {shlex.quote(str(self.folder))}"

    def log(self, record: Mapping[str, Any]) -> None:
        """Append one line to `metrics.jsonl`; a full disk is remembered, not fatal."""
        line = json.dumps(dict(record), ensure_ascii=False) + "\n"
        try:
            with (self.folder / "metrics.jsonl").open("a", encoding="utf-8") as stream:
                stream.write(line)
        except OSError:
            self.log_failed = True

    def records(self) -> list[dict[str, Any]]:
        """Return the lines of `metrics.jsonl`; a half-written last line is left out."""
        return read_records(self.folder)

    def truncate_log(self, step: int) -> None:
        """Forget what was logged after `step`, for a run that goes on from there."""
        kept = [record for record in self.records() if record.get("step", 0) <= step]
        text = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in kept)
        files.write_bytes_atomic(self.folder / "metrics.jsonl", text.encode())

    def update(self, **values: Any) -> None:
        """Change fields of `run.json`."""
        files.write_json_atomic(self.folder / "run.json", {**read_json(self.folder), **values})


def create(
    topic: str, name: str, out: Path | None, config: Any, origins: Mapping[str, str], grade: str
) -> Run:
    """Make a new run folder and write what was asked and where.

    Raises:
        ConfigError: the folder exists and is not empty.
    """
    folder = out or _free_name(ROOT / topic / f"{datetime.now():%Y%m%d-%H%M%S}-{name}")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        is_run = (folder / "run.json").exists()
        resume = f"dltool {topic} train --resume {shlex.quote(str(folder))}, or "
        raise ConfigError(
            "E204",
            f"the run folder {folder} exists already",
            cure=(resume if is_run else "") + "choose another folder with --out",
        )
    with files.explained(folder):
        folder.mkdir(parents=True, exist_ok=True)
    values = dataclasses.asdict(config)
    described = {key: {"value": value, "origin": origins[key]} for key, value in values.items()}
    files.write_json_atomic(folder / "config.json", described)
    files.write_json_atomic(folder / "environment.json", environment())
    facts = {
        "format": FORMAT,
        "dltool": __version__,
        "topic": topic,
        "name": name,
        "status": "running",
        "grade": grade,
        "created": now(),
        "command": ["dltool", *sys.argv[1:]],
        "process": os.getpid(),
    }
    files.write_json_atomic(folder / "run.json", facts)
    point_latest(folder)
    return Run(folder, topic)


def _free_name(folder: Path) -> Path:
    candidate, number = folder, 2
    while candidate.exists():
        candidate = folder.with_name(f"{folder.name}-{number}")
        number += 1
    return candidate


def point_latest(folder: Path) -> None:
    """Let `latest` beside the run folder point to it: a link, or a text file where none can be."""
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


def refuse_changes(config: Any, flags: Mapping[str, Any], folder: Path) -> None:
    """Refuse options that would make a resumed run differ from the unbroken one.

    Raises:
        ConfigError: listing each changed option with the run's value and the one given.
    """
    changed = [
        f"{key}: {getattr(config, key)} in the run, {value} given"
        for key, value in flags.items()
        if getattr(config, key) != value
    ]
    if changed:
        raise ConfigError(
            "E207",
            f"a resumed run keeps its settings ({'; '.join(changed)})",
            cure=f"leave these options out, or start a new run without --resume {folder}",
        )


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

    lock = FileLock(folder / ".lock")
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


def now() -> str:
    """Return the time as ISO 8601 in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def environment() -> dict[str, Any]:
    """Describe where a run happens: versions, machine, variables that change results."""
    return {
        "dltool": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "packages": {name: _version(name) for name in RECORDED_PACKAGES},
        "variables": {name: os.environ[name] for name in RECORDED_VARIABLES if name in os.environ},
        "working_folder": str(Path.cwd()),
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def command_line(words: Sequence[str]) -> str:
    """Return words as a line that a shell reads back."""
    return shlex.join(words)
