"""Settle a run's configuration: flags before a file before the surroundings before a recipe."""

from __future__ import annotations

import dataclasses
import re
import typing
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from dltool import files
from dltool.errors import ConfigError, closest

if TYPE_CHECKING:
    from dltool.surroundings import Around

# tomllib's time and memory grow with the square of a dotted name's parts
CONFIG_BYTES = 64 * 1024
CONFIG_DOTS = 500
# a setting whose option has another name
SPELLINGS = {"lr": "learning_rate"}

Config = TypeVar("Config")


def settle(
    config_class: type[Config],
    *,
    flags: Mapping[str, Any],
    file: Mapping[str, Any] | None = None,
    file_name: str = "",
    around: Around | None = None,
    recipe: Mapping[str, Any] | None = None,
) -> tuple[Config, dict[str, str]]:
    """Build a config and say where each value came from.

    A flag comes before the file, that before the surroundings (environment, project, user), these
    before the recipe, and that before the default.

    Args:
        file: what `read_config_file` returned.
        around: what `surroundings.around` returned.

    Raises:
        ConfigError: whatever the config's own `__post_init__` refuses, with the value's origin.
    """
    layers: list[tuple[Mapping[str, Any], Mapping[str, str]]] = [
        _layer(recipe, "recipe"),
        (around.values, around.origins) if around else ({}, {}),
        _layer(file, f"file {file_name}"),
        _layer(flags, "flag"),
    ]
    values: dict[str, Any] = {}
    origins = dict.fromkeys(field_names(config_class), "default")
    for layer, sources in layers:
        values.update(layer)
        origins.update(sources)
    try:
        return config_class(**values), origins
    except ConfigError as error:
        raise _with_origin(error, origins) from error


def _layer(
    values: Mapping[str, Any] | None, origin: str
) -> tuple[Mapping[str, Any], Mapping[str, str]]:
    return values or {}, dict.fromkeys(values or {}, origin)


def _with_origin(error: ConfigError, origins: Mapping[str, str]) -> ConfigError:
    """Say where a refused value stands, unless it stands on the command line."""
    option = re.search(r"--([\w-]+)", error.message)
    key = option[1].replace("-", "_") if option else ""
    origin = origins.get(SPELLINGS.get(key, key), "flag")
    if origin.startswith(("flag", "default", "recipe")):
        return error
    return type(error)(
        error.code,
        f"{error.message} (set by {origin})",
        received=error.received,
        expected=error.expected,
        cure=error.cure,
    )


def field_names(config_class: type[Any]) -> list[str]:
    """Return the names of a config's settings, in their order."""
    return [field.name for field in dataclasses.fields(config_class)]


def read_config_file(path: Path, config_class: type[Any], topic: str = "") -> dict[str, Any]:
    """Read a TOML file and check its keys and types against a config dataclass.

    The keys stand alone, or, when the topic is given, in the sections of a project's file.

    Raises:
        ConfigError: the file is missing, not TOML, or holds an unknown key or a wrong type.
    """
    values = read_toml(path)
    if topic and any(isinstance(values.get(name), dict) for name in ("train", topic)):
        from dltool import surroundings

        found = surroundings.of_sections(path, values, config_class, topic, "train")
        return {key: value for section in found.values() for key, value in section.items()}
    return checked(path, values, config_class)


def read_toml(path: Path, limit: int = CONFIG_BYTES) -> dict[str, Any]:
    """Read a TOML file that may come from a stranger.

    Raises:
        ConfigError: E203, it is missing, too large or not TOML.
    """
    import tomllib

    try:
        text = files.read_limited(path, limit).decode("utf-8-sig")
        if any(line.count(".") > CONFIG_DOTS for line in text.splitlines()):
            raise ValueError("a name has too many parts")
        return tomllib.loads(text)
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(
            "E203", f"cannot read the configuration {path}: {error}", cure="give a TOML file"
        ) from error


def checked(
    path: Path, values: Mapping[str, Any], config_class: type[Any], section: str = ""
) -> dict[str, Any]:
    """Return settings by field name, each of its field's type.

    Raises:
        ConfigError: E203, a key is unknown or a value has a wrong type.
    """
    hints = typing.get_type_hints(config_class)
    where = f"{path} {section}".strip()
    return {
        key.replace("-", "_"): _checked(where, key, value, hints) for key, value in values.items()
    }


def nearest(key: str, known: Iterable[str]) -> str:
    """Return the setting that was most likely meant, or an empty text."""
    return SPELLINGS.get(key, "") or closest(key, known) or ""


def _checked(where: str, key: str, value: Any, hints: Mapping[str, Any]) -> Any:
    name = key.replace("-", "_")
    if name not in hints:
        near = nearest(name, hints)
        raise ConfigError(
            "E203",
            f"unknown key {key!r} in {where}",
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
            "E203", f"wrong type for {key!r} in {where}", received=value, expected=names
        )
    return value
