from __future__ import annotations

import numpy as np
import pytest

from data_prep.instructcell_split import instructcell_sizes, instructcell_split, sizes_with_test
from data_prep.registry import DATASETS

SPLIT_AFTER_COUNTING = {"he_2020_liver", "segerstolpe_2016", "gse149383"}
"""Sets whose published size was counted before the last filters, and their split made after them."""

PUBLISHED = {name: d for name, d in DATASETS.items() if d.split.kind == "instructcell" and d.test_cells}


def test_all_of_instructcells_sets_are_there():
    assert len(PUBLISHED) == 8


@pytest.mark.parametrize("name", sorted(set(PUBLISHED) - SPLIT_AFTER_COUNTING))
def test_published_test_size_is_reproduced(name):
    assert instructcell_sizes(PUBLISHED[name].cells)[2] == PUBLISHED[name].test_cells


@pytest.mark.parametrize("name", sorted(SPLIT_AFTER_COUNTING))
def test_smaller_test_sizes_are_of_fewer_cells_than_published(name):
    published = PUBLISHED[name]
    split = sizes_with_test(published.test_cells)
    assert len(split) == 10
    assert max(split) < published.cells
    assert {instructcell_sizes(n)[2] for n in split} == {published.test_cells}
    assert instructcell_sizes(min(split) - 1)[2] != published.test_cells
    assert instructcell_sizes(max(split) + 1)[2] != published.test_cells


@pytest.mark.parametrize("n", [0, 1, 2, 5, 10, 1302])
def test_every_cell_is_in_one_part(n):
    parts = instructcell_split({"set": n})["set"]
    assert sorted(np.concatenate(list(parts.values()))) == list(range(n))
    assert tuple(len(rows) for rows in parts.values()) == instructcell_sizes(n)


def test_one_random_state_goes_through_all_sets_in_order():
    one = instructcell_split({"a": 50, "b": 40})
    state = np.random.RandomState(42)
    assert np.array_equal(one["a"]["train"], state.permutation(50)[:40])
    assert np.array_equal(one["b"]["test"], state.permutation(40)[-5:])
    swapped = instructcell_split({"b": 40, "a": 50})
    assert not np.array_equal(one["b"]["train"], swapped["b"]["train"])
    assert np.array_equal(one["a"]["train"], instructcell_split({"a": 50, "c": 9})["a"]["train"])
