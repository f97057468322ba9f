"""Apple's GPU, read with the system's own tools `sysctl` and `ioreg`."""

from __future__ import annotations

import re
import subprocess

from dltool import machine
from dltool_gpu.devices import Bytes, Gpu
from dltool_gpu.host import sysctl

IOREG = ("ioreg", "-r", "-d", "1", "-w", "0", "-c", "IOAccelerator")


def apple_gpus() -> list[Gpu]:
    """Describe the GPU of an Apple chip; it shares the main memory with the CPU."""
    if not machine.platform_has_mps():
        return []
    facts = sysctl("machdep.cpu.brand_string", "hw.memsize")
    try:
        answer = subprocess.run(IOREG, capture_output=True, text=True, timeout=5, check=False)
        registry = answer.stdout
    except (OSError, subprocess.SubprocessError):
        registry = ""
    return [described(facts, registry)]


def described(facts: dict[str, str], registry: str) -> Gpu:
    """Put together what `sysctl` and `ioreg` said; what they did not say is None."""
    total = facts.get("hw.memsize", "")
    model = re.search(r'"model" = "([^"]+)"', registry)
    return Gpu(
        "apple",
        0,
        name=facts.get("machdep.cpu.brand_string") or (model[1] if model else None),
        cores=_number(r'"gpu-core-count" = (\d+)', registry),
        memory=Bytes(
            int(total) if total.isdigit() else None,
            _number(r'"In use system memory"=(\d+)', registry),
        ),
        utilization=_number(r'"Device Utilization %"=(\d+)', registry),
    )


def _number(pattern: str, text: str) -> int | None:
    found = re.search(pattern, text)
    return int(found[1]) if found else None
