"""`dltool schema`: JSON Schema of what commands are told and what they print."""

from __future__ import annotations

import json as jsonlib
from typing import Annotated

import typer

from dltool import options
from dltool.console import Console
from dltool.errors import ConfigError

HELP = "JSON Schema of a command's settings, of its --json, or of a whole dltool.toml."

app = typer.Typer(help=HELP, context_settings=options.HELP)


@app.command()
def schema(
    topic: Annotated[
        str | None,
        typer.Argument(metavar="[TOPIC]", help="A topic or a core command; none: dltool.toml."),
    ] = None,
    verb: Annotated[
        list[str] | None, typer.Argument(metavar="[VERB]...", help="Its command, as train.")
    ] = None,
    output: Annotated[
        bool, typer.Option("--output", help="Of what the command prints with --json.")
    ] = False,
    json: options.JsonOption = False,
) -> None:
    """Print the schema of a command's input, for editors, or of its output, for programs.

    For a training that is the schema of its settings, as they stand in a --config file.
    """
    console = Console("schema", json=json)
    from dltool import schemas

    words = " ".join(verb or [])
    if topic is None:
        if output:
            raise ConfigError("E205", "--output needs a command", cure="dltool schema cnn --output")
        found = schemas.project()
    else:
        found = schemas.output(topic, words) if output else schemas.inputs(topic, words)
    console.result({"schema": found}, jsonlib.dumps(found, indent=2, ensure_ascii=False))
