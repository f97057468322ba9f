"""Find the topics that packages bring, read their manifests, import only the one called."""

from __future__ import annotations

import importlib
import importlib.util
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dltool import API_LEVEL
from dltool.errors import PluginError

if TYPE_CHECKING:
    import typer

GROUP = "dltool.plugins"
MANIFEST = "plugin.toml"
MANIFEST_BYTES = 64 * 1024
MANIFEST_KEYS = {"name", "summary", "api", "verbs", "extras"}


@dataclass(frozen=True)
class Plugin:
    """One topic as its package declares it, known without importing the package.

    Attributes:
        name: the command; `distribution:name` for all but one of several with one name.
        reference: `module:attribute` of its Typer app.
        problem: why it cannot be used, or an empty string.
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

    @property
    def package(self) -> str:
        """The top-level package that holds the app."""
        return self.reference.partition(":")[0].partition(".")[0]


def discover() -> list[Plugin]:
    """Return every installed plugin, sorted by name; broken ones carry their problem.

    `DLTOOL_NO_PLUGINS=1` returns none, `DLTOOL_PLUGINS=a,b` only those named.
    """
    if os.environ.get("DLTOOL_NO_PLUGINS", "") not in ("", "0"):
        return []
    found = [_from_entry(entry) for entry in entry_points(group=GROUP)]
    wanted = os.environ.get("DLTOOL_PLUGINS")
    if wanted is not None:
        names = {name.strip() for name in wanted.split(",")}
        found = [plugin for plugin in found if plugin.name in names]
    return sorted(_qualified(found), key=lambda plugin: plugin.name)


def find(name: str) -> Plugin:
    """Return the plugin of this name.

    Raises:
        PluginError: none is installed under it.
    """
    plugins = discover()
    for plugin in plugins:
        if name in (plugin.name, f"{plugin.distribution}:{plugin.name}"):
            return plugin
    known = ", ".join(plugin.name for plugin in plugins) or "none"
    raise PluginError(
        "E404",
        f"no plugin is named {name!r}",
        expected=f"one of {known}",
        cure="dltool plugin list",
    )


def load(plugin: Plugin) -> typer.Typer:
    """Import the plugin's package and return its Typer app.

    Raises:
        PluginError: whatever the import raises, also SystemExit; a wrong API level; not an app.
    """
    import typer

    cure = f"dltool plugin list, or pip uninstall {plugin.distribution}"
    if plugin.problem:
        code = "E402" if "API level" in plugin.problem else "E401"
        raise PluginError(code, f"plugin {plugin.name!r}: {plugin.problem}", cure=cure)
    module, _, attribute = plugin.reference.partition(":")
    try:
        app: Any = importlib.import_module(module)
        for part in attribute.split("."):
            app = getattr(app, part)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        cause = f"{type(error).__name__}: {error}".strip(": ")
        raise PluginError(
            "E401", f"plugin {plugin.name!r} cannot be imported: {cause}", cure=cure
        ) from error
    if not isinstance(app, typer.Typer):
        raise PluginError(
            "E403",
            f"plugin {plugin.name!r} is not a Typer app",
            received=type(app).__name__,
            expected="a typer.Typer object",
            cure=cure,
        )
    return app


def _from_entry(entry: EntryPoint) -> Plugin:
    distribution = entry.dist
    plugin = Plugin(
        name=entry.name,
        reference=entry.value.replace(" ", ""),
        distribution=distribution.metadata["Name"] if distribution else "unknown",
        version=distribution.version if distribution else "",
    )
    if not re.fullmatch(r"[\w.]+:[\w.]+", plugin.reference):
        return replace(plugin, problem=f"its entry point {entry.value!r} is not module:attribute")
    try:
        manifest = read_manifest(plugin.package)
    except PluginError as error:
        return replace(plugin, problem=error.message)
    if manifest is None:
        return plugin
    plugin = replace(plugin, **manifest)
    if plugin.api and not api_fits(plugin.api):
        problem = f"it asks for API level {plugin.api}, this dltool has {API_LEVEL}"
        return replace(plugin, problem=problem)
    return plugin


def read_manifest(package: str) -> dict[str, Any] | None:
    """Return the fields of a package's `plugin.toml` without importing it; None without one.

    Works for installed wheels, editable installs and zipped paths.

    Raises:
        PluginError: the package cannot be found or its manifest cannot be read.
    """
    data = _manifest_bytes(package)
    if data is None:
        return None
    import tomllib

    try:
        if len(data) > MANIFEST_BYTES:
            raise ValueError(f"larger than {MANIFEST_BYTES} bytes")
        fields = tomllib.loads(data.decode())
        return _manifest_fields(fields)
    except ValueError as error:  # TOML and UTF-8 errors are ValueErrors
        raise PluginError("E401", f"its {MANIFEST} is unreadable: {error}") from error


def _manifest_bytes(package: str) -> bytes | None:
    try:
        spec = importlib.util.find_spec(package)
    except (ImportError, ValueError, AttributeError) as error:
        raise PluginError("E401", f"its package {package!r} cannot be found: {error}") from error
    if spec is None:
        raise PluginError("E401", f"its package {package!r} is not there")
    read = getattr(spec.loader, "get_data", None)
    for location in spec.submodule_search_locations or []:
        path = Path(location, MANIFEST)
        try:
            if path.exists() and path.stat().st_size > MANIFEST_BYTES:
                raise PluginError("E401", f"its {MANIFEST} is larger than {MANIFEST_BYTES} bytes")
            return bytes(read(str(path))) if read else path.read_bytes()
        except FileNotFoundError:
            continue
        except OSError as error:
            if not os.path.lexists(path):
                continue  # a zip importer reports a missing member as OSError
            reason = error.strerror or str(error)
            raise PluginError("E401", f"its {MANIFEST} is unreadable: {reason}") from error
    return None


def _manifest_fields(fields: dict[str, Any]) -> dict[str, Any]:
    unknown = sorted(set(fields) - MANIFEST_KEYS)
    if unknown:
        raise ValueError(f"unknown key {unknown[0]!r}")
    for key in ("name", "summary", "api"):
        if not isinstance(fields.get(key, ""), str):
            raise ValueError(f"{key} must be a text")
    for key in ("verbs", "extras"):
        values = fields.get(key, [])
        if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
            raise ValueError(f"{key} must be a list of texts")
    summary = " ".join(fields.get("summary", "").split())
    return {
        "summary": "".join(letter for letter in summary if letter.isprintable())[:200],
        "api": fields.get("api", ""),
        "verbs": tuple(fields.get("verbs", [])),
        "extras": tuple(fields.get("extras", [])),
    }


def api_fits(wanted: str) -> bool:
    """Tell whether this version's API level lies in a range such as `>=1,<2`."""
    compare = {
        ">=": API_LEVEL.__ge__,
        "<=": API_LEVEL.__le__,
        "==": API_LEVEL.__eq__,
        ">": API_LEVEL.__gt__,
        "<": API_LEVEL.__lt__,
    }
    for clause in wanted.split(","):
        match = re.fullmatch(r"\s*(>=|<=|==|>|<)?\s*(\d+)\s*", clause)
        if match is None or not compare[match[1] or "=="](int(match[2])):
            return False
    return True


def _qualified(found: Iterable[Plugin]) -> list[Plugin]:
    """Give the plain name to one plugin of each name, and `distribution:name` to the others."""
    by_name: dict[str, list[Plugin]] = {}
    for plugin in found:
        by_name.setdefault(plugin.name, []).append(plugin)
    result = []
    for same in by_name.values():
        # ours first, then by distribution: the same choice on every machine
        same.sort(key=lambda plugin: (plugin.distribution != "dltool", plugin.distribution))
        result.append(same[0])
        for other in same[1:]:
            result.append(replace(other, name=f"{other.distribution}:{other.name}"))
    return result
