"""Training commands: the options that all of them have, and the settings that come of them.

@app.command()
@asking.trains(TrainConfig, TOPIC)
def train(asked: asking.Asked[TrainConfig], width: WidthOption = TrainConfig.width) -> None:
    folder, config, origins = asked.settled(recipe(asked.chosen))
    from dltool_mine.train import train as run_training

    run_training(config, origins, console=asked.console, out=asked.out, resume=folder)
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import sys
import tempfile
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import typer

from dltool import configs, options, ranks, resuming, runs, surroundings, tracking
from dltool.console import Console
from dltool.errors import ConfigError, Relayed
from dltool.surroundings import Around

Config = TypeVar("Config")

# a training command has each of these whose field its config has, unless it declares it itself
BY_FIELD: dict[str, Any] = {
    "epochs": options.EpochsOption,
    "batch_size": options.BatchSizeOption,
    "learning_rate": options.LrOption,
    "weight_decay": options.WeightDecayOption,
    "accumulate": options.AccumulateOption,
    "clip": options.ClipOption,
    "ema": options.EmaOption,
    "patience": options.PatienceOption,
    "device": options.DeviceOption,
    "precision": options.PrecisionOption,
    "seed": options.SeedOption,
    "deterministic": options.DeterministicOption,
    "threads": options.ThreadsOption,
    "save_every": options.SaveEveryOption,
    "keep": options.KeepOption,
    "max_time": options.MaxTimeOption,
    "on_nan": options.OnNanOption,
    "nproc": options.NprocOption,
    "track": options.TrackOption,
    "guards": options.GuardsOption,
    "without": options.WithoutOption,
}
# and all of these, which say where and how to run and are no settings
ALWAYS: dict[str, tuple[Any, object]] = {
    "out": (options.OutOption, None),
    "resume": (options.ResumeOption, None),
    "allow_changed": (options.AllowChangedOption, False),
    "config": (options.ConfigOption, None),
    "dry_run": (options.DryRunOption, False),
    "json": (options.JsonOption, False),
    "events": (options.EventsOption, False),
}


@dataclass(frozen=True)
class Asked(Generic[Config]):
    """What a user asked a training command for.

    Attributes:
        flags: the settings given on the command line.
        file: the settings of the `--config` file, which is called `file_name`.
        around: what environment, project and user say.
        out: folder to create; none: one with a name of its own.
        resume: the run to go on with, as the user named it.
    """

    topic: str
    config_class: type[Config]
    console: Console
    flags: Mapping[str, Any]
    file: Mapping[str, Any]
    file_name: str
    around: Around
    out: Path | None
    resume: str | None
    allow_changed: bool
    only_look: bool = False
    verb: str = "train"

    @property
    def chosen(self) -> dict[str, Any]:
        """The settings given by surroundings, file or flag: what a recipe may depend on."""
        return {**self.around.values, **self.file, **self.flags}

    def settled(
        self, recipe: Mapping[str, Any] | None = None
    ) -> tuple[Path | None, Config, dict[str, str]]:
        """Return the run to go on with or None, the config, and where each value came from.

        Args:
            recipe: settings that suit what was chosen; a file and flags come before it.

        Raises:
            ConfigError: a value, or what was given beside `--resume`, is refused.
            CheckpointError: there is no such run.
            MissingExtra: the board of `--track` is not installed.
            Relayed: `--nproc` ranks have trained, in processes of their own.
        """
        folder = None
        if self.resume is not None:
            folder, config, origins = resuming.resumed(
                self.resume,
                self.topic,
                self.config_class,
                self.flags,
                allow_changed=self.allow_changed,
                verb=self.verb,
            )
        else:
            config, origins = configs.settle(
                self.config_class,
                flags=self.flags,
                file=self.file,
                file_name=self.file_name,
                around=self.around,
                recipe=recipe,
            )
            if self.only_look:
                raise Looked(config, origins)
        tracking.require(getattr(config, "track", ""))
        self._spread(getattr(config, "nproc", 1))
        if folder is None:
            for warning in self.around.warnings:
                self.console.warn(warning)
        return folder, config, origins

    def _spread(self, count: int) -> None:
        """Do the command's work in several ranks, unless this process is one of them.

        Raises:
            Relayed: the ranks have done it.
        """
        if count == 1 or ranks.is_rank():
            return
        from dltool import launching

        console = self.console
        raise Relayed(
            launching.launch(count, sys.argv[1:], command=console.command, as_json=console.json)
        )


class Looked(Exception):
    """Ends a training command that was only asked what it would do; see `look`."""

    def __init__(self, config: Any, origins: dict[str, str]) -> None:
        super().__init__("looked")
        self.config, self.origins = config, origins


def look(command: Any, name: str, arguments: Sequence[str]) -> tuple[Any, dict[str, str]]:
    """Return the config and the origins that a training command would have; nothing is trained.

    Args:
        command: a command made with `trains`, as Typer built it.

    Raises:
        ConfigError: what the command itself would refuse.
    """
    context = command.make_context(name, list(arguments), obj=Looked)
    try:
        with context:
            command.invoke(context)
    except Looked as looked:
        return looked.config, looked.origins
    raise ConfigError("E205", f"{name} settled nothing", cure="leave --resume out")


def trains(
    config_class: type[Any], topic: str, *, leave_out: tuple[str, ...] = ()
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a training command the options that all have, and hand it an `Asked` first.

    The command declares its own options only; one that it declares under a shared name, with help
    or a type of its own, takes the shared one's place.

    Args:
        config_class: dataclass with a field for every setting, which also holds the defaults.
        leave_out: shared options that would do nothing here.
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        hints = typing.get_type_hints(command, include_extras=True)
        _, *own = inspect.signature(command).parameters.values()
        parameters = [
            inspect.Parameter("ctx", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context),
            *(_keyword(each.name, hints[each.name], each.default) for each in own),
        ]
        taken = {each.name for each in own}.union(leave_out)
        fields = {field.name: field.default for field in dataclasses.fields(config_class)}
        shared = {
            name: (option, fields[name]) for name, option in BY_FIELD.items() if name in fields
        }
        for name, (option, default) in {**shared, **ALWAYS}.items():
            if name not in taken:
                parameters.append(_keyword(name, option, default))
        names = tuple(each.name for each in own)

        @functools.wraps(command)
        def asking(**values: Any) -> None:
            asked = _asked(config_class, topic, command.__name__, values)
            own_values = {name: values[name] for name in names}
            if not asked.console.dry_run or asked.only_look:
                command(asked, **own_values)
                return
            with rehearsal_folder(topic, asked.out) as folder:
                command(dataclasses.replace(asked, out=folder), **own_values)

        del asking.__wrapped__  # its signature is not this one
        typing.cast(Any, asking).__signature__ = inspect.Signature(parameters)
        asking.__annotations__ = {each.name: each.annotation for each in parameters}
        typing.cast(Any, asking).config_class = config_class
        return asking

    return decorate


def _keyword(name: str, annotation: Any, default: object) -> inspect.Parameter:
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation
    )


def _asked(config_class: type[Any], topic: str, verb: str, values: Mapping[str, Any]) -> Asked[Any]:
    """Gather what the user gave."""
    file_path: Path | None = values["config"]
    target = ""
    if values["dry_run"]:
        target = str(values["out"] or runs.ROOT / topic)
    if values["resume"] is not None:
        dry_run = values["dry_run"] or None
        options.refuse_beside_resume(out=values["out"], config=file_path, dry_run=dry_run)
    console = Console(
        f"{topic} {verb}", json=values["json"], events=values["events"], dry_run=target
    )
    return Asked(
        topic=topic,
        config_class=config_class,
        console=console,
        flags=options.given(values["ctx"], config_class),
        file=configs.read_config_file(file_path, config_class, topic) if file_path else {},
        file_name=str(file_path or ""),
        around=_around(config_class, topic, verb, values["resume"]),
        out=values["out"],
        resume=values["resume"],
        allow_changed=values["allow_changed"],
        only_look=values["ctx"].obj is Looked,
        verb=verb,
    )


@contextmanager
def rehearsal_folder(topic: str, out: Path | None) -> Iterator[Path]:
    """Yield the run folder of a dry run, which is gone in the end.

    Raises:
        ConfigError: E204, `out` is taken, so that the run itself would be refused.
    """
    if out is not None:
        runs.refuse_taken(out, topic)
    with tempfile.TemporaryDirectory(prefix="dltool-dry-run-") as place:
        yield Path(place, "run")


def _around(config_class: type[Any], topic: str, verb: str, resume: str | None) -> Around:
    # a resumed run keeps its own settings, whatever stands around it now
    return Around() if resume is not None else surroundings.around(config_class, topic, verb)
