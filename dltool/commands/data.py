"""`dltool data`: the named data sets, where they are, and how to get them."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from dltool import options
from dltool.console import Console, table

NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="A name of dltool data list.")]

app = typer.Typer(
    help="List, fetch and locate the named data sets.",
    no_args_is_help=True,
    context_settings=options.HELP,
)


@app.callback()
def root() -> None:
    """List, fetch and locate the named data sets."""


@app.command("list")
def list_data(data_root: options.DataRootOption = None, json: options.JsonOption = False) -> None:
    """List the named data sets and where each is on this machine."""
    console = Console("data list", json=json)
    console.loading()
    from dltool.data import named

    rows, listed = [], []
    for name, item in named.NAMED.items():
        place = named.where(name, data_root)
        rows.append([name, item.summary, str(place) if place else "not here; dltool data fetch"])
        listed.append(
            {
                "name": name,
                "summary": item.summary,
                "licence": item.licence,
                "path": str(place) if place else None,
            }
        )
    console.result({"data": listed}, table(rows, ["name", "what", "where"]))


@app.command()
def fetch(
    name: NameArgument,
    offline: Annotated[
        bool,
        typer.Option(
            "--offline",
            help="Open no connection, as DLTOOL_OFFLINE=1 does; exit 5 when the data is not here.",
        ),
    ] = False,
    json: options.JsonOption = False,
) -> None:
    """Download a data set into the cache, checked; one that is there already is left alone."""
    console = Console("data fetch", json=json)
    console.loading()
    from dltool.data import named

    if offline:
        os.environ["DLTOOL_OFFLINE"] = "1"
    path = named.fetch_named(name, console)
    console.result({"name": name, "path": str(path)}, str(path))


@app.command()
def path(
    name: NameArgument,
    data_root: options.DataRootOption = None,
    json: options.JsonOption = False,
) -> None:
    """Print where a data set is; exit 5 when it is not on this machine."""
    console = Console("data path", json=json)
    console.loading()
    from dltool.data import named
    from dltool.errors import DataError

    place = named.where(name, data_root)
    if place is None:
        raise DataError("E501", f"{name} is not on this machine", cure=f"dltool data fetch {name}")
    console.result({"name": name, "path": str(place)}, str(place))
