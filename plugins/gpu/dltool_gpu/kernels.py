"""The operations that `dltool gpu bench` times, with the work that each does."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from dltool.device import generator
from dltool_gpu.ceilings import DTYPES

BYTES_OF = {"fp64": 8, "fp32": 4, "tf32": 4, "bf16": 2, "fp16": 2, "fp8": 1}


@dataclass(frozen=True)
class Sizes:
    """How large the operations are; chosen by device so that each call takes milliseconds.

    Attributes:
        matmul: edge of the square matrices.
        vector: bytes of each vector that is added, copied or sent.
        images, channels, edge: of the convolution's input (B, C, H, W).
        sequences, heads, length, width: of attention's inputs (B, H, L, D).
    """

    matmul: int
    vector: int
    images: int
    channels: int
    edge: int
    sequences: int
    heads: int
    length: int
    width: int


SIZES = {
    "cpu": Sizes(1024, 1 << 27, 8, 64, 56, 1, 8, 512, 64),
    "mps": Sizes(4096, 1 << 28, 32, 128, 56, 4, 16, 1024, 64),
    "cuda": Sizes(8192, 1 << 30, 128, 256, 56, 4, 16, 4096, 128),
}


@dataclass(frozen=True)
class Case:
    """One operation.

    Attributes:
        flops: floating-point operations of a call; 0 where none count.
        bytes: that a call must move at least, between memory and chip or between devices.
        memory: those bytes go through the device's own memory, so its bandwidth is their ceiling.
        run: does it once; on a GPU it only gives the order.
    """

    name: str
    group: str
    dtype: str
    shape: str
    flops: float
    bytes: float
    memory: bool
    run: Callable[[], object]


def formats(device: torch.device) -> list[str]:
    """Return the number formats in which a device multiplies matrices at speed."""
    if device.type == "cpu":
        return ["fp32", "bf16"]
    if device.type == "mps":
        return ["fp32", "bf16", "fp16"]
    capability = torch.cuda.get_device_capability(device)
    found = ["fp32"]
    if torch.version.hip is None and capability >= (8, 0):
        found.append("tf32")
    if torch.cuda.is_bf16_supported(including_emulation=False):
        found.append("bf16")
    found.append("fp16")
    if torch.version.hip is None and capability >= (8, 9):
        found.append("fp8")
    return found


def builders(
    device: torch.device, sizes: Sizes, groups: list[str]
) -> Iterator[tuple[str, Callable[[], Case]]]:
    """Yield group and builder of every case that the device can run; a builder takes the memory."""
    fast = "bf16" if device.type != "cpu" and "bf16" in formats(device) else "fp32"
    for group in groups:
        if group == "matmul":
            for dtype in formats(device):
                yield group, partial(matmul, device, sizes.matmul, dtype)
        elif group == "transfer" and device.type == "cuda":
            for pinned in (True, False):
                for to_device in (True, False):
                    yield group, partial(transfer, device, sizes.vector, pinned, to_device)
        elif group == "all-reduce" and device.type == "cuda" and torch.cuda.device_count() > 1:
            yield group, partial(all_reduce, sizes.vector)
        elif group in ("conv", "attention"):
            build = {"conv": conv, "attention": attention}[group]
            yield group, partial(build, device, sizes, fast)
        elif group in ("add", "copy"):
            yield group, partial({"add": add, "copy": copy}[group], device, sizes.vector)
        elif group == "launch":
            yield group, partial(launch, device)


def why_left_out(group: str, device: torch.device) -> str:
    """Say why a group has no case on this device; empty when it has."""
    if group == "transfer" and device.type != "cuda":
        return f"transfer: {device.type} shares the main memory, there is nothing to transfer"
    if group == "all-reduce" and (device.type != "cuda" or torch.cuda.device_count() < 2):
        return "all-reduce: needs two GPUs"
    return ""


def random(device: torch.device, dtype: str, *shape: int) -> Tensor:
    """Return normal random numbers; zeros would flatter (fewer bits flip, less power)."""
    stream = generator(0, "bench", *shape, device=device)
    return torch.randn(shape, generator=stream, device=device).to(DTYPES[dtype])


def matmul(device: torch.device, size: int, dtype: str) -> Case:
    """Multiply two square matrices: 2 n³ operations over 3 n² numbers."""
    run = _fp8_product(device, size) if dtype == "fp8" else _product(device, size, dtype)
    moved = (2 * BYTES_OF[dtype] + max(BYTES_OF[dtype], 2)) * size**2
    return Case(f"matmul {dtype}", "matmul", dtype, f"{size}³", 2 * size**3, moved, True, run)


def _product(device: torch.device, size: int, dtype: str) -> Callable[[], object]:
    left, right = random(device, dtype, size, size), random(device, dtype, size, size)
    out = torch.empty_like(left)
    return lambda: torch.mm(left, right, out=out)


def _fp8_product(device: torch.device, size: int) -> Callable[[], object]:
    """Multiply in float8 (e4m3) with one scale a matrix; the right one lies by columns."""
    left, right = (random(device, "bf16", size, size).to(torch.float8_e4m3fn) for _ in range(2))
    scale = torch.ones((), device=device)
    whole = F.ScalingType.TensorWise
    return lambda: F.scaled_mm(left, right.t(), scale, whole, scale, whole, use_fast_accum=True)


def add(device: torch.device, size: int) -> Case:
    """Add two vectors: one operation for 12 bytes, so memory alone decides."""
    count = size // 4
    one, two = random(device, "fp32", count), random(device, "fp32", count)
    out = torch.empty_like(one)
    return Case(
        "add fp32",
        "add",
        "fp32",
        f"{size >> 20} MiB",
        count,
        3 * size,
        True,
        lambda: torch.add(one, two, out=out),
    )


def copy(device: torch.device, size: int) -> Case:
    """Copy a vector within the device's memory: read once, written once."""
    source = random(device, "fp32", size // 4)
    target = torch.empty_like(source)
    return Case(
        "copy", "copy", "", f"{size >> 20} MiB", 0, 2 * size, True, lambda: target.copy_(source)
    )


def transfer(device: torch.device, size: int, pinned: bool, to_device: bool) -> Case:
    """Send a vector between main memory and device; pinned pages need no copy on the way."""
    here = torch.rand(size // 4, pin_memory=pinned)
    there = torch.rand(size // 4, device=device)
    source, target = (here, there) if to_device else (there, here)
    way = "to device" if to_device else "to host"
    return Case(
        f"{way}, {'pinned' if pinned else 'pageable'}",
        "transfer",
        "",
        f"{size >> 20} MiB",
        0,
        size,
        False,
        lambda: target.copy_(source, non_blocking=pinned),
    )


def conv(device: torch.device, sizes: Sizes, dtype: str) -> Case:
    """Convolve (B, C, H, W) with C kernels of 3 × 3: 2 · 9 C² B H W operations."""
    shape = (sizes.images, sizes.channels, sizes.edge, sizes.edge)
    images = random(device, dtype, *shape).to(memory_format=torch.channels_last)
    kernel = random(device, dtype, sizes.channels, sizes.channels, 3, 3)
    kernel = kernel.to(memory_format=torch.channels_last)
    width = BYTES_OF[dtype]
    return Case(
        f"conv 3×3 {dtype}",
        "conv",
        dtype,
        "×".join(map(str, shape)),
        2 * 9 * sizes.channels * images.numel(),
        width * (2 * images.numel() + kernel.numel()),
        True,
        lambda: F.conv2d(images, kernel, padding=1),
    )


def attention(device: torch.device, sizes: Sizes, dtype: str) -> Case:
    """softmax(Q Kᵀ / √D) V over (B, H, L, D): 4 B H L² D operations."""
    shape = (sizes.sequences, sizes.heads, sizes.length, sizes.width)
    query, key, value = (random(device, dtype, *shape) for _ in range(3))
    return Case(
        f"attention {dtype}",
        "attention",
        dtype,
        "×".join(map(str, shape)),
        4 * query.numel() * sizes.length,
        4 * query.numel() * BYTES_OF[dtype],
        True,
        lambda: F.scaled_dot_product_attention(query, key, value),
    )


def launch(device: torch.device) -> Case:
    """Add 1 to one number: what every operation costs before it works."""
    number = torch.zeros(1, device=device)
    return Case("launch", "launch", "", "1 number", 0, 0, False, lambda: number.add_(1))


def all_reduce(size: int) -> Case:
    """Sum a vector over all GPUs with NCCL; a ring moves 2 (n − 1) / n of it over each link."""
    count = torch.cuda.device_count()
    vectors = [torch.rand(size // 4, device=f"cuda:{index}") for index in range(count)]

    def run() -> None:
        reduce: Any = torch.cuda.nccl.all_reduce  # torch leaves its types open
        reduce(vectors)
        for index in range(count):
            torch.cuda.synchronize(index)

    moved = 2 * (count - 1) / count * size
    return Case(
        "all-reduce", "all-reduce", "fp32", f"{count} × {size >> 20} MiB", 0, moved, False, run
    )
