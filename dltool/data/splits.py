"""Split data by class, and find items that two sets share."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from dltool.device import generator
from dltool.errors import ConfigError, DataError


def stratified(
    labels: Tensor,
    fractions: Sequence[float],
    seed: int,
    classes: Sequence[str] | None = None,
) -> list[Tensor]:
    """Split indices into parts that hold every class in proportion, by largest remainder.

    The result depends on the arguments only. Every class has at least one item in every part.

    Args:
        labels: (N,) whole numbers.
        fractions: the size of each part; positive, with the sum 1.
        seed: draws which items go where.
        classes: names for the errors.

    Returns:
        One int64 tensor of sorted indices for each fraction; together they hold 0 to N-1 once.

    Raises:
        ConfigError: E202, the fractions are not positive or do not sum to 1.
        DataError: E503, a class has fewer items than there are parts.
    """
    if not fractions or min(fractions) <= 0 or not math.isclose(sum(fractions), 1, abs_tol=1e-6):
        raise ConfigError(
            "E202",
            "these fractions cannot split data",
            received=list(fractions),
            expected="positive numbers with the sum 1",
        )
    labels = labels.cpu()
    parts: list[list[Tensor]] = [[] for _ in fractions]
    for label in labels.unique().tolist():
        members = torch.nonzero(labels == label).flatten()
        if len(members) < len(fractions):
            raise _too_small(label, len(members), len(fractions), classes)
        stream = generator(seed, "split", label)
        members = members[torch.randperm(len(members), generator=stream)]
        pieces = members.split(_shares(len(members), fractions))
        for part, piece in zip(parts, pieces, strict=True):
            part.append(piece)
    empty = torch.empty(0, dtype=torch.int64)
    return [torch.cat([empty, *part]).sort().values for part in parts]


def duplicates(images_a: Tensor, images_b: Tensor) -> Tensor:
    """Return the indices (int64, sorted) of the items of `images_b` that `images_a` holds too.

    Equal means equal in every byte; items of another shape are never equal.

    Args:
        images_a: (N, …) uint8.
        images_b: (M, …) uint8.
    """
    if images_a.shape[1:] != images_b.shape[1:]:
        return torch.empty(0, dtype=torch.int64)
    known = set(_digests(images_a))
    found = [index for index, digest in enumerate(_digests(images_b)) if digest in known]
    return torch.tensor(found, dtype=torch.int64)


def _shares(count: int, fractions: Sequence[float]) -> list[int]:
    exact = [count * fraction / sum(fractions) for fraction in fractions]
    shares = [math.floor(value) for value in exact]
    by_remainder = sorted(range(len(exact)), key=lambda i: (shares[i] - exact[i], i))
    for index in by_remainder[: count - sum(shares)]:
        shares[index] += 1
    while min(shares) == 0:
        shares[shares.index(max(shares))] -= 1
        shares[shares.index(0)] += 1
    return shares


def _too_small(label: int, count: int, parts: int, classes: Sequence[str] | None) -> DataError:
    name = classes[label] if classes else str(label)
    items = "item" if count == 1 else "items"
    return DataError(
        "E503",
        f"the class {name} has {count} {items}, too few for {parts} parts",
        expected=f"at least {parts}",
        cure="add items to this class, remove it, or give a folder that is split already",
    )


def _digests(images: Tensor) -> list[bytes]:
    rows = images.cpu().contiguous().reshape(len(images), -1).numpy()
    return [hashlib.blake2b(row, digest_size=16).digest() for row in rows]
