from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cellduality_plugin.cell_sentences import hide_genes, sentence
from cellduality_plugin.examples import Example, Mask
from tests.refused import refused

values = st.one_of(st.text(), st.lists(st.text()).map(tuple))
named = st.dictionaries(st.text(), values)
masks = st.lists(st.builds(Mask, named, values), max_size=3).map(tuple)
examples = st.builds(Example, st.text(), st.text(), named, named, values, st.none() | values, masks)
GOOD = json.loads(Example("t", "1", {}, {}, "x", None).to_label())


@given(examples)
def test_the_label_column_brings_the_row_back(example):
    again = Example.from_label(example.to_label())
    assert again == example
    assert again.to_label() == example.to_label()


@given(examples)
def test_a_split_is_the_row_under_one_mask(example):
    splits = example.splits()
    assert [Mask(split.known, split.unknown) for split in splits] == [
        Mask(example.known, example.unknown),
        *example.masks,
    ]
    for split in splits:
        shared = ("task", "id", "inputs", "gold")
        assert [getattr(split, name) for name in shared] == [getattr(example, name) for name in shared]
        assert split.splits() == (split,)


def test_a_row_with_one_mask_reads_as_before_there_were_several():
    assert list(GOOD) == ["schema", "task", "id", "inputs", "known", "unknown", "gold"]


CHANGES = [
    {"schema": 99}, {"unknown": 3}, {"unknown": ["A", 3]}, {"known": []}, {"gold": {"a": "b"}}, {"masks": {}},
    {"masks": [{"known": {}}]}, {"masks": [3]},
]  # fmt: skip
LACKING = {key: value for key, value in GOOD.items() if key != "unknown"}


@pytest.mark.parametrize(
    "label",
    ["", "B cell", "[" * 100_000, "[]", json.dumps(LACKING), *(json.dumps({**GOOD, **each}) for each in CHANGES)],
)
def test_malformed_rows_are_refused_in_a_short_line(label):
    with refused("malformed-row") as error:
        Example.from_label(label)
    assert len(str(error.value)) < 400


@given(count=st.integers(2, 80), fraction=st.floats(0, 1), seed=st.integers(0, 100))
def test_hiding_splits_the_cell_keeps_order_and_is_seeded(count, fraction, seed):
    genes = tuple(f"G{i:03d}" for i in range(count))
    observed, hidden = hide_genes(genes, fraction, np.random.default_rng(seed))
    assert observed
    assert hidden
    assert tuple(sorted(observed + hidden)) == genes == tuple(sentence(genes).split())
    assert (list(observed), list(hidden)) == (sorted(observed), sorted(hidden))
    assert (observed, hidden) == hide_genes(genes, fraction, np.random.default_rng(seed))
