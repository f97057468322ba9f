"""torch.compile for a training: tried before the first step, with its cold and warm times."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor

from dltool import device as devices
from dltool.console import Console
from dltool.errors import DeviceError
from dltool.guards.classifier import untouched
from dltool.timing import synchronize
from dltool_cnn.model import Classifier

WARM_STEPS = 5

Forward = Callable[[Tensor], Tensor]


def compiled(model: Classifier, images: Tensor, precision: str, console: Console) -> Forward:
    """Return the model compiled, after steps on one batch that say what it costs and gains.

    A batch of another size, as the last of an epoch, goes through the model as it is: compiling
    for it too would cost as much again. Checkpoints know nothing of compilation.

    Raises:
        DeviceError: E303, torch cannot compile here.
    """
    forward: Forward = torch.compile(model)
    device = images.device
    with untouched(model):
        model.train()
        plain = _median_step(model, images, precision)
        started = time.perf_counter()
        try:
            _step(forward, images, precision)
        except Exception as error:  # a missing compiler, an unsupported GPU, a bug of the compiler
            raise _refused(error) from error
        synchronize(device)
        cold = time.perf_counter() - started
        warm = _median_step(forward, images, precision)
    console.note(
        f"--compile: first step {cold:.1f} s, then {warm * 1000:.0f} ms a step; without "
        f"{plain * 1000:.0f} ms" + _payback(cold, warm, plain)
    )
    size = len(images)
    return lambda batch: forward(batch) if len(batch) == size else model(batch)


def _payback(cold: float, warm: float, plain: float) -> str:
    if warm >= plain:
        return ": it does not pay here"
    return f": it pays from {cold / (plain - warm):,.0f} steps on"


def _median_step(forward: Forward, images: Tensor, precision: str) -> float:
    times = []
    for _ in range(WARM_STEPS):
        synchronize(images.device)
        started = time.perf_counter()
        _step(forward, images, precision)
        synchronize(images.device)
        times.append(time.perf_counter() - started)
    return statistics.median(times[1:])


def _step(forward: Forward, images: Tensor, precision: str) -> None:
    with devices.autocast(images.device, precision):
        loss = forward(images).float().square().mean()
    loss.backward()


def _refused(error: Exception) -> DeviceError:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    reason = f"{type(error).__name__}: {lines[0][:160]}" if lines else type(error).__name__
    return DeviceError(
        "E303",
        f"torch.compile does not work here ({reason})",
        cure="leave --compile out, or install a C++ compiler (on a GPU also triton)",
    )
