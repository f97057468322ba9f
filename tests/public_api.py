"""The public API of plugins as text: `python tests/public_api.py --write` renews the snapshot.

It refuses to drop or to change a name while `dltool.API_LEVEL` stays; `--unreleased` lets it, for a
level that no release has carried yet.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import importlib
import inspect
import json
import re
import typing
from pathlib import Path

import dltool

ROOT = Path(__file__).parent.parent
NAME = re.compile(r"`(dltool(?:\.\w+)+)`")


def snapshot_path():
    """Return the file of the present level."""
    return ROOT / "tests" / f"api_level_{dltool.API_LEVEL}.json"


def documented():
    """Return the names that docs/plugins.md calls public, without those of modules."""
    text = (ROOT / "docs" / "plugins.md").read_text(encoding="utf-8")
    section = text.split("## Public API")[1]
    rows = [line.split("|") for line in section.splitlines() if line.startswith("| `dltool")]
    return sorted({name for row in rows for name in NAME.findall(row[2])})


def resolve(name):
    """Import what a dotted name means."""
    module, _, attribute = name.rpartition(".")
    return getattr(importlib.import_module(module), attribute)


def described(name):
    """Return a name's signature as text."""
    value = resolve(name)
    if inspect.isclass(value):
        return describe_class(value)
    if callable(value) and not typing.get_args(value):
        return f"def {inspect.signature(value)}"
    if typing.get_origin(value) is typing.Annotated or typing.get_args(value):
        kind, *details = typing.get_args(value)
        # in Annotated, Typer takes the first flag for a default until it builds the command
        given = [
            (getattr(i, "default", ""), *(getattr(i, "param_decls", ()) or ())) for i in details
        ]
        flags = [flag for flags in given for flag in flags if str(flag).startswith("-")]
        shown = kind.__name__ if isinstance(kind, type) else str(kind)
        return f"option {shown} {' '.join(flags)}".strip()
    return type(value).__name__


def describe_class(value):
    """Return bases, constructor, fields, properties and methods of a class."""
    lines = [f"class ({', '.join(base.__name__ for base in value.__bases__)})"]
    if not getattr(value, "_is_protocol", False):
        lines.append(f"def __init__{inspect.signature(value)}")
    if dataclasses.is_dataclass(value):
        lines += [f"{field.name}: {field.type}" for field in dataclasses.fields(value)]
    for name, member in sorted(vars(value).items()):
        if name.startswith("_") and name != "__len__":
            continue
        if isinstance(member, property):
            lines.append(f"property {name}: {member.fget.__annotations__.get('return')}")
        elif isinstance(member, classmethod):
            lines.append(f"classmethod {name}{inspect.signature(member.__func__)}")
        elif inspect.isfunction(member):
            lines.append(f"def {name}{inspect.signature(member)}")
    return lines


def current():
    """Return the public API as it is now."""
    return {name: described(name) for name in documented()}


def fingerprint(api):
    """Return eight digits that change with any name or signature."""
    return hashlib.sha256(json.dumps(api, sort_keys=True).encode()).hexdigest()[:8]


def changelog_line(api):
    """Return the line that CHANGELOG.md must hold."""
    return f"Public API of plugins: level {dltool.API_LEVEL}, fingerprint {fingerprint(api)}"


def broken(before, now):
    """Return the names that went or changed: what a plugin may have relied on."""
    return sorted(name for name, text in before.items() if now.get(name) != text)


def main():
    """Compare, or write the snapshot."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--unreleased", action="store_true")
    arguments = parser.parse_args()
    now, path = current(), snapshot_path()
    before = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    gone = broken(before, now)
    print(f"changed or gone: {', '.join(gone) or 'none'}")
    print(f"added: {', '.join(sorted(set(now) - set(before))) or 'none'}")
    if arguments.write and gone and not arguments.unreleased:
        parser.error("raise dltool.API_LEVEL first: plugins may rely on what would change")
    if arguments.write:
        path.write_text(json.dumps(now, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    print(f"CHANGELOG.md must say: {changelog_line(now)}")


if __name__ == "__main__":
    main()
