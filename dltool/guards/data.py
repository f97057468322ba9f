"""Look at the splits of a data set before training on them: `check_data`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dltool.guards import feeding, relation, splits
from dltool.guards.facts import Facts
from dltool.guards.findings import Clean, Finding, NotJudged, Verdict
from dltool.guards.labels import check_split
from dltool.guards.report import Report, report_of

GATHERED = 20_000


@dataclass(frozen=True)
class Split:
    """One split: items (N, …) or texts, and their labels where there are any."""

    items: Tensor | list[str]
    labels: Tensor | list[str] | None

    @property
    def classes(self) -> Tensor | None:
        """The labels, where they are class ids (N,)."""
        labels = self.labels
        is_ids = isinstance(labels, Tensor) and not labels.is_floating_point() and labels.dim() == 1
        return labels if is_ids and isinstance(labels, Tensor) else None


def gathered(source: Any) -> Split:
    """Return a split from tensors, arrays, texts, a data set or a loader, the first items of it.

    Args:
        source: (items, labels); items alone; a mapping with `labels`; or what yields (item, label)
            or batches of them.

    Raises:
        TypeError: it is none of these.
    """
    if isinstance(source, Split):
        return source
    if isinstance(source, tuple) and len(source) == 2:
        return Split(_items(source[0]), _labels(source[1]))
    if isinstance(source, Tensor | np.ndarray):
        return Split(_items(source), None)
    if isinstance(source, list) and source and isinstance(source[0], str):
        return Split(source, None)
    return _drawn(source)


def _items(values: Any) -> Tensor | list[str]:
    if isinstance(values, Tensor):
        return values
    if isinstance(values, np.ndarray) and values.dtype.kind in "biuf":
        return torch.from_numpy(np.ascontiguousarray(values))
    found = list(values)
    if found and isinstance(found[0], str):
        return found
    return torch.as_tensor(np.asarray(found))


def _labels(values: Any) -> Tensor | list[str] | None:
    return None if values is None else _items(values)


def _drawn(source: Any) -> Split:
    """Read a data set or a loader: items one by one, or batches of them."""
    batched = hasattr(source, "batch_size")
    if not batched and not (hasattr(source, "__getitem__") and hasattr(source, "__len__")):
        raise TypeError(f"cannot read items from {type(source).__name__}")
    items: list[Any] = []
    labels: list[Any] = []
    rows: Iterable[Any] = (
        source if batched else (source[place] for place in range(min(len(source), GATHERED)))
    )
    for row in rows:
        item, label = (row[0], row[-1]) if isinstance(row, tuple | list) else (row, None)
        items += list(item) if batched else [item]
        labels += [] if label is None else list(label) if batched else [label]
        if len(items) >= GATHERED:
            break
    if items and isinstance(items[0], str):
        return Split(items, _labels(labels or None))
    stacked = torch.stack([torch.as_tensor(np.asarray(item)) for item in items])
    known = torch.as_tensor(np.asarray([np.asarray(label) for label in labels])) if labels else None
    return Split(stacked, known)


def check_data(
    train: Any,
    val: Any = None,
    test: Any = None,
    *,
    facts: Facts | None = None,
    unknown: int | None = None,
    groups: dict[str, Sequence[Any]] | None = None,
    full: bool = False,
    without: Iterable[str] = (),
) -> Report:
    """Find what is wrong with the data of a training before it begins.

    Args:
        train, val, test: each (items, labels) as tensors, arrays or lists of texts, a data set, or
            a loader; at most 20,000 items of a data set or loader are read.
        facts: the number of classes, the padding.
        unknown: the token id of words that are not in the vocabulary.
        groups: by split, what each item belongs to: a person, a source.
        full: also look for near copies of pictures.
        without: codes of guards that are not to count.
    """
    stated = facts or Facts()
    named = {"train": train, "val": val, "test": test}
    known = {name: gathered(source) for name, source in named.items() if source is not None}
    verdicts: list[Verdict] = []
    for name, split in known.items():
        verdicts += _within(name, split, stated, unknown)
    first = known["train"]
    verdicts += _guarded("G-D06", lambda: _repeated(first))
    verdicts += _guarded("G-D07", lambda: _relation(first))
    for name in known.keys() - {"train"}:
        verdicts += _between(first, known[name], name, full=full)
    if groups:
        verdicts.append(splits.groups(groups))
    return report_of(verdicts, without)


def _guarded(code: str, judge: Callable[[], Verdict | list[Verdict]]) -> list[Verdict]:
    try:
        found = judge()
    except (RuntimeError, ValueError, TypeError, IndexError) as error:
        return [NotJudged(code, f"{type(error).__name__}: {' '.join(str(error).split())[:160]}")]
    return [found] if isinstance(found, Finding | Clean | NotJudged) else found


def _within(name: str, split: Split, facts: Facts, unknown: int | None) -> list[Verdict]:
    found: list[Verdict] = []
    items, classes = split.items, split.classes
    if isinstance(items, Tensor):
        found.append(feeding.values(items, name))
        if items.dim() == 2 and not items.is_floating_point():
            known = feeding.tokens(items, unknown=unknown, pad=facts.pad, name=name)
            found += known if unknown is not None or facts.pad is not None else []
    elif any(not text.strip() for text in items):
        empty = sum(not text.strip() for text in items)
        found.append(
            Finding(
                "G-D10",
                "warn",
                f"{empty:,} of {len(items):,} {name} texts are empty",
                "leave them out",
                measured=empty / len(items),
                limit=0.0,
                place=name,
            )
        )
    if classes is not None and facts.task not in ("causal-lm", "seq2seq", "regress"):
        count = facts.num_classes or int(classes.max()) + 1
        judged = check_split(classes, count, name)
        found += judged or [Clean("G-D08")]
    return found


def _repeated(split: Split) -> list[Verdict]:
    labels = split.classes
    return splits.repeated(splits.digests(split.items), [] if labels is None else labels.tolist())


def _relation(split: Split) -> Verdict:
    items, labels = split.items, split.labels
    if not isinstance(labels, Tensor):
        return NotJudged("G-D07", "there are no labels that are numbers")
    if not isinstance(items, Tensor):
        return relation.relation(relation.hashed_words(items[: relation.ROWS]), labels)
    if items.dim() == 2 and items.dtype in (torch.int64, torch.int32):
        return relation.relation(relation.hashed_tokens(items[: relation.ROWS]), labels)
    return relation.relation(items, labels)


def _between(train: Split, held: Split, name: str, *, full: bool) -> list[Verdict]:
    labels, others = train.classes, held.classes
    found = _guarded(
        "G-D04",
        lambda: splits.leak(
            splits.digests(train.items),
            splits.digests(held.items),
            name,
            [] if labels is None else labels.tolist(),
            [] if others is None else others.tolist(),
        ),
    )
    if labels is not None and others is not None:
        found.append(feeding.shares(labels, others, name))
    one, two = train.items, held.items
    if isinstance(one, Tensor) and isinstance(two, Tensor):
        pair = None if labels is None or others is None else (labels, others)
        is_numbers = one.is_floating_point() or one.dtype == torch.uint8
        if is_numbers and one.dim() >= 2:
            found += _guarded("G-D03", lambda: splits.alike(one, two, name, pair))
        if full and one.dim() == 4:
            found += _guarded("G-D05", lambda: splits.near(one, two, name))
        if one.dim() == 2 and one.dtype == torch.int64:
            found += _guarded("G-D12", lambda: splits.windows(one.tolist(), two.tolist(), name))
    if isinstance(train.labels, list) and isinstance(held.labels, list):
        targets = train.labels, held.labels
        found += _guarded("G-D12", lambda: splits.shared_targets(*targets, name))
    return found
