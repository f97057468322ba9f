"""Guards between and within splits: G-D03 (preprocessing), G-D04 to G-D06 and G-D12 (leaks)."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from dltool.guards.findings import Clean, Finding, NotJudged, Verdict
from dltool.guards.labels import LEAK_FAIL, LEAK_WARN

COPIES, CONTRADICTIONS = 0.05, 0.001
RATIO, SHIFT = 1.25, 0.25
FEWEST = 50
NEAR_WARN = 0.01
CORRELATION, NEARER = 0.99, 0.2
WINDOW, WINDOW_SHARE = 16, 0.1
TARGET_SHARE, LONG_TARGET = 0.2, 5
SHOWN = 5

Array = np.ndarray[Any, Any]


def digests(items: Tensor | Sequence[str]) -> list[bytes]:
    """Return a digest of each item: of a tensor's bytes, of a text's words in lower case."""
    if isinstance(items, Tensor):
        rows = np.ascontiguousarray(items.detach().cpu().numpy())
        return [hashlib.blake2b(row.tobytes(), digest_size=16).digest() for row in rows]
    return [hashlib.blake2b(plain_text(text).encode(), digest_size=16).digest() for text in items]


def plain_text(text: str) -> str:
    """Return a text's words in lower case, without punctuation."""
    return " ".join(re.findall(r"\w+", text.lower()))


def leak(
    train: Sequence[Hashable],
    held: Sequence[Hashable],
    name: str,
    train_labels: Sequence[Hashable] = (),
    held_labels: Sequence[Hashable] = (),
) -> Verdict:
    """G-D04: how many items of a held-out split are in the training split, and with which labels?

    Args:
        train, held: what `digests` gives, one an item.
    """
    if not held:
        return NotJudged("G-D04", f"the {name} split is empty")
    known = dict(zip(train, train_labels, strict=False)) if train_labels else dict.fromkeys(train)
    places = [place for place, item in enumerate(held) if item in known]
    share = len(places) / len(held)
    if share < LEAK_WARN:
        return Clean("G-D04", len(places))
    other = ""
    if train_labels and held_labels:
        count = sum(known[held[place]] != held_labels[place] for place in places)
        other = f", {count} of them with another label"
    first = ", ".join(map(str, places[:SHOWN]))
    return Finding(
        "G-D04",
        "fail" if share >= LEAK_FAIL else "warn",
        f"{len(places):,} of {len(held):,} items of the {name} split ({share:.1%}, limits "
        f"{LEAK_WARN:.0%} and {LEAK_FAIL:.0%}) are also in the training split{other} "
        f"(items {first})",
        "remove the duplicates before splitting",
        measured=share,
        limit=LEAK_WARN,
        place=name,
    )


def repeated(items: Sequence[Hashable], labels: Sequence[Hashable] = ()) -> list[Verdict]:
    """G-D06: how many items of the training split are there twice, or with two labels?"""
    if not items:
        return [NotJudged("G-D06", "the training split is empty")]
    copies = len(items) - len(set(items))
    found: list[Verdict] = []
    if copies >= COPIES * len(items):
        said = f"{copies:,} of {len(items):,} training items ({copies / len(items):.1%}, limit "
        said += f"{COPIES:.0%}) are copies of others"
        cure = "remove them, or look whether an augmentation does nothing"
        share = copies / len(items)
        found.append(Finding("G-D06", "warn", said, cure, measured=share, limit=COPIES))
    if labels and isinstance(labels[0], int | str):
        several: dict[Hashable, set[Hashable]] = {}
        for item, label in zip(items, labels, strict=True):
            several.setdefault(item, set()).add(label)
        mixed = {item for item, known in several.items() if len(known) > 1}
        count = sum(item in mixed for item in items)
        if count >= CONTRADICTIONS * len(items) and count >= 2:
            said = f"{count:,} training items have a twin with another label (limit "
            said += f"{CONTRADICTIONS:.1%} of {len(items):,})"
            share = count / len(items)
            cure = "decide between the labels, or remove both"
            found.append(Finding("G-D06", "warn", said, cure, measured=share, limit=CONTRADICTIONS))
    return found or [Clean("G-D06", copies / len(items))]


def alike(train: Tensor, held: Tensor, name: str, labels: tuple[Tensor, Tensor] | None) -> Verdict:
    """G-D03: are two splits of one kind preprocessed alike?

    Args:
        train, held: (N, …) values.
        labels: of both, so that other class shares do not count as another preprocessing.
    """
    if min(len(train), len(held)) < FEWEST:
        return NotJudged("G-D03", f"fewer than {FEWEST} items in a split")
    one, two = train.flatten(1).double(), held.flatten(1).double()
    weights = torch.ones(len(one), dtype=torch.double)
    if labels is not None:
        weights = _as_in(labels[0].cpu(), labels[1].cpu())
    mean = float((one.mean(1) * weights).sum() / weights.sum())
    spread = float(((one - mean).square().mean(1) * weights).sum() / weights.sum()) ** 0.5
    other_mean, other_spread = float(two.mean()), float(two.std())
    if spread == 0:
        return NotJudged("G-D03", "the training values are all one")
    ratio, shift = other_spread / spread, abs(other_mean - mean) / spread
    reach = 4 * float(two.mean(1).std()) / len(two) ** 0.5 / spread
    step = _byte_scale(one, two)
    if step:
        said = f"the largest values are {float(one.max()):.6g} in train and {float(two.max()):.6g} "
        said += f"in {name}: one was divided by 255, the other by 256"
    elif 1 / RATIO <= ratio <= RATIO and shift <= SHIFT + reach:
        return Clean("G-D03", ratio)
    else:
        said = f"mean and deviation are {mean:.4g} and {spread:.4g} in train, {other_mean:.4g} and "
        said += f"{other_spread:.4g} in {name} (limits: {RATIO:g} times, {SHIFT:g} deviations)"
    is_known = ratio > 2 or ratio < 0.5 or shift > 1
    return Finding(
        "G-D03",
        "fail" if is_known else "warn",
        said,
        "send every split through one preprocessing function",
        measured=ratio,
        limit=RATIO,
        place=name,
    )


def _as_in(labels: Tensor, wanted: Tensor) -> Tensor:
    """Return weights that give the first labels the class shares of the second."""
    if labels.is_floating_point() or labels.dim() != 1 or wanted.dim() != 1:
        return torch.ones(len(labels), dtype=torch.double)
    count = int(max(labels.max(), wanted.max())) + 1
    have = torch.bincount(labels.clamp_min(0), minlength=count).double()
    want = torch.bincount(wanted.clamp_min(0), minlength=count).double()
    share = (want / want.sum()) / (have / have.sum()).clamp_min(1e-12)
    return share[labels.clamp_min(0)]


def _byte_scale(one: Tensor, two: Tensor) -> bool:
    top, other = float(one.max()), float(two.max())
    if min(float(one.min()), float(two.min())) < 0 or not top or not other:
        return False
    return abs(max(top, other) / min(top, other) - 256 / 255) < 1e-5


def near(train: Tensor, held: Tensor, name: str) -> Verdict:
    """G-D05: are pictures of a held-out split resized or re-encoded copies of training pictures?

    A hash of brightness differences only proposes; a pair counts when its pixels correlate to 0.99
    and the two are five times nearer than the picture's usual nearest neighbour.

    Args:
        train, held: (N, C, H, W).
    """
    small = [_small(part) for part in (train, held)]
    keys = [_difference_hash(part) for part in small]
    known: dict[int, list[int]] = {}
    for place, key in enumerate(keys[0]):
        known.setdefault(key, []).append(place)
    usual = _usual_distance(small[0])
    found = []
    for place, key in enumerate(keys[1]):
        rows = known.get(key, [])[:50]
        if rows and _is_copy(small[0][rows], small[1][place], usual):
            found.append(place)
    share = len(found) / max(len(held), 1)
    if share < NEAR_WARN:
        return Clean("G-D05", share)
    return Finding(
        "G-D05",
        "warn",
        f"{len(found):,} of {len(held):,} pictures of the {name} split ({share:.1%}, limit "
        f"{NEAR_WARN:.0%}) are near copies of training pictures (items "
        f"{', '.join(map(str, found[:SHOWN]))})",
        "split by the original's id",
        measured=share,
        limit=NEAR_WARN,
        place=name,
    )


def _small(pictures: Tensor) -> Tensor:
    grey = pictures.float().mean(1, keepdim=True)
    return F.interpolate(grey, (16, 17), mode="area").flatten(1)


def _difference_hash(small: Tensor) -> list[int]:
    rows = F.adaptive_avg_pool2d(small.reshape(-1, 1, 16, 17), (8, 9)).squeeze(1)
    bits = (rows[:, :, 1:] > rows[:, :, :-1]).flatten(1).long()
    powers = 2 ** torch.arange(32)
    low, high = (bits[:, :32] * powers).sum(1), (bits[:, 32:] * powers).sum(1)
    return [(h << 32) | i for h, i in zip(high.tolist(), low.tolist(), strict=True)]


def _usual_distance(small: Tensor, count: int = 300) -> float:
    """Return the median distance of a picture to its nearest of the same split."""
    sample = small[torch.linspace(0, len(small) - 1, min(count, len(small))).long()]
    gaps = torch.cdist(sample, sample)
    gaps.fill_diagonal_(float("inf"))
    return float(gaps.min(1).values.median())


def _is_copy(rows: Tensor, one: Tensor, usual: float) -> bool:
    centred = rows - rows.mean(1, keepdim=True)
    other = one - one.mean()
    size = centred.norm(dim=1) * other.norm()
    alike = (centred @ other / size.clamp_min(1e-12)) >= CORRELATION
    return bool((alike & ((rows - one).norm(dim=1) < NEARER * usual)).any())


def windows(train: Sequence[Sequence[int]], held: Sequence[Sequence[int]], name: str) -> Verdict:
    """G-D12: do token sequences of a held-out split run through those of the training split?

    Args:
        train, held: token ids; runs of `WINDOW` tokens are compared, so that shifted windows of one
            text meet.
    """
    known = {run for row in train for run in _runs(row)}
    long = [row for row in held if len(row) >= WINDOW]
    if not known or len(long) < 10:
        return NotJudged("G-D12", f"too few sequences of {WINDOW} tokens")
    met = [any(run in known for run in _runs(row)) for row in long]
    share = sum(met) / len(long)
    if share < WINDOW_SHARE:
        return Clean("G-D12", share)
    return Finding(
        "G-D12",
        "fail",
        f"{share:.0%} of the {name} sequences share {WINDOW} tokens in a row with a training "
        f"sequence (limit {WINDOW_SHARE:.0%}): they are windows of one text",
        "split the text first, then cut windows",
        measured=share,
        limit=WINDOW_SHARE,
        place=name,
    )


def _runs(row: Sequence[int]) -> Iterator[tuple[int, ...]]:
    """Yield the runs of `WINDOW` tokens that are no mere repetition, as padding is."""
    for place in range(len(row) - WINDOW + 1):
        run = tuple(row[place : place + WINDOW])
        if len(set(run)) > 3:
            yield run


def shared_targets(train: Sequence[str], held: Sequence[str], name: str) -> Verdict:
    """G-D12: how many long targets of a held-out split were trained on?"""
    long = [text for text in map(plain_text, held) if len(text.split()) >= LONG_TARGET]
    if len(long) < 20:
        return NotJudged("G-D12", f"too few targets of {LONG_TARGET} words")
    known = {plain_text(text) for text in train}
    share = sum(text in known for text in long) / len(long)
    if share < TARGET_SHARE:
        return Clean("G-D12", share)
    return Finding(
        "G-D12",
        "warn",
        f"{share:.0%} of the long {name} targets are also training targets (limit "
        f"{TARGET_SHARE:.0%}): answering them is partly memory",
        "split by target, then make the inputs",
        measured=share,
        limit=TARGET_SHARE,
        place=name,
    )


def groups(ids: Mapping[str, Sequence[Hashable]]) -> Verdict:
    """G-D12: is a person, a scene or a source in two splits?

    Args:
        ids: the group of each item by split, among them `train`.
    """
    train = set(ids.get("train", ()))
    for name, held in ids.items():
        both = train & set(held)
        if name != "train" and both:
            return Finding(
                "G-D12",
                "warn",
                f"{len(both)} of {len(set(held))} groups of the {name} split are also in train "
                f"({', '.join(map(str, sorted(map(str, both))[:3]))})",
                "split by group",
                measured=float(len(both)),
                limit=0.0,
                place=name,
            )
    return Clean("G-D12") if len(ids) > 1 else NotJudged("G-D12", "no groups were given")
