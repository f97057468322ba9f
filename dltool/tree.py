"""The tree of commands: found by their words, and described from their Typer definitions."""

from __future__ import annotations

import importlib
import types
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer

from dltool import plugins
from dltool.commands import CORE_COMMANDS
from dltool.errors import ConfigError, closest

# asked for on the way to a result, and no part of what a command is told
NO_INPUTS = ("help", "install_completion", "show_completion")


@dataclass(frozen=True)
class Parameter:
    """One option or argument.

    Attributes:
        name: as the command's own code calls it; for a training's setting the key in a file.
        flags: as typed, `--lr`; empty for an argument.
        off_flags: the flags that say no.
        kind: the type of one value.
        is_list: whether it takes several.
        default: None where there is none, or where it is found at run time.
        shown_default: a text in the place of the default, as `by recipe`.
        panel: the group in the help text.
    """

    name: str
    flags: tuple[str, ...]
    off_flags: tuple[str, ...]
    kind: type[Any]
    is_list: bool
    required: bool
    default: Any
    shown_default: str
    low: float | None
    high: float | None
    help: str
    metavar: str
    panel: str


def root(name: str) -> Any:
    """Return what stands at a first word: a topic's commands or a core command, as Typer's group.

    Raises:
        PluginError: there is no such topic, or it cannot be loaded.
    """
    if name in CORE_COMMANDS:
        module, _, attribute = CORE_COMMANDS[name][0].partition(":")
        return typer.main.get_command(getattr(importlib.import_module(module), attribute))
    return typer.main.get_command(plugins.load(plugins.find(name)))


def command(topic: str, verb: str) -> Any:
    """Return a command by a topic (or a core command) and its verb, with spaces between several.

    Raises:
        PluginError: there is no such topic.
        ConfigError: E206, the topic has no such verb.
    """
    found = root(topic)
    for word in verb.split():
        known = getattr(found, "commands", {})
        if word not in known:
            near = closest(word, known)
            raise ConfigError(
                "E206",
                f"{topic} has no command {word!r}",
                expected=f"one of {', '.join(known)}" if known else "no further word",
                cure=f"did you mean {near}?" if near else f"dltool {topic} --help",
            )
        found = known[word]
    return found


def walk(found: Any, words: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield every command of a group with its words; groups that do something alone, too."""
    commands = getattr(found, "commands", None)
    if commands is None or getattr(found, "invoke_without_command", False):
        yield words, found
    for name, inner in (commands or {}).items():
        if not inner.hidden:
            yield from walk(inner, (*words, name))


def parameters(found: Any) -> list[Parameter]:
    """Return what a command can be told, in the order of its help text."""
    visible = (each for each in found.params if not getattr(each, "hidden", False))
    return [_parameter(each) for each in visible if each.name not in NO_INPUTS]


def _parameter(found: Any) -> Parameter:
    descriptor = getattr(found, "type_descriptor", None)
    kind, is_list = _kind(getattr(descriptor, "annotation", str))
    is_argument = not found.opts or not found.opts[0].startswith("-")
    shown = found.show_default if isinstance(found.show_default, str) else ""
    default = found.default() if callable(found.default) else found.default
    return Parameter(
        name=str(found.name),
        flags=() if is_argument else tuple(found.opts),
        off_flags=tuple(found.secondary_opts),
        kind=kind,
        is_list=is_list or bool(found.multiple) or found.nargs == -1,
        required=bool(found.required),
        default=default,
        shown_default=shown,
        low=found.min,
        high=found.max,
        help=found.help or "",
        metavar=str(found.metavar or found.name).strip(),
        panel=str(getattr(found, "rich_help_panel", None) or ""),
    )


def _kind(annotation: Any) -> tuple[type[Any], bool]:
    """Return the type of one value, and whether there may be several."""
    if isinstance(annotation, types.UnionType) or typing.get_origin(annotation) is typing.Union:
        inner = [each for each in typing.get_args(annotation) if each is not type(None)]
        return _kind(inner[0]) if inner else (str, False)
    if typing.get_origin(annotation) in (list, tuple):
        return _kind(typing.get_args(annotation)[0])[0], True
    return (annotation if annotation in (bool, int, float, Path) else str), False
