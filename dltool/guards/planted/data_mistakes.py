"""Mistakes planted in data, loops and results, and the healthy twins that have to stay silent."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch

from dltool.guards import audit, feeding, monitors
from dltool.guards.data import check_data
from dltool.guards.findings import Verdict
from dltool.guards.planted import worlds
from dltool.guards.planted.mistakes import Mistake
from dltool.guards.planted.worlds import World
from dltool.guards.report import Report, report_of

Look = Callable[[World], Report]
RUN = 220


@dataclass(frozen=True)
class Planted:
    """A mistake that is not seen on one batch, and how to look for it."""

    mistake: Mistake
    look: Look


def _data(world: World) -> Report:
    pairs = [(rows[0], rows[-1]) for rows in (world.train, world.val)]
    # the padded texts have a vocabulary in which 1 is the unknown word
    unknown = 1 if world.facts.pad is not None else None
    return check_data(*pairs, facts=world.facts, unknown=unknown)


def _loop(world: World) -> Report:
    watch = monitors.Watch(
        world.model,
        world.optimizer,
        every=20,
        scheduler=world.scheduler,
        chance=math.log(10),
        classes=10,
    )
    worlds.fit(world, RUN, watch.loss)
    watch.close()
    return watch.report()


def _result(world: World) -> Report:
    worlds.fit(world, 60)
    labels = world.val[-1]
    score = worlds.score(world)
    base = float(torch.bincount(labels).max()) / len(labels)
    found: list[Verdict] = [audit.beats(score, base, len(labels), "accuracy")]
    return report_of(found)


def _order(world: World) -> Report:
    index = torch.randperm(len(world.train[0])) if world.shuffle else torch.arange(1300)
    found: list[Verdict] = [feeding.order(world.train[-1][index].tolist())]
    return report_of(found)


def _planted(
    name: str,
    code: str,
    stage: str,
    title: str,
    change: Callable[[World], None],
    look: Look,
    *,
    world: Callable[[int], World] = worlds.pictures,
    also: tuple[str, ...] = (),
) -> Planted:
    def plant(seed: int) -> World:
        made = world(seed)
        change(made)
        return made

    return Planted(Mistake(name, code, stage, title, plant, world, also), look)


def _shift_labels(world: World) -> None:
    world.train = (world.train[0], world.train[1].roll(1))


def _shuffle_labels(world: World) -> None:
    draw = torch.Generator().manual_seed(0)
    order = torch.randperm(len(world.train[1]), generator=draw)
    world.train = (world.train[0], world.train[1][order])


def _leak(world: World) -> None:
    count = len(world.val[0]) // 10
    joined = (torch.cat([val[count:], train[:count]]) for val, train in _pairs(world))
    world.val = tuple(joined)


def _pairs(world: World) -> list[tuple[torch.Tensor, torch.Tensor]]:
    return list(zip(world.val, world.train, strict=True))


def _copies(world: World) -> None:
    count = len(world.train[0]) // 5
    world.train = tuple(torch.cat([part[:-count], part[:count]]) for part in world.train)


def _one_class(world: World) -> None:
    keep = world.val[-1] == 3
    world.val = tuple(part[keep] for part in world.val)


def _other_scale(world: World) -> None:
    world.val = (world.val[0] * 16 / 255, world.val[1])


def _by_256(world: World) -> None:
    world.val = (world.val[0] * 255 / 256, world.val[1])


def _nan(world: World) -> None:
    world.train[0][5, 0, 3, 3] = math.nan


def _contradictions(world: World) -> None:
    world.train[0][:40] = world.train[0][40:80]
    world.train[1][:40] = (world.train[1][40:80] + 1) % 10


def _sorted(world: World) -> None:
    order = world.train[1].argsort(stable=True)
    world.train = tuple(part[order] for part in world.train)
    world.shuffle = False


def _unknown(world: World) -> None:
    tokens = world.train[0]
    keep = torch.rand(tokens.shape, generator=torch.Generator().manual_seed(0)) < 0.5
    world.train = (torch.where((tokens > 0) & ~keep, 1, tokens), *world.train[1:])


def _windows(seed: int) -> World:
    """Return windows of one long text, cut with a step of 5 and then split at random."""
    world = worlds.stream(seed)
    text = torch.cat([world.train[0].flatten(), world.val[0].flatten()])
    rows = text.unfold(0, 24, 5)[:600]
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed))
    rows = rows[order]
    world.train, world.val = (rows[:480], rows[:480]), (rows[480:], rows[480:])
    return world


def _no_zero_grad(world: World) -> None:
    world.zero_grad = False


def _in_eval(world: World) -> None:
    world.model.train()
    world.train_mode = False


def _step_too_large(world: World) -> None:
    world.optimizer = torch.optim.Adam(world.model.parameters(), lr=1.0)


def _short_horizon(world: World) -> None:
    # the horizon is counted in batches and stepped once an epoch
    world.scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(world.optimizer, T_max=RUN * 20)


def _with_schedule(seed: int) -> World:
    world = worlds.pictures(seed)
    world.scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(world.optimizer, T_max=RUN)
    return world


def _random_labels(world: World) -> None:
    draw = torch.Generator().manual_seed(0)
    world.train = (world.train[0], torch.randint(0, 10, world.train[1].shape, generator=draw))


DATA = (
    _planted("labels-shifted", "G-D07", "data", "labels of the row before", _shift_labels, _data),
    _planted("labels-shuffled", "G-D07", "data", "labels in another order", _shuffle_labels, _data),
    _planted("leak", "G-D04", "data", "a tenth of the test set in training", _leak, _data),
    _planted("copies", "G-D06", "data", "a fifth of the training set twice", _copies, _data),
    _planted("contradictions", "G-D06", "data", "twins with other labels", _contradictions, _data),
    _planted("one-class", "G-D08", "data", "a test set of one class", _one_class, _data),
    _planted(
        "other-scale", "G-D03", "data", "val divided by 255, train by 16", _other_scale, _data
    ),
    _planted("by-256", "G-D03", "data", "train divided by 255, val by 256", _by_256, _data),
    _planted("nan-data", "G-D01", "data", "NaN among the values", _nan, _data),
    _planted("sorted", "G-D09", "data", "sorted by class, not shuffled", _sorted, _order),
    _planted(
        "unknown-words",
        "G-D10",
        "data",
        "half of the words unknown",
        _unknown,
        _data,
        world=worlds.texts,
    ),
    Planted(
        Mistake(
            "windows",
            "G-D12",
            "data",
            "overlapping windows, split at random",
            _windows,
            worlds.stream,
        ),
        _data,
    ),
)
LOOPS = (
    _planted("no-zero-grad", "G-M02", "training", "zero_grad is missing", _no_zero_grad, _loop),
    _planted("eval-mode", "G-M03", "training", "eval() that is never left", _in_eval, _loop),
    _planted(
        "rate-one",
        "G-M05",
        "training",
        "Adam with a rate of 1",
        _step_too_large,
        _loop,
        also=("G-M08", "G-M07"),
    ),
    _planted(
        "short-horizon",
        "G-M04",
        "training",
        "a schedule counted in other steps",
        _short_horizon,
        _loop,
        world=_with_schedule,
    ),
    _planted("random-labels", "G-A01", "result", "labels drawn at random", _random_labels, _result),
)
