"""Which devices a measurement runs on, and what they are called."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from dltool import machine
from dltool.device import choose
from dltool_gpu import host


def every_device(name: str) -> list[torch.device]:
    """Return the devices of a test: for `auto` every GPU, or the CPU where there is none.

    Raises:
        DeviceError: the device asked for is not there.
        ConfigError: the name is not understood.
    """
    if name == "auto" and torch.cuda.is_available():
        return [torch.device("cuda", index) for index in range(torch.cuda.device_count())]
    return [choose(name).device]


def title_of(device: torch.device) -> str:
    """Return the name of the hardware behind a device."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if device.type == "mps":
        return "Apple GPU"
    return host.cpu().model or "CPU"


def described(device: torch.device) -> dict[str, Any]:
    """Return what a result must carry of the device that it was measured on."""
    facts: dict[str, Any] = {"device": str(device), "name": title_of(device)}
    facts["torch"] = str(torch.__version__)
    if device.type == "cpu":
        facts |= {"threads": torch.get_num_threads(), "cores": machine.usable_cores()}
    if device.type == "cuda":
        facts |= {
            "cuda": torch.version.cuda,
            "capability": torch.cuda.get_device_capability(device),
        }
    return facts


def free_memory(device: torch.device) -> int:
    """Return the bytes that new tensors can take on a device; 0 where nobody knows."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    if device.type == "mps":
        return max(torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory(), 0)
    return host.memory().available or 0


@contextmanager
def tf32(enabled: bool) -> Iterator[None]:
    """Let float32 products on NVIDIA's tensor cores round their inputs to 10 bits, or not."""
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = enabled
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before
