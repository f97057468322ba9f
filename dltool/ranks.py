"""Ranks: the processes of one training on several devices or machines, as torchrun counts them.

Each rank trains on its own part of every batch; rank 0 alone writes and prints. Who starts them,
torchrun or `--nproc` (`dltool.launching`), tells each its number in RANK, LOCAL_RANK, WORLD_SIZE
and LOCAL_WORLD_SIZE. What they say to one another is in `dltool.team`.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from dltool.errors import ConfigError

# set by `dltool.launching`: whose end is also that of its ranks
PARENT = "_DLTOOL_PARENT"


@dataclass(frozen=True)
class World:
    """Which of how many ranks this process is: in all, and on this machine."""

    rank: int = 0
    count: int = 1
    local_rank: int = 0
    local_count: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this rank writes and prints."""
        return self.rank == 0


def is_rank() -> bool:
    """Tell whether somebody has counted this process, be it as the only one."""
    return "RANK" in os.environ and "WORLD_SIZE" in os.environ


def world() -> World:
    """Return what the environment says; a process that nobody has counted is the only rank.

    Raises:
        ConfigError: E202, the numbers contradict each other.
    """
    if not is_rank():
        return World()
    rank, count = _number("RANK", 0), _number("WORLD_SIZE", 1)
    found = World(rank, count, _number("LOCAL_RANK", rank), _number("LOCAL_WORLD_SIZE", count))
    inside = 0 <= found.rank < found.count and 0 <= found.local_rank < found.local_count
    if not inside:
        raise ConfigError(
            "E202",
            "RANK and WORLD_SIZE contradict each other",
            received=f"rank {rank} of {count}, {found.local_rank} of {found.local_count} here",
            cure="start the ranks with torchrun or --nproc, or unset RANK and WORLD_SIZE",
        )
    return found


def _number(name: str, default: int) -> int:
    text = os.environ.get(name, str(default))
    try:
        return int(text)
    except ValueError:
        raise ConfigError(
            "E202", f"{name} in the environment is no number", received=text, cure=f"unset {name}"
        ) from None


def speaks() -> bool:
    """Tell whether this process prints: of several ranks the first one does, for all."""
    return not label()


def label() -> str:
    """Return what names this rank in front of an error; empty for the first or only one."""
    is_one = os.environ.get("WORLD_SIZE", "1") == "1" or "RANK" not in os.environ
    return "" if is_one or os.environ["RANK"] == "0" else f"rank {os.environ['RANK']}: "


def refuse_several(what: str, nproc: int = 1) -> None:
    """Refuse to do in several ranks what one process must do.

    Args:
        what: the beginning of the sentence, as `--solver closed-form`.
        nproc: the ranks that the settings ask for.

    Raises:
        ConfigError: E205, there are several, or are to be.
    """
    if max(nproc, world().count) > 1:
        raise ConfigError(
            "E205",
            f"{what} cannot be shared among several ranks",
            cure="leave --nproc and torchrun out",
        )


def is_orphan() -> bool:
    """Tell whether the process that started this rank has gone."""
    parent = os.environ.get(PARENT)
    return parent is not None and hasattr(os, "getppid") and str(os.getppid()) != parent
