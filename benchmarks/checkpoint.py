"""How long saving a checkpoint blocks training, beside safetensors with one SHA-256 pass.

    python benchmarks/checkpoint.py [--megabytes 400] [--repeats 7] [--folder .]

Both sides write the same tensors in turn, in one process. The peer is `save_file` and a pass of
SHA-256 over the written file; ours is `checkpoint.save`, which also looks for NaN, writes a
manifest and makes folders. Ours must flush to the disk and the peer does not, so the peer is
measured twice: as it is, and with an fsync of its own. A save reads back what it wrote; `saved and
verified` reads it once more from the outside.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import save_file

from dltool import checkpoint, files

TENSOR_VALUES = 1 << 20
PEER, PEER_SYNCED = "safetensors + SHA-256", "safetensors + SHA-256 + fsync"
OURS, VERIFIED, VERIFY = "saved", "saved and verified", "verify"


def tensors(megabytes: int) -> dict[str, torch.Tensor]:
    """Return float32 tensors of 4 MiB, and small ones between them as biases and norms are."""
    stream = torch.Generator().manual_seed(0)
    made = {}
    for number in range(megabytes // 4):
        made[f"layer{number}.weight"] = torch.randn(1024, TENSOR_VALUES // 1024, generator=stream)
        made[f"layer{number}.bias"] = torch.randn(1024, generator=stream)
    return made


def peer(folder: Path, state: dict[str, torch.Tensor]) -> float:
    """Save with safetensors and hash the file; return the seconds."""
    path = folder / "peer.safetensors"
    started = time.perf_counter()
    save_file(state, path)
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(1 << 20):
            digest.update(chunk)
    return time.perf_counter() - started


def peer_synced(folder: Path, state: dict[str, torch.Tensor]) -> float:
    """Save, hash and flush; return the seconds."""
    seconds = peer(folder, state)
    started = time.perf_counter()
    with (folder / "peer.safetensors").open("rb") as stream:
        os.fsync(stream.fileno())
    return seconds + time.perf_counter() - started


def ours(folder: Path, state: dict[str, torch.Tensor]) -> float:
    """Save a checkpoint; return the seconds."""
    started = time.perf_counter()
    checkpoint.save(folder / "ours", state, {}, {"step": 1})
    return time.perf_counter() - started


def verified(folder: Path, state: dict[str, torch.Tensor]) -> float:
    """Save a checkpoint and read it again; return the seconds."""
    started = time.perf_counter()
    checkpoint.save(folder / "ours", state, {}, {"step": 1})
    checkpoint.verify(folder / "ours")
    return time.perf_counter() - started


def verify(folder: Path, state: dict[str, torch.Tensor]) -> float:
    """Verify a checkpoint in one thread; return the seconds."""
    checkpoint.save(folder / "ours", state, {}, {"step": 1})
    started = time.perf_counter()
    checkpoint.verify(folder / "ours")
    return time.perf_counter() - started


SIDES: dict[str, Callable[[Path, dict[str, torch.Tensor]], float]] = {
    PEER: peer,
    PEER_SYNCED: peer_synced,
    OURS: ours,
    VERIFIED: verified,
    VERIFY: verify,
}


def measure(folder: Path, state: dict[str, torch.Tensor], repeats: int) -> dict[str, list[float]]:
    """Run all sides in rounds, each round in another order, on empty folders."""
    times: dict[str, list[float]] = {name: [] for name in SIDES}
    names = list(SIDES)
    for repeat in range(repeats + 1):
        for name in names[repeat % len(names) :] + names[: repeat % len(names)]:
            with tempfile.TemporaryDirectory(dir=folder) as place:
                os.sync()  # what the last one left for later is not this one's time
                seconds = SIDES[name](Path(place), state)
            if repeat:  # the first round warms up
                times[name].append(seconds)
    return times


def summary(times: dict[str, list[float]], size: int) -> dict[str, float]:
    """Return medians, and ratios within each round."""
    result = {f"{name}, s": round(statistics.median(all_), 3) for name, all_ in times.items()}

    def ratio(one: str, other: str) -> float:
        pairs = zip(times[one], times[other], strict=True)
        return round(statistics.median(a / b for a, b in pairs), 3)

    result["saved / peer"] = ratio(OURS, PEER)
    result["saved / peer with fsync"] = ratio(OURS, PEER_SYNCED)
    result["saved and verified / peer"] = ratio(VERIFIED, PEER)
    result["saved and verified / peer with fsync"] = ratio(VERIFIED, PEER_SYNCED)
    result["verify, GB/s"] = round(size / statistics.median(times[VERIFY]) / 1e9, 3)
    return result


def main() -> None:
    """Measure, print, write JSON."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--megabytes", type=int, default=400)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--folder", type=Path, action="append", help="disks to measure on")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/checkpoint.json"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    state = tensors(arguments.megabytes)
    size = sum(value.numel() * value.element_size() for value in state.values())
    shared_memory = Path("/dev/shm")
    default = [Path.cwd(), *([shared_memory] if shared_memory.is_dir() else [])]
    results = {}
    for folder in arguments.folder or default:
        folder.mkdir(parents=True, exist_ok=True)
        times = measure(folder, state, arguments.repeats)
        kind = "shared memory" if folder == shared_memory else "disk"
        results[kind if kind not in results else str(folder)] = summary(times, size)
    report = {
        "megabytes": round(size / 1e6, 1),
        "repeats": arguments.repeats,
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None,
        "swaps names in one step": _can_swap(),
        "on": results,
    }
    print(json.dumps(report, indent=2))
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


def _can_swap() -> bool:
    with tempfile.TemporaryDirectory() as folder:
        one, other = Path(folder, "one"), Path(folder, "other")
        one.mkdir()
        other.mkdir()
        return files.swap(one, other)


if __name__ == "__main__":
    main()
