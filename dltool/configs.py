"""Settle a run's configuration: flags before a file before a recipe before defaults."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from dltool import files
from dltool.errors import ConfigError, closest

# tomllib's time and memory grow with the square of a dotted name's parts
CONFIG_BYTES = 64 * 1024
CONFIG_DOTS = 500

Config = TypeVar("Config")


def settle(
    config_class: type[Config],
    *,
    flags: Mapping[str, Any],
    file: Mapping[str, Any] | None = None,
    file_name: str = "",
    recipe: Mapping[str, Any] | None = None,
) -> tuple[Config, dict[str, str]]:
    """Build a config and say where each value came from: flag, file, recipe or default.

    Args:
        file: what `read_config_file` returned.

    Raises:
        ConfigError: whatever the config's own `__post_init__` refuses.
    """
    fields = [field.name for field in dataclasses.fields(typing.cast(Any, config_class))]
    layers = [
        ("recipe", dict(recipe or {})),
        (f"file {file_name}", dict(file or {})),
        ("flag", dict(flags)),
    ]
    values: dict[str, Any] = {}
    origins = dict.fromkeys(fields, "default")
    for origin, layer in layers:
        values.update(layer)
        origins.update(dict.fromkeys(layer, origin))
    return config_class(**values), origins


def read_config_file(path: Path, config_class: type[Any]) -> dict[str, Any]:
    """Read a flat TOML file and check its keys and types against a config dataclass.

    Raises:
        ConfigError: the file is missing, not TOML, or holds an unknown key or a wrong type.
    """
    import tomllib

    try:
        text = files.read_limited(path, CONFIG_BYTES).decode("utf-8-sig")
        if any(line.count(".") > CONFIG_DOTS for line in text.splitlines()):
            raise ValueError("a name has too many parts")
        values = tomllib.loads(text)
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(
            "E203", f"cannot read the configuration {path}: {error}", cure="give a TOML file"
        ) from error
    hints = typing.get_type_hints(config_class)
    return {
        key.replace("-", "_"): _checked(path, key, value, hints) for key, value in values.items()
    }


def _checked(path: Path, key: str, value: Any, hints: Mapping[str, Any]) -> Any:
    name = key.replace("-", "_")
    if name not in hints:
        near = closest(name, hints)
        raise ConfigError(
            "E203",
            f"unknown key {key!r} in {path}",
            expected=f"{near!r}" if near else f"one of {', '.join(hints)}",
            cure="correct or remove the key",
        )
    kinds = typing.get_args(hints[name]) or (hints[name],)
    if float in kinds and type(value) is int:
        return float(value)
    if isinstance(value, list):
        value = tuple(value)
    simple = [typing.get_origin(kind) or kind for kind in kinds]
    simple = [tuple] if typing.get_origin(hints[name]) is tuple else simple
    if type(value) not in simple:
        names = " or ".join(kind.__name__ for kind in simple)
        raise ConfigError(
            "E203", f"wrong type for {key!r} in {path}", received=value, expected=names
        )
    return value
