"""Write what `dltool gpu info` found as text for people, and read sizes that people write."""

from __future__ import annotations

import re
from collections.abc import Iterator

from dltool.builds import Build
from dltool.errors import CheckFailed, ConfigError, closest
from dltool.machine import Finding, count_of
from dltool_gpu.devices import Bytes, Gpu
from dltool_gpu.info import MachineInfo

SIZES: dict[str, int] = {"B": 1} | {
    f"{letter}{suffix}": base**power
    for power, letter in enumerate("KMGT", start=1)
    for suffix, base in (("B", 1000), ("iB", 1024))
}
# the operations of `dltool gpu bench`
GROUPS = ("matmul", "add", "copy", "transfer", "conv", "attention", "launch", "all-reduce")
LONGEST_COMMAND = 100
# too common to tell anything about a processor
EVERYWHERE = {"sse4_2", "avx", "f16c", "fma", "avx512bw", "avx512vl"}


def parse_size(text: str, option: str) -> int:
    """Return a size such as `8GiB` or `500 MB` in bytes; the unit must be written.

    Raises:
        ConfigError: not a positive number with a unit.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?) ?([A-Za-z]+)", text.strip())
    units = {name.lower(): factor for name, factor in SIZES.items()}
    factor = units.get(match[2].lower()) if match else None
    if match is None or factor is None or round(float(match[1]) * factor) < 1:
        raise ConfigError(
            "E202",
            f"{option} is not a size",
            received=text,
            expected=f"a number above 0 with one of {', '.join(SIZES)}",
            cure=f"write it like {option} 8GiB",
        )
    return round(float(match[1]) * factor)


def parse_groups(text: str | None) -> list[str]:
    """Return the groups of operations that `--only` names, in our order; all without it.

    Raises:
        ConfigError: E206, one is not known.
    """
    if text is None:
        return list(GROUPS)
    asked = [word.strip() for word in text.split(",")]
    for word in asked:
        if word not in GROUPS:
            raise ConfigError(
                "E206",
                "--only names an unknown group",
                received=word,
                expected=", ".join(GROUPS),
                cure=f"did you mean {near}?" if (near := closest(word, GROUPS)) else "",
            )
    return [group for group in GROUPS if group in asked]


def size(count: int | None) -> str:
    """Return a number of bytes with a binary unit: `23.5 GiB`."""
    if count is None:
        return "unknown"
    for power, letter in ((4, "T"), (3, "G"), (2, "M"), (1, "K")):
        if count >= 1024**power:
            return f"{count / 1024**power:.1f} {letter}iB"
    return f"{count} B"


def report(info: MachineInfo) -> str:
    """Return the whole answer as lines of text, findings last."""
    rows = [
        ("system", f"{info.host.system}, {info.host.architecture}, Python {info.host.python}"),
        ("CPU", _cpu(info)),
        ("memory", _memory(info)),
        ("torch", _build(info.torch)),
        ("torchvision", _build(info.torchvision)),
        ("driver", _driver(info)),
    ]
    if info.libraries:
        names = {"cudnn": "cuDNN", "nccl": "NCCL"}
        told = ", ".join(f"{names[name]} {version}" for name, version in info.libraries.items())
        rows.insert(-1, ("libraries", told))
    for gpu in info.gpus:
        label = f"GPU {gpu.index}" if gpu.vendor == "nvidia" else f"{gpu.vendor} {gpu.index}"
        rows += [(label if number == 0 else "", line) for number, line in enumerate(gpu_lines(gpu))]
    if not info.gpus:
        rows.append(("GPU", "none"))
    width = max(len(label) for label, _ in rows)
    lines = [f"{label:{width}}  {text}" for label, text in rows]
    return "\n".join([*lines, *(line for found in info.findings for line in _finding(found))])


def _cpu(info: MachineInfo) -> str:
    cpu = info.cpu
    cores = [count_of(cpu.physical_cores, "core")] if cpu.physical_cores else []
    if cpu.logical_cores and cpu.logical_cores != cpu.physical_cores:
        cores.append(count_of(cpu.logical_cores, "thread"))
    if cpu.usable_cores != cpu.logical_cores:
        cores.append(f"{cpu.usable_cores} usable here")
    simd = " ".join(name for name in cpu.simd or [] if name not in EVERYWHERE)
    return "; ".join(filter(None, [cpu.model or "unknown model", ", ".join(cores), simd]))


def _memory(info: MachineInfo) -> str:
    memory = info.memory
    text = size(memory.total)
    if memory.limit is not None:
        text += f", limited to {size(memory.limit)} by the control group"
    return text if memory.available is None else f"{text}, {size(memory.available)} available"


def _build(build: Build | None) -> str:
    if build is None:
        return "not installed"
    target = {
        "cuda": f"built for CUDA {build.cuda}",
        "rocm": f"built for ROCm {build.hip}",
        "cpu": "built without CUDA",
        "unknown": "build unknown",
    }[build.backend]
    return f"{build.version}, {target}"


def _driver(info: MachineInfo) -> str:
    if info.driver.version is None:
        return "no NVIDIA driver answers"
    return f"NVIDIA {info.driver.version}, up to CUDA {info.driver.cuda or 'unknown'}"


def gpu_lines(gpu: Gpu) -> list[str]:
    """Return what is known of one GPU: a headline, its state, its slices and processes."""
    capability = f"compute capability {gpu.compute_capability}" if gpu.compute_capability else ""
    cores = count_of(gpu.cores, "core") if gpu.cores else ""
    head = [gpu.name or "unnamed", cores, _bytes(gpu.memory), capability, gpu.bus_id or ""]
    lines = [", ".join(filter(None, head)), ", ".join(_state(gpu))]
    for part in gpu.mig_devices:
        lines.append(f"MIG {part.index}: {part.name or part.uuid}, {_bytes(part.memory)}")
    for process in gpu.processes or []:
        told = _shortened(process.command or process.name or "unknown")
        lines.append(f"process {process.pid}: {size(process.memory)}, {told}")
    if not gpu.usable:
        lines.append(f"not usable: {gpu.obstacle}")
    return list(filter(None, lines))


def _shortened(command: str) -> str:
    return command if len(command) <= LONGEST_COMMAND else f"{command[: LONGEST_COMMAND - 1]}…"


def watched(info: MachineInfo, moment: str) -> str:
    """Return one line a GPU for `--watch`, with the time, and one for the main memory."""
    lines = []
    for gpu in info.gpus:
        used = ""
        if gpu.memory.used is not None:
            used = f"{size(gpu.memory.used)} of {size(gpu.memory.total)}"
        state = ", ".join(filter(None, [*_state(gpu), used]))
        label = "GPU" if gpu.vendor == "nvidia" else gpu.vendor
        lines.append(f"{moment}  {label} {gpu.index}  {gpu.name or 'unnamed'}: {state}")
        for process in gpu.processes or []:
            told = _shortened(process.command or process.name or "unknown")
            lines.append(f"{moment}    process {process.pid}: {size(process.memory)}, {told}")
    if not info.gpus:
        lines.append(f"{moment}  no GPU")
    return "\n".join([*lines, f"{moment}  memory {_memory(info)}"])


def _bytes(memory: Bytes) -> str:
    if memory.total is None:
        return ""
    if memory.free is None:
        return size(memory.total)
    return f"{size(memory.total)}, {size(memory.free)} free"


def _state(gpu: Gpu) -> Iterator[str]:
    if gpu.temperature is not None:
        yield f"{gpu.temperature:.0f} °C"
    if gpu.power is not None:
        limit = f" of {gpu.power_limit:.0f}" if gpu.power_limit is not None else ""
        yield f"{gpu.power:.0f}{limit} W"
    if gpu.utilization is not None:
        yield f"{gpu.utilization} % busy"
    if gpu.clocks.get("sm") is not None:
        yield f"{gpu.clocks['sm']} of {gpu.clocks.get('sm_max') or '?'} MHz"
    if gpu.throttle_reasons:
        yield f"clocks: {' '.join(gpu.throttle_reasons)}"
    if gpu.ecc is not None:
        yield f"ECC {'on' if gpu.ecc else 'off'}"
    if gpu.mig:
        yield "MIG on"


def _finding(finding: Finding) -> Iterator[str]:
    effect = f"; {finding.effect}" if finding.effect else ""
    label = {"info": "note", "warn": "warn", "fail": "FAIL"}.get(finding.severity, "ok")
    yield f"{label}: {finding.fact}{effect}"
    if finding.cure:
        yield f"      cure: {finding.cure}"


def check_requirement(info: MachineInfo, count: int, min_free: int) -> CheckFailed | None:
    """Return the error of `--require` and `--min-free`, or None when enough GPUs are usable."""
    found = len(info.usable(min_free))
    if found >= count:
        return None
    reasons = [f"GPU {gpu.index}: {gpu.obstacle}" for gpu in info.gpus if not gpu.usable]
    reasons += [f"GPU {gpu.index}: {size(gpu.free)} free" for gpu in info.usable() if min_free > 0]
    enough = f" with {size(min_free)} free" if min_free else ""
    told = f" ({'; '.join(reasons)})" if reasons else ""
    return CheckFailed(
        "E601",
        f"{count_of(count, 'usable GPU')}{enough} required, {found} found{told}",
        cure=next((item.cure for item in info.findings if item.cure), "see dltool doctor"),
    )
