"""AMD's GPUs, read from the files of their kernel driver (Linux).

`amd-smi` reads the same files, but takes a second to start.
"""

from __future__ import annotations

import re
from pathlib import Path

from dltool import machine
from dltool.builds import read_text
from dltool_gpu.devices import Bytes, Gpu, Process, command_of


def amd_gpus(root: Path = machine.ROOT) -> list[Gpu]:
    """Read every GPU that the amdgpu driver runs."""
    cards = root / "sys/class/drm"
    if not cards.is_dir():
        return []
    folders = sorted(card / "device" for card in cards.glob("card[0-9]*") if "-" not in card.name)
    ours = [folder for folder in folders if read_text(folder / "vendor") == machine.AMD]
    return [_amd_gpu(folder, index, root) for index, folder in enumerate(ours)]


def _amd_gpu(folder: Path, index: int, root: Path) -> Gpu:
    total, used = (_number(folder / f"mem_info_vram_{name}") for name in ("total", "used"))
    sensors = next(iter(sorted(folder.glob("hwmon/hwmon*"))), folder / "no sensors")
    temperature = _number(sensors / "temp1_input")
    power = _number(sensors / "power1_average")
    if power is None:
        power = _number(sensors / "power1_input")
    limit = _number(sensors / "power1_cap")
    slot = [line for line in read_text(folder / "uevent").splitlines() if "PCI_SLOT_NAME=" in line]
    bus_id = slot[0].partition("=")[2] if slot else None
    return Gpu(
        vendor="amd",
        index=index,
        name=read_text(folder / "product_name")
        or f"AMD GPU {read_text(folder / 'device')}".strip(),
        uuid=read_text(folder / "unique_id") or None,
        bus_id=bus_id,
        memory=Bytes(total, used, None if total is None or used is None else total - used),
        temperature=None if temperature is None else temperature / 1000,
        power=None if power is None else power / 1e6,
        power_limit=None if limit is None else limit / 1e6,
        utilization=_number(folder / "gpu_busy_percent"),
        memory_utilization=_number(folder / "mem_busy_percent"),
        clocks=_clocks(folder),
        processes=_processes(bus_id, root),
    )


def _number(path: Path) -> int | None:
    text = read_text(path)
    return int(text) if text.lstrip("-").isdigit() else None


def _clocks(folder: Path) -> dict[str, int | None]:
    """Read the clocks in MHz: a line each that the GPU can run at, the present one with a star."""
    clocks: dict[str, int | None] = {}
    for name, file in (("sm", "pp_dpm_sclk"), ("memory", "pp_dpm_mclk")):
        steps = re.findall(r"(\d+)mhz[ \t]*(\*?)", read_text(folder / file).lower())
        clocks[name] = next((int(value) for value, star in steps if star), None)
        clocks[f"{name}_max"] = max((int(value) for value, _ in steps), default=None)
    return clocks


def _processes(bus_id: str | None, root: Path) -> list[Process] | None:
    """List what computes on a GPU; AMD's compute driver names GPUs by numbers of its own."""
    kfd = root / "sys/class/kfd/kfd"
    number = _kfd_number(bus_id, kfd)
    if number is None:
        return None
    found = []
    for folder in sorted((kfd / "proc").glob("[0-9]*"), key=lambda folder: int(folder.name)):
        held = _number(folder / f"vram_{number}")
        if held:
            pid = int(folder.name)
            name = read_text(root / f"proc/{pid}/comm") or None
            found.append(Process(pid, "compute", name, command_of(pid, root), held))
    return found


def _kfd_number(bus_id: str | None, kfd: Path) -> int | None:
    place = re.fullmatch(r"([0-9a-f]+):([0-9a-f]+):([0-9a-f]+)\.([0-7])", (bus_id or "").lower())
    if place is None:
        return None
    domain, bus, device, function = (int(part, 16) for part in place.groups())
    for node in (kfd / "topology/nodes").glob("[0-9]*"):
        facts = dict(re.findall(r"^(\w+) (\d+)$", read_text(node / "properties"), re.MULTILINE))
        location = str((bus << 8) | (device << 3) | function)
        if (facts.get("location_id"), facts.get("domain", "0")) == (location, str(domain)):
            return _number(node / "gpu_id")
    return None
