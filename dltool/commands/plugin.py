"""`dltool plugin`: the topics that are installed, without importing any of them."""

from __future__ import annotations

from dataclasses import asdict

import typer

from dltool import API_LEVEL, options, plugins
from dltool.console import Console, table

app = typer.Typer(
    help="List the topics that are installed.", no_args_is_help=True, context_settings=options.HELP
)


@app.callback()
def root() -> None:
    """Look after the topics that are installed."""


@app.command("list")
def list_plugins(json: options.JsonOption = False) -> None:
    """List every installed topic, where it comes from and whether it can be used."""
    console = Console("plugin list", json=json)
    found = plugins.discover()
    rows = [
        [
            plugin.name,
            f"{plugin.distribution} {plugin.version}",
            "broken" if plugin.problem else "ok",
            plugin.problem or plugin.summary,
        ]
        for plugin in found
    ]
    data = {"api_level": API_LEVEL, "plugins": [asdict(plugin) for plugin in found]}
    text = table(rows, ["name", "from", "state", "summary"]) if rows else "no topic is installed"
    console.result(data, text)
