"""JSON Schema of what commands are told, and of what they print with `--json`.

Inputs come from the Typer definitions and the config dataclasses. What a command puts under `data`
is written down in `outputs.json` beside its package: keys that a result always has, and their
types.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dltool import files, plugins, surroundings, tree
from dltool.commands import CORE_COMMANDS
from dltool.console import SCHEMA
from dltool.errors import CAUSES, EXIT_CODES, PluginError
from dltool.training_config import TrainingConfig
from dltool.tree import Parameter

DRAFT = "https://json-schema.org/draft/2020-12/schema"
OUTPUTS = "outputs.json"
TYPES = {bool: "boolean", int: "integer", float: "number", str: "string", Path: "string"}

Schema = dict[str, Any]


# ---- what a command is told -----------------------------------------------------------------


def inputs(topic: str, verb: str) -> Schema:
    """Return the schema of a command's input.

    For a training: of its settings, as they stand in a `--config` file or a section of dltool.toml.
    For another command: of its arguments and options by name.

    Raises:
        PluginError, ConfigError: there is no such topic or command.
    """
    command = tree.command(topic, verb)
    title = f"dltool {topic} {verb}".strip()
    told = tree.parameters(command)
    config_class = getattr(command.callback, "config_class", None)
    if config_class is not None:
        properties = _settings(config_class, told)
        required: list[str] = []
    else:
        properties = {each.name: _property(each) for each in told}
        required = [each.name for each in told if each.required]
    return {
        "$schema": DRAFT,
        "title": title,
        "description": _first_line(command.help),
        **_closed(properties),
        **({"required": required} if required else {}),
    }


def project() -> Schema:
    """Return the schema of a whole dltool.toml: a section for all trainings, and one a topic."""
    shared = [each.name for each in dataclasses.fields(TrainingConfig)]
    sections: Schema = {}
    for plugin in plugins.discover():
        try:
            group = tree.root(plugin.name)
        except PluginError:
            continue  # a broken plugin has no settings to tell of
        for verb, command in getattr(group, "commands", {}).items():
            config_class = getattr(command.callback, "config_class", None)
            if config_class is None:
                continue
            told = _settings(config_class, tree.parameters(command))
            section = sections.setdefault(plugin.name, _closed({}))
            if verb == surroundings.SHARED:
                section["properties"] |= told
                common = {name: told[name] for name in shared if name in told}
                sections.setdefault(surroundings.SHARED, _closed({}))["properties"] |= {
                    # each topic has a default of its own
                    name: {key: value for key, value in entry.items() if key != "default"}
                    for name, entry in common.items()
                }
            else:
                section["properties"][verb] = _closed(told)
    return {"$schema": DRAFT, "title": "dltool.toml", **_closed(sections)}


def _closed(properties: Schema) -> Schema:
    return {"type": "object", "properties": properties, "additionalProperties": False}


def _settings(config_class: type[Any], told: list[Parameter]) -> Schema:
    known = {each.name: each for each in told}
    properties = {}
    for field in dataclasses.fields(config_class):
        parameter = known.get(field.name)
        entry = _property(parameter) if parameter else {}
        if field.default is not dataclasses.MISSING:
            entry["default"] = _plain(field.default)
            entry.setdefault("type", TYPES.get(type(field.default), "string"))
        properties[field.name] = entry
    return properties


def _property(parameter: Parameter) -> Schema:
    entry: Schema = {"type": TYPES[parameter.kind]}
    if parameter.low is not None:
        entry["minimum"] = parameter.low
    if parameter.high is not None:
        entry["maximum"] = parameter.high
    if parameter.is_list:
        entry = {"type": "array", "items": entry}
    if parameter.default is not None and not parameter.required:
        entry["default"] = _plain(parameter.default)
    if parameter.help:
        entry["description"] = parameter.help
    return entry


def _plain(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return value if isinstance(value, bool | int | float | str) or value is None else str(value)


# ---- what a command prints ------------------------------------------------------------------


def output(topic: str, verb: str) -> Schema:
    """Return the schema of the one object that a command prints with `--json`, errors included.

    Raises:
        PluginError, ConfigError: there is no such topic or command.
    """
    command = tree.command(topic, verb)
    title = f"{topic} {verb}".strip()
    data = _data(topic).get(verb, {"type": "object"})
    if hasattr(command.callback, "config_class"):
        data = {"anyOf": [data, DRY_RUN, STOPPED]}
    return {
        "$schema": DRAFT,
        "title": f"dltool {title} --json",
        "oneOf": [_succeeded(title, data), FAILED],
    }


def _data(topic: str) -> Mapping[str, Schema]:
    """Return what is written down of the results of a topic's commands, by verb."""
    path = place(topic)
    if path is None or not path.is_file():
        return {}
    found = json.loads(files.read_limited(path, 4 << 20))
    return found if isinstance(found, dict) else {}


def place(topic: str) -> Path | None:
    """Return where a topic's or core command's outputs are written down."""
    if topic in CORE_COMMANDS:
        return Path(__file__).parent / "outputs" / f"{topic}.json"
    locations = plugins.spec_of(plugins.find(topic)).submodule_search_locations
    return Path(locations[0], OUTPUTS) if locations else None


def _succeeded(command: str, data: Schema) -> Schema:
    return {
        "type": "object",
        "required": ["schema", "command", "status", "data", "warnings"],
        "properties": {
            "schema": {"const": SCHEMA},
            "command": {"const": command},
            "status": {"const": "ok"},
            "data": data,
            "warnings": {"type": "array", "items": {"type": "string"}},
        },
        "additionalProperties": False,
    }


FAILED: Schema = {
    "type": "object",
    "required": ["schema", "command", "status", "error", "warnings"],
    "properties": {
        "schema": {"const": SCHEMA},
        "command": {"type": "string"},
        "status": {"const": "error"},
        "error": {
            "type": "object",
            "required": ["code", "cause", "exit_code", "message", "received", "expected", "cure"],
            "properties": {
                "code": {"enum": sorted(CAUSES)},
                "cause": {"type": "string"},
                "exit_code": {"enum": sorted(set(EXIT_CODES) - {0})},
                "message": {"type": "string"},
                "received": {"type": ["string", "null"]},
                "expected": {"type": "string"},
                "cure": {"type": "string"},
            },
        },
        "warnings": {"type": "array", "items": {"type": "string"}},
    },
}
DRY_RUN: Schema = {
    "title": "what --dry-run forecasts",
    "type": "object",
    "required": ["dry_run", "device", "steps", "step_seconds", "training_seconds", "memory_bytes"],
    "properties": {
        "dry_run": {"const": True},
        "device": {"type": "string"},
        "steps": {"type": "integer"},
        "step_seconds": {"type": "number"},
        "training_seconds": {"type": "number"},
        "memory_bytes": {"type": ["integer", "null"]},
        "disk_bytes": {"type": ["integer", "null"]},
    },
}
STOPPED: Schema = {
    "title": "a run that --max-time has stopped",
    "type": "object",
    "required": ["run", "status", "step", "epoch", "resume"],
    "properties": {
        "run": {"type": "string"},
        "status": {"const": "stopped"},
        "step": {"type": "integer"},
        "epoch": {"type": "integer"},
        "resume": {"type": "string"},
    },
}


def _first_line(text: str | None) -> str:
    return " ".join((text or "").split("\n\n")[0].split())
