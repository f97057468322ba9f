"""`dltool plugin`: look after topics. Only `check`, `doctor` and `list --check` import any."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from dltool import API_LEVEL, options, plugins
from dltool.commands import plugin_packages as packages
from dltool.commands.plugin_packages import NameArgument, NamesArgument
from dltool.console import Console, table
from dltool.errors import ConfigError

app = typer.Typer(
    help="Look after topics: list, check, install, write new ones.",
    no_args_is_help=True,
    add_completion=False,
    context_settings=options.HELP,
    epilog="A plugin is a program that runs with your rights: install only what you trust.",
)


TimeoutOption = Annotated[
    float, typer.Option("--timeout", min=0.1, help="Seconds that each import may take.")
]


@app.callback()
def root() -> None:
    """Look after topics: list, check, install, write new ones."""


def described(plugin: plugins.Plugin) -> dict[str, Any]:
    """Return what is known of a plugin for `--json`."""
    return {**asdict(plugin), "state": plugin.state, "qualified": plugin.qualified}


@app.command("list")
def list_plugins(
    check: Annotated[
        bool, typer.Option("--check", help="Import each in a process of its own.")
    ] = False,
    timeout: TimeoutOption = 20.0,
    json: options.JsonOption = False,
) -> None:
    """List every installed topic, where it comes from and whether it can be used."""
    from dataclasses import replace

    console = Console("plugin list", json=json)
    found = plugins.examined(plugins.discover())
    if check:
        from dltool.plugins import checks

        results = checks.check([item for item in found if not item.is_disabled], timeout)
        problems = {result.plugin.qualified: result.problem for result in results}
        found = [replace(item, problem=problems.get(item.qualified, "")) for item in found]
    rows = [
        [item.name, f"{item.distribution} {item.version}".strip(), item.state, _remark(item)]
        for item in found
    ]
    data = {"api_level": API_LEVEL, "plugins": [described(item) for item in found]}
    text = table(rows, ["name", "from", "state", "summary"]) if rows else "no topic is installed"
    console.result(data, text)


def _remark(plugin: plugins.Plugin) -> str:
    said = plugin.problem or plugin.summary or "(no summary)"
    return f"{said} [{plugin.why}]" if plugin.why else said


@app.command("info")
def info(name: NameArgument, json: options.JsonOption = False) -> None:
    """Show what a topic's package declares; nothing is imported."""
    console = Console("plugin info", json=json)
    (plugin,) = plugins.examined([plugins.find(name)])
    facts = [
        ("name", plugin.name),
        ("summary", plugin.summary or "(none: it has no manifest)"),
        ("from", f"{plugin.distribution} {plugin.version}"),
        ("app", plugin.reference),
        ("API", f"{plugin.api or 'not stated'}; this dltool has level {API_LEVEL}"),
        ("verbs", ", ".join(plugin.verbs) or "not stated"),
        ("extras", ", ".join(plugin.extras) or "none"),
        ("state", plugin.state + (f": {plugin.problem}" if plugin.problem else "")),
        *[("rival", rival) for rival in plugin.rivals],
        *[("why", plugin.why)][: bool(plugin.why)],
        *[("note", note) for note in plugin.notes],
    ]
    console.result(described(plugin), "\n".join(f"{key:8} {value}" for key, value in facts))


@app.command("check")
def check(
    names: NamesArgument = None,
    timeout: TimeoutOption = 20.0,
    json: options.JsonOption = False,
) -> None:
    """Import topics in processes of their own and judge them; exit with 6 if one is not sound.

    Found are: whatever the import raises, an exit, a crash, a hang, a wrong API level, an app that
    is none, and imports of torch, numpy, matplotlib or gensim before a command runs.
    """
    from dltool.commands import doctor
    from dltool.plugins import checks

    console = Console("plugin check", json=json)
    chosen = [plugins.find(name) for name in names] if names else plugins.discover()
    results = checks.check(chosen, timeout)
    bad = [result.plugin.name for result in results if not result.is_sound]
    data = {"ok": not bad, "plugins": [result.as_dict() for result in results]}
    console.result(data, doctor.report(checks.finding(result) for result in results))
    if bad:
        raise typer.Exit(6)


@app.command("doctor")
def doctor_command(
    names: NamesArgument = None,
    timeout: TimeoutOption = 20.0,
    json: options.JsonOption = False,
) -> None:
    """Check topics, their names, their requirements and your choices; exit with 6 if one fails."""
    from dltool.commands import doctor
    from dltool.machine import Finding
    from dltool.plugins import checks, owner

    console = Console("plugin doctor", json=json)
    found = [plugins.find(name) for name in names] if names else plugins.discover()
    findings = checks.examine(found, timeout)
    belongs = owner.detect()
    fact = f"{belongs.name} installs packages into {belongs.prefix}"
    findings.append(Finding("owner", "ok", "environment", fact))
    counts = Counter(item.severity for item in findings)
    data = {
        "healthy": not counts["fail"],
        "counts": {name: counts[name] for name in ("ok", "warn", "fail")},
        "findings": [asdict(item) for item in findings],
    }
    console.result(data, doctor.report(findings))
    if counts["fail"]:
        raise typer.Exit(6)


# The user's choices


@app.command("disable")
def disable(name: NameArgument, json: options.JsonOption = False) -> None:
    """Leave a topic out until you enable it again; nothing is removed."""
    from dltool.plugins import settings

    plugin = plugins.find(name)
    path = settings.change_choices(disable=plugin.qualified)
    data = {"disabled": plugin.qualified, "settings": str(path)}
    Console("plugin disable", json=json).result(data, f"{plugin.qualified} is disabled in {path}")


@app.command("enable")
def enable(name: NameArgument, json: options.JsonOption = False) -> None:
    """Use a topic again that was disabled."""
    from dltool.plugins import settings

    disabled = settings.read_choices().disabled
    matching = [item for item in disabled if name in (item, item.rpartition(":")[2])]
    chosen = matching[0] if len(matching) == 1 else plugins.find(name).qualified
    path = settings.change_choices(enable=chosen)
    data = {"enabled": chosen, "settings": str(path)}
    Console("plugin enable", json=json).result(data, f"{chosen} is enabled in {path}")


@app.command("prefer")
def prefer(
    name: Annotated[
        str,
        typer.Argument(metavar="DISTRIBUTION:TOPIC", help="Who gets the plain name."),
    ],
    forget: Annotated[
        bool, typer.Option("--forget", help="Forget the choice for this topic.")
    ] = False,
    json: options.JsonOption = False,
) -> None:
    """Choose which of several topics of one name has the plain name."""
    from dltool.plugins import settings

    console = Console("plugin prefer", json=json)
    distribution, _, topic = name.rpartition(":")
    if forget:
        path = settings.change_choices(forget=topic)
        console.result({"forgotten": topic, "settings": str(path)}, f"no choice for {topic}")
        return
    plugin = plugins.find(name)
    if not distribution or not plugin.rivals:
        expected = f"one of {', '.join((plugin.qualified, *plugin.rivals))}"
        message = f"{name!r} does not say which of several is meant"
        if not plugin.rivals:
            message, expected = f"no other plugin asks for the name {plugin.entry!r}", ""
        raise ConfigError("E206", message, expected=expected, cure="see dltool plugin list")
    path = settings.change_choices(prefer=(plugin.entry, plugin.distribution))
    data = {"preferred": plugin.qualified, "name": plugin.entry, "settings": str(path)}
    console.result(data, f"{plugin.entry} is now {plugin.qualified}, by {path}")


# Writing a new one


@app.command("new")
def new(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The topic's name, as my-topic.")],
    out: Annotated[
        Path | None,
        typer.Option("--out", help="Folder to create [default: dltool-NAME].", show_default=False),
    ] = None,
    json: options.JsonOption = False,
) -> None:
    """Write a complete package for a topic of your own: it installs, trains and passes its tests.

    The topic sorts rows of numbers into classes; replace its data and its model by yours.
    """
    from dltool.plugins import template

    console = Console("plugin new", json=json)
    folder = out or Path(f"dltool-{name}")
    written = template.write(name, folder)
    data = {"folder": str(folder), "topic": name, "files": [str(path) for path in written]}
    console.result(data, f"{folder}: {len(written)} files")
    place = folder if folder.is_absolute() else f"./{folder}"
    console.hint(f"dltool plugin install --editable {place}")


app.command("install")(packages.install)
app.command("uninstall")(packages.uninstall)
app.command("freeze")(packages.freeze)
app.command("sync", context_settings=packages.PASS_ON)(packages.sync)
