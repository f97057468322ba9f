"""Import one plugin in this process so that the host stays as it was."""

from __future__ import annotations

import importlib
import importlib.util
import os
import re
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout, suppress
from importlib.machinery import ModuleSpec
from typing import TYPE_CHECKING, Any

from dltool.errors import PluginError

if TYPE_CHECKING:
    import typer

    from dltool.plugins import Plugin


def load(plugin: Plugin, own: ModuleSpec | None) -> typer.Typer:
    """Import the plugin's package and return its Typer app; see `plugins.load`."""
    import typer

    try:
        with contained():
            if plugin.is_own and own is not None:
                prefer(own)
            app: Any = importlib.import_module(plugin.module)
            for part in plugin.reference.partition(":")[2].split("."):
                app = getattr(app, part)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        raise PluginError(
            "E401",
            f"plugin {plugin.name!r} cannot be imported: {words(error)}",
            cure=cure(plugin, error),
        ) from error
    if not isinstance(app, typer.Typer):
        raise PluginError(
            "E403",
            f"plugin {plugin.name!r} is not a Typer app",
            received=type(app).__name__,
            expected="a typer.Typer object",
            cure=cure(plugin),
        )
    return app


def cure(plugin: Plugin, error: BaseException | None = None) -> str:
    """Return what to do about a plugin that cannot be used."""
    if isinstance(error, ModuleNotFoundError) and error.name:
        top = error.name.partition(".")[0]
        if top not in (plugin.package, "dltool"):
            return f"install the package that brings {top}, or dltool plugin disable {plugin.name}"
    if "API level" in plugin.problem:
        return f"dltool plugin install --upgrade {plugin.distribution}, or upgrade dltool"
    return f"dltool plugin check {plugin.name}, or dltool plugin uninstall {plugin.distribution}"


def missing_package(error: BaseException | None) -> str:
    """Return the name of the package whose absence an import error tells; empty for others."""
    return error.name or "" if isinstance(error, ModuleNotFoundError) else ""


def words(error: BaseException) -> str:
    """Return an exception as one line: its kind, its text, and the place of a syntax error."""
    from dltool.plugins.manifest import printable

    kind = type(error).__name__
    try:
        text = str(error)
    except Exception:
        text = "(no text)"
    if isinstance(error, SyntaxError):
        text = re.sub(r"\(.*[/\\]", "(", text)
    elif isinstance(error, SystemExit):
        text = f"it ends the program with {text or 'None'}"
    return f"{kind}: {printable(text)[:300]}".strip(": ")


def prefer(own: ModuleSpec) -> None:
    """Import our own package from beside the core, though another of its name is first."""
    present = sys.modules.get(own.name)
    if present is not None and getattr(present, "__file__", None) == own.origin:
        return
    first = importlib.util.find_spec(own.name) if present is None else None
    if first is not None and first.origin == own.origin:
        return
    for name in [key for key in sys.modules if key == own.name or key.startswith(f"{own.name}.")]:
        del sys.modules[name]
    module = importlib.util.module_from_spec(own)
    sys.modules[own.name] = module
    assert own.loader is not None
    own.loader.exec_module(module)


@contextmanager
def contained() -> Iterator[None]:
    """Undo what an import may change in this process: output, path, folder, signal handlers."""
    path, folder = list(sys.path), _working_folder()
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        with redirect_stdout(sys.stderr), _descriptor_redirected():
            yield
    finally:
        sys.path[:] = path
        if folder and folder != _working_folder():
            with suppress(OSError):
                os.chdir(folder)
        for number, handler in handlers.items():
            if signal.getsignal(number) is not handler:
                with suppress(ValueError, TypeError):  # other threads may not set handlers
                    signal.signal(number, handler)


def _working_folder() -> str:
    try:
        return os.getcwd()
    except OSError:  # it was removed
        return ""


@contextmanager
def _descriptor_redirected() -> Iterator[None]:
    """Let descriptor 1 lead to stderr: libraries and children write past `sys.stdout`."""
    try:
        _flush()
        saved = os.dup(1)
    except (OSError, ValueError):  # there is no stdout
        yield
        return
    try:
        with suppress(OSError):
            os.dup2(2, 1)
        yield
    finally:
        with suppress(OSError, ValueError):
            _flush()
        os.dup2(saved, 1)
        os.close(saved)


def _flush() -> None:
    if sys.__stdout__ is not None:
        sys.__stdout__.flush()
