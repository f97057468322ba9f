"""Judge what a burn saw: wrong results, throttling, memory errors, a rate that sags."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from dltool.console import table
from dltool.machine import count_of
from dltool_gpu.bench import shown_rate
from dltool_gpu.burn import Record, Sample
from dltool_gpu.ceilings import published
from dltool_gpu.info import SLOWDOWNS

LEAST_SECONDS = 20.0  # a device needs time to warm up before it can sag
SAG = 0.9  # of the best quarter of the run
# a CPU is judged by processor time, in which caches and cores shared with others still show
SAG_CPU = 0.7
BEHIND_PEERS = 0.9


@dataclass(frozen=True)
class Fault:
    """One reason why a device fails."""

    device: str
    code: str
    message: str


def faults(records: Sequence[Record]) -> list[Fault]:
    """Return every reason why the burn is failed; none when it is passed."""
    found = [fault for record in records for fault in _of_one(record)]
    return found + _behind_peers(records)


def _of_one(record: Record) -> list[Fault]:
    found = []
    if record.error:
        found.append(("device-error", record.error))
    if record.wrong:
        text = f"{record.wrong} of {record.compared} products are not what the first was"
        found.append(("wrong-result", f"{text}; {record.differences[0]}"))
    if record.spot > 1:
        text = f"a product is {record.spot:.3g} times further from float64 than rounding explains"
        found.append(("wrong-product", text))
    if not record.error and not record.products:
        found.append(("no-work", "not one product was finished"))
    found += _throttled(record) + _memory_errors(record)
    if (sag := sagging(record)) is not None:
        found.append(("rate-sags", f"the rate fell to {sag:.0%} of that of its best quarter"))
    return [Fault(record.device, code, message) for code, message in found]


def _throttled(record: Record) -> list[tuple[str, str]]:
    held = [SLOWDOWNS.intersection(sample.reading.reasons) for sample in record.samples]
    names = sorted(set().union(*held)) if held else []
    if not names:
        return []
    share = sum(map(bool, held)) / len(held)
    return [("throttled", f"clocks were held down in {share:.0%} of the time: {', '.join(names)}")]


def _memory_errors(record: Record) -> list[tuple[str, str]]:
    found = []
    for kind in ("uncorrected", "corrected"):
        before = getattr(record.before, kind)
        after = getattr(record.samples[-1].reading, kind) if record.samples else None
        if before is not None and after is not None and after > before:
            text = count_of(after - before, f"{kind} memory error")
            found.append((f"ecc-{kind}", f"{text} while burning"))
    return found


def sagging(record: Record) -> float | None:
    """Return the last quarter's rate by the best quarter's when it sags, else None.

    The CPU is judged by the best stretch of each quarter, and by processor time, so that other
    programs on it are no alarm.
    """
    samples = record.samples
    if len(samples) < 8 or samples[-1].seconds < LEAST_SECONDS:
        return None
    length = len(samples) // 4
    quarters = [samples[start * length : (start + 1) * length] for start in range(3)]
    quarters.append(samples[3 * length :])
    on_cpu = samples[0].flops_busy is not None
    rates = [_rate(quarter, on_cpu) for quarter in quarters]
    share = rates[-1] / max(rates)
    return share if share < (SAG_CPU if on_cpu else SAG) else None


def _rate(samples: Sequence[Sample], on_cpu: bool) -> float:
    if on_cpu:
        return max(sample.flops_busy or 0.0 for sample in samples)
    return statistics.median(sample.flops for sample in samples)


def _behind_peers(records: Sequence[Record]) -> list[Fault]:
    """A device among others of its kind that is slower than they are has something the matter."""
    found = []
    for record in records:
        peers = [
            middle(other) for other in records if other.name == record.name and other is not record
        ]
        best = max(peers, default=0.0)
        if best and 0 < middle(record) < BEHIND_PEERS * best:
            text = f"{middle(record) / best:.0%} of the rate of the best {record.name} beside it"
            found.append(Fault(record.device, "slower-than-peers", text))
    return found


def middle(record: Record) -> float:
    """Return the median rate in FLOP/s; 0 without a sample."""
    return statistics.median(sample.flops for sample in record.samples) if record.samples else 0.0


def notes(records: Sequence[Record]) -> list[str]:
    """Say what is worth knowing and no fault: the power limit at work, a run too short to sag."""
    found = []
    for record in records:
        capped = [sample for sample in record.samples if "sw_power_cap" in sample.reading.reasons]
        if capped:
            share = len(capped) / len(record.samples)
            found.append(
                f"{record.device}: at its power limit in {share:.0%} of the time, as is usual"
            )
        if record.samples and record.samples[-1].seconds < LEAST_SECONDS:
            text = f"too short to see whether the rate sags (from {LEAST_SECONDS:.0f} s on)"
            found.append(f"{record.device}: {text}")
    return found


def as_dict(records: Sequence[Record], found: Sequence[Fault]) -> dict[str, Any]:
    """Return all that was seen for JSON; rates in FLOP/s, memory in bytes."""
    rows = []
    for record in records:
        row = asdict(record)
        row |= row.pop("settings")
        row["spot"] = record.spot if math.isfinite(record.spot) else None
        row["flops"] = middle(record)
        row["share_of_ceiling"] = _share(record)
        row["passed"] = all(fault.device != record.device for fault in found)
        for kind in ("temperature", "power"):
            row[f"most_{kind}"] = _most(record, kind)
        rows.append(row)
    return {
        "passed": not found,
        "faults": [asdict(fault) for fault in found],
        "notes": notes(records),
        "devices": rows,
    }


def _most(record: Record, kind: str) -> float | None:
    known = [getattr(sample.reading, kind) for sample in record.samples]
    return max((value for value in known if value is not None), default=None)


def _share(record: Record) -> float | None:
    ceiling = published(record.name)
    roof = ceiling.flops.get(record.settings.dtype) if ceiling else None
    return middle(record) / roof if roof else None


def report(records: Sequence[Record], found: Sequence[Fault]) -> str:
    """Return a table of the devices, then notes, faults and the verdict."""
    rows = []
    for record in records:
        share = _share(record)
        rates = [sample.flops for sample in record.samples] or [0.0]
        temperature, power = _most(record, "temperature"), _most(record, "power")
        rows.append(
            [
                record.device,
                record.name,
                record.settings.dtype,
                f"{record.memory / 2**30:.1f} GiB",
                f"{record.products:,}",
                f"{record.wrong:,}",
                shown_rate(middle(record), "FLOP/s"),
                f"{shown_rate(min(rates), 'FLOP/s')}",
                f"{share:.0%}" if share else "",
                f"{temperature:.0f} °C" if temperature is not None else "",
                f"{power:.0f} W" if power is not None else "",
            ]
        )
    head = ["device", "name", "format", "memory", "products", "wrong", "median", "least"]
    head += ["of ceiling", "hottest", "most power"]
    kept = [
        index
        for index in range(len(head))
        if any(row[index] != "" for row in rows) or head[index] == "wrong"
    ]
    text = table([[row[i] for i in kept] for row in rows], [head[i] for i in kept])
    lines = [text, *(f"note: {note}" for note in notes(records))]
    lines += [f"FAULT {fault.device} {fault.code}: {fault.message}" for fault in found]
    return "\n".join([*lines, "FAILED" if found else "passed"])
