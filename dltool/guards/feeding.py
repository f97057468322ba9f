"""Guards on what is fed: values (G-D01), order (G-D09), tokens (G-D10) and loaders (G-D11)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import islice, pairwise
from typing import Any

import torch
from torch import Tensor

from dltool.guards.findings import Clean, Finding, NotJudged, Verdict

RUN_FACTOR, ORDER_ROWS = 5.0, 200
SHARES_APART = 0.2
UNKNOWN_WARN, UNKNOWN_FAIL = 0.05, 0.3
ONE_TOKEN, EMPTY = 0.9, 0.001


def values(items: Tensor, name: str) -> Verdict:
    """G-D01: is every value finite, and does anything vary?"""
    if not items.is_floating_point():
        varies = len(items) < 2 or bool((items != items[:1]).any())
    else:
        bad = ~items.isfinite()
        if bool(bad.any()):
            rows = bad.reshape(len(items), -1).any(1).nonzero().flatten().tolist()
            first = ", ".join(map(str, rows[:5]))
            return Finding(
                "G-D01",
                "fail",
                f"{int(bad.sum()):,} values of {len(rows):,} {name} items are NaN or infinite "
                f"(items {first})",
                "fill what is missing, or leave these items out",
                measured=float(len(rows)),
                limit=0.0,
                place=name,
            )
        varies = len(items) < 2 or bool((items != items[:1]).any())
    if varies:
        return Clean("G-D01")
    return Finding(
        "G-D01",
        "fail",
        f"all {len(items):,} items of the {name} split are the same",
        "look at how they are read",
        measured=0.0,
        limit=0.0,
        place=name,
    )


def shares(train: Tensor, held: Tensor, name: str) -> Verdict:
    """G-D09: do two splits hold the classes in like shares?"""
    if min(len(train), len(held)) < ORDER_ROWS:
        return NotJudged("G-D09", f"fewer than {ORDER_ROWS} labels in a split")
    count = int(max(train.max(), held.max())) + 1
    one = torch.bincount(train.cpu(), minlength=count).double() / len(train)
    two = torch.bincount(held.cpu(), minlength=count).double() / len(held)
    apart = 0.5 * float((one - two).abs().sum())
    if apart <= SHARES_APART + 3 * math.sqrt(count / (4 * len(held))):
        return Clean("G-D09", apart)
    return Finding(
        "G-D09",
        "warn",
        f"the class shares of train and {name} are {apart:.2f} apart (limit {SHARES_APART}): the "
        "split was not drawn at random",
        "shuffle before splitting, stratified",
        measured=apart,
        limit=SHARES_APART,
        place=name,
    )


def order(labels: Sequence[int]) -> Verdict:
    """G-D09: do labels come in long runs where they are to be trained on?

    Args:
        labels: in the order of the first epoch.
    """
    count = len(labels)
    if count < ORDER_ROWS:
        return NotJudged("G-D09", f"fewer than {ORDER_ROWS} labels")
    longest = run = 1
    for one, two in pairwise(labels):
        run = run + 1 if one == two else 1
        longest = max(longest, run)
    top = max(labels.count(label) for label in set(labels)) / count
    if top > 0.95:
        return NotJudged("G-D09", "nearly all labels are one")
    # the longest run of a shuffled sequence is about ln(n) / -ln(p) (Schilling, 1990)
    expected = max(math.log(count * (1 - top)) / -math.log(top), 1.0)
    if longest <= RUN_FACTOR * expected:
        return Clean("G-D09", longest / expected)
    return Finding(
        "G-D09",
        "warn",
        f"{longest} training items in a row have one label; in a shuffled order the longest run is "
        f"about {expected:.0f} (limit {RUN_FACTOR:g} times): batches hold few classes",
        "DataLoader(shuffle=True)",
        measured=longest / expected,
        limit=RUN_FACTOR,
        place="train",
    )


def tokens(ids: Tensor, *, unknown: int | None, pad: int | None, name: str) -> list[Verdict]:
    """G-D10: do the token ids carry text?

    Args:
        ids: (N, T).
        unknown, pad: the ids of what is not in the vocabulary, and of the padding.
    """
    real = torch.ones_like(ids, dtype=torch.bool) if pad is None else ids != pad
    count = int(real.sum())
    if not count:
        return [_tokens("fail", f"the {name} texts hold nothing but padding", 1.0, ONE_TOKEN)]
    found: list[Verdict] = []
    empty = float((~real.any(1)).float().mean())
    if empty > EMPTY:
        said = f"{empty:.1%} of the {name} texts are empty (limit {EMPTY:.1%})"
        found.append(_tokens("warn", said, empty, EMPTY))
    if unknown is not None:
        share = float((ids[real] == unknown).float().mean())
        if share > UNKNOWN_WARN:
            said = f"{share:.0%} of the {name} tokens are unknown (limits {UNKNOWN_WARN:.0%} and "
            severity = "fail" if share > UNKNOWN_FAIL else "warn"
            found.append(_tokens(severity, said + f"{UNKNOWN_FAIL:.0%})", share, UNKNOWN_WARN))
    top = float(torch.bincount(ids[real]).max()) / count
    if top > ONE_TOKEN:
        said = f"{top:.0%} of the {name} tokens are one and the same (limit {ONE_TOKEN:.0%})"
        found.append(_tokens("fail", said, top, ONE_TOKEN))
    return found or [Clean("G-D10")]


def _tokens(severity: str, message: str, measured: float, limit: float) -> Finding:
    cure = "build the vocabulary and the ids with one function, from the training split"
    return Finding("G-D10", severity, message, cure, measured=measured, limit=limit)


def loader(batches: Iterable[Any], *, is_training: bool, count: int = 2) -> Verdict:
    """G-D11 and G-D09: do two passes of a loader agree where they should, and differ where not?

    Args:
        batches: something that can be iterated twice, as a DataLoader.
    """
    streams = torch.get_rng_state()
    passes = [_first(batches, count) for _ in range(2)]
    torch.set_rng_state(streams)
    if not passes[0]:
        return NotJudged("G-D11", "the loader is empty")
    same = all(
        len(one) == len(two) and all(torch.equal(a, b) for a, b in zip(one, two, strict=True))
        for one, two in zip(*passes, strict=False)
    )
    if is_training and same:
        return Finding(
            "G-D09",
            "warn",
            f"the first {len(passes[0])} batches of two epochs are the same: every epoch has one "
            "order",
            "DataLoader(shuffle=True); sampler.set_epoch(epoch)",
            measured=1.0,
            limit=0.0,
            place="train loader",
        )
    if not is_training and not same:
        return Finding(
            "G-D11",
            "warn",
            "two passes over the evaluation loader differ: it shuffles or augments at random",
            "give the evaluation split transforms of its own, and shuffle=False",
            measured=1.0,
            limit=0.0,
            place="evaluation loader",
        )
    return Clean("G-D09" if is_training else "G-D11")


def _first(batches: Iterable[Any], count: int) -> list[list[Tensor]]:
    from dltool.guards.batch_parts import parts

    return [[part.tensor for part in parts(batch)] for batch in islice(batches, count)]


def unchanged(stored: Tensor, batches: Iterable[Any], count: int = 64) -> Verdict:
    """G-D11: does feeding change the items that are stored?"""
    before = stored.clone()
    for _ in islice(batches, count):
        pass
    changed = (stored != before).reshape(len(stored), -1).any(1)
    if not bool(changed.any()):
        return Clean("G-D11")
    share = float(changed.float().mean())
    return Finding(
        "G-D11",
        "fail",
        f"reading {share:.0%} of the stored items changed them: an augmentation writes into the "
        "data, which decays from epoch to epoch",
        "copy an item before changing it: item.clone()",
        measured=share,
        limit=0.0,
        place="stored items",
    )
