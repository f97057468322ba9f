"""Write a complete package for a new topic, from the files of `dltool/templates/topic`."""

from __future__ import annotations

from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path

from dltool import API_LEVEL, __version__, files
from dltool.commands import CORE_COMMANDS
from dltool.errors import ConfigError
from dltool.plugins import manifest

SUFFIX = ".txt"


def write(topic: str, folder: Path) -> list[Path]:
    """Write the package of a topic into a new folder; return its files.

    Raises:
        ConfigError: E202, the name cannot be a topic's; E204, the folder exists already.
        DltoolError: E101, a file cannot be written.
    """
    _check_name(topic)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError("E204", f"{folder} exists already", cure="choose another with --out")
    module = topic.replace("-", "_")
    values = {
        "topic": topic,
        "module": module,
        "package": f"dltool_{module}",
        "summary": "Sort rows of numbers into classes with a small network",
        "api": str(API_LEVEL),
        "next_api": str(API_LEVEL + 1),
        "dltool": __version__,
    }
    written = []
    for name, content in _files(resources.files("dltool") / "templates" / "topic"):
        path = folder / _filled(name, values)
        if path.parts[len(folder.parts)] == "package":
            path = folder / values["package"] / path.name
        files.write_bytes_atomic(path, _filled(content, values).encode())
        written.append(path)
    return sorted(written)


def _check_name(topic: str) -> None:
    plain = topic.replace("-", "").isalnum() and topic.isascii() and topic[0].isalpha()
    if not plain or topic != topic.lower() or not manifest.is_name(topic) or topic[-1] == "-":
        raise ConfigError(
            "E202",
            "this cannot be the name of a topic",
            received=topic,
            expected="small letters, digits and -, beginning with a letter",
            cure="dltool plugin new my-topic",
        )
    if topic in CORE_COMMANDS:
        raise ConfigError(
            "E202",
            f"{topic} is a command of dltool itself",
            cure=f"choose another name, as my-{topic}",
        )


def _files(folder: Traversable, prefix: str = "") -> list[tuple[str, str]]:
    found = []
    for item in folder.iterdir():
        if item.is_dir():
            found += _files(item, f"{prefix}{item.name}/")
        elif item.name.endswith(SUFFIX):
            content = item.read_text(encoding="utf-8")
            found.append((prefix + item.name.removesuffix(SUFFIX), content))
    return found


def _filled(text: str, values: dict[str, str]) -> str:
    for key, value in values.items():
        text = text.replace("{{" + key + "}}", value)
    return text
