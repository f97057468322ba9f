"""What this machine offers to torch, found out without importing torch.

`dltool doctor` and `dltool gpu info` both build on this file. Every probe takes `root`, the folder
under which `/proc`, `/sys` and `/dev` are looked for, and answers None for what it cannot know.
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from dltool.builds import REINSTALL_TORCH, Build, read_text, release, torchvision_mismatch

Severity = Literal["ok", "info", "warn", "fail"]
ROOT = Path("/")
NVIDIA, AMD = "0x10de", "0x1002"
# class of a PCI device, upper half: display controllers, and AMD's processing accelerators
GPU_CLASSES = ("0x03", "0x12")
# the oldest Linux driver that runs programs of a CUDA major version (CUDA release notes, table
# "CUDA Toolkit and Minimum Required Driver Version for CUDA Minor Version Compatibility")
OLDEST_DRIVER = {11: "450.80.02", 12: "525.60.13", 13: "580.65.06"}


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        code: a stable name for scripts.
        severity: `ok`; `info`: worth knowing; `warn`: works, but not as it could; `fail`: broken.
        title: what was looked at, in a word or two.
        fact: what was found.
        effect: what it does to the user; empty when nothing.
        cure: the command or action that mends it; empty when nothing needs to be.
    """

    code: str
    severity: Severity
    title: str
    fact: str
    effect: str = ""
    cure: str = ""


def count_of(number: int, thing: str) -> str:
    """Return `1 core`, `2 cores`."""
    return f"{number} {thing}{'' if number == 1 else 's'}"


# Cores


def allowed_cores() -> int:
    """Return the number of cores that this process may be scheduled on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def cgroup_folders(controller: str, root: Path = ROOT) -> list[Path]:
    """Return the folders of this process's control group and its parents, innermost first."""
    folders = []
    for line in read_text(root / "proc/self/cgroup").splitlines():
        names, _, path = line.partition(":")[2].partition(":")
        if names and controller not in names.split(","):
            continue
        base = root / "sys/fs/cgroup" / (controller if names else "")
        folder = base / path.strip("/")
        folders += [folder, *(parent for parent in folder.parents if parent.is_relative_to(base))]
    return folders


def cpu_quota(root: Path = ROOT) -> float | None:
    """Return the processor time that the control group allows, in cores; None without a limit."""
    limits = []
    for folder in cgroup_folders("cpu", root):
        unified = read_text(folder / "cpu.max").split()
        legacy = [read_text(folder / f"cpu.cfs_{part}_us") for part in ("quota", "period")]
        for pair in (unified, legacy):
            if len(pair) == 2 and all(part.isdigit() and int(part) for part in pair):
                limits.append(int(pair[0]) / int(pair[1]))
    return min(limits, default=None)


def usable_cores(root: Path = ROOT) -> int:
    """Return how many threads can really run at once: affinity, and the control group's quota."""
    quota = cpu_quota(root)
    return allowed_cores() if quota is None else max(1, min(allowed_cores(), math.ceil(quota)))


# Devices


@dataclass(frozen=True)
class Hardware:
    """What the operating system shows of GPUs, apart from any vendor's library.

    Attributes:
        nvidia, amd: GPUs of this vendor on the PCI bus; None where the bus cannot be read.
        driver_loaded: NVIDIA's kernel module runs.
        nouveau: the free nouveau driver runs.
        device_files: NVIDIA's device files are there (or WSL's, which stand for them).
        kfd: AMD's compute device file is there.
    """

    nvidia: int | None = None
    amd: int | None = None
    driver_loaded: bool = False
    nouveau: bool = False
    device_files: bool = False
    kfd: bool = False


def hardware(root: Path = ROOT) -> Hardware:
    """Look at the PCI bus, kernel modules and device files (Linux; elsewhere nothing is known)."""
    if not (root / "proc").is_dir():
        return Hardware()
    wsl = (root / "dev/dxg").exists()
    control = (root / "dev/nvidiactl").exists() and (root / "dev/nvidia-uvm").exists()
    return Hardware(
        nvidia=_pci_count(NVIDIA, root),
        amd=_pci_count(AMD, root),
        driver_loaded=(root / "proc/driver/nvidia/version").exists(),
        nouveau=(root / "sys/module/nouveau").exists(),
        device_files=wsl or (control and any((root / "dev").glob("nvidia[0-9]*"))),
        kfd=(root / "dev/kfd").exists(),
    )


def _pci_count(vendor: str, root: Path) -> int | None:
    bus = root / "sys/bus/pci/devices"
    if not bus.is_dir():
        return None
    return sum(
        read_text(device / "vendor") == vendor
        and read_text(device / "class").startswith(GPU_CLASSES)
        for device in bus.iterdir()
    )


@dataclass(frozen=True)
class Driver:
    """NVIDIA's driver as its management library (NVML) answers.

    Attributes:
        trouble: empty, `no-package`, `no-library` or `failed`.
        detail: the words of the library when it fails.
    """

    version: str | None = None
    cuda: str | None = None
    count: int = 0
    trouble: Literal["", "no-package", "no-library", "failed"] = ""
    detail: str = ""


@contextmanager
def nvml_session() -> Iterator[tuple[Any, Driver]]:
    """Yield the started `pynvml` module and the driver; None for the module if it cannot start."""
    try:
        import pynvml
    except ImportError:
        yield None, Driver(trouble="no-package")
        return
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        missing = getattr(pynvml, "NVML_ERROR_LIBRARY_NOT_FOUND", 12)
        absent = getattr(error, "value", None) == missing
        yield None, Driver(trouble="no-library" if absent else "failed", detail=str(error))
        return
    try:
        yield pynvml, _driver(pynvml)
    finally:
        ask(pynvml, "nvmlShutdown")


def ask(nvml: Any, function: str, *arguments: Any) -> Any:
    """Call one NVML function; None when this GPU, driver or library has no answer to it."""
    try:
        return getattr(nvml, function)(*arguments)
    # AttributeError: an older pynvml; UnicodeError: process names under WSL
    except (nvml.NVMLError, AttributeError, UnicodeError):
        return None


def _driver(nvml: Any) -> Driver:
    cuda = ask(nvml, "nvmlSystemGetCudaDriverVersion_v2")
    return Driver(
        version=ask(nvml, "nvmlSystemGetDriverVersion"),
        cuda=f"{cuda // 1000}.{cuda % 1000 // 10}" if cuda else None,
        count=ask(nvml, "nvmlDeviceGetCount") or 0,
    )


def why_torch_cannot(torch: Build | None, driver: Driver) -> str:
    """Say why the installed torch cannot use this driver's GPUs; empty when nothing speaks against.

    Minor versions of CUDA are compatible in both directions; the major version of the driver must
    be at least that of the build.
    """
    if torch is None or torch.backend == "unknown":
        return ""
    if torch.backend != "cuda":
        return f"torch {torch.version} is a build for {'ROCm' if torch.hip else 'the CPU only'}"
    have, want = release(driver.cuda or ""), release(torch.cuda or "")
    if have and want and have[0] < want[0]:
        return f"driver {driver.version} runs CUDA {driver.cuda}, torch needs CUDA {torch.cuda}"
    return ""


def device_findings(seen: Hardware, driver: Driver, torch: Build | None) -> list[Finding]:
    """Name each layer that is missing between torch and the GPUs of this machine."""
    found = [
        _missing_layer(seen, driver),
        _nouveau(seen, driver),
        _hidden(driver),
        _torch_fits(driver, torch),
    ]
    if seen.amd and (torch is None or not torch.hip):
        fact = f"{count_of(seen.amd, 'AMD GPU')} on the bus; the installed torch is no ROCm build"
        found.append(Finding("no-rocm", "info", "AMD GPU", fact, "torch does not use it"))
    return [finding for finding in found if finding is not None]


def torchvision_findings(torch: Build | None, vision: Build | None) -> list[Finding]:
    """Compare torchvision with torch by what their files say."""
    mismatch = torchvision_mismatch(torch, vision)
    if mismatch is None:
        return []
    effect = "image models fail on import or at their first operator"
    return [
        Finding("torchvision-mismatch", "fail", "torchvision", mismatch[0], effect, mismatch[1])
    ]


def _missing_layer(seen: Hardware, driver: Driver) -> Finding | None:
    if driver.trouble == "" and driver.count:
        return None
    effect = "torch runs on the CPU"
    if driver.trouble == "failed":
        return _driver_failed(seen, driver)
    if seen.driver_loaded and not seen.device_files:
        fact = "NVIDIA's kernel driver runs, but there are no device files /dev/nvidia*"
        cure = "start the container with --gpus all; outside one: sudo nvidia-modprobe -u -c=0"
        return Finding("no-device-files", "warn", "NVIDIA driver", fact, effect, cure)
    if driver.trouble == "no-package" and (seen.nvidia or seen.driver_loaded):
        fact, cure = "the package nvidia-ml-py is not installed", "pip install nvidia-ml-py"
        return Finding("no-nvml", "warn", "NVIDIA driver", fact, "GPUs cannot be described", cure)
    if driver.trouble == "no-library" and seen.driver_loaded:
        fact = "NVIDIA's kernel driver runs, but its library libnvidia-ml.so.1 is not found"
        cure = "start the container with --gpus all, or install the driver's user-space part"
        return Finding("no-library", "warn", "NVIDIA driver", fact, effect, cure)
    if seen.nvidia:
        fact = f"{count_of(seen.nvidia, 'NVIDIA GPU')} on the bus, but no driver at work"
        cure = "install NVIDIA's driver (Ubuntu: sudo ubuntu-drivers install), then restart"
        return Finding("no-driver", "warn", "NVIDIA driver", fact, effect, cure)
    return Finding("no-gpu", "info", "NVIDIA driver", "no NVIDIA GPU or driver was found")


def _driver_failed(seen: Hardware, driver: Driver) -> Finding:
    fact = f"NVIDIA's library does not start: {driver.detail}"
    cure = "see nvidia-smi and dmesg, then restart the machine"
    if "mismatch" in driver.detail.lower():
        cure = "restart the machine: the driver was updated while the old one ran"
    elif not seen.driver_loaded:
        cure = "sudo modprobe nvidia; if that fails, reinstall NVIDIA's driver"
    elif not seen.device_files:
        cure = "start the container with --gpus all; outside one: sudo nvidia-modprobe -u -c=0"
    return Finding("driver-failed", "warn", "NVIDIA driver", fact, "torch runs on the CPU", cure)


def _nouveau(seen: Hardware, driver: Driver) -> Finding | None:
    if not seen.nouveau or driver.count:
        return None
    fact = "the nouveau driver holds the NVIDIA GPU"
    cure = "install NVIDIA's driver, which blocks nouveau, then restart"
    return Finding("nouveau", "warn", "nouveau", fact, "CUDA cannot use the GPU", cure)


def _hidden(driver: Driver) -> Finding | None:
    if not driver.count or os.environ.get("CUDA_VISIBLE_DEVICES") not in ("", "-1"):
        return None
    fact = "CUDA_VISIBLE_DEVICES hides every GPU"
    cure = "unset CUDA_VISIBLE_DEVICES"
    return Finding("gpus-hidden", "info", "visible GPUs", fact, "torch runs on the CPU", cure)


def _torch_fits(driver: Driver, torch: Build | None) -> Finding | None:
    reason = why_torch_cannot(torch, driver)
    if not driver.count or torch is None or not reason:
        return None
    effect = "torch runs on the CPU beside an idle GPU"
    if torch.backend != "cuda":
        return Finding("torch-without-cuda", "warn", "torch build", reason, effect, REINSTALL_TORCH)
    oldest = OLDEST_DRIVER.get(release(torch.cuda or "0")[0])
    cure = f"update the driver{f' to {oldest} or newer' if oldest and os.name != 'nt' else ''}"
    cure += f", or take a torch that fits it: {REINSTALL_TORCH}"
    return Finding("driver-too-old", "fail", "NVIDIA driver", reason, effect, cure)


def platform_has_mps() -> bool:
    """Tell whether this is a Mac with an Apple GPU that torch can use."""
    return sys.platform == "darwin" and os.uname().machine == "arm64"
