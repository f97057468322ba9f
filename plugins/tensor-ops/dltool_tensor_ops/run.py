"""Run demos, hold them against their known values, and show their source."""

from __future__ import annotations

import inspect
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any

from dltool import device as devices
from dltool.console import Console, use_color
from dltool.errors import CheckFailed
from dltool_tensor_ops.catalog import Demo
from dltool_tensor_ops.demo import Setup, Shown
from dltool_tensor_ops.golden import Comparison, compare


def run_demos(
    demos: list[Demo], *, device: str, seed: int, plot: Path | None, console: Console
) -> None:
    """Run demos in turn and print what they found; write their pictures to the folder `plot`."""
    choice = devices.choose(device)
    results, texts = [], []
    with console.progress(len(demos), "demos", "demo") as progress:
        for demo in demos:
            started = time.perf_counter()
            shown = demo.load()(Setup.of(demo.name, choice.device, seed))
            seconds = time.perf_counter() - started
            picture = _draw(demo, shown, plot)
            results.append(_as_dict(demo, shown, seconds, picture))
            texts.append(_as_text(demo, shown))
            progress.advance(info=demo.name)
    console.result({"device": str(choice.device), "demos": results}, "\n\n".join(texts))
    drawn = [result["picture"] for result in results if result["picture"]]
    if plot is not None:
        console.note(f"wrote {len(drawn)} pictures to {plot}" if drawn else _no_picture(demos))


def _draw(demo: Demo, shown: Shown, folder: Path | None) -> Path | None:
    if folder is None or shown.picture is None:
        return None
    path = folder / f"{demo.name}.png"
    folder.mkdir(parents=True, exist_ok=True)
    shown.picture(path)
    return path


def _no_picture(demos: list[Demo]) -> str:
    return f"{', '.join(demo.name for demo in demos)}: nothing to draw"


def _as_dict(demo: Demo, shown: Shown, seconds: float, picture: Path | None) -> dict[str, Any]:
    return {
        "name": demo.name,
        "title": shown.title,
        "lines": shown.lines,
        "values": shown.values,
        "seconds": round(seconds, 4),
        "picture": None if picture is None else str(picture),
    }


def _as_text(demo: Demo, shown: Shown) -> str:
    head = f"{demo.name}: {shown.title}"
    return "\n".join([head, "-" * len(head), *shown.lines])


def check_demos(demos: list[Demo], *, device: str, seed: int, console: Console) -> None:
    """Hold every demo against its known values; a demo that raises has failed.

    Raises:
        CheckFailed: naming the demos, and the first value that does not hold.
    """
    choice = devices.choose(device)
    checked: dict[str, list[Comparison]] = {}
    with console.progress(len(demos), "demos", "demo") as progress:
        for demo in demos:
            checked[demo.name] = _compare(demo, choice.device, seed)
            progress.advance(info=demo.name)
    failed = {
        name: broken
        for name, all_ in checked.items()
        if (broken := [c for c in all_ if not c.holds])
    }
    if not (failed and console.json):  # with --json the error is the one object
        data = {
            "device": str(choice.device),
            "failed": list(failed),
            "demos": {name: [vars(one) for one in all_] for name, all_ in checked.items()},
        }
        console.result(data, "\n".join(_verdict(name, all_) for name, all_ in checked.items()))
    if failed:
        name, (first, *_) = next(iter(failed.items()))
        raise CheckFailed(
            "E601",
            f"{len(failed)} of {len(checked)} demos failed: {', '.join(failed)}; "
            f"{name}.{first.key}",
            received=first.received,
            expected=first.expected,
            cure=f"dltool tensor-ops run {name}, and see dltool doctor",
        )


def _compare(demo: Demo, device: Any, seed: int) -> list[Comparison]:
    try:
        shown = demo.load()(Setup.of(demo.name, device, seed))
    except Exception as error:
        told = f"{type(error).__name__}: {error}"
        return [Comparison("it runs", "no exception", told, False)]
    return compare(demo.golden, shown.values)


def _verdict(name: str, all_: list[Comparison]) -> str:
    broken = [one for one in all_ if not one.holds]
    lines = [f"{'FAIL' if broken else 'ok':4}  {name}: {len(all_) - len(broken)} of {len(all_)}"]
    lines += [f"      {b.key}: received {b.received}, expected {b.expected}" for b in broken]
    return "\n".join(lines)


def show_demo(demo: Demo, console: Console) -> None:
    """Print the source of a demo and of the functions beside it that it calls."""
    parts = _parts(demo.load())
    constants = "".join(f"{name} = {value!r}\n" for name, value in _constants(parts).items())
    sources = [inspect.getsource(part) for part in parts]
    source = "\n\n".join([constants, *sources] if constants else sources)
    module, _, _ = demo.reference.partition(":")
    data = {"name": demo.name, "module": f"{__package__}.{module}", "source": source}
    console.result(data, _highlighted(source) if use_color(sys.stdout) else source.rstrip())


def _parts(function: Any) -> list[Any]:
    """Return a function after those of its module that it uses, each once."""
    found: list[Any] = []

    def collect(part: Any) -> None:
        if part in found:
            return
        found.append(part)
        for name in _names(part.__code__) if isinstance(part, FunctionType) else ():
            used = part.__globals__.get(name)
            if inspect.isfunction(used) and used.__module__ == function.__module__:
                collect(used)

    collect(function)
    return found[::-1]


def _constants(functions: list[Any]) -> dict[str, Any]:
    """Return the module's constants that the functions use."""
    return {
        name: function.__globals__[name]
        for function in functions
        for name in _names(function.__code__)
        if name.isupper() and len(name) > 1 and name in function.__globals__
    }


def _names(code: CodeType) -> Iterator[str]:
    """Return every name that code uses, in inner functions too."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)


def _highlighted(source: str) -> str:
    try:
        from pygments import highlight
        from pygments.formatters import TerminalFormatter
        from pygments.lexers import PythonLexer
    except ImportError:
        return source.rstrip()
    return str(highlight(source, PythonLexer(), TerminalFormatter())).rstrip()
