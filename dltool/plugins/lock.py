"""The set of installed plugins as a text file, and what it takes to bring that set back."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution, version
from pathlib import Path
from urllib.parse import unquote, urlsplit

from dltool.errors import ConfigError
from dltool.plugins import Plugin

HEAD = "# plugins of dltool; bring them back with: dltool plugin sync FILE"
LINE = re.compile(r"([\w.-]+)==(\S+)(?:\s+@\s+(?:(editable)\s+)?(\S+))?")


@dataclass(frozen=True)
class Pin:
    """One package of the set.

    Attributes:
        source: a URL where it was not installed from an index; empty for those.
        is_editable: whether it was installed as a link to its source folder.
    """

    name: str
    version: str
    source: str = ""
    is_editable: bool = False

    def line(self) -> str:
        """Return the pin as a line of the lock file."""
        source = f" @ {'editable ' if self.is_editable else ''}{self.source}" if self.source else ""
        return f"{self.name}=={self.version}{source}"

    def target(self) -> str:
        """Return what an installer is told: `name==version`, or the path or URL it came from."""
        parts = urlsplit(self.source)
        if parts.scheme == "file":
            return unquote(parts.path)
        return f"{self.name} @ {self.source}" if self.source else f"{self.name}=={self.version}"


def freeze(found: Iterable[Plugin]) -> list[Pin]:
    """Return one pin for each distribution that brings plugins, dltool itself left out."""
    names = {plugin.distribution for plugin in found if not plugin.is_own}
    pins = []
    for name in sorted(names):
        try:
            source, is_editable = _source(name)
            pins.append(Pin(name, version(name), source, is_editable))
        except (PackageNotFoundError, ValueError, TypeError):
            continue  # metadata without a name or version cannot be installed again
    return pins


def _source(name: str) -> tuple[str, bool]:
    """Return where pip took a package from, as its `direct_url.json` tells (PEP 610)."""
    text = distribution(name).read_text("direct_url.json")
    if not text:
        return "", False
    try:
        facts = json.loads(text)
        url = str(facts["url"])
        vcs = facts.get("vcs_info")
        if vcs:
            url = f"{vcs['vcs']}+{url}@{vcs['commit_id']}"
        return url, bool(facts.get("dir_info", {}).get("editable", False))
    except (ValueError, LookupError, TypeError, AttributeError):
        return "", False


def text(pins: Sequence[Pin]) -> str:
    """Return the lock file's text."""
    return "\n".join([HEAD, *(pin.line() for pin in pins)]) + "\n"


def parse(content: str, source: Path | str) -> list[Pin]:
    """Read a lock file.

    Raises:
        ConfigError: E203, a line is not understood.
    """
    pins = []
    for number, line in enumerate(content.splitlines(), 1):
        stripped = line.strip()
        if not stripped or stripped.startswith("#"):
            continue
        match = LINE.fullmatch(stripped)
        if match is None:
            raise ConfigError(
                "E203",
                f"line {number} of {source} is not understood",
                received=stripped[:100],
                expected="name==version, with @ URL behind it for other sources than an index",
                cure="write the file with dltool plugin freeze",
            )
        pins.append(Pin(match[1], match[2], match[4] or "", match[3] is not None))
    return pins


def compare(wanted: Sequence[Pin], present: Sequence[Pin]) -> tuple[list[Pin], list[Pin]]:
    """Return the pins that must be installed, and the present ones that the file does not name."""
    here = {_key(pin): pin for pin in present}
    names = {_key(pin) for pin in wanted}
    absent = [
        pin
        for pin in wanted
        if _key(pin) not in here
        or here[_key(pin)].version != pin.version
        or here[_key(pin)].is_editable != pin.is_editable
    ]
    return absent, [pin for pin in present if _key(pin) not in names]


def _key(pin: Pin) -> str:
    return re.sub(r"[-_.]+", "-", pin.name).lower()
