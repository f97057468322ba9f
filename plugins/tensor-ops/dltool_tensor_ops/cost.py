"""Demos that measure: NumPy beside torch, mixed precision, checkpointing, attention in chunks."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint as recompute

from dltool import timing
from dltool_tensor_ops import pictures
from dltool_tensor_ops.demo import Setup, Shown, difference
from dltool_tensor_ops.memory import method, peak_bytes

MIB = 2**20


def _numpy_threads() -> object:
    """Return the threads of NumPy's BLAS, where threadpoolctl (with scikit-learn) can tell."""
    try:
        pools: list[dict[str, Any]] = importlib.import_module("threadpoolctl").threadpool_info()
    except ImportError:
        return "unknown"
    counts = [pool["num_threads"] for pool in pools if "numpy" in str(pool.get("filepath"))]
    return max(counts, default="unknown")


def speed(setup: Setup) -> Shown:
    """Add and multiply in NumPy and torch: same numbers, same dtype, warm, taking turns."""
    shown = Shown("NumPy and torch, compared fairly")
    a, b = setup.normal(1000, 1000).cpu(), setup.normal(1000, 1000).cpu()
    x, y, c, d = a.numpy(), b.numpy(), a[:512, :512].contiguous(), b[:512, :512].contiguous()
    p, q = c.numpy(), d.numpy()
    functions: dict[str, Callable[[], object]] = {
        "add numpy": lambda: x + y,
        "add torch": lambda: a + b,
        "matmul numpy": lambda: p @ q,
        "matmul torch": lambda: c @ d,
    }
    if setup.device.type != "cpu":
        functions |= _on_device(setup.device, a, b, c, d)
    wide = x.astype(np.float64), y.astype(np.float64)
    functions["add numpy float64"] = lambda: wide[0] + wide[1]
    times = timing.compare(functions, repeats=15, warmup=3, device=setup.device)

    shown.add("dtypes", "dtypes compared", [str(x.dtype), a.dtype], "NumPy's default is float64")
    shown.add("torch_threads", "threads of torch", torch.get_num_threads())
    shown.add("numpy_threads", "threads of NumPy's BLAS", _numpy_threads(), "add uses one")
    for name, taken in times.items():
        figures = [1000 * taken.median, 1000 * taken.iqr]
        shown.add(name.replace(" ", "_"), f"{name}: ms, spread", figures)
    for kind in ("add", "matmul"):
        factor = timing.ratio(times[f"{kind} numpy"], times[f"{kind} torch"])
        shown.add(f"{kind}_ratio", f"{kind}: NumPy's time by torch's", factor)
    close = float(np.abs(p @ q - (c @ d).numpy()).max() / np.abs(p @ q).max())
    shown.add("difference", "matmul: largest difference", close, "relative")
    shown.say(
        "1000x1000 to add, 512x512 to multiply; median and middle half of 15 rounds, 3 before"
    )
    shown.picture = partial(pictures.bars, "NumPy and torch, float32", _milliseconds(times), "ms")
    return shown


def _milliseconds(times: Mapping[str, timing.Timing]) -> dict[str, float]:
    return {name: 1000 * taken.median for name, taken in times.items()}


def _on_device(
    device: torch.device, a: Tensor, b: Tensor, c: Tensor, d: Tensor
) -> dict[str, Callable[[], object]]:
    """Return the same work on a device, and apart from it the way there and back."""
    e, f, g, h = (tensor.to(device) for tensor in (a, b, c, d))
    return {
        f"add {device.type}": lambda: e + f,
        f"matmul {device.type}": lambda: g @ h,
        f"transfer to {device.type}": lambda: a.to(device),
        f"transfer from {device.type}": lambda: e.cpu(),
    }


def _measure(
    shown: Shown, functions: Mapping[str, Callable[[], object]], device: torch.device
) -> None:
    """Add peak memory and time of each, and the ratio of the second to the first."""
    peaks = {name: peak_bytes(function, device) for name, function in functions.items()}
    times = timing.compare(functions, repeats=5, device=device)
    for name, peak in peaks.items():
        key = name.replace(" ", "_")
        shown.add(f"{key}_bytes", f"{name}: peak memory, bytes", peak, f"{peak / MIB:.2f} MiB")
        taken = times[name]
        spread = f"± {1000 * taken.iqr:.2g}"
        shown.add(f"{key}_ms", f"{name}: time, ms", 1000 * taken.median, spread)
    first, second = functions
    shown.add("memory_ratio", "memory, second by first", peaks[second] / peaks[first])
    shown.add("time_ratio", "time, second by first", timing.ratio(times[second], times[first]))
    shown.say(f"peak memory: {method(device)}")
    shown.picture = partial(pictures.costs, shown.title, peaks, _milliseconds(times))


def _layers(setup: Setup, count: int, width: int) -> list[Tensor]:
    scale = (2 / width) ** 0.5
    device = setup.measurable
    return [(setup.normal(width, width) * scale).to(device).requires_grad_() for _ in range(count)]


def _through(x: Tensor, *weights: Tensor) -> Tensor:
    for weight in weights:
        x = F.linear(x, weight).relu()
    return x


def _gradients(loss: Tensor, weights: list[Tensor]) -> list[Tensor]:
    return list(torch.autograd.grad(loss, weights))


def amp(setup: Setup) -> Shown:
    """Train one step in float32 and under autocast: memory, time, and how far apart."""
    shown = Shown("Mixed precision: products in bfloat16, weights in float32")
    device = setup.measurable
    weights, x = _layers(setup, 16, 128), setup.normal(1024, 128).to(device)

    def step(enabled: bool) -> list[Tensor]:
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=enabled):
            output = _through(x, *weights)
        return _gradients(output.float().pow(2).mean(), weights)

    exact, mixed = step(False)[0], step(True)[0]
    error = (exact - mixed).norm() / exact.norm()
    shown.add("gradient_error", "relative error of the gradient", error)
    shown.add("gradient_dtype", "dtype of the gradient", mixed.dtype)
    _measure(shown, {"float32": partial(step, False), "bfloat16": partial(step, True)}, device)
    return shown


def checkpoint(setup: Setup) -> Shown:
    """Keep the activations of every fourth layer only, and compute the others twice."""
    shown = Shown("Activation checkpointing: memory for time")
    device = setup.measurable
    weights, x = _layers(setup, 16, 128), setup.normal(1024, 128).to(device)

    def step(saving: bool) -> list[Tensor]:
        h = x
        for start in range(0, 16, 4):
            block = weights[start : start + 4]
            if saving:
                h = recompute(_through, h, *block, use_reentrant=False, preserve_rng_state=False)
            else:
                h = _through(h, *block)
        return _gradients(h.pow(2).mean(), weights)

    pairs = zip(step(False), step(True), strict=True)
    shown.add(
        "difference", "largest difference of gradients", max(difference(a, b) for a, b in pairs)
    )
    functions = {"all kept": partial(step, False), "checkpoints": partial(step, True)}
    _measure(shown, functions, device)
    return shown


def _full_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    weights: Tensor = (q @ k.mT / q.shape[-1] ** 0.5).softmax(-1)  # (H, Q, K)
    return weights @ v


def _chunked_attention(q: Tensor, k: Tensor, v: Tensor, size: int) -> Tensor:
    """Attend block by block with a running softmax, as FlashAttention does (Dao et al. 2022).

    Args:
        q: queries (H, Q, D); k: keys (H, K, D); v: values (H, K, D).
        size: queries and keys a block; no more than (H, size, size) scores exist at once.
    """
    parts = []
    for queries in q.split(size, 1):
        top = torch.full_like(queries[..., :1], -torch.inf)  # largest score so far, a query
        weight = torch.zeros_like(top)  # sum of exp(score - top)
        total = torch.zeros_like(queries)  # sum of exp(score - top) · value
        for keys, values in zip(k.split(size, 1), v.split(size, 1), strict=True):
            scores = queries @ keys.mT / q.shape[-1] ** 0.5
            higher = torch.maximum(top, scores.amax(-1, keepdim=True))
            shrink, share = (top - higher).exp(), (scores - higher).exp()
            weight = weight * shrink + share.sum(-1, keepdim=True)
            total = total * shrink + share @ values
            top = higher
        parts.append(total / weight)
    return torch.cat(parts, 1)


def attention_chunks(setup: Setup) -> Shown:
    """Exact attention without the whole table of scores."""
    shown = Shown("Attention in chunks equals attention at once")
    device = setup.measurable
    q, k, v = (setup.normal(4, 512, 32).to(device) for _ in range(3))
    full, chunked = _full_attention(q, k, v), _chunked_attention(q, k, v, 64)
    shown.add("difference", "chunked - full", difference(chunked, full))
    library = F.scaled_dot_product_attention(q, k, v)
    shown.add("library", "chunked - torch's own", difference(chunked, library))
    _measure(
        shown,
        {
            "full": lambda: _full_attention(q, k, v),
            "chunks of 64": lambda: _chunked_attention(q, k, v, 64),
        },
        device,
    )
    return shown
