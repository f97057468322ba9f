"""Judge a series of losses alone, from a run or from a log: G-M01, G-M05 and G-M08."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean, median, stdev

from dltool.guards.findings import Clean, Finding, NotJudged, Verdict

PLATEAU, FEWEST = 0.02, 200
BEST_FACTOR, TAIL = 1.5, 0.05
FEWEST_POINTS = 10


def floor_of_doubled_softmax(classes: int) -> float:
    """Return the loss of right answers behind a softmax too many: ln(1 + (C-1)/e)."""
    return math.log(1 + (classes - 1) / math.e)


def finite(losses: Sequence[float]) -> Verdict:
    """G-M01: is every loss finite?"""
    for place, value in enumerate(losses):
        if not math.isfinite(value):
            return Finding(
                "G-M01",
                "fail",
                f"the loss is {value} at point {place + 1} of {len(losses)}",
                "lower the rate, clip, or look for log and division of 0",
                measured=float(place + 1),
            )
    return Clean("G-M01") if losses else NotJudged("G-M01", "there is no loss")


def plateau(
    losses: Sequence[float], chance: float, classes: int = 0, *, fewest: int = FEWEST
) -> Verdict:
    """G-M05: does the loss stay at that of guessing, or at the floor of a doubled softmax?

    Args:
        losses: of every step.
        chance: the loss of guessing; 0 where it is not known.
    """
    if len(losses) < fewest or (not chance and not classes):
        is_known = bool(chance or classes)
        why = f"fewer than {fewest} losses" if is_known else "what guessing costs is not known"
        return NotJudged("G-M05", why)
    last = losses[-max(len(losses) // 5, 10) :]
    if not all(map(math.isfinite, last)):
        return NotJudged("G-M05", "the loss is not finite")
    level = fmean(last)
    if chance and level >= (1 - PLATEAU) * chance:
        said = f"no better than guessing, {chance:.4f}"
        return _stuck(level, chance, said, "look at labels and rate")
    floor = floor_of_doubled_softmax(classes) if classes > 1 else 0.0
    if floor and 0 <= level - floor <= PLATEAU * floor and stdev(last) < PLATEAU * floor:
        said = f"the floor of a doubled softmax, {floor:.4f}"
        return _stuck(level, floor, said, "hand logits to the cross-entropy")
    return Clean("G-M05", level)


def _stuck(level: float, limit: float, what: str, cure: str) -> Finding:
    return Finding(
        "G-M05",
        "fail",
        f"the training loss stays at {level:.4f}: {what} (limit {PLATEAU:.0%})",
        cure,
        measured=level,
        limit=limit,
    )


def diverged(losses: Sequence[float]) -> Verdict:
    """G-M08: has the smoothed loss risen above 1.5 times its best, to the end?"""
    if len(losses) < FEWEST_POINTS:
        return NotJudged("G-M08", f"fewer than {FEWEST_POINTS} losses")
    if not all(map(math.isfinite, losses)):
        return NotJudged("G-M08", "the loss is not finite")
    width = max(len(losses) // 20, 1)
    smooth = [median(losses[max(i - width, 0) : i + width + 1]) for i in range(len(losses))]
    best = min(smooth)
    if best <= 0:
        return NotJudged("G-M08", "the loss goes below 0: a ratio says nothing")
    tail = smooth[-max(int(TAIL * len(smooth)), 2) :]
    start = max(smooth[: max(len(smooth) // 20, 1)])
    noise = median([abs(a - b) for a, b in zip(losses, smooth, strict=True)])
    # a loss that is nearly 0 may double and mean nothing
    rise = min(tail) - best
    if min(tail) <= BEST_FACTOR * best or rise <= 4 * noise or rise <= 0.05 * start:
        return Clean("G-M08", min(tail) / best)
    return Finding(
        "G-M08",
        "fail",
        f"the loss has risen to {min(tail):.4g}, {min(tail) / best:.2f} times its best "
        f"({best:.4g}; limit {BEST_FACTOR:g} times), and stays there",
        "lower the rate, clip gradients or warm up; go on from the best weights",
        measured=min(tail) / best,
        limit=BEST_FACTOR,
    )


def overfitted(train: Sequence[float], val: Sequence[float]) -> Verdict:
    """G-M08: does the validation loss rise while the training loss falls? A warning at most."""
    if len(train) < 4 or len(train) != len(val) or not all(map(math.isfinite, [*train, *val])):
        return NotJudged("G-M08", "fewer than 4 epochs with both losses")
    best = min(val)
    place = list(val).index(best)
    after = val[place + 1 :]
    if len(after) < 3 or best <= 0 or after[-1] <= 1.2 * best or train[-1] >= train[place]:
        return Clean("G-M08")
    return Finding(
        "G-M08",
        "warn",
        f"the validation loss has risen from {best:.4g} (epoch {place + 1}) to {after[-1]:.4g} "
        "while the training loss fell: the last weights know the training data by heart",
        "keep the best weights, stop earlier, or add data and regularisation",
        measured=after[-1] / best,
        limit=1.2,
    )
