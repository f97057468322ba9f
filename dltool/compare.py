"""Compare two run folders: what they end with bit by bit, and what they logged value by value."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dltool import checkpoint, runs
from dltool.checkpoint import Checkpoint

# what a clock measured differs from run to run
TIMED = ("seconds", "_per_second", "time")


def first_tensor_that_differs(left: Path, right: Path) -> str | None:
    """Compare the newest checkpoints of two runs: weights, optimizer, streams, position.

    Returns:
        What differs first, in words, or None when every bit is the same.

    Raises:
        CheckpointError: a run has no checkpoint that verifies.
    """
    one, two = (checkpoint.newest(folder / "checkpoints")[0] for folder in (left, right))
    before, after = dict(_tensors(one)), dict(_tensors(two))
    for name in [*before, *(name for name in after if name not in before)]:
        if name not in before or name not in after:
            return f"{name} is only in {'the second' if name in after else 'the first'}"
        if difference := _difference(before[name], after[name]):
            return f"{name}: {difference}"
    states = [
        {k: v for k, v in each.state.items() if k not in ("run", "stopwatch")}
        for each in (one, two)
    ]
    for key in states[0]:
        if states[0][key] != states[1].get(key):
            return f"state {key}: {states[0][key]} and {states[1].get(key)}"
    return None


def _tensors(found: Checkpoint) -> Iterator[tuple[str, Any]]:
    for name, tensor in found.model.items():
        yield f"model {name}", tensor
    for part, tree in found.parts.items():
        inner: dict[str, Tensor] = {}
        skeleton = checkpoint.flatten(tree, inner)
        for name, tensor in inner.items():
            yield f"{part} {name.lstrip('.')}", tensor
        yield f"{part} (plain values)", skeleton


def _difference(left: Any, right: Any) -> str:
    if not isinstance(left, Tensor) or not isinstance(right, Tensor):
        return "" if repr(left) == repr(right) else "not the same"
    if (left.dtype, left.shape) != (right.dtype, right.shape):
        return f"{left.dtype} {tuple(left.shape)} and {right.dtype} {tuple(right.shape)}"
    # bytes, so that NaN equals NaN and 0 differs from -0
    bits = [each.contiguous().reshape(-1).view(torch.uint8) for each in (left, right)]
    if torch.equal(*bits):
        return ""
    furthest = (left.double() - right.double()).abs().max().item()
    differing = int((left != right).sum())
    return f"{differing} of {left.numel()} values differ, by up to {furthest:.3g}"


def first_record_that_differs(
    left: Sequence[Mapping[str, Any]], right: Sequence[Mapping[str, Any]]
) -> str | None:
    """Compare what two runs logged; values that a clock measured are left out.

    Returns:
        The epoch, the step and the value that differs first, in words, or None.
    """
    for before, after in zip(left, right, strict=False):
        for key in [key for key in before if not _is_timed(key)]:
            if repr(before[key]) != repr(after.get(key)):
                place = f"epoch {before.get('epoch', '?')}, step {before.get('step', '?')}"
                return f"{place}: {key} {before[key]} and {after.get(key)}"
    if len(left) != len(right):
        return f"{len(left)} and {len(right)} epochs were logged"
    return None


def first_result_that_differs(left: Mapping[str, Any], right: Mapping[str, Any]) -> str | None:
    """Compare two results of `run.json` without paths and times."""
    for key, value in left.items():
        if _is_timed(key) or isinstance(value, str):
            continue
        if repr(value) != repr(right.get(key)):
            return f"result {key}: {_short(value)} and {_short(right.get(key))}"
    return None


def _is_timed(key: str) -> bool:
    return any(key == word or key.endswith(word) for word in TIMED)


def _short(value: Any) -> str:
    shown = value.get("value", value) if isinstance(value, dict) else value
    return str(shown)[:100]


def runs_differ(left: Path, right: Path) -> str | None:
    """Return the first difference in checkpoints or metrics of two runs, or None."""
    records = first_record_that_differs(runs.read_records(left), runs.read_records(right))
    return first_tensor_that_differs(left, right) or records
