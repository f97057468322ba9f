"""Stratified splits by their properties, and duplicates against plain comparison."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dltool.data.splits import duplicates, stratified
from dltool.errors import ConfigError, DataError

FRACTIONS = st.sampled_from([(0.8, 0.2), (0.5, 0.5), (0.7, 0.15, 0.15), (0.9, 0.1), (1.0,)])
COUNTS = st.lists(st.integers(3, 60), min_size=1, max_size=6)


def labels_of(counts, seed=0):
    labels = torch.cat([torch.full((count,), label * 2) for label, count in enumerate(counts)])
    return labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))]


@settings(derandomize=True, max_examples=150, deadline=None)
@given(COUNTS, FRACTIONS, st.integers(0, 2**40))
def test_parts_are_disjoint_covering_sorted_and_in_proportion(counts, fractions, seed):
    labels = labels_of(counts)
    parts = stratified(labels, fractions, seed)
    assert sorted(torch.cat(parts).tolist()) == list(range(len(labels)))
    for part, fraction in zip(parts, fractions, strict=True):
        assert part.dtype == torch.int64
        assert part.tolist() == sorted(part.tolist())
        for label, count in enumerate(counts):
            share = int((labels[part] == label * 2).sum())
            assert share >= 1
            # a part that would get nothing takes one from the largest
            taken = sum(count * other < 1 for other in fractions)
            assert abs(share - count * fraction) < 1 + taken


@settings(derandomize=True, max_examples=30, deadline=None)
@given(COUNTS, FRACTIONS, st.integers(0, 2**40))
def test_the_same_arguments_give_the_same_parts(counts, fractions, seed):
    labels = labels_of(counts)
    torch.manual_seed(1)
    first = stratified(labels, fractions, seed)
    torch.manual_seed(2)
    second = stratified(labels.clone(), list(fractions), seed)
    assert all(torch.equal(*pair) for pair in zip(first, second, strict=True))


def test_another_seed_gives_other_parts():
    labels = labels_of([50, 50])
    first, second = (stratified(labels, (0.5, 0.5), seed)[0] for seed in (1, 2))
    assert not torch.equal(first, second)


def test_a_class_keeps_its_parts_when_another_class_comes():
    few, more = torch.tensor([0] * 10), torch.tensor([0] * 10 + [1] * 10)
    assert stratified(more, (0.8, 0.2), 3)[1][:2].tolist() == (
        stratified(few, (0.8, 0.2), 3)[1].tolist()
    )


def test_remainders_go_to_the_largest():
    labels = torch.zeros(10, dtype=torch.int64)
    sizes = [len(part) for part in stratified(labels, (0.55, 0.28, 0.17), 0)]
    assert sizes == [5, 3, 2]  # 5.5, 2.8, 1.7: two items left, to 2.8 and 1.7


def test_a_class_that_is_too_small_is_named():
    labels = torch.tensor([0, 0, 0, 1, 1, 1, 2])
    with pytest.raises(DataError, match="the class fox has 1 item, too few for 2 parts") as caught:
        stratified(labels, (0.5, 0.5), 0, ["cat", "dog", "fox"])
    assert caught.value.code == "E503"
    with pytest.raises(DataError, match="the class 2 has 1 item"):
        stratified(labels, (0.5, 0.5), 0)


@pytest.mark.parametrize("fractions", [(), (0.5, 0.6), (1.2, -0.2), (0.0, 1.0)])
def test_fractions_that_do_not_split(fractions):
    with pytest.raises(ConfigError, match="fractions") as caught:
        stratified(torch.zeros(9, dtype=torch.int64), fractions, 0)
    assert caught.value.code == "E202"


def test_duplicates_are_those_that_compare_equal():
    draws = torch.Generator().manual_seed(0)
    known = torch.randint(0, 2, (40, 1, 2, 2), dtype=torch.uint8, generator=draws)
    asked = torch.randint(0, 3, (60, 1, 2, 2), dtype=torch.uint8, generator=draws)
    expected = [
        index for index, item in enumerate(asked) if any(torch.equal(item, old) for old in known)
    ]
    assert 0 < len(expected) < 60
    found = duplicates(known, asked)
    assert found.dtype == torch.int64
    assert found.tolist() == expected


def test_one_pixel_makes_a_difference():
    images = torch.zeros(2, 3, 8, 8, dtype=torch.uint8)
    changed = images.clone()
    changed[1, 2, 7, 7] = 1
    assert duplicates(images, changed).tolist() == [0]
    assert duplicates(images, changed[:, :, :, :4]).tolist() == []
    assert duplicates(images.transpose(2, 3), changed.transpose(2, 3)).tolist() == [0]
