"""A quick look at a plugin's source, without importing it: does it compile, are its imports there?

What this finds is certain; what it does not find (an exception, a hang) the check in a process of
its own finds, see `probe`.
"""

from __future__ import annotations

import re
import sys
import warnings
from collections.abc import Iterator
from importlib.machinery import ModuleSpec
from pathlib import Path
from time import perf_counter

from dltool.plugins import places

MAX_FILES = 8
MAX_BYTES = 64 * 1024
IMPORT_LINE = re.compile(rb"^(?:import|from)[ \t]+([\w.]+)", re.MULTILINE)
# such a module may make packages importable that cannot be found before it runs
PATH_CHANGES = re.compile(rb"sys\.path|__path__|sys\.modules|meta_path|addsitedir")
SEARCHED = sys.stdlib_module_names | {"typer", "dltool"}


def trouble(spec: ModuleSpec, module: str, deadline: float) -> str:
    """Return why the module cannot be imported, as far as its files tell; empty when nothing does.

    Args:
        spec: the top-level package.
        module: the module that the entry point names.
        deadline: value of `perf_counter` after which nothing more is looked at.
    """
    chain = places.find_module(spec, module)
    if chain is None:
        return f"its module {module!r} is not there"
    queue, seen = list(chain), {item.name for item in chain}
    changes_path = False
    for count, item in enumerate(queue):
        if count == MAX_FILES or perf_counter() > deadline:
            break
        source = _source(item)
        if source is None:
            continue
        problem = _syntax(item, source)
        if problem:
            return problem
        changes_path = changes_path or PATH_CHANGES.search(source) is not None
        for name in _imported(item, source):
            problem = "" if changes_path else _missing(item, source, spec, name)
            if problem:
                return problem
            if name.startswith(f"{spec.name}.") and name not in seen:
                seen.add(name)
                queue += (places.find_module(spec, name) or [])[-1:]
    return ""


def _source(spec: ModuleSpec) -> bytes | None:
    read = getattr(spec.loader, "get_data", None)
    if read is None or spec.origin is None or not spec.origin.endswith(".py"):
        return None
    try:
        path = Path(spec.origin)
        if path.is_file() and path.stat().st_size > MAX_BYTES:
            return None
        source = bytes(read(spec.origin))
    except (OSError, ValueError):
        return None
    return source if len(source) <= MAX_BYTES else None


def _syntax(spec: ModuleSpec, source: bytes) -> str:
    if _is_compiled(spec):
        return ""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            compile(source, spec.origin or spec.name, "exec", dont_inherit=True)
    except SyntaxError as error:
        place = f"{Path(spec.origin or '').name}, line {error.lineno}"
        return f"SyntaxError: {error.msg} ({place})"
    except (ValueError, RecursionError, MemoryError, OverflowError) as error:
        return f"{type(error).__name__}: {error}"
    return ""


def _is_compiled(spec: ModuleSpec) -> bool:
    """Tell whether Python has compiled this very source before: then it has no syntax error."""
    try:
        status = Path(spec.origin or "").stat()
        with Path(spec.cached or "").open("rb") as stream:
            head = stream.read(16)
    except (OSError, ValueError, TypeError):
        return False
    words = [int.from_bytes(head[i : i + 4], "little") for i in (4, 8, 12)]
    facts = [0, int(status.st_mtime) & 0xFFFFFFFF, status.st_size & 0xFFFFFFFF]
    return len(head) == 16 and words == facts


def _imported(spec: ModuleSpec, source: bytes) -> Iterator[str]:
    """Yield the modules that lines at the left margin import, by their full names."""
    package = spec.name if spec.submodule_search_locations else spec.name.rpartition(".")[0]
    for match in IMPORT_LINE.finditer(source):
        name = match[1].decode("utf-8", "replace")
        if name.startswith("."):
            if name.startswith("..") or len(name) == 1:
                continue  # rare, and the check finds what is wrong there
            name = f"{package}{name}"
        yield name


def _missing(spec: ModuleSpec, source: bytes, package: ModuleSpec, name: str) -> str:
    top = name.partition(".")[0]
    if top in SEARCHED:
        return ""
    if top == package.name:
        gone = name != top and places.find_module(package, name) is None
    else:
        gone = not places.is_importable(top)
    if not gone or not _is_certain(source, name if top == package.name else top):
        return ""
    return f"ModuleNotFoundError: No module named {name if top == package.name else top!r}"


def _is_certain(source: bytes, name: str) -> bool:
    """Confirm by the syntax tree: the line could stand inside a text, or behind a guard."""
    import ast

    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    for node in tree.body:
        if isinstance(node, ast.Import):
            found = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            found = [node.module or ""]
        else:
            continue
        last = name.rpartition(".")[2]
        if any(item in (name, last) or item.startswith(f"{name}.") for item in found):
            return True
    return False
