"""`dltool topics`: what every installed topic can do, from manifests alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import typer

from dltool import options, plugins
from dltool.console import Console, table
from dltool.plugins import Plugin

# the verbs that mean the same everywhere come first, in this order
COMMON = ("train", "evaluate", "predict", "info", "export", "demo")

app = typer.Typer(help="What each topic can do: verbs and formats.", context_settings=options.HELP)


@app.command()
def topics(json: options.JsonOption = False) -> None:
    """Show topics, their verbs, and what each verb reads and writes; no topic is imported."""
    console = Console("topics", json=json)
    found = [plugin for plugin in plugins.examined(plugins.discover()) if not plugin.is_disabled]
    listed = [_described(plugin) for plugin in found]
    others = sorted({verb for plugin in found for verb in plugin.verbs}.difference(COMMON))
    result = {"topics": listed, "verbs": [*COMMON, *others]}
    console.result(result, _text(found))


def _described(plugin: Plugin) -> dict[str, Any]:
    reads, writes = dict(plugin.reads), dict(plugin.writes)
    return {
        "name": plugin.name,
        "summary": plugin.summary,
        "distribution": plugin.distribution,
        "version": plugin.version,
        "state": plugin.state,
        "problem": plugin.problem or None,
        "extras": list(plugin.extras),
        "verbs": {
            verb: {"reads": list(reads.get(verb, ())), "writes": list(writes.get(verb, ()))}
            for verb in plugin.verbs
        },
    }


def _text(found: Sequence[Plugin]) -> str:
    rows = []
    for plugin in found:
        marks = ["x" if verb in plugin.verbs else "-" for verb in COMMON]
        further = [verb for verb in plugin.verbs if verb not in COMMON]
        rows.append([plugin.name, *marks, " ".join(further) or "-"])
    lines = [table(rows, ["topic", *COMMON, "further verbs"])]
    formats = [
        [plugin.name, verb, ", ".join(reads) or "-", ", ".join(writes) or "-"]
        for plugin in found
        for verb, reads, writes in _by_verb(plugin)
    ]
    if formats:
        lines += ["", table(formats, ["topic", "verb", "reads", "writes"])]
    broken = [f"{plugin.name}: [broken] {plugin.problem}" for plugin in found if plugin.problem]
    return "\n".join([*lines, *broken])


def _by_verb(plugin: Plugin) -> list[tuple[str, Sequence[str], Sequence[str]]]:
    reads, writes = dict(plugin.reads), dict(plugin.writes)
    verbs = [verb for verb in plugin.verbs if verb in reads or verb in writes]
    return [(verb, reads.get(verb, ()), writes.get(verb, ())) for verb in verbs]
