"""Collect what is known about the GPUs, the processor and the torch of this machine.

No torch, no NumPy, and on Linux no child process. What is not known is None.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any

from dltool import machine
from dltool.builds import Build, installed_build, release
from dltool.machine import Driver, Finding, Hardware
from dltool_gpu.amd import amd_gpus
from dltool_gpu.apple import apple_gpus
from dltool_gpu.devices import Gpu, nvidia_gpus
from dltool_gpu.host import Cpu, Host, Memory, cpu, host, memory

SLOWDOWNS = {"hw_slowdown", "sw_thermal_slowdown", "hw_thermal_slowdown", "hw_power_brake_slowdown"}
# CUDA 13 dropped every GPU before Turing (CUDA 13.0 release notes)
OLDEST_CAPABILITY = {13: "7.5"}
TOOLS = ("nvidia-smi", "amd-smi", "rocm-smi")


@dataclass(frozen=True)
class MachineInfo:
    """Everything that `dltool gpu info` tells.

    Attributes:
        libraries: versions of cuDNN and NCCL that were installed with torch.
        tools: the vendors' own programs in PATH, with their places.
    """

    host: Host
    cpu: Cpu
    memory: Memory
    driver: Driver
    torch: Build | None
    torchvision: Build | None
    libraries: dict[str, str]
    gpus: list[Gpu]
    tools: dict[str, str]
    findings: list[Finding]

    def usable(self, min_free: int = 0) -> list[Gpu]:
        """Return the usable GPUs with at least `min_free` bytes of free memory.

        A GPU that does not tell its free memory counts only when none is asked for.
        """
        return [gpu for gpu in self.gpus if gpu.usable and (gpu.free or 0) >= min_free]

    def as_dict(self) -> dict[str, Any]:
        """Return the answer for `--json`."""
        result = asdict(self)
        result["driver"] = {"version": self.driver.version, "cuda": self.driver.cuda}
        for name in ("torch", "torchvision"):
            build: Build | None = getattr(self, name)
            result[name] = build and {**asdict(build), "backend": build.backend}
        result["findings"] = [
            {
                "code": finding.code,
                "severity": finding.severity,
                "message": finding.fact,
                "effect": finding.effect,
                "cure": finding.cure,
            }
            for finding in self.findings
        ]
        return result


def collect(root: Path = machine.ROOT) -> MachineInfo:
    """Look at the whole machine; a layer that is missing becomes a finding, never an error."""
    with machine.nvml_session() as (nvml, driver):
        return _look(nvml, driver, root)


def watch(seconds: float, root: Path = machine.ROOT) -> Iterator[MachineInfo]:
    """Look at the machine again every so many seconds, without starting NVML anew each time."""
    with machine.nvml_session() as (nvml, driver):
        due = time.monotonic()
        while True:
            yield _look(nvml, driver, root)
            due = max(due + seconds, time.monotonic())
            time.sleep(due - time.monotonic() if due > time.monotonic() else 0)


def _look(nvml: Any, driver: Driver, root: Path) -> MachineInfo:
    torch, torchvision = installed_build("torch"), installed_build("torchvision")
    seen = machine.hardware(root)
    gpus = nvidia_gpus(nvml, driver.count, root) if nvml is not None else []
    found = machine.device_findings(seen, driver, torch)
    found += machine.torchvision_findings(torch, torchvision)
    gpus = judged(gpus + amd_gpus(root) + apple_gpus(), torch, driver, seen)
    if any(gpu.vendor != "nvidia" for gpu in gpus):
        found = [finding for finding in found if finding.code != "no-gpu"]
    found += gpu_findings(gpus)
    return MachineInfo(
        host(),
        cpu(root),
        memory(root),
        driver,
        torch,
        torchvision,
        libraries(torch),
        gpus,
        vendor_tools(),
        found,
    )


def libraries(torch: Build | None) -> dict[str, str]:
    """Return the versions of cuDNN and NCCL that came as packages beside this torch.

    Empty for builds that carry them inside, as conda's, and for those without CUDA.
    """
    found = {}
    for name in ("cudnn", "nccl") if torch is not None and torch.cuda else ():
        major = release(torch.cuda or "0")[0] if torch else 0
        with suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(f"nvidia-{name}-cu{major}")
    return found


def visible_gpus(gpus: Sequence[Gpu], setting: str | None) -> set[int]:
    """Return the indices that CUDA_VISIBLE_DEVICES lets through.

    CUDA's rule: names are numbers or beginnings of UUIDs, and the first unknown one ends the list.
    """
    if setting is None:
        return {gpu.index for gpu in gpus}
    visible: set[int] = set()
    for word in (part.strip() for part in setting.split(",")):
        chosen = {gpu.index for gpu in gpus if _names(word, gpu)}
        if len(chosen) != 1:
            break
        visible |= chosen
    return visible


def _names(word: str, gpu: Gpu) -> bool:
    if word.isdigit():
        return int(word) == gpu.index
    uuids = [gpu.uuid or "", *(part.uuid or "" for part in gpu.mig_devices)]
    return word.startswith(("GPU-", "MIG-")) and any(uuid.startswith(word) for uuid in uuids)


def judged(gpus: Sequence[Gpu], torch: Build | None, driver: Driver, seen: Hardware) -> list[Gpu]:
    """Say of each GPU whether it is visible and usable, and if not, why."""
    visible = visible_gpus(
        [gpu for gpu in gpus if gpu.vendor == "nvidia"], os.environ.get("CUDA_VISIBLE_DEVICES")
    )
    result = []
    for gpu in gpus:
        hidden = gpu.vendor == "nvidia" and gpu.index not in visible
        reasons = [gpu.obstacle, "CUDA_VISIBLE_DEVICES hides it" if hidden else ""]
        if gpu.vendor == "nvidia":
            reasons.append(machine.why_torch_cannot(torch, driver) or _unfit(gpu, torch))
        if gpu.vendor == "amd":
            reasons.append(_amd_obstacle(torch, seen))
        obstacle = next(filter(None, reasons), "")
        result.append(replace(gpu, visible=not hidden, usable=not obstacle, obstacle=obstacle))
    return result


def _unfit(gpu: Gpu, torch: Build | None) -> str:
    if gpu.mig and not gpu.mig_devices:
        return "it is in MIG mode and has no instance"
    major = release(torch.cuda or "")[:1] if torch else ()
    oldest = OLDEST_CAPABILITY.get(major[0], "0") if major else "0"
    have = release(gpu.compute_capability or "")
    if not have or torch is None or have >= release(oldest):
        return ""
    capability = f"compute capability {gpu.compute_capability}"
    return f"{capability} is too old for CUDA {torch.cuda} (from {oldest} on)"


def _amd_obstacle(torch: Build | None, seen: Hardware) -> str:
    if not seen.kfd:
        return "AMD's compute driver does not run (/dev/kfd is missing)"
    if torch is not None and not torch.hip:
        return f"torch {torch.version} is no build for ROCm"
    return ""


def gpu_findings(gpus: Iterable[Gpu]) -> list[Finding]:
    """Name what is wrong with single GPUs: too old, held down, failing memory, unclear numbers."""
    gpus = list(gpus)
    found = [finding for gpu in gpus for finding in _one_gpu(gpu)]
    names = {gpu.name for gpu in gpus if gpu.vendor == "nvidia"}
    if len(names) > 1 and os.environ.get("CUDA_DEVICE_ORDER") != "PCI_BUS_ID":
        fact = "CUDA may number these GPUs otherwise than this list: cuda:0 is the fastest"
        cure = "export CUDA_DEVICE_ORDER=PCI_BUS_ID"
        found.append(Finding("gpu-order", "info", "GPU numbers", fact, "", cure))
    return found


def _one_gpu(gpu: Gpu) -> list[Finding]:
    title = f"GPU {gpu.index}"
    found = []
    if "is too old for CUDA" in gpu.obstacle:
        cure = "install a torch that is built for an older CUDA"
        found.append(Finding("gpu-too-old", "fail", title, gpu.obstacle, "torch fails on it", cure))
    slow = sorted(SLOWDOWNS.intersection(gpu.throttle_reasons or []))
    if slow:
        fact = f"{title} holds its clocks down: {', '.join(slow)}"
        cure = "check cooling and power supply"
        found.append(Finding("gpu-throttled", "warn", title, fact, "training is slower", cure))
    errors = gpu.ecc_errors.get("uncorrected") or 0
    if errors:
        fact = f"{title} had {machine.count_of(errors, 'uncorrected memory error')}"
        cure = "reset the GPU or restart; if errors come back, have it replaced"
        found.append(Finding("gpu-ecc", "warn", title, fact, "results may be wrong", cure))
    return found


def vendor_tools() -> dict[str, str]:
    """Return the vendors' own tools that are in PATH, with their places."""
    places = {name: shutil.which(name) for name in TOOLS}
    return {name: place for name, place in places.items() if place}
