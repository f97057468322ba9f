"""Find the topics that packages bring, read their manifests, import only the one called."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from importlib.machinery import ModuleSpec
from importlib.metadata import Distribution, EntryPoint, distributions
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING

from dltool import API_LEVEL
from dltool.commands import CORE_COMMANDS
from dltool.errors import PluginError
from dltool.plugins import look, manifest, places, settings
from dltool.plugins.manifest import printable

if TYPE_CHECKING:
    import typer

GROUP = "dltool.plugins"
HOST = "dltool"
LOOK_SECONDS = 0.06
REFERENCE = re.compile(r"([\w.]+:[\w.]+)(?:\[.*\])?", re.DOTALL)


@dataclass(frozen=True)
class Plugin:
    """One topic as its package declares it, known without importing the package.

    Attributes:
        name: the command; `distribution:name` for all but one of several with one name.
        reference: `module:attribute` of its Typer app.
        summary, api, verbs, extras, smoke: what the manifest tells, see `docs/plugins.md`.
        reads, writes: formats by verb, from the manifest too.
        guards: title, cause and cure of the topic's own guards by code, from the manifest too.
        problem: why it cannot be used, or an empty string.
        entry: the name that the package asks for.
        is_own: whether it is one of the topics that come with dltool.
        is_disabled: whether the user has left it out.
        rivals: other plugins that ask for the same name, as `distribution:name`.
        why: why it has the plain name or not, where another asks for it.
        notes: what is odd about it and does not keep it from working.
        declared_name: the name in its manifest.
    """

    name: str
    reference: str
    distribution: str
    version: str
    summary: str = ""
    api: str = ""
    verbs: tuple[str, ...] = ()
    extras: tuple[str, ...] = ()
    problem: str = ""
    entry: str = ""
    smoke: tuple[str, ...] = ()
    is_own: bool = False
    is_disabled: bool = False
    rivals: tuple[str, ...] = ()
    why: str = ""
    notes: tuple[str, ...] = ()
    declared_name: str = ""
    reads: tuple[tuple[str, tuple[str, ...]], ...] = ()
    writes: tuple[tuple[str, tuple[str, ...]], ...] = ()
    guards: tuple[tuple[str, tuple[str, ...]], ...] = ()

    @property
    def module(self) -> str:
        """The module that holds the app."""
        return self.reference.partition(":")[0]

    @property
    def package(self) -> str:
        """The top-level package that holds the app."""
        return self.module.partition(".")[0]

    @property
    def qualified(self) -> str:
        """The name that no other distribution can take."""
        return f"{self.distribution}:{self.entry or self.name}"

    @property
    def state(self) -> str:
        """`ok`, `broken` or `disabled`."""
        if self.is_disabled:
            return "disabled"
        return "broken" if self.problem else "ok"


def discover() -> list[Plugin]:
    """Return every installed plugin, sorted by name; broken ones carry their problem.

    `DLTOOL_NO_PLUGINS=1` returns none, `DLTOOL_PLUGINS=a,b` only those named. Nothing is imported.
    """
    if os.environ.get("DLTOOL_NO_PLUGINS", "") not in ("", "0"):
        return []
    choices = settings.read_choices()
    found = _named(_unique(_declared()), choices)
    wanted = os.environ.get("DLTOOL_PLUGINS")
    if wanted is not None:
        names = {name.strip() for name in wanted.split(",")}
        found = [plugin for plugin in found if names & {plugin.name, plugin.qualified}]
    return sorted(found, key=lambda plugin: plugin.name)


def find(name: str) -> Plugin:
    """Return the plugin of this name, plain or `distribution:name`.

    Raises:
        PluginError: E404, none is installed under it.
    """
    installed = discover()
    for plugin in installed:
        if name == plugin.name:
            return plugin
    for plugin in installed:
        if name == plugin.qualified:
            return plugin
    known = ", ".join(plugin.name for plugin in installed) or "none"
    raise PluginError(
        "E404",
        f"no plugin is named {name!r}",
        expected=f"one of {known}",
        cure="dltool plugin list",
    )


def examined(found: Iterable[Plugin]) -> list[Plugin]:
    """Add the problems that the source files and earlier checks tell; nothing is imported.

    A part of a second at most: what could not be looked at in it counts as sound.
    """
    deadline = perf_counter() + LOOK_SECONDS
    known = settings.read_status()
    return [_examined(plugin, known, deadline) for plugin in found]


def _examined(plugin: Plugin, known: dict[str, dict[str, str]], deadline: float) -> Plugin:
    if plugin.problem or plugin.is_own or plugin.is_disabled:
        return plugin
    try:
        spec = spec_of(plugin)
        problem = _remembered(plugin, spec, known) or look.trouble(spec, plugin.module, deadline)
    except PluginError as error:
        problem = error.message
    except Exception:  # a look that fails tells nothing about the plugin
        problem = ""
    return replace(plugin, problem=problem)


def _remembered(plugin: Plugin, spec: ModuleSpec, known: dict[str, dict[str, str]]) -> str:
    entry = known.get(plugin.qualified)
    if not entry or entry.get("version") != plugin.version:
        return ""
    if entry.get("stamp") != places.stamp(spec):
        return ""
    missing = entry.get("missing", "").partition(".")[0]
    if missing and places.is_importable(missing):
        return ""
    return printable(entry.get("problem", ""))


def remember(plugin: Plugin, problem: str, missing: str = "") -> None:
    """Keep what an import showed, so that help and lists can tell it without importing."""
    try:
        spec = spec_of(plugin)
    except PluginError:
        return
    stamp = places.stamp(spec)
    entry = {"version": plugin.version, "stamp": stamp, "problem": problem, "missing": missing}
    settings.remember(plugin.qualified, entry if problem else None)


def remember_failure(plugin: Plugin, error: PluginError) -> None:
    """Keep why a call could not load the plugin."""
    from dltool.plugins import loading

    problem = error.message.removeprefix(f"plugin {plugin.name!r} ")
    remember(plugin, problem, loading.missing_package(error.__cause__))


def spec_of(plugin: Plugin) -> ModuleSpec:
    """Return where the plugin's top-level package is.

    Raises:
        PluginError: E401, it is not there.
    """
    own = places.find_own(plugin.package, plugin.entry) if plugin.is_own else None
    return own or places.find_package(plugin.package)


def load(plugin: Plugin) -> typer.Typer:
    """Import the plugin's package and return its Typer app.

    What the import prints goes to stderr; changes of `sys.path`, of the working folder and of
    signal handlers are undone.

    Raises:
        PluginError: whatever the import raises, also SystemExit; a wrong API level; not an app.
    """
    from dltool.plugins import loading

    if plugin.problem:
        code = "E402" if "API level" in plugin.problem else "E401"
        cure = loading.cure(plugin)
        raise PluginError(code, f"plugin {plugin.name!r}: {plugin.problem}", cure=cure)
    own = places.find_own(plugin.package, plugin.entry) if plugin.is_own else None
    return loading.load(plugin, own)


# Reading what is installed


def _declared() -> Iterator[list[Plugin]]:
    """Yield the plugins of each distribution; what cannot be read is a plugin with a problem."""
    for distribution in distributions():
        try:
            text = distribution.read_text("entry_points.txt") or ""
            if GROUP not in text:
                continue
            entries = [entry for entry in distribution.entry_points if entry.group == GROUP]
        except Exception as error:  # half-removed or hostile metadata must not stop the host
            yield [_unreadable(distribution, error)]
            continue
        if entries:
            name, version = _identity(distribution)
            yield [_from_entry(entry, name, version) for entry in entries]


def _unreadable(distribution: Distribution, error: Exception) -> Plugin:
    name, version = _identity(distribution)
    problem = f"its entry points are unreadable: {type(error).__name__}: {printable(str(error))}"
    return Plugin(name, "", name, version, problem=problem, entry=name)


def _identity(distribution: Distribution) -> tuple[str, str]:
    """Return name and version; metadata that are missing or broken give the folder's name.

    Read line by line: the parser of the standard library takes longer than all the rest.
    """
    folder = getattr(distribution, "_path", None)
    stem = Path(str(folder)).name.rpartition(".")[0] if folder is not None else "unknown"
    try:
        text = distribution.read_text("METADATA") or distribution.read_text("PKG-INFO") or ""
    except Exception:
        text = ""
    head = re.split(r"\r?\n\r?\n", text, maxsplit=1)[0]
    found = dict(re.findall(r"^(Name|Version):[ \t]*(.*)$", head, re.MULTILINE))
    name = printable(found.get("Name", "") or stem.partition("-")[0]) or "unknown"
    return name, printable(found.get("Version", "") or stem.partition("-")[2])


def _from_entry(entry: EntryPoint, distribution: str, version: str) -> Plugin:
    name = printable(entry.name)
    match = REFERENCE.fullmatch("".join(entry.value.split()))
    reference = match[1] if match else ""
    plugin = Plugin(name or "''", reference, distribution, version, entry=name or "''")
    if not reference:
        value = printable(entry.value)[:100]
        return replace(plugin, problem=f"its entry point {value!r} is not module:attribute")
    if not manifest.is_name(entry.name):
        problem = f"its name {entry.name[:60]!r} cannot be typed: letters, digits, - _ and . only"
        return replace(plugin, problem=problem)
    own = None
    if _normal(distribution) == HOST:
        own = places.find_own(plugin.package, plugin.entry)
        plugin = replace(plugin, is_own=own is not None)
    try:
        spec = own or places.find_package(plugin.package)
        return _with_manifest(plugin, manifest.read(spec))
    except PluginError as error:
        return replace(plugin, problem=printable(error.message))
    except Exception as error:
        problem = f"its package cannot be looked at: {type(error).__name__}: {error}"
        return replace(plugin, problem=printable(problem))


def _with_manifest(plugin: Plugin, fields: dict[str, object] | None) -> Plugin:
    if fields is None:
        return plugin
    plugin = replace(plugin, **fields)  # type: ignore[arg-type]
    if plugin.declared_name not in ("", plugin.entry):
        note = f"its manifest is of {printable(plugin.declared_name)!r}, not of {plugin.entry!r}"
        plugin = replace(plugin, notes=(*plugin.notes, note))
    if plugin.api and not manifest.api_fits(plugin.api):
        wanted = printable(plugin.api)[:60]
        problem = f"it asks for API level {wanted}, this dltool has {API_LEVEL}"
        return replace(plugin, problem=problem)
    return plugin


# Names


def _normal(distribution: str) -> str:
    return re.sub(r"[-_.]+", "-", distribution).lower()


def _unique(packages: Iterable[list[Plugin]]) -> list[Plugin]:
    """Keep the first distribution of each name on the path, as Python does.

    One that only claims to be dltool's own is kept beside it, under a name of its own.
    """
    seen: set[str] = set()
    kept: list[Plugin] = []
    for declared in packages:
        name = _normal(declared[0].distribution)
        if name in seen:
            continue
        if name == HOST and not any(plugin.is_own for plugin in declared):
            false = f"{declared[0].distribution}~2"
            kept += [replace(plugin, distribution=false) for plugin in declared]
            continue
        seen.add(name)
        kept += {plugin.entry: plugin for plugin in reversed(declared)}.values()
    return kept


def _named(found: Iterable[Plugin], choices: settings.Choices) -> list[Plugin]:
    """Give the plain name to at most one plugin of each name, `distribution:name` to the others."""
    by_name: dict[str, list[Plugin]] = {}
    for plugin in found:
        disabled = plugin.qualified in choices.disabled
        by_name.setdefault(plugin.entry, []).append(replace(plugin, is_disabled=disabled))
    result: list[Plugin] = []
    for name, same in by_name.items():
        if name in CORE_COMMANDS:
            why = f"{name} is a core command and cannot be replaced"
            result += [replace(plugin, name=plugin.qualified, why=why) for plugin in same]
        elif len(same) == 1:
            result += same
        else:
            result += _ranked(same, choices.preferred.get(name, ""))
    return result


def _ranked(same: Sequence[Plugin], preferred: str) -> list[Plugin]:
    """Sort plugins of one name: the user's choice, ours, then by distribution; name the first."""

    def rank(plugin: Plugin) -> tuple[bool, bool, bool, str]:
        chosen = _normal(plugin.distribution) == _normal(preferred)
        return plugin.is_disabled, not chosen, not plugin.is_own, plugin.distribution

    first, *others = sorted(same, key=rank)
    if first.is_disabled:
        why = "both are disabled" if len(same) == 2 else "all are disabled"
    elif _normal(first.distribution) == _normal(preferred):
        why = "your choice, see dltool plugin prefer"
    elif all(plugin.is_disabled for plugin in others):
        why = "the others are disabled"
    elif first.is_own:
        why = "topics of dltool come first"
    else:
        why = "the first by name of its distribution"
    names = [plugin.qualified for plugin in same]
    result = []
    for plugin in (first, *others):
        rivals = tuple(name for name in names if name != plugin.qualified)
        shown = plugin.name if plugin is first else plugin.qualified
        reason = f"has the plain name: {why}" if plugin is first else f"{first.qualified}: {why}"
        result.append(replace(plugin, name=shown, rivals=rivals, why=reason))
    return result
