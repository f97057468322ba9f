"""Sweeps: one training for every combination of settings and every seed, as ordinary runs.

A sweep is a folder: `sweep.json` says what was asked, each run has a folder of its own beside it,
and `logs/` keeps what each run said. A name depends on the settings alone, so that a later call
with the same or with more values finds what is there already.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from dltool import __version__, environment, files, runs
from dltool.errors import ConfigError, DltoolError, closest
from dltool.tree import Parameter

FORMAT = 1
SPEC = "sweep.json"
LOGS = "logs"
NAME_LETTERS = 100
MOST_RUNS = 10_000
# they say where and how a training runs; the sweep itself decides that
RESERVED = ("out", "resume", "allow_changed", "config", "json", "events", "dry_run")
YES = ("1", "true", "yes", "on")
NO = ("0", "false", "no", "off")

State = Literal["missing", "begun", "finished", "diverged"]
Settings = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Sweep:
    """What a sweep trains.

    Attributes:
        words: topic and training command.
        axes: for every swept setting its option and values, as typed.
        fixed: further options of every training.
        seeds: the seeds of every combination; empty: the training's own.
        folder: where the runs go.
    """

    words: tuple[str, str]
    parameters: Mapping[str, Parameter]
    axes: Mapping[str, tuple[str, ...]]
    fixed: tuple[str, ...]
    seeds: tuple[int, ...]
    folder: Path = field(default=Path())

    def settings(self) -> list[Settings]:
        """Return every combination of the axes' values."""
        combined = itertools.product(*self.axes.values())
        return [tuple(zip(self.axes, values, strict=True)) for values in combined]

    def members(self, settings: Settings) -> list[Member]:
        """Return a run for every seed of one combination."""
        seeds: Sequence[int | None] = self.seeds or (None,)
        return [Member(self, settings, seed) for seed in seeds]

    def options(self, settings: Settings, seed: int | None = None) -> list[str]:
        """Return the training's options for one combination."""
        words = list(self.fixed)
        for name, value in settings:
            words += option(self.parameters[name], value)
        return words if seed is None else [*words, "--seed", str(seed)]

    def command(self, settings: Settings, seed: int | None = None) -> str:
        """Return the command that trains one combination alone."""
        return f"dltool {shlex.join([*self.words, *self.options(settings, seed)])}"


@dataclass(frozen=True)
class Member:
    """One run of a sweep."""

    sweep: Sweep
    settings: Settings
    seed: int | None

    @property
    def name(self) -> str:
        """The name of its folder: its settings in plain letters, shortened where they are long."""
        parts = [f"{name}={value}" for name, value in self.settings]
        parts += [f"seed={self.seed}"] if self.seed is not None else []
        whole = "-".join(parts) or "run"
        plain = re.sub(r"[^\w.=+-]", "_", whole)
        if plain == whole and len(plain) <= NAME_LETTERS:
            return plain
        digest = hashlib.sha256(whole.encode()).hexdigest()[:8]
        return f"{plain[:NAME_LETTERS]}-{digest}"

    @property
    def folder(self) -> Path:
        """Its run folder."""
        return self.sweep.folder / self.name

    @property
    def log(self) -> Path:
        """The file that keeps what it says on stderr."""
        return self.sweep.folder / LOGS / f"{self.name}.log"

    def state(self) -> State:
        """Tell how far it is, from its folder."""
        try:
            status = runs.read_json(self.folder).get("status")
        except DltoolError:  # none there, or one that a killed process left unreadable
            return "missing"
        if status in ("finished", "diverged"):
            return status  # type: ignore[no-any-return]  # one of the two texts
        has_checkpoint = any((self.folder / "checkpoints").glob("step-*"))
        return "begun" if has_checkpoint else "missing"

    def arguments(self) -> list[str]:
        """Return the words behind `dltool` that begin it, or go on with it."""
        if self.state() == "begun":
            return [*self.sweep.words[:1], "train", "--resume", str(self.folder)]
        words = self.sweep.options(self.settings, self.seed)
        return [*self.sweep.words, *words, "--out", str(self.folder)]


# ---- what was asked -------------------------------------------------------------------------


def axis(text: str, parameters: Sequence[Parameter]) -> tuple[Parameter, tuple[str, ...]]:
    """Read `lr=1e-3,3e-3`: a setting by its option's or its own name, and values.

    Values stand with commas between them, or, when one of them holds a comma, with `|`.

    Raises:
        ConfigError: E201, it is written otherwise; E206, the training has no such option.
    """
    name, equals, rest = text.partition("=")
    parts = [part.strip() for part in rest.split("|" if "|" in rest else ",")]
    if not equals or not name.strip() or "" in parts:
        raise ConfigError(
            "E201",
            "--set is not understood",
            received=text,
            expected="a setting and its values, as lr=1e-3,3e-3",
            cure='put | between values that hold commas: --set "hidden=256|512,256"',
        )
    return named(name.strip(), parameters), tuple(dict.fromkeys(parts))


def named(name: str, parameters: Sequence[Parameter]) -> Parameter:
    """Return the option of a training that a user names, as `lr`, `--lr` or `learning_rate`.

    Raises:
        ConfigError: E206, there is none; E205, it is one that the sweep itself decides.
    """
    key = name.removeprefix("--").replace("-", "_")
    by_name = {each.name: each for each in parameters if each.flags}
    by_name |= {
        flag.removeprefix("--").replace("-", "_"): each
        for each in parameters
        for flag in each.flags
        if flag.startswith("--")
    }
    if key not in by_name:
        near = closest(key, by_name)
        raise ConfigError(
            "E206",
            f"the training has no option {name!r}",
            cure=f"did you mean {near}?" if near else "see the training's --help",
        )
    if by_name[key].name in RESERVED:
        raise ConfigError("E205", f"--{name} cannot be swept", cure="leave it out")
    return by_name[key]


def option(parameter: Parameter, value: str) -> list[str]:
    """Return the words that give an option a value.

    Raises:
        ConfigError: E202, a yes-or-no option got something else.
    """
    flag = next((flag for flag in parameter.flags if flag.startswith("--")), parameter.flags[0])
    if parameter.kind is not bool:
        # one word, so that a value such as -1 is not taken for an option
        return [f"{flag}={value}"]
    if value.lower() in YES:
        return [flag]
    if value.lower() in NO:
        return list(parameter.off_flags[:1])
    raise ConfigError("E202", f"{flag} is yes or no", received=value, expected="true or false")


def fingerprint(sweep: Sweep, search: str, ranges: Sequence[str]) -> str:
    """Return a short text that is the same for the same call, whatever its seeds and trials."""
    axes = sorted((name, list(values)) for name, values in sweep.axes.items())
    asked = [sweep.words, axes, sweep.fixed, search, sorted(ranges)]
    return hashlib.sha256(json.dumps(asked).encode()).hexdigest()[:8]


def open_folder(sweep: Sweep, search: str, ranges: Sequence[str]) -> None:
    """Make the sweep's folder, or see that it is one of the same training.

    Raises:
        ConfigError: E204, the folder holds something else; E207, a sweep of something else.
    """
    spec = {
        "format": FORMAT,
        "dltool": __version__,
        "words": list(sweep.words),
        "axes": {name: list(values) for name, values in sweep.axes.items()},
        "ranges": list(ranges),
        "fixed": list(sweep.fixed),
        "seeds": list(sweep.seeds),
        "search": search,
        "created": environment.now(),
    }
    path = sweep.folder / SPEC
    if path.exists():
        before = runs.read_json(sweep.folder, SPEC)
        fixed = ("words", "fixed", "search") + (("axes", "ranges") if search != "grid" else ())
        changed = [name for name in fixed if before.get(name) != spec[name]]
        if changed:
            raise ConfigError(
                "E207",
                f"{sweep.folder} is a sweep with other {' and '.join(changed)}",
                received=[spec[name] for name in changed],
                expected=str([before.get(name) for name in changed]),
                cure="choose another folder with --out",
            )
        spec["created"] = before.get("created")
    elif sweep.folder.exists() and any(each.name != runs.LOCK for each in sweep.folder.iterdir()):
        raise ConfigError(
            "E204",
            f"the folder {sweep.folder} exists already and is no sweep",
            cure="choose another folder with --out",
        )
    with files.explained(sweep.folder):
        (sweep.folder / LOGS).mkdir(parents=True, exist_ok=True)
    files.write_json_atomic(path, spec)


def clear(member: Member) -> None:
    """Remove what a run left that never came to a checkpoint, so that it can begin again."""
    if member.folder.exists():
        files.discard(member.folder)


def refuse_too_many(count: int) -> None:
    """Refuse a sweep that nobody can have meant.

    Raises:
        ConfigError: E202.
    """
    if count > MOST_RUNS:
        raise ConfigError(
            "E202", "this sweep is too large", received=f"{count:,} runs", expected=f"{MOST_RUNS:,}"
        )


def failure(code: int, told: str) -> DltoolError:
    """Return the error of a sweep in which no run came to its end."""
    return DltoolError("E100", f"no run of the sweep ended well; the first: {told} (exit {code})")
