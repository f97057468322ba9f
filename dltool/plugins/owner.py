"""Which program owns this environment, and the command with which it installs packages."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dltool.errors import PluginError


@dataclass(frozen=True)
class Owner:
    """The program that may change this environment.

    Attributes:
        name: `pip`, `uv pip`, `pipx`, `uv tool` or `system`.
        prefix: the environment.
        program: the program's path, or its name where it is not found.
        host: what `uv tool` has been told to install: dltool, or its path.
        others: what it has been told to install beside dltool.
    """

    name: str
    prefix: Path
    program: str = ""
    host: str = "dltool"
    others: tuple[str, ...] = ()


def detect(prefix: Path | None = None, *, in_venv: bool | None = None) -> Owner:
    """Tell who owns an environment; without arguments, the one that runs."""
    place = Path(sys.prefix) if prefix is None else prefix
    if (place / "uv-receipt.toml").is_file():
        host, others = _receipt(place / "uv-receipt.toml")
        return Owner("uv tool", place, shutil.which("uv") or "uv", host, others)
    if (place / "pipx_metadata.json").is_file():
        return Owner("pipx", place, shutil.which("pipx") or "pipx")
    virtual = sys.prefix != sys.base_prefix if in_venv is None else in_venv
    if not virtual and _is_external():
        return Owner("system", place)
    has_pip = importlib.util.find_spec("pip") is not None
    uv = shutil.which("uv")
    if uv and (_made_by_uv(place) or not has_pip):
        return Owner("uv pip", place, uv)
    return Owner("pip", place, sys.executable if has_pip else "")


def _made_by_uv(prefix: Path) -> bool:
    try:
        lines = (prefix / "pyvenv.cfg").read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError):
        return False
    return any(line.partition("=")[0].strip() == "uv" for line in lines)


def _is_external() -> bool:
    """PEP 668: the distributor has marked the interpreter's packages as its own."""
    return Path(sysconfig.get_path("stdlib"), "EXTERNALLY-MANAGED").is_file()


def _receipt(path: Path) -> tuple[str, tuple[str, ...]]:
    """Return dltool and the packages beside it, as `uv tool install` would be told again."""
    import tomllib

    try:
        wanted = tomllib.loads(path.read_text(encoding="utf-8"))["tool"]["requirements"]
        host = [_requirement(item) for item in wanted if item["name"] == "dltool"]
        others = [_requirement(item) for item in wanted if item["name"] != "dltool"]
        return (host or ["dltool"])[0], tuple(others)
    except (OSError, ValueError, LookupError, TypeError):
        return "dltool", ()


def _requirement(item: dict[str, Any]) -> str:
    for key in ("editable", "directory", "path", "url"):
        if key in item:
            return str(item[key])
    extras = f"[{','.join(item['extras'])}]" if item.get("extras") else ""
    return f"{item['name']}{extras}{item.get('specifier', '')}"


def install_command(
    owner: Owner, wanted: Sequence[str], *, upgrade: bool = False, editable: bool = False
) -> list[str]:
    """Return the command that installs packages, names or paths, into the environment.

    Raises:
        PluginError: E406, the environment may not be changed from here; the cure says how else.
    """
    _refuse(owner, wanted)
    again = ["--upgrade"] if upgrade else []
    targets = [word for item in wanted for word in (["--editable", item] if editable else [item])]
    if owner.name == "pip":
        return [owner.program, "-m", "pip", "install", *again, *targets]
    if owner.name == "uv pip":
        return [owner.program, "pip", "install", "--python", sys.executable, *again, *targets]
    if owner.name == "pipx":
        force = ["--force"] if upgrade else []
        mode = ["--editable"] if editable else []
        return [owner.program, "inject", owner.prefix.name, *force, *mode, *wanted]
    kept = [word for item in owner.others for word in ("--with", item)]
    flag = "--with-editable" if editable else "--with"
    fresh = [word for item in wanted for word in (flag, item)]
    return [owner.program, "tool", "install", owner.host, *again, *kept, *fresh]


def uninstall_command(owner: Owner, distribution: str) -> list[str]:
    """Return the command that removes one package from the environment.

    Raises:
        PluginError: E406, the environment may not be changed from here.
    """
    _refuse(owner, [distribution], verb="uninstall")
    if owner.name == "pip":
        return [owner.program, "-m", "pip", "uninstall", "--yes", distribution]
    if owner.name == "uv pip":
        return [owner.program, "pip", "uninstall", "--python", sys.executable, distribution]
    if owner.name == "pipx":
        return [owner.program, "uninject", owner.prefix.name, distribution]
    kept = [item for item in owner.others if not _names(item, distribution)]
    words = [word for item in kept for word in ("--with", item)]
    return [owner.program, "tool", "install", "--reinstall", owner.host, *words]


def _names(requirement: str, distribution: str) -> bool:
    import re

    name = re.split(r"[^\w.-]", Path(requirement).name if os.sep in requirement else requirement)[0]
    normal = [re.sub(r"[-_.]+", "-", text).lower() for text in (name, distribution)]
    return normal[0] == normal[1]


def _refuse(owner: Owner, wanted: Sequence[str], verb: str = "install") -> None:
    names = " ".join(wanted)
    if owner.name == "system":
        raise PluginError(
            "E406",
            "this Python belongs to the operating system (PEP 668)",
            cure=f"pipx install dltool, then pipx inject dltool {names}; or "
            f"python3 -m venv ENV, then ENV/bin/pip install dltool {names}"
            if verb == "install"
            else f"remove {names} with the system's package manager",
        )
    if owner.name == "pip" and not owner.program:
        raise PluginError(
            "E406",
            "this environment has neither pip nor uv",
            cure=f"{sys.executable} -m ensurepip, then repeat the command",
        )


def run(command: Sequence[str], folder: Path | None = None) -> int:
    """Run an installer with its output on stderr; return its exit code.

    Raises:
        PluginError: E405, the program is not there.
    """
    try:
        return subprocess.run(command, stdout=2, check=False, cwd=folder).returncode
    except OSError as error:
        raise PluginError(
            "E405",
            f"{command[0]} cannot be run: {error.strerror}",
            cure=f"install {command[0]}, then repeat the command",
        ) from error
