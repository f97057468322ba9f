"""The tour: plant a mistake, show what it does to a small training, and who finds it."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import Any

from dltool.errors import ConfigError, closest
from dltool.guards.planted import worlds
from dltool.guards.planted.data_mistakes import DATA, LOOPS, Planted
from dltool.guards.planted.mistakes import MODEL
from dltool.guards.planted.worlds import World
from dltool.guards.preflight import check
from dltool.guards.report import Report

STEPS = 200


@dataclass(frozen=True)
class Shown:
    """What a planted mistake does, and what the guards say.

    Attributes:
        healthy, planted: score on held-out data without and with the mistake; None where a training
            breaks off.
        report: of the planted world; `quiet` of the healthy one.
    """

    name: str
    code: str
    title: str
    stage: str
    healthy: float | None
    planted: float | None
    report: Report
    quiet: Report
    seconds: float

    @property
    def is_found(self) -> bool:
        """Whether the guard that has to name it does so, and leaves the healthy twin in peace."""
        return bool(self.report.findings) and not self.quiet.findings

    def as_dict(self) -> dict[str, Any]:
        """Return it for `--json`."""
        return {
            "name": self.name,
            "code": self.code,
            "title": self.title,
            "stage": self.stage,
            "score_healthy": self.healthy,
            "score_planted": self.planted,
            "found": self.is_found,
            "findings": [each.as_dict() for each in self.report.findings],
            "alarms_on_healthy": [each.as_dict() for each in self.quiet.findings],
            "seconds": round(self.seconds, 3),
        }


def on_one_batch(world: World) -> Report:
    """Look at a world's model on one batch."""
    return check(
        world.model,
        world.batch(),
        loss=world.loss,
        optimizer=world.optimizer,
        facts=world.facts,
        build=world.build,
    )


def all_planted() -> dict[str, Planted]:
    """Return every planted mistake by its name, with the way to look for it."""
    model = [Planted(mistake, on_one_batch) for mistake in MODEL]
    return {each.mistake.name: each for each in (*model, *DATA, *LOOPS)}


def find(name: str) -> Planted:
    """Return a planted mistake.

    Raises:
        ConfigError: E206, there is none of this name.
    """
    known = all_planted()
    if name in known:
        return known[name]
    near = closest(name, known)
    raise ConfigError(
        "E206",
        f"there is no planted mistake {name!r}" + (f"; did you mean {near}?" if near else ""),
        expected="a name that dltool guards demo lists",
        cure="dltool guards demo",
    )


def show(name: str, seed: int = 0) -> Shown:
    """Plant a mistake, train with and without it, and let the guards look."""
    planted = find(name)
    mistake = planted.mistake
    started = time.monotonic()
    report, quiet = planted.look(mistake.plant(seed)), planted.look(mistake.healthy(seed))
    seconds = time.monotonic() - started
    return Shown(
        mistake.name,
        mistake.code,
        mistake.title,
        mistake.stage,
        trained(mistake.healthy(seed), mistake.healthy(seed)),
        trained(mistake.plant(seed), mistake.healthy(seed)),
        report,
        quiet,
        seconds,
    )


def trained(world: World, judge: World) -> float | None:
    """Train a world and return its score on the healthy held-out data; None where it breaks off."""
    try:
        worlds.fit(world, STEPS)
        world.val = judge.val
        score = worlds.score(world)
    except (RuntimeError, ValueError, IndexError):
        return None
    return score if math.isfinite(score) else None
