"""What a demo is given, and what it gives back."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dltool.device import generator

WIDTH = 36  # columns of the code, before its value
LONGEST = 60  # a longer list of rows is printed a row a line


@dataclass(frozen=True)
class Setup:
    """Where a demo works and its random stream, which is the same on every device."""

    device: torch.device
    stream: torch.Generator

    @classmethod
    def of(cls, name: str, device: torch.device, seed: int) -> Setup:
        """Return the setup of one demo; its numbers do not depend on what ran before."""
        return cls(device, generator(seed, "tensor-ops", name))

    @property
    def measurable(self) -> torch.device:
        """The device, or the CPU where neither float64 nor peak memory is to be had (MPS)."""
        return self.device if self.device.type in ("cpu", "cuda") else torch.device("cpu")

    def normal(self, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        """Draw standard normal numbers."""
        return torch.randn(shape, generator=self.stream, dtype=dtype).to(self._place(dtype))

    def uniform(self, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        """Draw numbers evenly from [0, 1)."""
        return torch.rand(shape, generator=self.stream, dtype=dtype).to(self._place(dtype))

    def _place(self, dtype: torch.dtype) -> torch.device:
        return self.measurable if dtype == torch.float64 else self.device


@dataclass
class Shown:
    """What a demo found: lines to read, values to check, and perhaps a picture."""

    title: str
    lines: list[str] = field(default_factory=list)
    values: dict[str, Any] = field(default_factory=dict)
    picture: Callable[[Path], None] | None = None

    def add(self, key: str, code: str, value: object, note: str = "") -> None:
        """Keep a value under a key and write `code  value  # note` as a line."""
        self.values[key] = plain(value)
        start = f"{code:{WIDTH}} "
        text = readable(self.values[key]).replace("\n", "\n" + " " * len(start))
        self.lines.append(f"{start}{text}" + (f"   # {note}" if note else ""))

    def say(self, text: str) -> None:
        """Write a line of explanation."""
        self.lines.append(text)


def plain(value: Any) -> Any:
    """Return tensors, arrays, shapes and dtypes as what JSON can hold; NaN and Inf as text."""
    if isinstance(value, torch.dtype):
        return str(value).removeprefix("torch.")
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value


def readable(value: Any) -> str:
    """Write a value with six digits; a large matrix takes a line a row."""
    if isinstance(value, float):
        return f"{value:.6g}"
    if not isinstance(value, list):
        return str(value)
    parts = [readable(item) for item in value]
    text = f"[{', '.join(parts)}]"
    if len(text) > LONGEST and value and isinstance(value[0], list):
        return "[" + ",\n ".join(part.replace("\n", "\n ") for part in parts) + "]"
    return text


def refusal(function: Callable[[], object]) -> str:
    """Return the first sentence with which a call is refused, or an empty text if it is not."""
    try:
        function()
    except (RuntimeError, IndexError, ValueError) as error:
        sentence = str(error).strip().splitlines()[0].split(". ")[0]
        return f"{type(error).__name__}: {sentence}"
    return ""


def difference(a: Tensor, b: Tensor) -> float:
    """Return the largest absolute difference of two tensors of one shape.

    Raises:
        ValueError: the shapes differ, which broadcasting would hide.
    """
    if a.shape != b.shape:
        raise ValueError(f"cannot compare {tuple(a.shape)} with {tuple(b.shape)}")
    return float((a.detach().cpu().double() - b.detach().cpu().double()).abs().max())
