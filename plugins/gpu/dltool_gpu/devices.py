"""Read the GPUs of this machine: NVIDIA's through NVML, AMD's from `/sys`, Apple's by its chip.

What a device, driver or library does not tell is None.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dltool import machine
from dltool.builds import read_text
from dltool.machine import ask
from dltool_gpu.host import sysctl

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
    """A process that holds memory of the GPU; its number is that of the host's name space."""

    pid: int
    name: str | None
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


def nvidia_gpus(nvml: Any, count: int) -> list[Gpu]:
    """Ask NVML, the started `pynvml` module, for every GPU."""
    gpus = []
    for index in range(count):
        handle = ask(nvml, "nvmlDeviceGetHandleByIndex", index)
        if handle is None:
            gpus.append(Gpu("nvidia", index, usable=False, obstacle="the driver cannot reach it"))
        else:
            gpus.append(_nvidia_gpu(nvml, handle, index))
    return gpus


def _nvidia_gpu(nvml: Any, handle: Any, index: int) -> Gpu:
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
        throttle_reasons=_throttle_reasons(nvml, handle),
        ecc=bool(ecc[0]) if ecc else None,
        ecc_errors={
            name: ask(nvml, "nvmlDeviceGetTotalEccErrors", handle, kind, SINCE_START)
            for name, kind in (("uncorrected", UNCORRECTED), ("corrected", CORRECTED))
        },
        mig=bool(mig[0]) if mig else None,
        mig_devices=_mig_devices(nvml, handle) if mig and mig[0] else [],
        processes=_processes(nvml, handle),
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


def _throttle_reasons(nvml: Any, handle: Any) -> list[str] | None:
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


def _processes(nvml: Any, handle: Any) -> list[Process] | None:
    answers = [
        ask(nvml, f"nvmlDeviceGet{kind}RunningProcesses", handle)
        for kind in ("Compute", "Graphics")
    ]
    if answers == [None, None]:
        return None
    known = {process.pid: process for answer in answers for process in answer or []}
    return [
        Process(pid, _text(ask(nvml, "nvmlSystemGetProcessName", pid)), process.usedGpuMemory)
        for pid, process in sorted(known.items())
    ]


def amd_gpus(root: Path = machine.ROOT) -> list[Gpu]:
    """Read AMD's GPUs from the files of the amdgpu kernel driver (Linux)."""
    cards = root / "sys/class/drm"
    if not cards.is_dir():
        return []
    folders = sorted(card / "device" for card in cards.glob("card[0-9]*") if "-" not in card.name)
    ours = [folder for folder in folders if read_text(folder / "vendor") == machine.AMD]
    return [_amd_gpu(folder, index) for index, folder in enumerate(ours)]


def _amd_gpu(folder: Path, index: int) -> Gpu:
    total, used = (_number(folder / f"mem_info_vram_{name}") for name in ("total", "used"))
    sensors = next(iter(sorted(folder.glob("hwmon/hwmon*"))), folder / "no sensors")
    temperature = _number(sensors / "temp1_input")
    power = _number(sensors / "power1_average")
    if power is None:
        power = _number(sensors / "power1_input")
    limit = _number(sensors / "power1_cap")
    slot = [line for line in read_text(folder / "uevent").splitlines() if "PCI_SLOT_NAME=" in line]
    return Gpu(
        vendor="amd",
        index=index,
        name=read_text(folder / "product_name")
        or f"AMD GPU {read_text(folder / 'device')}".strip(),
        uuid=read_text(folder / "unique_id") or None,
        bus_id=slot[0].partition("=")[2] if slot else None,
        memory=Bytes(total, used, None if total is None or used is None else total - used),
        temperature=None if temperature is None else temperature / 1000,
        power=None if power is None else power / 1e6,
        power_limit=None if limit is None else limit / 1e6,
        utilization=_number(folder / "gpu_busy_percent"),
    )


def _number(path: Path) -> int | None:
    text = read_text(path)
    return int(text) if text.lstrip("-").isdigit() else None


def apple_gpus() -> list[Gpu]:
    """Name the GPU of an Apple chip; it shares the main memory and tells no more without torch."""
    if not machine.platform_has_mps():
        return []
    return [
        Gpu("apple", 0, name=sysctl("machdep.cpu.brand_string").get("machdep.cpu.brand_string"))
    ]
