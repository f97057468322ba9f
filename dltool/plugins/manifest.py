"""`plugin.toml`: what a package tells about its topic, read without importing the package."""

from __future__ import annotations

import os
import re
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

from dltool import API_LEVEL
from dltool.errors import PluginError

MANIFEST = "plugin.toml"
MANIFEST_BYTES = 64 * 1024
TEXTS = ("name", "summary", "api")
LISTS = ("verbs", "extras", "smoke")
TABLES = ("reads", "writes", "guards")
MANIFEST_KEYS = {*TEXTS, *LISTS, *TABLES}
SUMMARY_LETTERS = 200


def read(spec: ModuleSpec) -> dict[str, Any] | None:
    """Return the fields of the manifest beside a package; None without one.

    Works for installed wheels, editable installs and zipped paths. Keys that this version does not
    know are listed under `notes`: a later version may know them.

    Raises:
        PluginError: E401, the manifest cannot be read.
    """
    data = _bytes(spec)
    if data is None:
        return None
    import tomllib

    try:
        if len(data) > MANIFEST_BYTES:
            raise ValueError(f"larger than {MANIFEST_BYTES} bytes")
        return _fields(tomllib.loads(data.decode("utf-8-sig")))
    except RecursionError as error:
        raise PluginError("E401", f"its {MANIFEST} is nested too deeply") from error
    except ValueError as error:  # TOML and UTF-8 errors are ValueErrors
        raise PluginError("E401", f"its {MANIFEST} is unreadable: {error}") from error


def _bytes(spec: ModuleSpec) -> bytes | None:
    read = getattr(spec.loader, "get_data", None)
    for location in spec.submodule_search_locations or []:
        path = Path(location, MANIFEST)
        try:
            if path.exists():
                _refuse_odd(path)
            return bytes(read(str(path))) if read else path.read_bytes()
        except FileNotFoundError:
            continue
        except (OSError, ValueError) as error:
            if not os.path.lexists(path):
                continue  # a zip importer reports a missing member as OSError
            reason = getattr(error, "strerror", None) or str(error)
            raise PluginError("E401", f"its {MANIFEST} is unreadable: {reason}") from error
    return None


def _refuse_odd(path: Path) -> None:
    """Refuse what is too big, or would block the reader (a pipe, a device)."""
    if path.is_dir():
        raise PluginError("E401", f"its {MANIFEST} is a folder, not a file")
    if not path.is_file():
        raise PluginError("E401", f"its {MANIFEST} is no ordinary file")
    if path.stat().st_size > MANIFEST_BYTES:
        raise PluginError("E401", f"its {MANIFEST} is larger than {MANIFEST_BYTES} bytes")


def _fields(values: dict[str, Any]) -> dict[str, Any]:
    for key in TEXTS:
        if not isinstance(values.get(key, ""), str):
            raise ValueError(f"{key} must be a text")
    for key in LISTS:
        items = values.get(key, [])
        if not isinstance(items, list) or not all(isinstance(item, str) for item in items):
            raise ValueError(f"{key} must be a list of texts")
    for key in TABLES:
        table = values.get(key, {})
        lists = table.values() if isinstance(table, dict) else [None]
        if not all(
            isinstance(items, list) and all(isinstance(item, str) for item in items)
            for items in lists
        ):
            raise ValueError(f"{key} must be a table of lists of texts")
    unknown = sorted(set(values) - MANIFEST_KEYS)
    notes = [f"{MANIFEST} has the unknown key {printable(key)!r}" for key in unknown[:3]]
    return {
        "declared_name": values.get("name", ""),
        "summary": printable(values.get("summary", ""))[:SUMMARY_LETTERS],
        "api": values.get("api", ""),
        "verbs": tuple(verb for verb in values.get("verbs", []) if is_name(verb)),
        "extras": tuple(printable(extra) for extra in values.get("extras", [])),
        "smoke": tuple(values.get("smoke", [])),
        **{key: _formats(values.get(key, {})) for key in TABLES},
        "notes": tuple(notes),
    }


def _formats(table: dict[str, list[str]]) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Return verbs and their formats as something that never changes."""
    return tuple(
        (verb, tuple(printable(item) for item in items))
        for verb, items in table.items()
        if is_name(verb)
    )


def printable(text: str) -> str:
    """Return a stranger's text as one line without control characters."""
    return "".join(letter for letter in " ".join(text.split()) if letter.isprintable())


def is_name(text: str) -> bool:
    """Tell whether a text can be typed as a command: letters, digits, `-`, `_` and `.`."""
    return re.fullmatch(r"\w[\w.-]{0,63}", text) is not None


def api_fits(wanted: str) -> bool:
    """Tell whether this version's API level lies in a range such as `>=1,<2`."""
    compare = {
        ">=": API_LEVEL.__ge__,
        "<=": API_LEVEL.__le__,
        "==": API_LEVEL.__eq__,
        "!=": API_LEVEL.__ne__,
        ">": API_LEVEL.__gt__,
        "<": API_LEVEL.__lt__,
    }
    for clause in wanted.split(","):
        match = re.fullmatch(r"\s*(>=|<=|==|!=|>|<)?\s*(\d{1,9})\s*", clause)
        if match is None or not compare[match[1] or "=="](int(match[2])):
            return False
    return True
