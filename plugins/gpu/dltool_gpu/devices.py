"""What is known of one GPU, and NVIDIA's GPUs read through NVML.

What a device, driver or library does not tell is None.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dltool import machine
from dltool.builds import read_text
from dltool.machine import ask

# bits of nvmlDeviceGetCurrentClocksEventReasons, named as nvidia-smi -q names them (nvml.h)
CLOCK_REASONS = {
    0x1: "gpu_idle",
    0x2: "applications_clocks_setting",
    0x4: "sw_power_cap",
    0x8: "hw_slowdown",
    0x10: "sync_boost",
    0x20: "sw_thermal_slowdown",
    0x40: "hw_thermal_slowdown",
    0x80: "hw_power_brake_slowdown",
    0x100: "display_clock_setting",
}
CLOCK_SM, CLOCK_MEMORY = 1, 2
CORRECTED, UNCORRECTED, SINCE_START = 0, 1, 0
COMPUTE_PROHIBITED = 2
MEMORY_V2 = 0x02000028


@dataclass(frozen=True)
class Bytes:
    """Device memory in bytes."""

    total: int | None = None
    used: int | None = None
    free: int | None = None


@dataclass(frozen=True)
class Process:
    """A process that holds memory of the GPU; its number is that of the host's name space.

    Attributes:
        kind: `compute`, `graphics`, or both as `compute+graphics`.
        name: the program, as the driver knows it.
        command: the command line with its arguments, where this process may look it up.
        memory: what it holds of this GPU, in bytes.
    """

    pid: int
    kind: str
    name: str | None
    command: str | None
    memory: int | None


@dataclass(frozen=True)
class MigDevice:
    """One slice of a GPU in multi-instance mode."""

    index: int
    uuid: str | None
    name: str | None
    memory: Bytes


@dataclass(frozen=True)
class Gpu:
    """One GPU; memory in bytes, clocks in MHz, power in watts, temperature in degrees Celsius.

    Attributes:
        index: its number for this vendor, in the order of the PCI bus.
        cores: number of GPU cores, where the vendor tells it.
        utilization: percent of the last sample period in which a kernel ran.
        throttle_reasons: what holds the clocks down just now; `gpu_idle` among them.
        ecc_errors: uncorrected and corrected errors since the driver started.
        visible: not hidden by CUDA_VISIBLE_DEVICES.
        usable: visible, not closed to computing, and fit for the installed torch if there is one.
        obstacle: why it is not usable; empty when it is.
    """

    vendor: str
    index: int
    name: str | None = None
    uuid: str | None = None
    bus_id: str | None = None
    compute_capability: str | None = None
    cores: int | None = None
    memory: Bytes = Bytes()
    temperature: float | None = None
    power: float | None = None
    power_limit: float | None = None
    utilization: int | None = None
    memory_utilization: int | None = None
    clocks: dict[str, int | None] = field(default_factory=dict)
    throttle_reasons: list[str] | None = None
    ecc: bool | None = None
    ecc_errors: dict[str, int | None] = field(default_factory=dict)
    mig: bool | None = None
    mig_devices: list[MigDevice] = field(default_factory=list)
    processes: list[Process] | None = None
    visible: bool = True
    usable: bool = True
    obstacle: str = ""

    @property
    def free(self) -> int | None:
        """The most memory that one process can take: of the largest slice in MIG mode."""
        slices = [part.memory.free for part in self.mig_devices if part.memory.free is not None]
        return max(slices) if slices else self.memory.free


def nvidia_gpus(nvml: Any, count: int, root: Path = machine.ROOT) -> list[Gpu]:
    """Ask NVML, the started `pynvml` module, for every GPU; commands come from `root/proc`."""
    gpus = []
    for index in range(count):
        handle = ask(nvml, "nvmlDeviceGetHandleByIndex", index)
        if handle is None:
            gpus.append(Gpu("nvidia", index, usable=False, obstacle="the driver cannot reach it"))
        else:
            gpus.append(_nvidia_gpu(nvml, handle, index, root))
    return gpus


def _nvidia_gpu(nvml: Any, handle: Any, index: int, root: Path) -> Gpu:
    utilization = ask(nvml, "nvmlDeviceGetUtilizationRates", handle)
    capability = ask(nvml, "nvmlDeviceGetCudaComputeCapability", handle)
    ecc = ask(nvml, "nvmlDeviceGetEccMode", handle)
    mig = ask(nvml, "nvmlDeviceGetMigMode", handle)
    closed = ask(nvml, "nvmlDeviceGetComputeMode", handle) == COMPUTE_PROHIBITED
    return Gpu(
        vendor="nvidia",
        index=index,
        name=_text(ask(nvml, "nvmlDeviceGetName", handle)),
        uuid=_text(ask(nvml, "nvmlDeviceGetUUID", handle)),
        bus_id=_text(getattr(ask(nvml, "nvmlDeviceGetPciInfo", handle), "busId", None)),
        compute_capability=f"{capability[0]}.{capability[1]}" if capability else None,
        memory=_memory(nvml, handle),
        temperature=ask(nvml, "nvmlDeviceGetTemperature", handle, 0),
        power=_watts(ask(nvml, "nvmlDeviceGetPowerUsage", handle)),
        power_limit=_watts(ask(nvml, "nvmlDeviceGetEnforcedPowerLimit", handle)),
        utilization=getattr(utilization, "gpu", None),
        memory_utilization=getattr(utilization, "memory", None),
        clocks=_clocks(nvml, handle),
        throttle_reasons=throttle_reasons(nvml, handle),
        ecc=bool(ecc[0]) if ecc else None,
        ecc_errors=ecc_errors(nvml, handle),
        mig=bool(mig[0]) if mig else None,
        mig_devices=_mig_devices(nvml, handle) if mig and mig[0] else [],
        processes=_processes(nvml, handle, root),
        usable=not closed,
        obstacle="its compute mode is set to prohibited" if closed else "",
    )


def _text(value: Any) -> str | None:
    return value.decode(errors="replace") if isinstance(value, bytes) else value


def _watts(milliwatts: int | None) -> float | None:
    return None if milliwatts is None else milliwatts / 1000


def _memory(nvml: Any, handle: Any) -> Bytes:
    # the second version leaves out what the driver reserves, as nvidia-smi does
    answer = ask(nvml, "nvmlDeviceGetMemoryInfo", handle, MEMORY_V2)
    if answer is None:
        answer = ask(nvml, "nvmlDeviceGetMemoryInfo", handle)
    return Bytes(*(getattr(answer, name, None) for name in ("total", "used", "free")))


def _clocks(nvml: Any, handle: Any) -> dict[str, int | None]:
    kinds = {"sm": CLOCK_SM, "memory": CLOCK_MEMORY}
    now = {name: ask(nvml, "nvmlDeviceGetClockInfo", handle, kind) for name, kind in kinds.items()}
    top = {
        f"{name}_max": ask(nvml, "nvmlDeviceGetMaxClockInfo", handle, kind)
        for name, kind in kinds.items()
    }
    return now | top


def ecc_errors(nvml: Any, handle: Any) -> dict[str, int | None]:
    """Return the memory errors of one NVIDIA GPU since the driver started, by kind."""
    return {
        name: ask(nvml, "nvmlDeviceGetTotalEccErrors", handle, kind, SINCE_START)
        for name, kind in (("uncorrected", UNCORRECTED), ("corrected", CORRECTED))
    }


def throttle_reasons(nvml: Any, handle: Any) -> list[str] | None:
    """Name what holds the clocks of one NVIDIA GPU down just now."""
    bits = ask(nvml, "nvmlDeviceGetCurrentClocksEventReasons", handle)
    if bits is None:
        bits = ask(nvml, "nvmlDeviceGetCurrentClocksThrottleReasons", handle)
    return None if bits is None else [name for bit, name in CLOCK_REASONS.items() if bits & bit]


def _mig_devices(nvml: Any, handle: Any) -> list[MigDevice]:
    devices = []
    for index in range(ask(nvml, "nvmlDeviceGetMaxMigDeviceCount", handle) or 0):
        part = ask(nvml, "nvmlDeviceGetMigDeviceHandleByIndex", handle, index)
        if part is not None:
            name = _text(ask(nvml, "nvmlDeviceGetName", part))
            uuid = _text(ask(nvml, "nvmlDeviceGetUUID", part))
            devices.append(MigDevice(index, uuid, name, _memory(nvml, part)))
    return devices


def _processes(nvml: Any, handle: Any, root: Path) -> list[Process] | None:
    kinds = ("Compute", "Graphics")
    answers = {
        kind.lower(): ask(nvml, f"nvmlDeviceGet{kind}RunningProcesses", handle) for kind in kinds
    }
    if all(answer is None for answer in answers.values()):
        return None
    memory: dict[int, int | None] = {}
    does: dict[int, list[str]] = {}
    for kind, found in answers.items():
        for process in found or []:
            memory[process.pid] = process.usedGpuMemory
            does.setdefault(process.pid, []).append(kind)
    return [
        Process(
            pid,
            "+".join(does[pid]),
            _text(ask(nvml, "nvmlSystemGetProcessName", pid)),
            command_of(pid, root),
            held,
        )
        for pid, held in sorted(memory.items())
    ]


def command_of(pid: int, root: Path = machine.ROOT) -> str | None:
    """Return the command line of a process by the host's number; None where it cannot be known.

    In a container the same number may be another process: only the host's own name space shows
    the kernel's `kthreadd` as number 2.
    """
    if read_text(root / "proc/2/comm") != "kthreadd":
        return None
    words = read_text(root / f"proc/{pid}/cmdline").strip("\0").split("\0")
    return shlex.join(words) if words != [""] else None
