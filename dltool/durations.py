"""Times and intervals as options write them: `90m`, `2h`, `500steps`."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from dltool.errors import ConfigError

SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0}


@dataclass(frozen=True)
class Every:
    """How often something is done: by time or by optimizer steps; the other one is infinite."""

    seconds: float = math.inf
    steps: float = math.inf

    def is_due(self, seconds: float, steps: int) -> bool:
        """Tell whether it is time, so long and so many steps after the last time."""
        return seconds >= self.seconds or steps >= self.steps


def parse_duration(option: str, text: str) -> float:
    """Return the seconds of a text such as `30s`, `90m` or `1.5h`; an empty text is infinite.

    Raises:
        ConfigError: E202, it is written otherwise, or is not above 0.
    """
    if not text:
        return math.inf
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)([smh])", text)
    seconds = float(match[1]) * SECONDS[match[2]] if match else 0.0
    if seconds <= 0:
        raise _not_understood(option, text, "a number above 0 with s, m or h", "2h")
    return seconds


def parse_every(option: str, value: str | float) -> Every:
    """Return the interval of a text such as `10m`, `30s` or `500steps`; a bare number is seconds.

    Raises:
        ConfigError: E202, it is written otherwise, or names fewer than one step.
    """
    if isinstance(value, int | float):
        return Every(seconds=float(value))
    steps = re.fullmatch(r"([0-9]+)steps?", value)
    if steps and int(steps[1]) > 0:
        return Every(steps=int(steps[1]))
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)([smh]?)", value)
    if match is None:
        raise _not_understood(option, value, "a number with s, m, h or steps", "10m")
    return Every(seconds=float(match[1]) * SECONDS[match[2] or "s"])


def _not_understood(option: str, text: str, expected: str, example: str) -> ConfigError:
    return ConfigError(
        "E202",
        f"{option} is not understood",
        received=text,
        expected=expected,
        cure=f"use {option} {example}",
    )
