"""Measure time honestly: a stopwatch for training, and a fair comparison of functions."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch

Clock = Callable[[], float]


def synchronize(device: torch.device | str) -> None:
    """Wait until the device has finished all work given to it; returns at once on the CPU.

    A GPU works behind the program's back, so a time taken without this is the time of asking.
    """
    kind = torch.device(device).type
    if kind == "cuda":
        torch.cuda.synchronize(device)
    elif kind == "mps":
        torch.mps.synchronize()
    elif kind == "xpu":
        torch.xpu.synchronize(device)


class Stopwatch:
    """Add up the time of training alone, also across a resumed run.

    Counted: what runs inside `lap`, with the device's work waited for at both ends, so work begun
    before a lap is not charged to it. Not counted: everything outside laps (evaluation,
    checkpoints, start-up). A lap that an exception ends counts its time, but not its items.
    Each lap waits for the device twice: on a GPU time many steps in one lap, not each step.

    Args:
        device: the device that does the work.
        clock: returns seconds; only differences are used.
    """

    def __init__(
        self, device: torch.device | str = "cpu", *, clock: Clock = time.perf_counter
    ) -> None:
        self.device = torch.device(device)
        self.seconds = 0.0
        self.items = 0
        self._clock = clock
        self._running = False
        self._started = 0.0

    @contextmanager
    def lap(self, items: int = 0) -> Iterator[None]:
        """Time the block and count `items` finished items, such as images.

        Raises:
            RuntimeError: a lap inside a lap, which would count the time twice.
        """
        if self._running:
            raise RuntimeError("a lap is running already")
        self._running = True
        synchronize(self.device)
        self._started = self._clock()
        try:
            yield
            synchronize(self.device)
            self.items += items
        finally:
            self.seconds += self._clock() - self._started
            self._running = False

    @property
    def elapsed(self) -> float:
        """Seconds so far, the running lap included as far as the program has seen it."""
        return self.seconds + (self._clock() - self._started if self._running else 0.0)

    @property
    def items_per_second(self) -> float:
        """Items by seconds over all laps; 0 before the first."""
        return self.items / self.seconds if self.seconds > 0 else 0.0

    def state(self) -> dict[str, float]:
        """Return what a checkpoint keeps."""
        return {"seconds": self.elapsed, "items": self.items}

    def restore(self, state: Mapping[str, float]) -> None:
        """Go on from a checkpoint's state; what this watch had counted is forgotten."""
        self.seconds = float(state["seconds"])
        self.items = int(state["items"])


@dataclass(frozen=True)
class Timing:
    """The times of one function in seconds, in the order of the rounds."""

    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        """The middle time, which a few disturbed rounds do not move."""
        return statistics.median(self.seconds)

    @property
    def min(self) -> float:
        """The shortest time."""
        return min(self.seconds)

    @property
    def max(self) -> float:
        """The longest time."""
        return max(self.seconds)

    @property
    def iqr(self) -> float:
        """The width of the middle half (inclusive quartiles); 0 for a single round."""
        if len(self.seconds) < 2:
            return 0.0
        lower, _, upper = statistics.quantiles(self.seconds, n=4, method="inclusive")
        return upper - lower

    def as_dict(self) -> dict[str, object]:
        """Return the figures for JSON."""
        return {
            "median": self.median,
            "min": self.min,
            "max": self.max,
            "iqr": self.iqr,
            "seconds": list(self.seconds),
        }


def compare(
    functions: Mapping[str, Callable[[], object]],
    *,
    repeats: int = 7,
    warmup: int = 1,
    device: torch.device | str = "cpu",
    clock: Clock = time.perf_counter,
) -> dict[str, Timing]:
    """Time functions in turn, so that drift of the machine meets all of them alike.

    Each round calls every function once; every other round in reverse order, so that none always
    runs in another's wake. Counted: the call, and the wait until the device has finished. Not
    counted: `warmup` rounds before, and the release of what the function returns. The garbage
    collector stays on, as in real use.

    Raises:
        ValueError: no function, fewer than one repeat, or a negative warm-up.
    """
    if not functions or repeats < 1 or warmup < 0:
        raise ValueError("compare needs a function, repeats >= 1 and warmup >= 0")
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    for round_number in range(-warmup, repeats):
        names = list(functions)
        if round_number % 2:
            names.reverse()
        for name in names:
            taken = _time_once(functions[name], device, clock)
            if round_number >= 0:
                seconds[name].append(taken)
    return {name: Timing(tuple(values)) for name, values in seconds.items()}


def _time_once(function: Callable[[], object], device: torch.device | str, clock: Clock) -> float:
    synchronize(device)
    started = clock()
    result = function()
    synchronize(device)
    taken = clock() - started
    del result  # held until here, so that its release is not timed
    return taken


def ratio(a: Timing, b: Timing) -> float:
    """Return how many times as long `a` takes as `b`: the median over rounds of a's time by b's.

    Pairing by round cancels drift that both saw, which a ratio of two medians does not.

    Raises:
        ValueError: the two do not come from one comparison.
    """
    if len(a.seconds) != len(b.seconds):
        raise ValueError("the two timings have different numbers of rounds")
    return statistics.median(x / y for x, y in zip(a.seconds, b.seconds, strict=True))
