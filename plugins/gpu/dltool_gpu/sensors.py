"""Temperature, power, clocks and error counters of the device that torch computes on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from dltool import machine
from dltool.builds import read_text
from dltool.machine import ask
from dltool_gpu import devices

CPU_SENSORS = ("coretemp", "k10temp", "zenpower")


@dataclass(frozen=True)
class Reading:
    """One look at the sensors; what is not known is None.

    Attributes:
        temperature: degrees Celsius; power: watts; clock: of the multiprocessors in MHz.
        reasons: what holds the clocks down.
        uncorrected, corrected: memory errors since the driver started.
    """

    temperature: float | None = None
    power: float | None = None
    clock: int | None = None
    reasons: tuple[str, ...] = ()
    uncorrected: int | None = None
    corrected: int | None = None


def handle_of(nvml: Any, device: torch.device) -> Any:
    """Return NVML's handle for a CUDA device, or None.

    The numbers of CUDA and NVML may differ; the UUID is the same.
    """
    if nvml is None or device.type != "cuda":
        return None
    uuid = str(getattr(torch.cuda.get_device_properties(device), "uuid", ""))
    uuid = uuid if uuid.startswith(("GPU-", "MIG-")) else f"GPU-{uuid}"
    return ask(nvml, "nvmlDeviceGetHandleByUUID", uuid)


def read(nvml: Any, handle: Any, root: Path = machine.ROOT) -> Reading:
    """Read the sensors of an NVIDIA GPU; without a handle only the processor's temperature."""
    if handle is None:
        return Reading(temperature=_cpu_temperature(root))
    power = ask(nvml, "nvmlDeviceGetPowerUsage", handle)
    errors = devices.ecc_errors(nvml, handle)
    return Reading(
        temperature=ask(nvml, "nvmlDeviceGetTemperature", handle, 0),
        power=None if power is None else power / 1000,
        clock=ask(nvml, "nvmlDeviceGetClockInfo", handle, devices.CLOCK_SM),
        reasons=tuple(devices.throttle_reasons(nvml, handle) or ()),
        uncorrected=errors["uncorrected"],
        corrected=errors["corrected"],
    )


def _cpu_temperature(root: Path) -> float | None:
    for folder in sorted((root / "sys/class/hwmon").glob("hwmon*")):
        value = read_text(folder / "temp1_input")
        if read_text(folder / "name") in CPU_SENSORS and value.lstrip("-").isdigit():
            return int(value) / 1000
    return None
