"""Does `dltool gpu` measure what plain torch reaches, and does `gpu burn` find what is wrong?

    python benchmarks/gpu.py [--json] [--device auto] [--seconds 3]

Matrix product and copy as `gpu bench` times them, in turn with the same work in plain torch: the
rate must be at least 95 % of it. Then 20 burns with one planted fault each, of which all must be
found, and 10 clean ones, none of which may give an alarm. Runs on a GPU, or on the CPU with smaller
matrices. Exit code 6 when a goal is missed.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import torch
from dltool_gpu import bench, burn, kernels, targets, verdict
from dltool_gpu.burn import Plant, Settings, Work

from dltool import timing
from dltool.device import choose

GOAL, FAULTS, CLEAN = 0.95, 20, 10
ROUNDS = 31


def plain_matmul(device: torch.device, size: int, dtype: torch.dtype, calls: int) -> timing.Clock:
    """The same product as anybody would write it."""
    left = torch.randn(size, size, device=device).to(dtype)
    right = torch.randn(size, size, device=device).to(dtype)
    out = torch.empty_like(left)

    def run() -> float:
        for _ in range(calls):
            torch.matmul(left, right, out=out)
        return 0.0

    return run


def plain_copy(device: torch.device, size: int, calls: int) -> timing.Clock:
    """The same copy as anybody would write it."""
    source = torch.randn(size // 4, device=device)
    target = torch.empty_like(source)

    def run() -> float:
        for _ in range(calls):
            target.copy_(source)
        return 0.0

    return run


def beside_torch(device: torch.device) -> dict[str, object]:
    """Time our cases and plain torch in turn; the ratio is that of the rounds' pairs."""
    sizes = kernels.SIZES[device.type]
    fast = "bf16" if device.type != "cpu" and "bf16" in kernels.formats(device) else "fp32"
    results: dict[str, object] = {}
    for name in (f"matmul {fast}", "copy"):
        if name == "copy":
            case = kernels.copy(device, sizes.vector)
        else:
            case = kernels.matmul(device, sizes.matmul, fast)
        _, calls = bench.timed(case.run, device, 3)
        if name == "copy":
            plain = plain_copy(device, sizes.vector, calls)
        else:
            plain = plain_matmul(device, sizes.matmul, burn.DTYPES[fast], calls)

        def ours(case: kernels.Case = case, calls: int = calls) -> None:
            for _ in range(calls):
                case.run()

        with targets.tf32(False):
            taken = timing.compare({"ours": ours, "torch": plain}, repeats=ROUNDS, device=device)
        work = (case.flops or case.bytes) * calls
        results[name] = {
            "ours_per_s": work / taken["ours"].median,
            "torch_per_s": work / taken["torch"].median,
            "unit": "FLOP/s" if case.flops else "B/s",
            "ratio": timing.ratio(taken["torch"], taken["ours"]),
        }
    return results


def plants() -> list[tuple[str, Plant]]:
    """Twenty faults: single bits of results, factors and the first product, at several moments."""
    found: list[tuple[str, Plant]] = []
    for number in range(FAULTS):
        place = ("ring", "ring", "left", "right", "first")[number % 5]
        # the lowest bit of a result is enough; a factor's must outlast the rounding of the sum
        bit = number % 16 if place in ("ring", "first") else 14
        found.append((f"{place}, bit {bit}", planted(place, bit, number)))
    return found


def planted(place: str, bit: int, seed: int) -> Plant:
    """Return a hook that turns one bit of one number round, once."""
    done: list[bool] = []

    def plant(number: int, work: Work) -> None:
        if number < 1 + seed % 3 or done:
            return
        done.append(True)
        stream = torch.Generator().manual_seed(seed)
        tensor = getattr(work, place)
        if place == "ring":
            tensor = tensor[int(torch.randint(work.written, (1,), generator=stream))]
        row, column = torch.randint(len(tensor), (2,), generator=stream).tolist()
        kind = burn.BITS[tensor.element_size()]
        shift = bit + 8 * (tensor.element_size() - 2) if place in ("left", "right") else bit
        tensor.view(kind)[row, column] ^= torch.tensor(1, dtype=kind, device=tensor.device) << shift

    return plant


def burned(device: torch.device, seconds: float, plant: Plant | None) -> list[verdict.Fault]:
    """Burn once and return the faults that were found."""
    share = 0.02 if device.type == "cpu" else 0.5
    plan = Settings(seconds, burn.usual_dtype(device), share, burn.SIZE[device.type])
    records = burn.blank([device], [plan])
    burn.burn([device], records, threading.Event(), plant=plant)
    return verdict.faults(records)


def faults(device: torch.device, seconds: float, tell: Callable[[str], None]) -> dict[str, object]:
    """Count the planted faults that are found, and the alarms of clean runs."""
    missed, alarms = [], []
    for name, plant in plants():
        codes = [fault.code for fault in burned(device, seconds, plant)]
        tell(f"planted {name}: {', '.join(codes) or 'MISSED'}")
        missed += [] if "wrong-result" in codes else [name]
    for number in range(CLEAN):
        found = [f"{fault.code}: {fault.message}" for fault in burned(device, seconds, None)]
        tell(f"clean {number + 1}: {'; '.join(found) or 'no alarm'}")
        alarms += found
    return {
        "planted": FAULTS,
        "found": FAULTS - len(missed),
        "missed": missed,
        "clean_runs": CLEAN,
        "alarms": alarms,
    }


def main() -> int:
    """Measure, print, write JSON; 6 when a goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="auto")
    parser.add_argument("--seconds", type=float, default=3.0, help="of each burn")
    parser.add_argument("--json", action="store_true", help="print one JSON object, no lines")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/gpu.json"))
    arguments = parser.parse_args()
    stream = sys.stderr if arguments.json else sys.stdout

    def tell(text: str) -> None:
        print(text, file=stream, flush=True)

    device, started = choose(arguments.device).device, time.perf_counter()
    beside = beside_torch(device)
    for name, row in beside.items():
        tell(f"{name}: {row}")
    found = faults(device, arguments.seconds, tell)
    ratios = [row["ratio"] for row in beside.values() if isinstance(row, dict)]
    passed = min(ratios) >= GOAL and found["found"] == FAULTS and not found["alarms"]
    results = {
        **targets.described(device),
        "goal_ratio": GOAL,
        "beside_torch": beside,
        "least_ratio": min(ratios),
        "mean_ratio": statistics.geometric_mean(ratios),
        "burn": found,
        "burn_seconds": arguments.seconds,
        "passed": passed,
        "seconds": time.perf_counter() - started,
    }
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    if arguments.json:
        print(json.dumps(results))
    else:
        tell(f"found {found['found']} of {FAULTS}, {len(found['alarms'])} alarms, passed: {passed}")
    return 0 if passed else 6


if __name__ == "__main__":
    sys.exit(main())
