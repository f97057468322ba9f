"""What differs between two sets of tensors or two nested values, and by how much."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from dltool.history.nested import diff_values as diff_values

CHUNK = 1 << 22


def diff_tensors(left: Mapping[str, Tensor], right: Mapping[str, Tensor]) -> list[dict[str, Any]]:
    """Return one entry for each tensor that differs, by name.

    `kind` is `only in A`, `only in B`, `shape`, `dtype` or `values`; for values, how many differ,
    the largest absolute difference, and the largest relative to the larger of the two values; None
    where NaN or infinity stands against a number. Equal means the same bits: NaN equals NaN.
    """
    found: list[dict[str, Any]] = []
    for name in sorted({*left, *right}):
        if name not in left or name not in right:
            found.append({"tensor": name, "kind": f"only in {'A' if name in left else 'B'}"})
            continue
        a, b = left[name], right[name]
        if a.shape != b.shape:
            found.append(_pair(name, "shape", list(a.shape), list(b.shape)))
        elif a.dtype != b.dtype:
            found.append(_pair(name, "dtype", str(a.dtype), str(b.dtype)) | _amount(a, b))
        elif not torch.equal(_bits(a), _bits(b)):
            found.append({"tensor": name, "kind": "values"} | _amount(a, b))
    return found


def _pair(name: str, kind: str, a: object, b: object) -> dict[str, Any]:
    return {"tensor": name, "kind": kind, "a": a, "b": b}


def _bits(value: Tensor) -> Tensor:
    return value.contiguous().reshape(-1).view(torch.uint8)


def _amount(a: Tensor, b: Tensor) -> dict[str, Any]:
    count, largest, relative = 0, 0.0, 0.0
    pairs = zip(a.reshape(-1).split(CHUNK), b.reshape(-1).split(CHUNK), strict=True)
    for one, other in pairs:
        x, y = _double(one), _double(other)
        both_nan = x.isnan() & y.isnan()
        distance = torch.where((x == y) | both_nan, 0.0, (x - y).abs())
        scale = torch.maximum(x.abs(), y.abs())
        share = torch.where(distance == 0, 0.0, distance / scale)
        count += int((distance != 0).sum())
        if len(x):
            largest = _larger(largest, float(distance.max()))
            relative = _larger(relative, float(share.max()))
    return {
        "different": count,
        "of": a.numel(),
        "max_absolute": largest if math.isfinite(largest) else None,
        "max_relative": relative if math.isfinite(relative) else None,
    }


def _double(value: Tensor) -> Tensor:
    plain = torch.view_as_real(value).reshape(-1) if value.is_complex() else value
    return plain.to(torch.float64)


def _larger(one: float, other: float) -> float:
    return other if other != other or other > one else one  # NaN stays


def statistics(value: Tensor) -> dict[str, Any]:
    """Return smallest, largest, mean and deviation of the finite elements, and how many are not."""
    plain = _double(value).reshape(-1)
    finite = plain[plain.isfinite()]
    numbers: dict[str, Any] = dict.fromkeys(("min", "max", "mean", "std"))
    if len(finite):
        numbers["min"], numbers["max"] = float(finite.min()), float(finite.max())
        numbers["mean"] = float(finite.mean())
        numbers["std"] = float(finite.std(correction=0))
    return {**numbers, "non_finite": len(plain) - len(finite)}
