"""Write networks as programs for other runtimes, and load what was written to check it.

A topic decides what goes in and comes out of its program and what it is compared with; the writing,
the loading and the refusal of a program that answers otherwise stand here.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dltool import __version__
from dltool.errors import CheckFailed, CheckpointError, DltoolError, MissingExtra
from dltool.files import explained, make_folder, temporary_name

Call = Callable[..., Sequence[Tensor]]

OPSET = 18
PACKAGES = ("onnx", "onnxruntime", "onnxscript")
DESCRIPTION = "metadata.json"


def require_onnx() -> None:
    """Refuse to begin without the packages that write and run ONNX.

    Raises:
        MissingExtra: one of them is not installed.
    """
    for package in PACKAGES:
        try:
            __import__(package)
        except ImportError as error:
            raise MissingExtra(package, "onnx") from error


@contextlib.contextmanager
def checked_file(out: Path) -> Iterator[Path]:
    """Give a name to write to, and put the file in its place when the block ends well.

    Raises:
        DltoolError: E101, it cannot be written.
    """
    temporary = temporary_name(out).with_suffix(out.suffix)
    with explained(out):
        make_folder(out.parent)
        try:
            yield temporary
            temporary.replace(out)
        finally:
            temporary.unlink(missing_ok=True)


def write_onnx(
    module: nn.Module,
    inputs: tuple[Tensor, ...],
    path: Path,
    *,
    input_names: Sequence[str],
    output_names: Sequence[str],
    dynamic_shapes: Any = None,
    by_tracing: bool = False,
    one_file: bool = True,
    metadata: Mapping[str, Any] | None = None,
) -> Call:
    """Write a module as one ONNX file and return what calls it on the CPU.

    Args:
        inputs: an example; where a size is free it should be 2 or more.
        dynamic_shapes: as `torch.onnx.export` takes it.
        by_tracing: use the older exporter, which knows outputs of any length.
        one_file: refuse what needs a second file beside it: weights above 2 GB.
        metadata: plain values, kept in the file as text and JSON.

    Raises:
        CheckpointError: E513, the network cannot be written as a graph.
    """
    names: dict[str, Any] = {
        "input_names": list(input_names),
        "output_names": list(output_names),
    }
    with _writing(), torch.no_grad():
        if by_tracing:
            torch.onnx.export(module, inputs, str(path), dynamo=False, opset_version=OPSET, **names)
        else:
            program: Any = torch.onnx.export(
                module,
                inputs,
                dynamo=True,
                opset_version=OPSET,
                dynamic_shapes=dynamic_shapes,
                verbose=False,
                **names,
            )
            program.model.metadata_props.update(described(metadata))
            program.save(str(path), external_data=False if one_file else None)
    return onnx_call(path, input_names)


def onnx_call(path: Path, input_names: Sequence[str]) -> Call:
    """Return a function that runs an ONNX file with onnxruntime; inputs it lacks are left out."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, ["CPUExecutionProvider"])
    taken = {each.name for each in session.get_inputs()}

    def call(*inputs: Tensor) -> list[Tensor]:
        pairs = zip(input_names, inputs, strict=True)
        given = {name: part.cpu().numpy() for name, part in pairs if name in taken}
        return [torch.from_numpy(value) for value in session.run(None, given)]

    return call


def write_program(
    module: nn.Module,
    inputs: tuple[Tensor, ...],
    path: Path,
    *,
    dynamic_shapes: Any = None,
    metadata: Mapping[str, Any] | None = None,
) -> Call:
    """Write a module as a `torch.export` program and return what calls the loaded file.

    Args:
        inputs: an example; where a size is free it should be 2 or more.
        dynamic_shapes: as `torch.export.export` takes it.
        metadata: plain values, kept in the file as `metadata.json`.

    Raises:
        CheckpointError: E513, the network cannot be written as a program.
    """
    extra = {DESCRIPTION: json.dumps(dict(metadata or {}), ensure_ascii=False)}
    with _writing(), torch.no_grad():
        program = torch.export.export(module, inputs, dynamic_shapes=dynamic_shapes, strict=False)
        torch.export.save(program, path, extra_files=extra)
        loaded: Any = torch.export.load(path).module()
    return lambda *given: _listed(loaded(*given))


def _listed(outputs: Any) -> list[Tensor]:
    return [outputs] if isinstance(outputs, Tensor) else list(outputs)


def described(metadata: Mapping[str, Any] | None) -> dict[str, str]:
    """Return metadata as text fields: what is no text becomes JSON; dltool's version is added."""
    fields = {"dltool": __version__, **(metadata or {})}
    return {
        name: value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        for name, value in fields.items()
    }


@contextlib.contextmanager
def _writing() -> Iterator[None]:
    """Keep the exporters' own remarks off the streams, and turn their failures into one line."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.export", "onnxscript")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        with (
            warnings.catch_warnings(action="ignore"),
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            yield
    except (DltoolError, OSError, MemoryError):
        raise
    except Exception as error:  # the exporters raise nearly anything
        said = next((line for line in str(error).splitlines() if line.strip()), "")
        raise CheckpointError(
            "E513",
            f"this network cannot be written in this format ({type(error).__name__}: {said[:200]})",
            cure="use another --format",
        ) from error
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def largest_difference(expected: Sequence[Tensor], got: Sequence[Tensor]) -> float:
    """Return the largest absolute difference of two lists of outputs; infinity for other shapes.

    Where both are the same infinity or both NaN they do not differ; a NaN against a number does,
    infinitely.
    """
    if len(expected) != len(got):
        return math.inf
    worst = 0.0
    for one, other in zip(expected, got, strict=True):
        if one.shape != other.shape:
            return math.inf
        left, right = one.detach().double().cpu(), other.detach().double().cpu()
        same = (left == right) | (left.isnan() & right.isnan())
        gaps = (left - right).abs().where(~same, torch.zeros(())).nan_to_num(nan=math.inf)
        worst = max(worst, float(gaps.max()) if gaps.numel() else 0.0)
    return worst


def refuse_difference(difference: float, tolerance: float, what: str, cure: str) -> None:
    """Refuse a program that answers otherwise than the network it was made from.

    Raises:
        CheckFailed: E601, the difference is above the tolerance, or no number.
    """
    if not difference <= tolerance:
        raise CheckFailed(
            "E601",
            f"the exported file differs from {what} by {difference:.2e}; it was not kept",
            expected=f"at most {tolerance:g}",
            cure=cure,
        )
