"""The data of one run, and how its splits come about."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from torch import Tensor

from dltool.console import Console
from dltool.device import generator
from dltool.errors import DataError
from dltool.guards.findings import Finding
from dltool_bert_finetune.answering_data import Questions
from dltool_bert_finetune.columns import Columns, Examples
from dltool_bert_finetune.config import TrainConfig
from dltool_bert_finetune.tagging_data import Sentences
from dltool_bert_finetune.targets import Targets

LEAK_WARN, LEAK_FAIL = 0.001, 0.05

Split = Examples | Sentences | Questions
Pool = TypeVar("Pool", Examples, Sentences, Questions)
Shares = tuple[float, ...]


@dataclass
class TextData:
    """The data of one run.

    Attributes:
        splits: `train`, `val` and `test`.
        targets: how their labels become tensors.
        values: those tensors by split, for tasks with one answer a text.
        columns: what was read, in the words of the files.
        facts: counts and fingerprint, for the run folder.
    """

    splits: dict[str, Split]
    targets: Targets
    values: dict[str, Tensor]
    columns: Columns
    facts: dict[str, Any] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)

    @property
    def paired(self) -> bool:
        """Whether each example has two texts."""
        train = self.splits["train"]
        return isinstance(train, Examples) and bool(train.seconds)


def three_splits(
    pools: dict[str, Pool],
    split: Callable[[Pool, Shares], list[Pool]],
    config: TrainConfig,
    console: Console,
) -> dict[str, Pool]:
    """Make train, val and test: what is there stays, what is missing is split off."""
    val, test = config.val_fraction, config.test_fraction
    if "all" in pools:
        parts = split(pools["all"], (1 - val - test, val, test))
        return dict(zip(("train", "val", "test"), parts, strict=True))
    if "test" not in pools and "val" in pools:
        console.note("there is no test file: val is the final test, and a part of train chooses")
        pools = {"train": pools["train"], "test": pools["val"]}
    if "test" not in pools:
        train, held = split(pools["train"], (1 - test, test))
        pools = {**pools, "train": train, "test": held}
    if "val" not in pools:
        train, held = split(pools["train"], (1 - val, val))
        pools = {**pools, "train": train, "val": held}
    return {name: pools[name] for name in ("train", "val", "test")}


def limited(pools: dict[str, Pool], config: TrainConfig) -> dict[str, Pool]:
    """Draw as many of each split as the config allows."""
    limits = {"train": config.max_train, "val": config.max_eval, "test": config.max_eval}
    return {name: _some(pool, limits[name], name, config.seed) for name, pool in pools.items()}


def _some(pool: Pool, limit: int, name: str, seed: int) -> Pool:
    if not limit or len(pool) <= limit:
        return pool
    order = torch.randperm(len(pool), generator=generator(seed, "subset", name))
    return pool.take(sorted(order[:limit].tolist()))


def by_group(keys: Sequence[str], fractions: Shares, seed: int, what: str) -> list[list[int]]:
    """Split numbers so that those of one key stay together, near the fractions.

    The groups come in random order; each goes to the part that lacks most. No part is empty.

    Raises:
        DataError: E503, there are fewer groups than parts.
    """
    groups: dict[str, list[int]] = defaultdict(list)
    for number, key in enumerate(keys):
        groups[key].append(number)
    members = list(groups.values())
    if len(members) < len(fractions):
        raise DataError(
            "E503",
            f"{len(members)} {what} cannot be split into {len(fractions)} parts",
            expected=f"at least {len(fractions)}",
            cure="give more data, or files for validation and test",
        )
    lacking = [fraction * len(keys) for fraction in fractions]
    parts: list[list[int]] = [[] for _ in fractions]
    order = torch.randperm(len(members), generator=generator(seed, "split", what)).tolist()
    for left, number in zip(range(len(order), 0, -1), order, strict=True):
        empty = [place for place, part in enumerate(parts) if not part]
        open_parts = empty if left == len(empty) else range(len(parts))
        place = max(open_parts, key=lacking.__getitem__)
        parts[place] += members[number]
        lacking[place] -= len(members[number])
    return [sorted(part) for part in parts]


def leaks(
    found: dict[str, tuple[int, int]], what: str, cure: str, fail: float = LEAK_FAIL
) -> list[Finding]:
    """Judge how much of val and test stands in train too.

    Args:
        found: of each split, how many are shared and how many there are.
        fail: the share from which no figure would mean anything.
    """
    findings = []
    for name, (shared, count) in found.items():
        share = shared / max(count, 1)
        if share >= LEAK_WARN:
            message = (
                f"{shared:,} of {count:,} {what} of the {name} split ({share:.1%}, limit "
                f"{LEAK_WARN:.1%}) are in the training split too"
            )
            severity = "fail" if share >= fail else "warn"
            findings.append(Finding("G-D04", severity, message, cure.format(name=name)))
    return findings
