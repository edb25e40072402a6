from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cellduality_plugin.errors import CellDualityError
from data_prep.splits import SPLITS, apportion, choose_labelled, choose_some, small_classes, split_cells

FRACTIONS = (0.6, 0.2, 0.2)
sizes = st.lists(st.integers(3, 40), min_size=2, max_size=6)


def cells_of(counts: list[int]) -> dict[str, str]:
    return {f"c{kind}-{cell}": f"type {kind}" for kind, count in enumerate(counts) for cell in range(count)}


@given(st.lists(st.floats(0.01, 100), min_size=1, max_size=8), st.integers(0, 500), st.integers(0, 3))
def test_shares_add_up_and_stay_near_their_quota(weights, total, at_least):
    total += at_least * len(weights)
    shares = apportion(total, weights, at_least)
    assert sum(shares) == total
    assert min(shares) >= at_least
    for share, weight in zip(shares, weights, strict=True):
        assert share <= max(at_least, total * weight / sum(weights) + 1)


def test_shares_that_cannot_be_had_are_refused():
    with pytest.raises(ValueError, match="at least 2"):
        apportion(3, [1, 1], at_least=2)


@given(sizes, st.integers(0, 99), st.randoms())
def test_splits_hold_every_class_and_do_not_depend_on_order(counts, seed, shuffler):
    labels = cells_of(counts)
    chosen = split_cells(labels, fractions=FRACTIONS, rng=np.random.default_rng(seed))
    assert chosen.keys() == labels.keys()
    for kind in set(labels.values()):
        assert {chosen[cell] for cell in labels if labels[cell] == kind} == set(SPLITS)
    order = list(labels)
    shuffler.shuffle(order)
    again = split_cells({cell: labels[cell] for cell in order}, fractions=FRACTIONS, rng=np.random.default_rng(seed))
    assert again == chosen


def test_splits_follow_the_fractions_within_each_class_and_the_seed():
    labels = cells_of([100, 50])
    first, second = (split_cells(labels, fractions=FRACTIONS, rng=np.random.default_rng(seed)) for seed in (0, 1))
    counts = Counter((labels[cell], split) for cell, split in first.items())
    assert [counts["type 0", split] for split in SPLITS] == [60, 20, 20]
    assert [counts["type 1", split] for split in SPLITS] == [30, 10, 10]
    assert first != second


@pytest.mark.parametrize(
    ("counts", "what"),
    [
        ([5], "5 cells in 1 class"),
        ([5, 2], "1 of 2 classes have fewer than 3 cells ('type 1' 2)"),
        ([1, 1, 1, 1], "4 of 4 classes have fewer than 3 cells"),
    ],
)
def test_classes_that_cannot_be_split_are_told(counts, what, check_told):
    with pytest.raises(CellDualityError) as raised:
        split_cells(cells_of(counts), fractions=FRACTIONS, rng=np.random.default_rng(0))
    check_told(raised, what, "--label-column")


@given(sizes, st.integers(0, 99), st.data())
def test_labelled_cells_are_as_many_as_asked_with_every_class_among_them(counts, seed, data):
    labels = cells_of(counts)
    count = data.draw(st.integers(len(counts), len(labels)))
    chosen = choose_labelled(labels, count, np.random.default_rng(seed))
    assert len(chosen) == count
    assert {labels[cell] for cell in chosen} == set(labels.values())
    backwards = dict(reversed(labels.items()))
    assert choose_labelled(backwards, count, np.random.default_rng(seed)) == chosen


@pytest.mark.parametrize("count", [1, 11])
def test_impossible_number_of_labelled_cells_is_told(count, check_told):
    with pytest.raises(CellDualityError) as raised:
        choose_labelled(cells_of([5, 5]), count, np.random.default_rng(0))
    check_told(raised, f"{count} labelled cells of 10", "from 2 to 10")


def test_small_classes_are_counted():
    assert small_classes(cells_of([3, 2, 1]).values()) == {"type 1": 2, "type 2": 1}


@given(sizes, st.integers(0, 9), st.data())
def test_sample_keeps_every_class_and_the_proportions(counts, seed, data):
    classes = cells_of(counts)
    count = data.draw(st.integers(3 * len(counts), len(classes)))
    chosen = choose_some(classes, count, np.random.default_rng(seed))
    assert len(chosen) == count
    assert chosen <= set(classes)
    found = Counter(classes[name] for name in chosen)
    for name, size in Counter(classes.values()).items():
        assert 3 <= found[name] <= size
        if found[name] > 3:
            assert found[name] <= count * size / len(classes) + 1
    assert chosen == choose_some(dict(reversed(classes.items())), count, np.random.default_rng(seed))


def test_sample_of_more_cells_than_there_are_is_all_of_them():
    classes = cells_of([4, 5])
    assert choose_some(classes, 100, np.random.default_rng(0)) == set(classes)


def test_sample_too_small_for_the_splits_is_told():
    with pytest.raises(CellDualityError, match="5 cells of 2 classes") as raised:
        choose_some(cells_of([9, 9]), 5, np.random.default_rng(0))
    assert (raised.value.where, raised.value.mend) == ("max_cells", "choose 6 or more")
