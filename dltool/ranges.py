"""Checks of single settings: one of these names, not below this, inside that range."""

from __future__ import annotations

from collections.abc import Sequence

from dltool.errors import ConfigError, closest


def one_of(option: str, value: str, known: Sequence[str]) -> None:
    """Refuse a value that is none of the known names.

    Raises:
        ConfigError: E206, with the names and the one that was most likely meant.
    """
    if value in known:
        return
    near = closest(value, known)
    raise ConfigError(
        "E206",
        f"{option} {value!r} is not known",
        expected=f"one of {', '.join(known)}",
        cure=f"did you mean {near}?" if near else f"use {option} {known[0]}",
    )


def at_least(option: str, value: float, low: float) -> None:
    """Refuse a number below `low`, and NaN.

    Raises:
        ConfigError: E202.
    """
    if not value >= low:
        raise _out_of_range(option, value, f"{low} or more")


def inside(option: str, value: float, low: float, high: float, *, open_low: bool = False) -> None:
    """Refuse a number outside of [low, high], or of (low, high] with `open_low`; and NaN.

    Raises:
        ConfigError: E202.
    """
    if not (low < value <= high if open_low else low <= value <= high):
        raise _out_of_range(option, value, f"{'(' if open_low else '['}{low}, {high}]")


def _out_of_range(option: str, value: float, expected: str) -> ConfigError:
    return ConfigError(
        "E202",
        f"{option} is out of range",
        received=value,
        expected=expected,
        cure=f"choose {option} in that range",
    )
