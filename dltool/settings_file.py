"""A commented TOML file of a training's settings, made from its options."""

from __future__ import annotations

import dataclasses
import json
import textwrap
from typing import Any

from dltool import surroundings, tree
from dltool.tree import Parameter

WIDTH = 96


def commented(topic: str, verb: str, command: Any) -> str:
    """Return a section with every setting commented out: its meaning above, its default behind.

    Args:
        command: a command made with `asking.trains`.
    """
    section = topic if verb == surroundings.SHARED else f"{topic}.{verb}"
    config_class = command.callback.config_class
    told = {each.name: each for each in tree.parameters(command)}
    lines = [
        f"# Settings of dltool {topic} {verb}. Take away a # to set one.",
        "# A flag comes before --config FILE, that before a variable, as",
        f"# {surroundings.variable('seed', topic, verb)}=1, that before this file in a project "
        f"({surroundings.PROJECT}),",
        f"# that before the user's own ({surroundings.USER}), and that before the default.",
        "",
        f"[{section}]",
    ]
    for field in dataclasses.fields(config_class):
        lines += ["", *_entry(field.name, field.default, told.get(field.name))]
    return "\n".join(lines) + "\n"


def _entry(key: str, default: Any, parameter: Parameter | None) -> list[str]:
    meaning = parameter.help if parameter else ""
    flag = f" ({parameter.flags[0]})" if parameter and parameter.flags else ""
    bounds = _bounds(parameter) if parameter else ""
    text = f"{meaning}{bounds}{flag}".strip() or key
    recipe = parameter.shown_default if parameter else ""
    note = f"   # {recipe}" if recipe else ""
    return [f"# {line}" for line in textwrap.wrap(text, WIDTH)] + [
        f"# {key} = {toml_value(default)}{note}"
    ]


def _bounds(parameter: Parameter) -> str:
    if parameter.low is not None and parameter.high is not None:
        return f" From {parameter.low} to {parameter.high}."
    if parameter.low is not None:
        return f" At least {parameter.low}."
    return ""


def toml_value(value: Any) -> str:
    """Return a plain value as TOML, whose strings, numbers and lists are those of JSON."""
    if value is dataclasses.MISSING or value is None:
        return '""'
    if isinstance(value, tuple):
        return json.dumps(list(value), ensure_ascii=False)
    return json.dumps(value, ensure_ascii=False)
