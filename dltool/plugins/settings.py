"""The user's choices about plugins, and what earlier checks found: two small JSON files."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from sys import platform
from typing import Any

from dltool.errors import ConfigError, DltoolError

CHOICES = "plugins.json"
STATUS = "plugins-status.json"
MAX_BYTES = 1 << 20


def config_folder() -> Path:
    """Return where the user's choices are: `DLTOOL_HOME` or the system's place; create nothing."""
    return _folder("config", "XDG_CONFIG_HOME", ".config")


def state_folder() -> Path:
    """Return where results of checks are kept: `DLTOOL_HOME` or the system's place."""
    return _folder("state", "XDG_STATE_HOME", ".local/state")


def _folder(kind: str, variable: str, fallback: str) -> Path:
    home = os.environ.get("DLTOOL_HOME")
    if home:
        return Path(home).expanduser() / kind
    if platform == "linux":  # what platformdirs answers there, without its import
        base = os.environ.get(variable, "")
        return Path(base if os.path.isabs(base) else Path.home() / fallback) / "dltool"
    import platformdirs

    place = platformdirs.user_config_path if kind == "config" else platformdirs.user_state_path
    return place("dltool", appauthor=False)


@dataclass(frozen=True)
class Choices:
    """What the user decided.

    Attributes:
        disabled: plugins that are left out, as `distribution:name`.
        preferred: name of a topic -> the distribution whose plugin has the plain name.
        problem: why the file could not be used, or an empty string.
    """

    disabled: frozenset[str] = frozenset()
    preferred: Mapping[str, str] = field(default_factory=dict)
    problem: str = ""


def read_choices() -> Choices:
    """Read the user's choices; a damaged file counts as empty and says so in `problem`."""
    path = config_folder() / CHOICES
    try:
        values = _read(path)
        disabled = values.get("disabled", [])
        preferred = values.get("preferred", {})
        if not isinstance(disabled, list) or not isinstance(preferred, dict):
            raise ValueError("disabled must be a list and preferred an object")
        texts = [*disabled, *preferred, *preferred.values()]
        if not all(isinstance(text, str) for text in texts):
            raise ValueError("only texts are expected")
        return Choices(frozenset(disabled), preferred)
    except (OSError, ValueError, RecursionError) as error:
        return Choices(problem=f"{path} cannot be used: {error}")


def change_choices(
    *,
    disable: str = "",
    enable: str = "",
    prefer: tuple[str, str] | None = None,
    forget: str = "",
) -> Path:
    """Write one decision into the user's file, atomically; return the file.

    Raises:
        ConfigError: E203, the file there is damaged.
        DltoolError: E101, it cannot be written.
    """
    path = config_folder() / CHOICES
    choices = read_choices()
    if choices.problem:
        raise ConfigError("E203", choices.problem, cure=f"correct or remove {path}")
    from dltool import files

    disabled = (choices.disabled | {disable}) - {enable, ""}
    preferred = {**choices.preferred, **dict([prefer] if prefer else [])}
    preferred.pop(forget, None)
    files.write_json_atomic(path, {"disabled": sorted(disabled), "preferred": preferred})
    return path


def read_status() -> dict[str, dict[str, str]]:
    """Return what checks and failed loads left, by `distribution:name`; empty without any."""
    try:
        values = _read(state_folder() / STATUS)
    except (OSError, ValueError, RecursionError):
        return {}
    return {
        key: {name: text for name, text in entry.items() if isinstance(text, str)}
        for key, entry in values.items()
        if isinstance(entry, dict)
    }


def remember(key: str, entry: Mapping[str, str] | None) -> None:
    """Keep what a check found about a plugin, or forget it; a full disk is no failure here."""
    from dltool import files

    known = read_status()
    if entry is None and key not in known:
        return
    changed = {**known, key: dict(entry or {})}
    if entry is None:
        del changed[key]
    if changed == known:
        return
    try:
        files.write_json_atomic(state_folder() / STATUS, changed)
    except DltoolError:
        return


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    if path.stat().st_size > MAX_BYTES:
        raise ValueError(f"larger than {MAX_BYTES} bytes")
    values = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(values, dict):
        raise ValueError("it holds no JSON object")
    return values
