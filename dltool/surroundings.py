"""Settings that stand around a command: of the user, of the project, of the environment.

One rule for files and variables. A file has a section for every topic and one, `train`, for all:

    [train]
    seed = 7

    [cnn]
    learning_rate = 0.02

    [bert-finetune.pretrain]    # another training command of a topic
    epochs = 3

and a variable is named DLTOOL_SECTION_KEY: DLTOOL_TRAIN_SEED, DLTOOL_CNN_LEARNING_RATE,
DLTOOL_BERT_FINETUNE_PRETRAIN_EPOCHS. A topic's own section comes before `train`; the environment
comes before the project's file, and that before the user's.
"""

from __future__ import annotations

import os
import types
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dltool import configs, files
from dltool.errors import ConfigError
from dltool.plugins.settings import config_folder
from dltool.training_config import TrainingConfig

SHARED = "train"
PROJECT = "dltool.toml"
PYPROJECT = "pyproject.toml"
USER = "config.toml"
PREFIX = "DLTOOL_"
PYPROJECT_BYTES = 1 << 20
BOOLEANS = {"1": True, "true": True, "yes": True, "on": True} | {
    "0": False,
    "false": False,
    "no": False,
    "off": False,
}

Sections = dict[str, Any]


@dataclass(frozen=True)
class Around:
    """What the surroundings say of one training command's settings.

    Attributes:
        values: the settings that they give.
        origins: where each comes from.
        warnings: variables that look like settings and are none.
    """

    values: Mapping[str, Any] = field(default_factory=dict)
    origins: Mapping[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


def around(config_class: type[Any], topic: str, verb: str = "train") -> Around:
    """Return what user, project and environment say; nothing is created.

    Raises:
        ConfigError: E203, a file cannot be read or has an unknown key; E202, a variable's text is
            no value of its setting.
    """
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for kind, found in (("user", user_file()), ("project", project_file())):
        if found is None:
            continue
        path, sections = found
        for section, given in of_sections(path, sections, config_class, topic, verb).items():
            values.update(given)
            origins.update(dict.fromkeys(given, f"{kind} {path} [{section}]"))
    given, names, warnings = _environment(config_class, topic, verb)
    values.update(given)
    origins.update({key: f"environment {name}" for key, name in names.items()})
    return Around(values, origins, warnings)


# ---- files ----------------------------------------------------------------------------------


def user_file() -> tuple[Path, Sections] | None:
    """Return the user's own file and its sections, where there is one."""
    path = config_folder() / USER
    return (path, configs.read_toml(path)) if path.is_file() else None


def project_file(start: Path | None = None) -> tuple[Path, Sections] | None:
    """Return the nearest `dltool.toml`, or `pyproject.toml` with a table `tool.dltool`, upwards."""
    here = (start or Path.cwd()).absolute()
    for folder in (here, *here.parents):
        if (folder / PROJECT).is_file():
            return folder / PROJECT, configs.read_toml(folder / PROJECT)
        sections = _pyproject(folder / PYPROJECT)
        if sections is not None:
            return folder / PYPROJECT, sections
    return None


def _pyproject(path: Path) -> Sections | None:
    try:
        is_about_us = b"tool.dltool" in files.read_limited(path, PYPROJECT_BYTES)
    except (OSError, ValueError):
        return None  # none there, or none that could be meant for us
    if not is_about_us:
        return None
    table = configs.read_toml(path, PYPROJECT_BYTES).get("tool", {}).get("dltool")
    return table if isinstance(table, dict) else None


def of_sections(
    path: Path, sections: Sections, config_class: type[Any], topic: str, verb: str
) -> dict[str, dict[str, Any]]:
    """Return what a file's sections say of one training command, the most general first.

    Raises:
        ConfigError: E203, a key stands outside of a section, is unknown or has a wrong type.
    """
    refuse_loose(path, sections)
    found = {}
    if SHARED in sections:
        shared = configs.checked(path, sections[SHARED], TrainingConfig, f"[{SHARED}]")
        known = configs.field_names(config_class)
        found[SHARED] = {key: value for key, value in shared.items() if key in known}
    own = sections.get(topic)
    if own is not None:
        others = [key for key, value in own.items() if isinstance(value, dict)]
        if verb == SHARED:
            plain = {key: value for key, value in own.items() if key not in others}
            found[topic] = configs.checked(path, plain, config_class, f"[{topic}]")
        elif verb in others:
            name = f"{topic}.{verb}"
            found[name] = configs.checked(path, own[verb], config_class, f"[{name}]")
    return found


def refuse_loose(path: Path, sections: Sections) -> None:
    """Refuse keys that stand outside of every section.

    Raises:
        ConfigError: E203, naming the first.
    """
    for key, value in sections.items():
        if not isinstance(value, dict):
            raise ConfigError(
                "E203",
                f"the key {key!r} in {path} stands in no section",
                expected=f"sections: [{SHARED}] for every topic, or [cnn] for one",
                cure="put a section's name above it; see dltool config init",
            )


# ---- variables ------------------------------------------------------------------------------


def variable(key: str, topic: str, verb: str = SHARED) -> str:
    """Return the name of the variable that gives one topic's setting."""
    section = topic if verb == SHARED else f"{topic}_{verb}"
    return f"{PREFIX}{section}_{key}".upper().replace("-", "_").replace(".", "_")


def _environment(
    config_class: type[Any], topic: str, verb: str
) -> tuple[dict[str, Any], dict[str, str], tuple[str, ...]]:
    """Return values, the variables that gave them, and what looks like one and is none."""
    hints = typing.get_type_hints(config_class)
    known = configs.field_names(config_class)
    shared = configs.field_names(TrainingConfig)
    by_name = {variable(key, SHARED): key for key in known if key in shared}
    by_name |= {variable(key, topic, verb): key for key in known}
    values: dict[str, Any] = {}
    names: dict[str, str] = {}
    for name, key in by_name.items():
        text = os.environ.get(name, "")
        if text:
            values[key], names[key] = _parsed(name, text, hints[key]), name
    sections = (variable("", SHARED), variable("", topic, verb))
    shared_names = {variable(key, SHARED) for key in shared}
    found = _odd_ones(known, sections, by_name.keys() | shared_names)
    return values, names, tuple(found)


def _odd_ones(
    known: Iterable[str], sections: tuple[str, str], names: Iterable[str]
) -> Iterable[str]:
    for name in sorted(set(os.environ).difference(names)):
        section = next((each for each in sections if name.startswith(each)), "")
        key = name.removeprefix(section or PREFIX).lower()
        if section and not _is_of_another_verb(key, known):
            near = configs.nearest(key, known)
            hint = f"did you mean {section}{near.upper()}?" if near else "it has no effect"
            yield f"the variable {name} is no setting of this command; {hint}"
        elif not section and name.startswith(PREFIX) and key in known:
            own = sections[1] + key.upper()
            yield f"the variable {name} has no effect: name the topic, as in {own}"


def _is_of_another_verb(key: str, known: Iterable[str]) -> bool:
    verb, _, rest = key.partition("_")
    return verb != SHARED and rest in known


def _parsed(name: str, text: str, hint: Any) -> Any:
    """Return a variable's text as a value of a setting's type."""
    kinds = [hint] if not isinstance(hint, types.UnionType) else list(typing.get_args(hint))
    kind = next(each for each in kinds if each is not type(None))
    if typing.get_origin(kind) is tuple:
        inner = typing.get_args(kind)[0]
        return tuple(_parsed(name, part.strip(), inner) for part in text.split(","))
    try:
        if kind is bool:
            return BOOLEANS[text.strip().lower()]
        return kind(text)
    except (KeyError, ValueError) as error:
        expected = {bool: "true or false", int: "a whole number", float: "a number"}
        raise ConfigError(
            "E202",
            f"the variable {name} is not understood",
            received=text,
            expected=expected.get(kind, "another text"),
            cure=f"correct it, or unset {name}",
        ) from error
