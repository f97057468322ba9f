"""Judge what the devices learned: each must learn, and all must say the same."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from dltool.console import table
from dltool_gpu.trial import Outcome

# Sums are added up in another order on every device: the losses part by rounding alone, slowly
EARLY_TOLERANCE = 2e-5  # TF32 would bring 1e-4 and more
LATE_TOLERANCE = 0.02
LEAST_ACCURACY, ENOUGH_STEPS = 0.9, 200


def largest_difference(one: Sequence[float], other: Sequence[float]) -> float:
    """Return the largest relative difference of two rows of losses; infinite for NaN."""
    worst = 0.0
    for left, right in zip(one, other, strict=True):
        apart = abs(left - right) / max(abs(left), abs(right), 1e-12)
        worst = max(worst, apart if math.isfinite(apart) else math.inf)
    return worst


def compared(outcomes: Sequence[Outcome], reference: Sequence[float]) -> list[dict[str, Any]]:
    """Compare every device with exact arithmetic at first, and with the CPU at the end.

    Args:
        outcomes: the CPU is the last of them.
        reference: losses of the first steps in float64.
    """
    base = outcomes[-1]
    rows = []
    for outcome in outcomes:
        tail = max(len(base.losses) // 4, 1)
        rows.append(
            {
                "device": outcome.device,
                "name": outcome.name,
                "steps": len(outcome.losses),
                "first_loss": outcome.losses[0],
                "last_loss": outcome.losses[-1],
                "accuracy": outcome.accuracy,
                "seconds": outcome.seconds,
                "images_per_second": outcome.images_per_second,
                "early_difference": largest_difference(
                    outcome.losses[: len(reference)], reference[: len(outcome.losses)]
                ),
                "late_difference": largest_difference(
                    [sum(outcome.losses[-tail:]) / tail], [sum(base.losses[-tail:]) / tail]
                ),
            }
        )
    return rows


def faults(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Name what is wrong, a sentence each; nothing when the test is passed."""
    found = []
    for row in rows:
        if not math.isfinite(row["last_loss"]):
            found.append(f"{row['device']}: the loss is no longer finite")
            continue
        if row["accuracy"] < LEAST_ACCURACY and row["steps"] >= ENOUGH_STEPS:
            found.append(
                f"{row['device']}: did not learn, {row['accuracy']:.1%} of the test images are "
                f"right, at least {LEAST_ACCURACY:.0%} are expected"
            )
        if row["early_difference"] > EARLY_TOLERANCE:
            found.append(
                f"{row['device']}: the losses of the first steps differ from those of exact "
                f"arithmetic by up to {row['early_difference']:.1e}, rounding explains "
                f"{EARLY_TOLERANCE:.0e}"
            )
        elif row["late_difference"] > LATE_TOLERANCE:
            found.append(
                f"{row['device']}: the mean loss of the last quarter differs from the CPU's by "
                f"{row['late_difference']:.1%}, at most {LATE_TOLERANCE:.0%} are expected"
            )
    return found


def report(rows: Sequence[dict[str, Any]]) -> str:
    """Return the comparison as a table."""
    cells = [
        [
            row["device"],
            row["name"],
            f"{row['images_per_second']:,.0f}",
            f"{row['seconds']:.2f} s",
            f"{row['first_loss']:.4f} → {row['last_loss']:.4f}",
            f"{row['accuracy']:.2%}",
            f"{row['early_difference']:.1e}",
        ]
        for row in rows
    ]
    head = ["device", "name", "images/s", "training", "loss", "test accuracy", "off float64"]
    return table(cells, head)
