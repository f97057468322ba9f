"""How many planted mistakes guards find, how early, and how often they alarm on healthy trainings.

    python benchmarks/guards.py [--seeds 3] [--ablate]

Every mistake of the tour (`dltool guards demo`), planted in its world and beside its healthy twin,
and the healthy configurations of `guards_healthy.py`. Counted are mistakes found at all, found
before the first step, named by their cause first; healthy configurations with a failure and with
anything. Intervals are Clopper and Pearson's, 95 %. With `--ablate` each guard is removed in turn:
one whose absence loses no mistake earns nothing.

The thresholds were set while looking at these mistakes and most of these configurations: the
figures prove that the guards do what they are for, not a rate for mistakes of other kinds.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import torch
from guards_healthy import HEALTHY
from scipy.stats import beta

from dltool import guards
from dltool.guards.planted import tour

EARLY = ("model", "data")


def interval(hits: int, count: int) -> tuple[float, float]:
    """Return Clopper and Pearson's 95 % interval of a share (Biometrika 26, 1934)."""
    low = 0.0 if hits == 0 else float(beta.ppf(0.025, hits, count - hits + 1))
    high = 1.0 if hits == count else float(beta.ppf(0.975, hits + 1, count - hits))
    return round(low, 4), round(high, 4)


def share(hits: int, count: int) -> dict:
    """Return a share with its interval."""
    low, high = interval(hits, count)
    return {"hits": hits, "of": count, "share": round(hits / count, 4), "low": low, "high": high}


def mistakes(seeds: int) -> list[dict]:
    """Plant every mistake; return what was said about it and about its healthy twin."""
    rows = []
    for name, planted in tour.all_planted().items():
        mistake = planted.mistake
        for seed in range(seeds):
            started = time.monotonic()
            report = planted.look(mistake.plant(seed))
            seconds = time.monotonic() - started
            quiet = planted.look(mistake.healthy(seed))
            fresh = [code for code in report.codes if code not in quiet.codes]
            every = [code for each in report.findings for code in (each.code, *each.also)]
            rows.append(
                {
                    "name": name,
                    "seed": seed,
                    "code": mistake.code,
                    "stage": mistake.stage,
                    "found": bool(fresh),
                    "cause": bool(fresh) and fresh[0] in (mistake.code, *mistake.also),
                    "codes": sorted(set(every)),
                    "place": report.findings[0].place if report.findings else "",
                    "alarms": quiet.codes,
                    "seconds": round(seconds, 3),
                }
            )
    return rows


def healthy(seeds: int) -> list[dict]:
    """Look at every healthy configuration; return what was said."""
    rows = []
    for name, make in HEALTHY.items():
        for seed in range(seeds):
            given = make(seed)
            started = time.monotonic()
            report = guards.check(given.pop("model"), given.pop("batch"), **given)
            rows.append(
                {
                    "name": name,
                    "seed": seed,
                    "fails": [each.code for each in report.findings if each.severity == "fail"],
                    "codes": report.codes,
                    "clean": len(report.clean),
                    "seconds": round(time.monotonic() - started, 3),
                }
            )
    return rows


def ablation(rows: Iterable[dict]) -> dict[str, list[str]]:
    """Return, for each guard, the mistakes that no other guard finds."""
    lost: dict[str, set[str]] = {}
    for row in rows:
        if len(row["codes"]) == 1:
            lost.setdefault(row["codes"][0], set()).add(row["name"])
    return {code: sorted(names) for code, names in sorted(lost.items())}


def summary(planted: list[dict], quiet: list[dict]) -> dict:
    """Return the figures of the table in RESULTS.md."""
    count, others = len(planted), len(quiet) + len(planted)
    early = sum(row["found"] and row["stage"] in EARLY for row in planted)
    alarms = sum(bool(row["codes"]) for row in quiet) + sum(bool(row["alarms"]) for row in planted)
    fails = sum(bool(row["fails"]) for row in quiet)
    looks = [row["seconds"] for row in planted if row["stage"] == "model"]
    return {
        "found": share(sum(row["found"] for row in planted), count),
        "found_before_the_first_step": share(early, count),
        "cause_named_first": share(sum(row["cause"] for row in planted), count),
        "healthy_with_any_finding": share(alarms, others),
        "healthy_with_a_failure": share(fails, len(quiet)),
        "seconds_a_model_look": {
            "median": statistics.median(looks),
            "most": max([*looks, *[row["seconds"] for row in quiet]]),
        },
        "guards_that_spoke": dict(Counter(code for row in planted for code in row["codes"])),
    }


def main() -> None:
    """Measure, print, write JSON."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--ablate", action="store_true")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/guards.json"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    planted, quiet = mistakes(arguments.seeds), healthy(arguments.seeds)
    result = {
        "mistakes": len({row["name"] for row in planted}),
        "healthy_configurations": len(HEALTHY),
        "seeds": arguments.seeds,
        **summary(planted, quiet),
        "not_found": sorted({row["name"] for row in planted if not row["found"]}),
        "other_cause_first": sorted({row["name"] for row in planted if not row["cause"]}),
        "alarmed": sorted({row["name"] for row in quiet if row["codes"]}),
    }
    if arguments.ablate:
        result["lost_without"] = ablation(planted)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps({**result, "rows": planted, "healthy": quiet}, indent=1))
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
