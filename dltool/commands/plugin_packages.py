"""`dltool plugin install`, `uninstall`, `freeze` and `sync`: packages, by who owns them."""

from __future__ import annotations

import importlib
import re
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from dltool import files, options, plugins
from dltool.console import Console
from dltool.errors import ConfigError, DataError, PluginError
from dltool.plugins import checks, lock, owner

YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
DryRunOption = Annotated[
    bool, typer.Option("--dry-run", help="Show the command and leave it at that.")
]
PASS_ON = {"allow_extra_args": True}  # what follows -- is the installer's
CURE_INSTALLER = "see its words above; options for it go behind --"


def _complete(incomplete: str) -> list[str]:
    return [item.name for item in plugins.discover() if item.name.startswith(incomplete)]


NameArgument = Annotated[
    str,
    typer.Argument(
        metavar="NAME", help="A topic, or DISTRIBUTION:TOPIC.", autocompletion=_complete
    ),
]
NamesArgument = Annotated[
    list[str] | None,
    typer.Argument(metavar="[NAME]...", help="Topics; without any: all.", autocompletion=_complete),
]


def install(
    packages: Annotated[
        list[str],
        typer.Argument(
            metavar="PACKAGE",
            help="Names, as pip takes them, or folders and wheels. What follows -- goes to the "
            "installer as it is.",
        ),
    ],
    editable: Annotated[
        bool, typer.Option("--editable", "-e", help="Link to source folders, for development.")
    ] = False,
    upgrade: Annotated[
        bool, typer.Option("--upgrade", "-U", help="Replace what is installed by the newest.")
    ] = False,
    yes: YesOption = False,
    dry_run: DryRunOption = False,
    json: options.JsonOption = False,
) -> None:
    """Install topics with the program that owns this environment, and check what came.

    pip, uv pip, pipx inject or uv tool install --with; the command is shown before it runs.
    """
    console = Console("plugin install", json=json)
    wanted, extra = _split(packages)
    targets = [_target(item) for item in wanted]
    command = owner.install_command(owner.detect(), targets, upgrade=upgrade, editable=editable)
    command += extra
    before = {item.qualified for item in plugins.discover()}
    console.note("a plugin is a program that runs with your rights: install only what you trust")
    if not _agreed(command, console, yes=yes, dry_run=dry_run):
        console.result({"command": command, "ran": False})
        return
    _run(command)
    found = _fresh()
    named = {_name_of(item) for item in wanted}
    fresh = [
        item
        for item in found
        if not item.is_own and (item.qualified not in before or item.distribution in named)
    ]
    results = checks.check([item for item in fresh if not item.is_disabled])
    _tell(console, command, results)


def _tell(console: Console, command: Sequence[str], results: Sequence[checks.Checked]) -> None:
    lines = []
    for result in results:
        state = f"broken: {result.problem}" if result.problem else "ready"
        lines.append(f"{result.plugin.name}: {state}")
    if not results:
        console.warn("the installed packages bring no new topic")
    data = {
        "command": list(command),
        "ran": True,
        "plugins": [result.as_dict() for result in results],
    }
    console.result(data, "\n".join(lines))
    usable = [result.plugin.name for result in results if not result.problem]
    if usable:
        console.hint(f"dltool {usable[0]} --help")


def uninstall(
    name: NameArgument,
    yes: YesOption = False,
    dry_run: DryRunOption = False,
    json: options.JsonOption = False,
) -> None:
    """Remove the package that brings a topic; NAME is the topic or its distribution."""
    console = Console("plugin uninstall", json=json)
    found = plugins.discover()
    distribution = _distribution(name, found)
    lost = [item.name for item in found if item.distribution == distribution]
    command = owner.uninstall_command(owner.detect(), distribution)
    if not _agreed(command, console, yes=yes, dry_run=dry_run):
        console.result({"command": command, "ran": False})
        return
    _run(command)
    left = [item.name for item in _fresh() if item.distribution == distribution]
    if left:
        raise PluginError("E405", f"{distribution} is still there", cure=shlex.join(command))
    data = {"command": command, "ran": True, "removed": lost}
    console.result(data, f"removed {distribution} with {', '.join(lost)}")


def _distribution(name: str, found: Sequence[plugins.Plugin]) -> str:
    distributions = {item.distribution for item in found}
    chosen = name if name in distributions else plugins.find(name).distribution
    if any(item.is_own and item.distribution == chosen for item in found):
        raise PluginError(
            "E406",
            f"{name!r} is a part of dltool itself",
            cure=f"dltool plugin disable {name}" if name != chosen else "dltool plugin disable",
        )
    return chosen


def freeze(
    out: Annotated[
        Path | None, typer.Option("--out", help="File to write [default: stdout].")
    ] = None,
    json: options.JsonOption = False,
) -> None:
    """Print the installed set of plugins with versions and sources, for `sync`."""
    console = Console("plugin freeze", json=json)
    pins = lock.freeze(plugins.discover())
    data: dict[str, Any] = {"packages": [pin.line() for pin in pins]}
    if out is not None:
        files.write_bytes_atomic(out, lock.text(pins).encode())
        data["file"] = str(out)
        console.result(data, f"{out}: {len(pins)} packages")
        console.hint(f"dltool plugin sync {out}")
        return
    console.result(data, lock.text(pins).rstrip("\n"))


def sync(
    ctx: typer.Context,
    file: Annotated[str, typer.Argument(metavar="FILE|-", help="What freeze wrote.")],
    prune: Annotated[
        bool, typer.Option("--prune", help="Remove plugins that FILE does not name.")
    ] = False,
    yes: YesOption = False,
    dry_run: DryRunOption = False,
    json: options.JsonOption = False,
) -> None:
    """Bring back the set of plugins that a file names, as after an upgrade of dltool.

    What follows -- goes to the installer as it is.
    """
    console = Console("plugin sync", json=json)
    wanted = lock.parse(_content(file), file)
    absent, extra = lock.compare(wanted, lock.freeze(plugins.discover()))
    commands = _sync_commands(absent, extra if prune else [], ctx.args)
    data: dict[str, Any] = {
        "missing": [pin.line() for pin in absent],
        "not_named": [pin.line() for pin in extra],
        "commands": commands,
        "ran": False,
    }
    if not commands:
        console.result(data, f"nothing to do: {len(wanted)} packages are as {file} says")
        return
    for command in commands:
        if not _agreed(command, console, yes=yes, dry_run=dry_run):
            console.result(data)
            return
        _run(command)
    still, _ = lock.compare(wanted, lock.freeze(_fresh()))
    if still:
        names = ", ".join(pin.line() for pin in still)
        raise PluginError("E405", f"not brought back: {names}", cure="see the installer's words")
    console.result({**data, "ran": True}, f"{len(wanted)} packages are as {file} says")


def _sync_commands(
    absent: Sequence[lock.Pin], extra: Sequence[lock.Pin], passed: Sequence[str]
) -> list[list[str]]:
    belongs = owner.detect()
    commands = []
    for is_editable in (False, True):
        targets = [pin.target() for pin in absent if pin.is_editable is is_editable]
        if targets:
            command = owner.install_command(belongs, targets, editable=is_editable)
            commands.append([*command, *passed])
    return [*commands, *(owner.uninstall_command(belongs, pin.name) for pin in extra)]


def _content(file: str) -> str:
    try:
        return sys.stdin.read() if file == "-" else Path(file).read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise DataError(
            "E501", f"cannot read {file}: {reason}", cure="write one with dltool plugin freeze"
        ) from error


def _split(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Part what is to be installed from the options that go to the installer."""
    cut = next((i for i, word in enumerate(words) if word.startswith("-")), len(words))
    if cut == 0:
        raise ConfigError("E201", "no package is named", cure="dltool plugin install --help")
    return list(words[:cut]), list(words[cut:])


def _target(text: str) -> str:
    """Return a package name as it is, and an existing folder or file as an absolute path."""
    path = Path(text)
    looks_like_path = "/" in text or "\\" in text or path.suffix == ".whl"
    if looks_like_path and "://" not in text and "@" not in text:
        if not path.exists():
            raise DataError("E501", f"there is nothing at {text}", cure="check the path")
        return str(path.resolve())
    return text


def _name_of(text: str) -> str:
    """Return the distribution that a folder, a wheel or a requirement most likely is."""
    import tomllib

    path = Path(text)
    try:
        project = tomllib.loads((path / "pyproject.toml").read_text(encoding="utf-8"))
        return str(project["project"]["name"])
    except (OSError, ValueError, LookupError):
        if path.suffix == ".whl":
            return path.name.partition("-")[0].replace("_", "-")
        return re.split(r"[<>=!~\[ @;]", text)[0]


def _agreed(command: Sequence[str], console: Console, *, yes: bool, dry_run: bool) -> bool:
    """Show a command and ask for consent.

    Raises:
        ConfigError: E201, nobody can answer and `--yes` was not given.
    """
    console.note(f"command: {shlex.join(command)}")
    if dry_run:
        return False
    if yes:
        return True
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise ConfigError(
            "E201", "this would change the environment, and nobody can be asked", cure="add --yes"
        )
    return bool(typer.confirm("run it?", err=True))


def _run(command: Sequence[str]) -> None:
    code = owner.run(command)
    if code:
        raise PluginError("E405", f"the installer ended with exit code {code}", cure=CURE_INSTALLER)


def _fresh() -> list[plugins.Plugin]:
    """Look again: packages have come or gone since this process started."""
    importlib.invalidate_caches()
    sys.path_importer_cache.clear()
    import site

    for folder in site.getsitepackages():
        if folder in sys.path:
            site.addsitedir(folder)  # an editable install adds a .pth file
    return plugins.discover()
