"""`dltool config`: what a training would be told and by whom, and files that tell it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from dltool import files, options, surroundings
from dltool.console import Console, table
from dltool.errors import ConfigError, DltoolError

HELP = "Settings of trainings: show them with their origins, check and write files of them."
PASS_ON = {"allow_extra_args": True, "ignore_unknown_options": True}

TopicArgument = Annotated[str, typer.Argument(metavar="TOPIC", help="A topic that trains.")]
VerbOption = Annotated[str, typer.Option(help="The topic's training command.")]

app = typer.Typer(help=HELP, no_args_is_help=True, context_settings=options.HELP)


@app.callback()
def root() -> None:
    """Settings of trainings: show them with their origins, check and write files of them."""


@app.command(context_settings=PASS_ON)
def show(
    ctx: typer.Context,
    topic: TopicArgument,
    verb: VerbOption = "train",
    origin: Annotated[
        bool, typer.Option("--origin", help="Name the file, variable or flag of each value.")
    ] = False,
    json: options.JsonOption = False,
) -> None:
    """Show the settings that a training would have; further options are the training's own.

    dltool config show cnn --origin --data mnist --lr 0.02
    """
    console = Console("config show", json=json)
    from dltool import asking, configs

    found = _training(topic, verb)
    settings, origins = asking.look(found, verb, ctx.args)
    around = surroundings.around(found.callback.config_class, topic, verb)
    for warning in around.warnings:
        console.warn(warning)
    values = {key: getattr(settings, key) for key in configs.field_names(type(settings))}
    rows = [
        [key, _shown(value), origins[key] if origin else origins[key].split()[0]]
        for key, value in values.items()
    ]
    result = {
        "topic": topic,
        "verb": verb,
        "settings": {
            key: {
                "value": value,
                "origin": origins[key],
                "variable": surroundings.variable(key, topic, verb),
            }
            for key, value in values.items()
        },
    }
    console.result(result, table(rows, ["setting", "value", "origin"]))


def _shown(value: Any) -> str:
    return "-" if value in ("", None) else str(value)


def _training(topic: str, verb: str) -> Any:
    """Return a training command.

    Raises:
        ConfigError: E206, the topic has no such command, or the command trains nothing.
    """
    from dltool import tree

    found = tree.command(topic, verb)
    if not hasattr(found.callback, "config_class"):
        raise ConfigError(
            "E206",
            f"dltool {topic} {verb} takes no settings from files",
            expected="a command that trains",
            cure="dltool topics",
        )
    return found


@app.command()
def check(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="dltool.toml, pyproject.toml or a --config file.")
    ],
    topic: Annotated[
        str | None, typer.Option(help="The topic of a file that has no sections.")
    ] = None,
    verb: VerbOption = "train",
    json: options.JsonOption = False,
) -> None:
    """Check a file of settings: its form, every key, type and range; exit 2 when one is wrong."""
    console = Console("config check", json=json)
    from dltool import configs

    sections = configs.read_toml(file, surroundings.PYPROJECT_BYTES)
    if file.name == surroundings.PYPROJECT:
        sections = sections.get("tool", {}).get("dltool", {})
    if topic is None:
        surroundings.refuse_loose(file, sections)
        checked = _check_sections(file, sections, console)
    else:
        config_class = _training(topic, verb).callback.config_class
        values = configs.read_config_file(file, config_class, topic)
        configs.settle(config_class, flags={}, file=values, file_name=str(file))
        checked = [{"section": topic, "settings": sorted(values)}]
    count = sum(len(each["settings"]) for each in checked)
    text = f"{file}: {count} settings in {len(checked)} sections are in order"
    console.result({"file": str(file), "sections": checked}, text)


def _check_sections(file: Path, sections: dict[str, Any], console: Console) -> list[dict[str, Any]]:
    """Check each section against the topic that it names.

    Raises:
        ConfigError: E203 or E202, naming what is wrong.
    """
    from dltool import configs
    from dltool.plugins import discover
    from dltool.training_config import TrainingConfig

    topics = [plugin.name for plugin in discover()]
    checked = []
    for section, values in sections.items():
        if section == surroundings.SHARED:
            given = configs.checked(file, values, TrainingConfig, f"[{section}]")
            configs.settle(TrainingConfig, flags={}, file=given, file_name=f"{file} [{section}]")
            checked.append({"section": section, "settings": sorted(given)})
            continue
        if section not in topics:
            near = configs.nearest(section, topics)
            hint = f"; did you mean [{near}]?" if near else ""
            console.warn(f"{file} has a section [{section}], which no installed topic reads{hint}")
            continue
        verbs = [key for key, value in values.items() if isinstance(value, dict)]
        for verb in (surroundings.SHARED, *verbs):
            config_class = _training(section, verb).callback.config_class
            only = {section: values if verb == surroundings.SHARED else {verb: values[verb]}}
            found = surroundings.of_sections(file, only, config_class, section, verb)
            for name, given in found.items():
                configs.settle(config_class, flags={}, file=given, file_name=f"{file} [{name}]")
                checked += [{"section": name, "settings": sorted(given)}] if given else []
    return checked


@app.command()
def init(
    topic: TopicArgument,
    verb: VerbOption = "train",
    out: Annotated[
        Path | None,
        typer.Option(help="Write it here, not to stdout; a file that exists is left alone."),
    ] = None,
    json: options.JsonOption = False,
) -> None:
    """Write a TOML file with every setting of a topic, its meaning and default, all commented out.

    It serves as dltool.toml in a project, and with --config.
    """
    console = Console("config init", json=json)
    from dltool import settings_file

    text = settings_file.commented(topic, verb, _training(topic, verb))
    if out is not None:
        if out.exists():
            raise DltoolError("E101", f"{out} exists already", cure="name a new file with --out")
        files.write_bytes_atomic(out, text.encode())
        console.hint(f"dltool config check {out}")
    result = {"topic": topic, "verb": verb, "file": str(out) if out else None, "toml": text}
    console.result(result, str(out) if out else text.rstrip())
