"""Find a plugin's package on the path without importing it, also when another one hides it."""

from __future__ import annotations

import importlib.util
from functools import lru_cache
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path

import dltool
from dltool.errors import PluginError


def find_package(package: str) -> ModuleSpec:
    """Return the spec of a top-level package as an import would find it.

    Raises:
        PluginError: E401, there is none.
    """
    try:
        spec = importlib.util.find_spec(package)
    except Exception as error:  # a path hook or a half-removed module can raise anything
        raise PluginError("E401", f"its package {package!r} cannot be found: {error}") from error
    if spec is None:
        raise PluginError("E401", f"its package {package!r} is not there")
    return spec


def find_own(package: str, topic: str) -> ModuleSpec | None:
    """Return the spec of one of our own topics: beside the core, whatever the path says."""
    root = Path(dltool.__file__).parent.parent
    for folder in (root, root / "plugins" / topic):
        spec = PathFinder.find_spec(package, [str(folder)])
        if spec is not None and spec.origin is not None:
            return spec
    return None


def find_module(spec: ModuleSpec, module: str) -> list[ModuleSpec] | None:
    """Return the specs from the package down to a module of it; None when one is not there."""
    chain = [spec]
    parts = module.split(".")
    for depth in range(1, len(parts)):
        locations = chain[-1].submodule_search_locations
        found = None
        if locations is not None:
            name = ".".join(parts[: depth + 1])
            found = PathFinder.find_spec(name, list(locations))
        if found is None:
            return None
        chain.append(found)
    return chain


@lru_cache(maxsize=512)
def is_importable(package: str) -> bool:
    """Tell whether a top-level package can be found; nothing is imported."""
    try:
        return importlib.util.find_spec(package) is not None
    except Exception:
        return False


def stamp(spec: ModuleSpec) -> str:
    """Return a text that changes when a source file directly in the package changes."""
    facts = []
    for location in spec.submodule_search_locations or ([spec.origin] if spec.origin else []):
        path = Path(location)
        files = sorted(path.glob("*.py"))[:500] if path.is_dir() else [path, *path.parents][:3]
        for file in files:
            if file.is_file():
                status = file.stat()
                facts.append(f"{file.name}:{status.st_size}:{status.st_mtime_ns}")
    import zlib

    return f"{zlib.crc32('|'.join(facts).encode()):08x}"
