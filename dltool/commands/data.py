"""`dltool data`: the named data sets, the cache that holds them, and bundles of both."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dltool import files, options
from dltool.console import Console, table
from dltool.errors import CheckFailed, ConfigError, DataError

if TYPE_CHECKING:
    from dltool.data.cache import Entry

HELP = "The named data sets: list, fetch, verify, prune them, and bundle them for other machines."

NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="A name of dltool data list.")]
OfflineOption = Annotated[
    bool,
    typer.Option(
        "--offline",
        help="Open no connection, as DLTOOL_OFFLINE=1 does; exit 5 when the data is not here.",
    ),
]

app = typer.Typer(help=HELP, no_args_is_help=True, context_settings=options.HELP)


@app.callback()
def root() -> None:
    """The named data sets: list, fetch, verify, prune them, and bundle them for other machines."""


@app.command("list")
def list_data(data_root: options.DataRootOption = None, json: options.JsonOption = False) -> None:
    """List the named data sets, where each is on this machine, and what else the cache holds."""
    console = Console("data list", json=json)
    from dltool.data import cache, named

    rows, listed = [], []
    for name, item in named.NAMED.items():
        place = named.where(name, data_root)
        size = cache.size_of(place) if place else None
        download = sum(source.size or 0 for source in item.files.values())
        shown = cache.size_text(size) if size is not None else f"{cache.size_text(download)} to get"
        rows.append([name, item.summary, shown, str(place) if place else "not here"])
        listed.append(
            {
                "name": name,
                "summary": item.summary,
                "licence": item.licence,
                "path": str(place) if place else None,
                "bytes": size,
                "download_bytes": download,
            }
        )
    others = [entry for entry in cache.entries() if entry.name not in named.NAMED]
    total = cache.size_of(cache.root()) if cache.root().is_dir() else 0
    rows += [[each.name, each.what, cache.size_text(each.bytes), str(each.path)] for each in others]
    place = cache.root()
    result = {
        "data": listed,
        "others": [entry.as_dict() for entry in others],
        "cache": {"path": str(place), "bytes": total},
    }
    text = table(rows, ["name", "what", "size", "where"])
    console.result(result, f"{text}\nthe cache {place} holds {cache.size_text(total)}")


@app.command()
def info(
    name: NameArgument,
    data_root: options.DataRootOption = None,
    json: options.JsonOption = False,
) -> None:
    """Show what a data set is: classes, licence, the files it is made of, and where it lies."""
    console = Console("data info", json=json)
    from dltool.data import cache, named

    item = named.known(name)
    place = named.where(name, data_root)
    sources = [
        {
            "file": file,
            "bytes": source.size,
            "checksum": source.checksum,
            "urls": list(source.urls),
        }
        for file, source in item.files.items()
    ]
    height, width = item.size
    result = {
        "name": name,
        "summary": item.summary,
        "licence": item.licence,
        "classes": list(item.classes),
        "height": height,
        "width": width,
        "channels": item.channels,
        "path": str(place) if place else None,
        "bytes": cache.size_of(place) if place else None,
        "files": sources,
    }
    lines = [
        f"{name}: {item.summary}",
        f"images   {height}x{width}, {'grey' if item.channels == 1 else 'colour'}",
        f"classes  {', '.join(item.classes)}",
        f"licence  {item.licence}",
        f"where    {place or f'not here; dltool data fetch {name}'}",
    ]
    if sources:
        rows = [[each["file"], each["bytes"], str(each["checksum"])] for each in sources]
        lines += ["", table(rows, ["file", "bytes", "checksum"])]
    console.result(result, "\n".join(lines))


@app.command()
def fetch(
    name: NameArgument, offline: OfflineOption = False, json: options.JsonOption = False
) -> None:
    """Download a data set into the cache, checked; one that is there already is left alone."""
    console = Console("data fetch", json=json)
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
    from dltool.data import named

    place = named.where(name, data_root)
    if place is None:
        raise DataError("E501", f"{name} is not on this machine", cure=f"dltool data fetch {name}")
    console.result({"name": name, "path": str(place)}, str(place))


@app.command()
def verify(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="[NAME]...", help="Names [default: all that are here]."),
    ] = None,
    data_root: options.DataRootOption = None,
    json: options.JsonOption = False,
) -> None:
    """Compare every byte of data sets with their checksums; exit 6 when one is damaged."""
    console = Console("data verify", json=json)
    from dltool.data import cache, named

    verdicts = [cache.verify(name, data_root) for name in names or named.NAMED]
    if not names:
        verdicts = [each for each in verdicts if each.state != "absent"]
    bad = [each for each in verdicts if each.state in ("damaged", "absent")]
    if bad:
        first = bad[0].problems[0] if bad[0].problems else f"{bad[0].name} is not here"
        more = sum(max(len(each.problems), 1) for each in bad) - 1
        raise CheckFailed(
            "E601",
            first + (f"; and {more} more" if more else ""),
            cure=f"dltool data prune {bad[0].name}, then dltool data fetch {bad[0].name}",
        )
    for each in verdicts:
        if each.state == "unknown":
            console.warn(
                f"{each.path}: no checksum is known of files in this form; none was compared"
            )
    rows = [[each.name, each.state, each.files, str(each.path)] for each in verdicts]
    console.result(
        {"verdicts": [each.as_dict() for each in verdicts]},
        table(rows, ["name", "state", "files", "where"]),
    )


@app.command()
def prune(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="[NAME]...", help="What to remove [default: leftovers only]."),
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Remove all of the cache.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Remove without asking.")] = False,
    json: options.JsonOption = False,
) -> None:
    """Remove leftovers of broken downloads, or named data sets, from the cache; asks first."""
    console = Console("data prune", json=json)
    from dltool.data import cache

    if names and everything:
        raise ConfigError("E205", "names and --all contradict each other")
    found = cache.entries() if everything else cache.chosen(names) if names else cache.leftovers()
    size = sum(entry.bytes for entry in found)
    for entry in found:
        console.note(f"{entry.path}  {cache.size_text(entry.bytes)}, {entry.what}")
    question = f"remove {len(found)} from the cache ({cache.size_text(size)})?"
    if found and not yes and not _agreed(question, json=json):
        console.result({"removed": [], "bytes": 0}, "nothing was removed")
        return
    for entry in found:
        _discard(entry)
    console.result(
        {"removed": [entry.as_dict() for entry in found], "bytes": size},
        f"removed {len(found)}, {cache.size_text(size)}",
    )


def _discard(entry: Entry) -> None:
    if entry.path.is_dir():
        files.discard(entry.path)
        return
    with files.explained(entry.path):
        entry.path.unlink(missing_ok=True)


def _agreed(question: str, *, json: bool) -> bool:
    if json or not sys.stdin.isatty():
        raise ConfigError("E201", f"{question} Nobody is here to answer", cure="add --yes")
    return bool(typer.confirm(question, err=True))


@app.command()
def bundle(
    out: Annotated[Path, typer.Option(help="The tar file to make.")],
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME]...", help="Named data sets.")
    ] = None,
    weights: Annotated[
        list[Path] | None,
        typer.Option(help="A run, a model folder or a file of weights; may be repeated."),
    ] = None,
    data_root: options.DataRootOption = None,
    offline: OfflineOption = False,
    json: options.JsonOption = False,
) -> None:
    """Pack data sets and weights into one file, for a machine that is never online."""
    console = Console("data bundle", json=json)
    from dltool.data import bundles, cache

    if offline:
        os.environ["DLTOOL_OFFLINE"] = "1"
    index = bundles.make(names or [], weights or [], out, data_root=data_root, console=console)
    members = [
        {
            "kind": member["kind"],
            "name": member["name"],
            "files": len(member["files"]),
            "bytes": sum(entry["bytes"] for entry in member["files"].values()),
        }
        for member in index["members"]
    ]
    size = out.stat().st_size
    result = {"bundle": str(out), "bytes": size, "members": members}
    console.result(result, f"{_members(members)}\n{out}  {cache.size_text(size)}")
    console.hint(f"dltool data unbundle {out}     (on the other machine)")


@app.command()
def unbundle(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="What dltool data bundle made.")],
    out: Annotated[Path, typer.Option(help="Folder that the weights go to.")] = Path("weights"),
    json: options.JsonOption = False,
) -> None:
    """Unpack a bundle: data sets into the cache, weights into a folder; every byte is compared."""
    console = Console("data unbundle", json=json)
    from dltool.data import bundles

    members = bundles.unpack(file, out, console)
    console.result({"bundle": str(file), "members": members}, _members(members))


def _members(members: list[dict[str, Any]]) -> str:
    from dltool.data.cache import size_text

    last = "path" if "path" in members[0] else "files"
    rows = [[each["kind"], each["name"], size_text(each["bytes"]), each[last]] for each in members]
    return table(rows, ["kind", "name", "size", last])
