"""Demos: the bits of number formats, and what is lost on the way down."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from dltool_tensor_ops import pictures
from dltool_tensor_ops.demo import Setup, Shown


@dataclass(frozen=True)
class Format:
    """A floating-point format: a sign bit, exponent bits, fraction bits."""

    name: str
    dtype: torch.dtype
    integer: torch.dtype
    exponent: int
    fraction: int

    @property
    def bias(self) -> int:
        """What is subtracted from the stored exponent."""
        return int(2 ** (self.exponent - 1)) - 1

    def bits(self, value: float) -> tuple[str, str, str]:
        """Return sign, exponent and fraction of the nearest number, as 0 and 1."""
        size = 1 + self.exponent + self.fraction
        stored = torch.tensor([value], dtype=torch.float64).to(self.dtype).view(self.integer)
        text = f"{int(stored) % 2**size:0{size}b}"
        return text[0], text[1 : 1 + self.exponent], text[1 + self.exponent :]

    def decoded(self, value: float) -> float:
        """Return (-1)^s · 2^(e - bias) · 1.f of a normal number, from its bits."""
        sign, exponent, fraction = self.bits(value)
        size = 1 + int(fraction, 2) / 2**self.fraction
        return float((-1) ** int(sign) * 2.0 ** (int(exponent, 2) - self.bias) * size)

    def nearest(self, value: float) -> float:
        """Return the number that the format has for a value."""
        return float(torch.tensor(value, dtype=torch.float64).to(self.dtype).double())


FORMATS = (
    Format("fp64", torch.float64, torch.int64, 11, 52),
    Format("fp32", torch.float32, torch.int32, 8, 23),
    Format("bf16", torch.bfloat16, torch.int16, 8, 7),
    Format("fp16", torch.float16, torch.int16, 5, 10),
    Format("fp8 e4m3", torch.float8_e4m3fn, torch.uint8, 4, 3),
    Format("fp8 e5m2", torch.float8_e5m2, torch.uint8, 5, 2),
)


def formats(setup: Setup) -> Shown:
    """Take 1/3 apart in every format; range, precision, and the errors between."""
    shown = Shown("Number formats: exponent bits give range, fraction bits precision")
    wrong = 0.0
    for kind in FORMATS:
        key = kind.name.replace(" ", "_")
        limits = torch.finfo(kind.dtype)
        shown.add(f"{key}_bits", f"1/3 in {kind.name}", " ".join(kind.bits(1 / 3)))
        value = kind.nearest(1 / 3)
        shown.add(key, "    its value", value, f"{value:.24g}")
        shown.add(f"{key}_max", "    largest", limits.max)
        shown.add(f"{key}_tiny", "    smallest normal", limits.smallest_normal)
        shown.add(f"{key}_eps", "    next after 1, minus 1", limits.eps)
        for value in (1 / 3, -2.75, 1.0, 100.3):
            wrong = max(wrong, abs(kind.decoded(value) - kind.nearest(value)))
    shown.add("decoded", "bits read by hand - torch's value", wrong)
    shown.say("fp8 e4m3 has no infinity: it gives that code up for range (448 instead of 240)")
    shown.picture = partial(
        pictures.formats,
        {kind.name: kind.bits(1 / 3) for kind in FORMATS},
        {kind.name: _rounding(kind.dtype) for kind in FORMATS[2:]},
    )
    return shown


def _rounding(dtype: torch.dtype) -> tuple[list[float], list[float]]:
    """Return magnitudes from 1e-9 to 1e9 and the largest relative error around each."""
    exact = torch.logspace(-9, 9, 36_000, dtype=torch.float64)
    error = ((exact.to(dtype).double() - exact) / exact).abs()
    error = error.nan_to_num(torch.inf).reshape(-1, 600).amax(1)  # a window spans a factor 2
    return exact[300::600].tolist(), error.clamp(max=1.0).tolist()


def _count(dtype: torch.dtype, steps: int) -> float:
    total, one = torch.zeros((), dtype=dtype), torch.ones((), dtype=dtype)
    for _ in range(steps):
        total = total + one
    return float(total)


def _largest_error(x: Tensor, dtype: torch.dtype) -> float:
    return float(((x.to(dtype).float() - x) / x).abs().max())


def downcast(setup: Setup) -> Shown:
    """Half the bytes: what becomes of values, sums and small gradients."""
    shown = Shown("Downcasting: half the memory, and its price")
    x = setup.uniform(1000).cpu() + 1e-3
    for name, dtype in (("bf16", torch.bfloat16), ("fp16", torch.float16)):
        error = _largest_error(x, dtype)
        shown.add(f"{name}_error", f"{name}: largest relative error", error)
    low = x.bfloat16()
    exact, rounded = float(torch.dot(x, x)), float(torch.dot(low, low).float())
    shown.add("dot_error", "x·x in bf16: relative error", abs(rounded - exact) / exact)
    shown.add("count_bf16", "1 + 1 + ... 3000 times in bf16", _count(torch.bfloat16, 3000))
    shown.add("count_fp16", "    in fp16", _count(torch.float16, 3000), "adding 1 changes nothing")
    ones = torch.ones(3000, dtype=torch.bfloat16)
    shown.add("sum", "ones(3000, bf16).sum()", ones.sum(), "adds in float32, rounds once")
    shown.add("overflow", "tensor(70000.).half()", torch.tensor(70000.0).half())
    shown.add("bf16_large", "tensor(70000.).bfloat16()", torch.tensor(70000.0).bfloat16())
    tiny = torch.tensor(1e-8)
    shown.add("underflow", "tensor(1e-8).half()", tiny.half(), "a small gradient is gone")
    shown.add("scaled", "(1e-8 · 65536).half() / 65536", (tiny * 65536).half().float() / 65536)

    model = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Linear(4, 2))

    def size() -> int:
        return sum(p.numel() * p.element_size() for p in model.parameters())

    before = size()
    halved = model.to(torch.bfloat16)
    shown.add("parameters", "parameters of a model", sum(p.numel() for p in model.parameters()))
    shown.add("bytes", "its bytes, float32 and bf16", [before, size()])
    shown.add("in_place", "model.to(...) is the same object", halved is model, "copy it first")
    return shown
