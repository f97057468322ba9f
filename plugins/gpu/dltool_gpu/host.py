"""The computer around the GPUs: system, processor, memory."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from dltool import machine
from dltool.builds import read_text

# what torch's CPU kernels choose between, and what makes low precision fast; names as in Linux
SIMD = (
    *("sse4_2", "avx", "avx2", "fma", "f16c", "avx_vnni"),
    *("avx512f", "avx512bw", "avx512vl", "avx512_vnni", "avx512_bf16", "avx512_fp16"),
    *("amx_tile", "amx_bf16", "amx_int8", "amx_fp16"),
    *("asimd", "asimdhp", "asimddp", "fphp", "bf16", "i8mm", "sve", "sve2", "sme", "sme2"),
    *("altivec", "vsx", "rvv"),
)
# winnt.h: PF_..._INSTRUCTIONS_AVAILABLE
WINDOWS_FEATURES = {"sse4_2": 38, "avx": 39, "avx2": 40, "avx512f": 41, "asimd": 19}
MAC_FEATURES = {"AdvSIMD": "asimd", "FEAT_BF16": "bf16", "FEAT_I8MM": "i8mm", "FEAT_SME": "sme"}


@dataclass(frozen=True)
class Host:
    """The system that runs this process."""

    system: str
    architecture: str
    python: str
    executable: str


@dataclass(frozen=True)
class Cpu:
    """The processor; None stands for what the system does not tell.

    Attributes:
        physical_cores, logical_cores: of the whole machine.
        allowed_cores: that this process may be scheduled on (affinity).
        quota_cores: processor time that the control group grants, in cores; None: no limit.
        usable_cores: threads that can really run at once, from the two above.
        simd: vector instruction sets that matter for torch, as the system names them.
    """

    model: str | None
    physical_cores: int | None
    logical_cores: int | None
    allowed_cores: int
    quota_cores: float | None
    usable_cores: int
    simd: list[str] | None


@dataclass(frozen=True)
class Memory:
    """Main memory in bytes; `limit` is that of the control group, `available` heeds it."""

    total: int | None
    available: int | None
    limit: int | None


def host() -> Host:
    """Describe the system and the Python that runs."""
    system = f"{platform.system()} {platform.release()}"
    if sys.platform == "darwin":
        system = f"macOS {platform.mac_ver()[0]}"
    elif sys.platform == "linux":
        system = f"{_distribution()}, Linux {platform.release()}"
    return Host(system, platform.machine(), platform.python_version(), sys.executable)


def _distribution() -> str:
    try:
        return platform.freedesktop_os_release().get("PRETTY_NAME", "Linux")
    except OSError:
        return "Linux"


def cpu(root: Path = machine.ROOT) -> Cpu:
    """Describe the processor; reads `/proc/cpuinfo`, or asks macOS or Windows."""
    if (root / "proc/cpuinfo").exists():
        model, physical, simd = parse_cpuinfo(read_text(root / "proc/cpuinfo"))
    elif sys.platform == "darwin":
        model, physical, simd = _mac_cpu()
    elif sys.platform == "win32":
        model, physical, simd = os.environ.get("PROCESSOR_IDENTIFIER"), None, _windows_simd()
    else:
        model, physical, simd = platform.processor() or None, None, None
    return Cpu(
        model,
        physical,
        os.cpu_count(),
        machine.allowed_cores(),
        machine.cpu_quota(root),
        machine.usable_cores(root),
        simd,
    )


def parse_cpuinfo(text: str) -> tuple[str | None, int | None, list[str] | None]:
    """Return model name, number of physical cores and SIMD features from `/proc/cpuinfo`."""
    blocks = [
        dict(re.findall(r"^([^:\n]*?)[ \t]*:[ \t]*(.*?)[ \t]*$", block, re.MULTILINE))
        for block in re.split(r"\n\s*\n", text)
    ]
    fields = {key: value for block in reversed(blocks) for key, value in block.items()}
    cores = {
        (block["physical id"], block["core id"])
        for block in blocks
        if "core id" in block and "physical id" in block
    }
    flags = fields.get("flags", fields.get("Features"))
    simd = None if flags is None else [name for name in SIMD if name in flags.split()]
    model = fields.get("model name") or fields.get("Model") or fields.get("cpu")
    return model or None, len(cores) or None, simd


def sysctl(*names: str) -> dict[str, str]:
    """Return values of macOS's `sysctl`; names that it does not know are left out."""
    try:
        answer = subprocess.run(
            ["sysctl", *names], capture_output=True, text=True, timeout=5, check=False
        )
    except (OSError, subprocess.SubprocessError):
        return {}
    pairs = (line.partition(": ") for line in answer.stdout.splitlines())
    return {name: value.strip() for name, separator, value in pairs if separator}


def _mac_cpu() -> tuple[str | None, int | None, list[str] | None]:
    intel = ("machdep.cpu.features", "machdep.cpu.leaf7_features")
    arm = [f"hw.optional.{'arm.' if '_' in name else ''}{name}" for name in MAC_FEATURES]
    found = sysctl("machdep.cpu.brand_string", "hw.physicalcpu", *intel, *arm)
    text = " ".join(found.get(name, "") for name in intel).lower().replace(".", "_")
    words = text.replace("avx1_0", "avx").split()
    simd = [name for name in SIMD if name in words]
    simd += [
        MAC_FEATURES[name]
        for name, key in zip(MAC_FEATURES, arm, strict=True)
        if found.get(key) == "1"
    ]
    physical = found.get("hw.physicalcpu", "")
    return (
        found.get("machdep.cpu.brand_string"),
        int(physical) if physical.isdigit() else None,
        simd or None,
    )


def _windows_simd() -> list[str] | None:
    import ctypes

    kernel = getattr(ctypes, "windll", None)
    if kernel is None:
        return None
    present = kernel.kernel32.IsProcessorFeaturePresent
    return [name for name, number in WINDOWS_FEATURES.items() if present(number)]


def memory(root: Path = machine.ROOT) -> Memory:
    """Describe main memory, with the limit of the control group that this process is in."""
    if not (root / "proc/meminfo").exists():
        total, available = _foreign_memory()
        return Memory(total, available, None)
    rows = re.findall(r"^(\w+):\s+(\d+) kB", read_text(root / "proc/meminfo"), re.MULTILINE)
    bytes_of = {name: int(value) * 1024 for name, value in rows}
    total, available = bytes_of.get("MemTotal"), bytes_of.get("MemAvailable")
    limit = None
    for folder in machine.cgroup_folders("memory", root):
        bound, left = _group_memory(folder)
        if bound is None or left is None or (total is not None and bound >= total):
            continue
        limit = bound if limit is None else min(limit, bound)
        available = left if available is None else min(available, left)
    return Memory(total, available, limit)


def _group_memory(folder: Path) -> tuple[int | None, int | None]:
    """Return the limit of one control group and what is left of it, in bytes."""
    for limit_name, used_name in (
        ("memory.max", "memory.current"),
        ("memory.limit_in_bytes", "memory.usage_in_bytes"),
    ):
        limit, used = read_text(folder / limit_name), read_text(folder / used_name)
        if limit.isdigit() and used.isdigit():
            # pages of files that were read count as used but are given back on demand
            stat = read_text(folder / "memory.stat")
            cached = re.search(r"^(?:total_)?inactive_file (\d+)", stat, re.MULTILINE)
            return int(limit), max(int(limit) - int(used) + (int(cached[1]) if cached else 0), 0)
    return None, None


def _foreign_memory() -> tuple[int | None, int | None]:
    if sys.platform == "darwin":
        total = sysctl("hw.memsize").get("hw.memsize", "")
        return (int(total) if total.isdigit() else None), None
    import ctypes

    library = getattr(ctypes, "windll", None)
    if library is None:
        return None, None
    # MEMORYSTATUSEX: two 32-bit words, then seven 64-bit ones, total and available physical first
    status = (ctypes.c_ulonglong * 8)(64)
    if not library.kernel32.GlobalMemoryStatusEx(ctypes.byref(status)):
        return None, None
    return int(status[1]), int(status[2])
