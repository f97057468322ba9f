"""Known values, and whether a demo reproduces them; nothing here needs torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

TOLERANCE = 1e-6  # relative above 1, absolute below


@dataclass(frozen=True)
class Near:
    """A number, or nested lists of numbers, to be met within an absolute tolerance."""

    value: Any
    tolerance: float

    def __str__(self) -> str:
        return f"{self.value} ± {self.tolerance:g}"


@dataclass(frozen=True)
class AtMost:
    """An upper bound."""

    limit: float

    def __str__(self) -> str:
        return f"at most {self.limit:g}"


@dataclass(frozen=True)
class AtLeast:
    """A lower bound."""

    limit: float

    def __str__(self) -> str:
        return f"at least {self.limit:g}"


@dataclass(frozen=True)
class Containing:
    """A piece of a text, for messages that differ a little between versions."""

    part: str

    def __str__(self) -> str:
        return f"a text with {self.part!r}"


@dataclass(frozen=True)
class Comparison:
    """One known value beside what a demo gave."""

    key: str
    expected: str
    received: str
    holds: bool


def compare(golden: Mapping[str, Any], values: Mapping[str, Any]) -> list[Comparison]:
    """Hold what a demo returned against every known value; one that is missing does not hold."""
    return [
        Comparison(
            key,
            str(expected),
            str(values[key]) if key in values else "nothing",
            key in values and holds(expected, values[key]),
        )
        for key, expected in golden.items()
    ]


def holds(expected: Any, received: Any) -> bool:
    """Tell whether a value meets a known one; NaN meets nothing, True is no 1."""
    if isinstance(expected, Containing):
        return isinstance(received, str) and expected.part in received
    if isinstance(expected, AtMost):
        return _is_number(received) and received <= expected.limit
    if isinstance(expected, AtLeast):
        return _is_number(received) and received >= expected.limit
    if isinstance(expected, Near):
        return _alike(expected.value, received, expected.tolerance)
    return _alike(expected, received, None)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _alike(expected: Any, received: Any, tolerance: float | None) -> bool:
    if isinstance(expected, Sequence) and not isinstance(expected, str):
        return (
            isinstance(received, list)
            and len(expected) == len(received)
            and all(_alike(a, b, tolerance) for a, b in zip(expected, received, strict=True))
        )
    if isinstance(expected, float):
        allowed = TOLERANCE * max(1.0, abs(expected)) if tolerance is None else tolerance
        return _is_number(received) and abs(received - expected) <= allowed
    return type(expected) is type(received) and bool(expected == received)
