"""Time the operations fairly and set them against what the device can do at best."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from dltool import timing
from dltool.console import Console, table
from dltool.environment import now
from dltool.errors import CheckFailed, ConfigError, DataError
from dltool.machine import count_of
from dltool_gpu import ceilings, kernels, targets
from dltool_gpu.ceilings import Ceiling
from dltool_gpu.kernels import Case, Sizes

RESULTS = "results.json"
FORMAT = 1
ROUND_SECONDS = {"cpu": 0.03, "other": 0.05}  # a round repeats the call for so long
MOST_CALLS = 2000


@dataclass(frozen=True)
class Result:
    """One timed operation.

    Attributes:
        seconds: the median time of a call; `spread` is the width of the middle half by it.
        best: the shortest time of a call.
        rate: FLOP/s, or bytes a second where no operation counts, or calls a second.
        share: rate by the ceiling; None where there is none.
        intensity: operations for each byte that must be moved; None without operations.
    """

    name: str
    group: str
    dtype: str
    shape: str
    seconds: float
    best: float
    spread: float
    calls: int
    rounds: int
    unit: str
    rate: float
    ceiling: float | None
    share: float | None
    intensity: float | None


def run(
    device: torch.device, groups: Sequence[str], sizes: Sizes, repeats: int, console: Console
) -> dict[str, Any]:
    """Time every case of the groups on one device and return the results for JSON."""
    planned = list(kernels.builders(device, sizes, list(groups)))
    notes = [text for group in groups if (text := kernels.why_left_out(group, device))]
    measured: list[tuple[Case, timing.Timing, int]] = []
    with console.progress(len(planned) + 1, "bench", "case") as bar:
        ceiling = ceilings.ceiling_of(device, kernels.formats(device))
        bar.advance(info="ceiling")
        for _, build in planned:
            case = build()
            with targets.tf32(case.dtype == "tf32"):
                taken, calls = timed(case.run, device, repeats)
            # what holds the case's tensors is let go before the next takes its own
            measured.append((replace(case, run=_nothing), taken, calls))
            bar.advance(info=case.name)
            del case, build
    for case, taken, _ in measured:
        if case.group == "matmul":
            ceiling = ceiling.at_least(flops={case.dtype: case.flops / taken.min})
        elif case.group in ("add", "copy"):
            ceiling = ceiling.at_least(bandwidth=case.bytes / taken.min)
    return {
        "format": FORMAT,
        "created": now(),
        **targets.described(device),
        "ceiling": ceiling.as_dict(),
        "cases": [asdict(judged(case, taken, calls, ceiling)) for case, taken, calls in measured],
        "notes": notes,
    }


def _nothing() -> None: ...


def timed(
    function: Callable[[], object], device: torch.device, repeats: int
) -> tuple[timing.Timing, int]:
    """Time single calls: each round repeats the call for some milliseconds, then waits once.

    Returns:
        Seconds of one call by round, and the calls in a round.
    """
    pilot = timing.compare({"": function}, repeats=3, warmup=2, device=device)[""].min
    aim = ROUND_SECONDS["cpu" if device.type == "cpu" else "other"]
    calls = max(1, min(MOST_CALLS, math.ceil(aim / max(pilot, 1e-7))))

    def many() -> None:
        for _ in range(calls):
            function()

    rounds = timing.compare({"": many}, repeats=repeats, device=device)[""]
    return timing.Timing(tuple(seconds / calls for seconds in rounds.seconds)), calls


def judged(case: Case, taken: timing.Timing, calls: int, ceiling: Ceiling) -> Result:
    """Turn times into a rate and set it against the roof over this operation.

    The roof is the smaller one of the number format's rate and of what memory can feed:
    intensity × bandwidth (Williams, Waterman, Patterson 2009, "Roofline").
    """
    seconds = taken.median
    intensity = case.flops / case.bytes if case.flops and case.bytes else None
    roof: float | None = None
    if case.flops:
        unit, work = "FLOP/s", case.flops
        roof = ceiling.flops.get(case.dtype)
        if roof and intensity:
            roof = min(roof, intensity * ceiling.bandwidth)
    elif case.bytes:
        unit, work = "B/s", case.bytes
        roof = ceiling.bandwidth if case.memory else None
    else:
        unit, work = "calls/s", 1.0
    rate = work / seconds
    return Result(
        name=case.name,
        group=case.group,
        dtype=case.dtype,
        shape=case.shape,
        seconds=seconds,
        best=taken.min,
        spread=taken.iqr / seconds,
        calls=calls,
        rounds=len(taken.seconds),
        unit=unit,
        rate=rate,
        ceiling=roof,
        share=rate / roof if roof else None,
        intensity=intensity,
    )


def shown_rate(rate: float, unit: str) -> str:
    """Write a rate as people do: `61.3 GFLOP/s`, `4.21 TB/s`, or microseconds a call."""
    if unit == "calls/s":
        return f"{1e6 / rate:.2f} µs"
    for factor, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M")):
        if rate >= factor:
            return f"{rate / factor:.3g} {letter}{unit}"
    return f"{rate:.3g} {unit}"


def report(results: Mapping[str, Any]) -> str:
    """Return the results as a table, with the ceiling below it."""
    rows = []
    for case in results["cases"]:
        roof, share = case["ceiling"], case["share"]
        rows.append(
            [
                case["name"],
                case["shape"],
                shown_rate(case["rate"], case["unit"]),
                shown_rate(roof, case["unit"]) if roof else "",
                f"{share:.0%}" if share else "",
                _time(case["seconds"]),
                f"±{case['spread'] / 2:.0%}",
            ]
        )
    head = ["operation", "size", "median rate", "ceiling", "of it", "a call", "spread"]
    source = results["ceiling"]["source"]
    where = {
        "published": "the ceiling is the vendor's figure for dense matrices",
        "measured here": "the ceiling is the best that products of several sizes, copy and triad "
        "reached here",
    }[source]
    threads = f", {count_of(results['threads'], 'thread')}" if "threads" in results else ""
    lines = [f"{results['name']} ({results['device']}{threads})", table(rows, head), where]
    if any((case["share"] or 0) > 1 for case in results["cases"]):
        lines.append(
            "above 100 %: convolutions may need fewer operations than are counted (Winograd), and "
            "a ceiling is measured too low while other programs run"
        )
    return "\n".join([*lines, *(f"left out: {note}" for note in results["notes"])])


def _time(seconds: float) -> str:
    for factor, unit in ((1.0, "s"), (1e-3, "ms")):
        if seconds >= factor:
            return f"{seconds / factor:.3g} {unit}"
    return f"{seconds * 1e6:.3g} µs"


# Comparison with an earlier measurement


def read_results(path: Path) -> dict[str, Any]:
    """Read an earlier measurement: `results.json`, or the folder that holds it.

    Raises:
        DataError: E501, there is none; E502, it is no such file.
    """
    file = path / RESULTS if path.is_dir() else path
    if not file.exists():
        raise DataError(
            "E501", f"there are no results at {path}", cure="dltool gpu bench makes some"
        )
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
        if value["format"] != FORMAT:
            raise ValueError
        rates = {case["name"]: float(case["rate"]) for case in value["cases"]}
        if not all(rate > 0 for rate in rates.values()):
            raise ValueError
        str(value["name"]), str(value["created"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            "E502", f"{file} holds no results of dltool gpu bench", cure="give another file"
        ) from error
    return dict(value)


def refuse_other_hardware(device: torch.device, old: Mapping[str, Any]) -> None:
    """Refuse to compare with another device's results.

    Raises:
        ConfigError: E205.
    """
    here = targets.title_of(device)
    if here != old["name"] or device.type != str(old.get("device", "")).split(":")[0]:
        raise ConfigError(
            "E205",
            f"the results to compare with were measured on {old['name']}, this is {here}",
            cure="compare results of one machine",
        )


def compared(new: Mapping[str, Any], old: Mapping[str, Any], tolerance: float) -> dict[str, Any]:
    """Compare two measurements case by case.

    A case is slower when its median rate fell by more than the tolerance and even its best round
    is slower than the old median; noise alone seldom does both.

    Raises:
        ConfigError: E205, they share no case.
    """
    before = {(case["name"], case["shape"]): case for case in old["cases"]}
    rows = []
    for case in new["cases"]:
        was = before.get((case["name"], case["shape"]))
        if was is None:
            continue
        ratio = case["rate"] / was["rate"]
        slower = ratio < 1 - tolerance and case["best"] > was["seconds"]
        rows.append({"name": case["name"], "ratio": ratio, "slower": slower})
    if not rows:
        raise ConfigError(
            "E205", "the two measurements share no operation of one size", cure="compare others"
        )
    middle = statistics.geometric_mean(row["ratio"] for row in rows)
    changed = [
        f"{key}: {old.get(key)} then, {new.get(key)} now"
        for key in ("torch", "threads", "cuda")
        if old.get(key) != new.get(key)
    ]
    return {"tolerance": tolerance, "mean_ratio": middle, "changed": changed, "cases": rows}


def comparison_report(comparison: Mapping[str, Any]) -> str:
    """Return the comparison as a table."""
    rows = [
        [row["name"], f"{row['ratio']:.3f}", "SLOWER" if row["slower"] else ""]
        for row in comparison["cases"]
    ]
    lines = [table(rows, ["operation", "rate by the old one", ""]), *comparison["changed"]]
    return "\n".join(lines)


def regression(comparison: Mapping[str, Any]) -> CheckFailed | None:
    """Return the error for operations that became slower than the tolerance allows."""
    slower = [row for row in comparison["cases"] if row["slower"]]
    if not slower:
        return None
    told = ", ".join(f"{row['name']} at {row['ratio']:.0%}" for row in slower)
    return CheckFailed(
        "E601",
        f"slower than before by more than {comparison['tolerance']:.0%}: {told} of the old rate",
        cure="close other programs and repeat; see dltool gpu info for what holds the clocks down",
    )
