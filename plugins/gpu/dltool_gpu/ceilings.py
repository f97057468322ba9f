"""How fast a device can be at best: the vendor's figures, or the best that was measured here.

The vendors' figures are those of dense matrices; twice as large ones in advertisements count
products with zeros that are left out (sparsity).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from dltool import timing
from dltool.device import generator
from dltool_gpu import targets

TERA, GIGA = 1e12, 1e9
# name -> (TFLOP/s by number format, GB/s of memory): data sheets of NVIDIA and AMD
PUBLISHED: dict[str, tuple[dict[str, float], float]] = {
    r"H200": (
        {"bf16": 989, "fp16": 989, "fp8": 1979, "tf32": 495, "fp32": 67, "fp64": 67},
        4800,
    ),
    r"H100 PCIe": (
        {"bf16": 756, "fp16": 756, "fp8": 1513, "tf32": 378, "fp32": 51, "fp64": 51},
        2000,
    ),
    r"H100 80GB HBM3": (
        {"bf16": 989, "fp16": 989, "fp8": 1979, "tf32": 495, "fp32": 67, "fp64": 67},
        3350,
    ),
    r"A100-(SXM4|PCIE)-40GB": (
        {"bf16": 312, "fp16": 312, "tf32": 156, "fp32": 19.5, "fp64": 19.5},
        1555,
    ),
    r"A100-SXM4-80GB": (
        {"bf16": 312, "fp16": 312, "tf32": 156, "fp32": 19.5, "fp64": 19.5},
        2039,
    ),
    r"A100 80GB PCIe": (
        {"bf16": 312, "fp16": 312, "tf32": 156, "fp32": 19.5, "fp64": 19.5},
        1935,
    ),
    r"L40S": ({"bf16": 362, "fp16": 362, "fp8": 733, "tf32": 183, "fp32": 91.6}, 864),
    r"L4": ({"bf16": 121, "fp16": 121, "fp8": 242, "tf32": 60, "fp32": 30.3}, 300),
    r"A10": ({"bf16": 125, "fp16": 125, "tf32": 62.5, "fp32": 31.2}, 600),
    r"T4": ({"fp16": 65, "fp32": 8.1}, 320),
    r"V100-SXM2-(16|32)GB": ({"fp16": 125, "fp32": 15.7, "fp64": 7.8}, 900),
    r"RTX 4090": ({"bf16": 165, "fp16": 165, "fp8": 330, "tf32": 82.6, "fp32": 82.6}, 1008),
    r"RTX 3090": ({"bf16": 71, "fp16": 71, "tf32": 35.6, "fp32": 35.6}, 936),
    r"MI300X": ({"bf16": 1307, "fp16": 1307, "fp8": 2615, "fp32": 163}, 5300),
}
DTYPES = {
    "fp32": torch.float32,
    "tf32": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
    "fp64": torch.float64,
}
SWEEP = {"cpu": (256, 512, 1024, 1536), "other": (2048, 4096, 8192)}
STREAM_BYTES = {"cpu": 1 << 27, "other": 1 << 30}


@dataclass(frozen=True)
class Ceiling:
    """The best that a device can do.

    Attributes:
        flops: FLOP/s by number format; a format that nobody knows is missing.
        bandwidth: bytes a second between the device and its memory.
        source: `published`, or `measured here`.
    """

    flops: dict[str, float]
    bandwidth: float
    source: str

    def at_least(
        self, *, flops: Mapping[str, float] | None = None, bandwidth: float = 0.0
    ) -> Ceiling:
        """Return a measured ceiling raised to what was reached; a published one stays."""
        if self.source == "published":
            return self
        rates = dict(self.flops)
        for dtype, rate in (flops or {}).items():
            rates[dtype] = max(rate, rates.get(dtype, 0.0))
        return replace(self, flops=rates, bandwidth=max(self.bandwidth, bandwidth))

    def as_dict(self) -> dict[str, Any]:
        """Return the ceiling for JSON, in FLOP/s and bytes a second."""
        return {"flops": self.flops, "bandwidth": self.bandwidth, "source": self.source}


def published(name: str) -> Ceiling | None:
    """Return the vendor's figures for a GPU by its name, or None."""
    for pattern, (flops, bandwidth) in PUBLISHED.items():
        if re.search(rf"(?<![A-Za-z0-9]){pattern}(?![A-Za-z0-9])", name):
            rates = {dtype: rate * TERA for dtype, rate in flops.items()}
            return Ceiling(rates, bandwidth * GIGA, "published")
    return None


def ceiling_of(device: torch.device, dtypes: list[str]) -> Ceiling:
    """Return the published ceiling of a GPU, else measure one: the best of several sizes."""
    known = published(targets.title_of(device)) if device.type == "cuda" else None
    if known is not None:
        return known
    flops = {dtype: _best_product(device, dtype) for dtype in dtypes if dtype in DTYPES}
    return Ceiling(flops, _best_stream(device), "measured here")


def _best_product(device: torch.device, dtype: str) -> float:
    best = 0.0
    with targets.tf32(dtype == "tf32"):
        for size in SWEEP["cpu" if device.type == "cpu" else "other"]:
            stream = generator(0, "ceiling", size, device=device)
            left, right = (
                torch.randn(size, size, generator=stream, device=device).to(DTYPES[dtype])
                for _ in range(2)
            )
            out = torch.empty_like(left)
            best = max(best, 2 * size**3 / _least_seconds(_product(left, right, out), device))
    return best


def _product(left: Tensor, right: Tensor, out: Tensor) -> Any:
    return lambda: torch.mm(left, right, out=out)


def _best_stream(device: torch.device) -> float:
    """The best of copy (c = a) and triad (c = a + s b), as STREAM counts them."""
    count = STREAM_BYTES["cpu" if device.type == "cpu" else "other"] // 4
    one, two, three = (torch.rand(count, device=device) for _ in range(3))
    copy = 2 * 4 * count / _least_seconds(lambda: three.copy_(one), device)
    triad = _least_seconds(lambda: torch.add(one, two, alpha=0.5, out=three), device)
    return max(copy, 3 * 4 * count / triad)


def _least_seconds(function: Any, device: torch.device) -> float:
    return timing.compare({"": function}, repeats=5, warmup=2, device=device)[""].min
