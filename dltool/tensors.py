"""Tensors to safetensors files and back: streamed, tied weights once, nested state taken apart."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as decode
from safetensors.torch import load_file
from safetensors.torch import save as encode
from torch import Tensor

from dltool import files, headers
from dltool.errors import Diverged
from dltool.headers import Entry, damaged

PYTORCH = {"format": "pt"}
NAMES = {
    "float64": "F64",
    "float32": "F32",
    "float16": "F16",
    "bfloat16": "BF16",
    "int64": "I64",
    "int32": "I32",
    "int16": "I16",
    "int8": "I8",
    "uint64": "U64",
    "uint32": "U32",
    "uint16": "U16",
    "uint8": "U8",
    "bool": "BOOL",
    "float8_e4m3fn": "F8_E4M3",
    "float8_e5m2": "F8_E5M2",
    "float8_e8m0fnu": "F8_E8M0",
    "float8_e4m3fnuz": "F8_E4M3FNUZ",
    "float8_e5m2fnuz": "F8_E5M2FNUZ",
    "complex64": "C64",
}


def write(path: Path, tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """Write a safetensors file, flushed; return its size and SHA-256.

    Tensors are brought to the CPU and made contiguous one at a time, so that no second copy of the
    model is held.

    Raises:
        TypeError: the format has no name for a tensor's dtype.
        OSError: the file cannot be written.
    """
    # the widest types first, as safetensors itself orders them: every tensor is then aligned
    order = sorted(tensors, key=lambda name: (-tensors[name].element_size(), name))
    entries, place = [], 0
    for name in order:
        value = tensors[name]
        dtype = NAMES.get(str(value.dtype).removeprefix("torch."))
        if dtype is None:
            raise TypeError(f"a checkpoint cannot hold {value.dtype} ({name})")
        end = place + value.numel() * value.element_size()
        entries.append(Entry(name, dtype, tuple(value.shape), place, end))
        place = end
    return files.write_hashed(path, _pieces(entries, tensors))


def _pieces(entries: list[Entry], tensors: Mapping[str, Tensor]) -> Iterator[files.Bytes]:
    yield headers.encode(entries, PYTORCH)
    for entry in entries:
        if entry.bytes:
            yield _bytes(tensors[entry.name])


def _bytes(tensor: Tensor) -> memoryview:
    """Return a tensor's elements in row order as bytes, without a copy where they lie so."""
    value = tensor.detach().cpu().resolve_conj().resolve_neg().contiguous().reshape(-1)
    data = value.view(torch.uint8).numpy()
    if sys.byteorder == "big":  # the format is little-endian
        size = 4 if value.is_complex() else value.element_size()
        data = data.reshape(-1, size)[:, ::-1].reshape(-1).copy()
    return data.data


def read(path: Path) -> dict[str, Tensor]:
    """Read a safetensors file.

    Raises:
        CheckpointError: naming the file and what it really is.
    """
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError, RuntimeError, KeyError) as error:
        raise damaged(path, files.describe_damage(path)) from error


def without_ties(tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Keep one name of each tensor; return the rest as other name -> kept name."""
    kept: dict[str, Tensor] = {}
    tied: dict[str, str] = {}
    owners: dict[tuple[Any, ...], str] = {}
    for name, value in tensors.items():
        key = (value.data_ptr(), value.dtype, tuple(value.shape), value.stride(), value.device)
        if value.numel() and key in owners:
            tied[name] = owners[key]
            continue
        owners[key] = name
        kept[name] = value
    return kept, tied


def non_finite(tensors: Mapping[str, Tensor]) -> list[str]:
    """Return the names of the tensors that hold NaN or infinity."""
    names, bounds = [], []
    for name, value in tensors.items():
        if not value.numel() or not (value.is_floating_point() or value.is_complex()):
            continue
        plain = torch.view_as_real(value) if value.is_complex() else value.detach()
        if plain.element_size() == 1:
            plain = plain.float()  # the 8-bit types have no arithmetic
        low, high = torch.aminmax(plain)  # NaN goes through; one pass, no copy
        names.append(name)
        # the difference of two finite bounds may overflow, a product with 0 cannot
        bounds.append(low * 0 + high * 0)
    if not bounds:
        return []
    # one transfer for each device and type, not one for each tensor
    groups: dict[tuple[Any, ...], list[int]] = {}
    for index, bound in enumerate(bounds):
        groups.setdefault((bound.device, bound.dtype), []).append(index)
    bad: set[int] = set()
    for group in groups.values():
        flags = torch.stack([bounds[index] for index in group]).isfinite().tolist()
        bad |= {index for index, finite in zip(group, flags, strict=True) if not finite}
    return [names[index] for index in sorted(bad)]


def refuse_non_finite(tensors: Mapping[str, Tensor]) -> None:
    """Raise when any floating-point tensor holds NaN or infinity.

    Raises:
        Diverged: naming the first such tensor.
    """
    for name in non_finite(tensors):
        raise Diverged(
            "E702",
            f"the weight {name!r} is no longer finite; it was not saved",
            cure="lower --lr, or look at the data for NaN",
        )


def flatten(tree: Any, tensors: dict[str, Tensor], path: str = "") -> Any:
    """Move the tensors of a nested structure into `tensors`; return the rest as JSON values."""
    if isinstance(tree, Tensor):
        name = path or "value"
        while name in tensors:  # the keys 1 and "1", or "a.b" and "a" above "b"
            name += "'"
        tensors[name] = tree.detach()
        return {"tensor": name}
    if isinstance(tree, dict):
        items = [[key, flatten(value, tensors, f"{path}.{key}")] for key, value in tree.items()]
        return {"dict": items}
    if isinstance(tree, list | tuple):
        items = [flatten(value, tensors, f"{path}.{i}") for i, value in enumerate(tree)]
        return {"tuple" if isinstance(tree, tuple) else "list": items}
    if isinstance(tree, float) and not math.isfinite(tree):
        return {"float": str(tree)}
    if tree is None or isinstance(tree, bool | int | float | str):
        return tree
    raise TypeError(f"a checkpoint cannot hold {type(tree).__name__} at {path}")


def unflatten(skeleton: Any, tensors: Mapping[str, Tensor]) -> Any:
    """Put a structure that `flatten` took apart together again."""
    if not isinstance(skeleton, dict):
        return skeleton
    ((kind, content),) = skeleton.items()
    if kind == "tensor":
        return tensors[content]
    if kind == "float":
        return float(content)
    if kind == "dict":
        return {key: unflatten(value, tensors) for key, value in content}
    items = [unflatten(value, tensors) for value in content]
    return tuple(items) if kind == "tuple" else items


def to_bytes(tree: Any) -> bytes:
    """Return a nested structure as bytes for another process; `from_bytes` reads them."""
    tensors: dict[str, Tensor] = {}
    skeleton = json.dumps(flatten(tree, tensors)).encode()
    plain = {name: value.cpu().contiguous() for name, value in tensors.items()}
    return len(skeleton).to_bytes(8, "little") + skeleton + encode(plain)


def from_bytes(data: bytes) -> Any:
    """Return the structure that `to_bytes` was given."""
    end = 8 + int.from_bytes(data[:8], "little")
    return unflatten(json.loads(data[8:end]), decode(data[end:]))
