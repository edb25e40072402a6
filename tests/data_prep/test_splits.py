from __future__ import annotations

import itertools
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cellduality_plugin.perturbations import CONTROL
from data_prep.datasets import DATASETS
from data_prep.splits import (
    FRACTIONS,
    INSTRUCTCELL,
    SPLITS,
    apportion,
    choose_labelled,
    choose_some,
    pair_with_controls,
    split_cells,
)
from tests.refused import refused

sizes = st.lists(st.integers(3, 40), min_size=2, max_size=6)


def cells_of(counts: list[int]) -> dict[str, str]:
    return {f"c{kind}-{cell}": f"type {kind}" for kind, count in enumerate(counts) for cell in range(count)}


def split_of(labels: dict[str, str], seed: int) -> dict[str, str]:
    return split_cells(labels, fractions=FRACTIONS, rng=np.random.default_rng(seed))


@given(st.lists(st.floats(0.01, 100), min_size=1, max_size=8), st.integers(0, 500), st.integers(0, 3))
def test_shares_add_up_and_stay_near_their_quota(weights, total, at_least):
    total += at_least * len(weights)
    shares = apportion(total, weights, at_least)
    assert sum(shares) == total
    assert min(shares) >= at_least
    for share, weight in zip(shares, weights, strict=True):
        assert share <= max(at_least, total * weight / sum(weights) + 1)


@given(sizes, st.integers(0, 99), st.randoms())
def test_splits_hold_every_class_and_do_not_depend_on_order(counts, seed, shuffler):
    labels = cells_of(counts)
    chosen = split_of(labels, seed)
    assert chosen.keys() == labels.keys()
    assert {(labels[cell], split) for cell, split in chosen.items()} == {*itertools.product(labels.values(), SPLITS)}
    order = list(labels)
    shuffler.shuffle(order)
    assert split_of({cell: labels[cell] for cell in order}, seed) == chosen


def test_splits_follow_the_fractions_within_each_class_and_the_seed():
    labels = cells_of([100, 50])
    counts = Counter((labels[cell], split) for cell, split in split_of(labels, 0).items())
    assert [counts[f"type {kind}", split] for kind in (0, 1) for split in SPLITS] == [60, 20, 20, 30, 10, 10]
    assert split_of(labels, 0) != split_of(labels, 1)


@pytest.mark.parametrize("name", ["gse117872", "xin_2016"])
def test_instructcells_rule_has_test_sets_of_the_published_size(name):
    set_of = DATASETS[name]
    found = INSTRUCTCELL.assign([f"c{number}" for number in range(set_of.cells)])
    assert Counter(found.values())["test"] == set_of.test_cells


@given(sizes, st.integers(0, 99), st.data())
def test_labelled_cells_are_as_many_as_asked_with_every_class_among_them(counts, seed, data):
    labels = cells_of(counts)
    count = data.draw(st.integers(len(counts), len(labels)))
    chosen = choose_labelled(labels, count, np.random.default_rng(seed))
    assert len(chosen) == count
    assert {labels[cell] for cell in chosen} == set(labels.values())
    backwards = dict(reversed(labels.items()))
    assert choose_labelled(backwards, count, np.random.default_rng(seed)) == chosen


@given(sizes, st.integers(0, 9), st.data())
def test_sample_keeps_every_class_and_the_proportions(counts, seed, data):
    classes = cells_of(counts)
    count = data.draw(st.integers(3 * len(counts), len(classes)))
    assert choose_some(classes, len(classes) + 1, np.random.default_rng(seed)) == set(classes)
    chosen = choose_some(classes, count, np.random.default_rng(seed))
    assert len(chosen) == count
    assert chosen <= set(classes)
    found = Counter(classes[name] for name in chosen)
    for name, size in Counter(classes.values()).items():
        assert 3 <= found[name] <= size
        if found[name] > 3:
            assert found[name] <= count * size / len(classes) + 1
    assert chosen == choose_some(dict(reversed(classes.items())), count, np.random.default_rng(seed))


def test_of_more_classes_than_a_question_lists_there_are_as_many_as_there_is_room_for():
    labels, rng = cells_of([9, *[3] * 40, 2, 1]), np.random.default_rng(0)
    found = Counter(labels[name] for name in choose_some(labels, 30, rng, few=10, kept=["type 0"]))
    assert (found.total(), len(found), min(found.values())) == (30, 10, 3)
    assert found["type 0"] >= 3
    assert len(choose_labelled(labels, 5, rng, few=10)) == 5
    for choose in (choose_some, choose_labelled):
        with refused("wrong-count"):
            choose(labels, 30, rng, few=43)


IFN = "cytokine IFN-beta"

worlds = st.dictionaries(
    st.text("abcdef", min_size=1, max_size=3),
    st.tuples(st.sampled_from([CONTROL, IFN, "knockdown TP53"]), st.sampled_from(["T", "B"])),
).filter(lambda world: any(done == CONTROL for done, _ in world.values()))


@given(worlds, st.integers(0, 5))
def test_partners_are_untreated_cells_of_the_group_and_nobodys_own(world, seed):
    done, groups = ({name: both[place] for name, both in world.items()} for place in (0, 1))
    pairs = pair_with_controls(done, groups, np.random.default_rng(seed))
    for name, control in pairs.items():
        assert (done[control], groups[control]) == (CONTROL, groups[name])
        assert control != name
    controls = Counter(groups[name] for name in done if done[name] == CONTROL)
    for name in done:
        assert (name in pairs) == (controls[groups[name]] > (done[name] == CONTROL))
    for treated in (True, False):
        for group in controls:
            used = Counter(
                c for name, c in pairs.items() if groups[name] == group and (done[name] != CONTROL) == treated
            )
            counts = [used[name] for name in done if done[name] == CONTROL and groups[name] == group]
            assert max(counts) - min(counts) <= 1, "one control is taken twice before another is taken once"
    again = pair_with_controls(dict(reversed(done.items())), groups, np.random.default_rng(seed))
    assert again == pairs


RNG = np.random.default_rng(0)


@pytest.mark.parametrize(
    ("choose", "code", "told"),
    [
        (lambda: split_of(cells_of([5]), 0), "one-class", "--label-column"),
        (lambda: split_of({}, 0), "one-class", "--label-column"),
        (lambda: split_of(cells_of([5, 2, 1]), 0), "small-classes", "--label-column"),
        (lambda: choose_labelled(cells_of([5, 5]), 1, RNG), "wrong-count", "from 2 to 10"),
        (lambda: choose_labelled(cells_of([5, 5]), 11, RNG), "wrong-count", "from 2 to 10"),
        (lambda: choose_some(cells_of([5, 5]), 5, RNG), "wrong-count", "6 or more"),
        (lambda: pair_with_controls({"a": IFN}, {"a": "T"}, RNG), "no-control", IFN),
    ],
)
def test_what_cannot_be_chosen_is_refused_with_what_there_is(choose, code, told):
    with refused(code) as error:
        choose()
    assert told in error.value.what + error.value.hint
