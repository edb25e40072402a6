from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

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


@pytest.mark.parametrize(
    "label",
    [
        "",
        "B cell",
        "[" * 100_000,
        "[]",
        json.dumps({key: value for key, value in GOOD.items() if key != "unknown"}),
        *(
            json.dumps({**GOOD, **change})
            for change in (
                {"schema": 99},
                {"unknown": 3},
                {"unknown": ["A", 3]},
                {"known": []},
                {"gold": {"a": "b"}},
                {"masks": {}},
                {"masks": [{"known": {}}]},
                {"masks": [3]},
            )
        ),
    ],
)
def test_malformed_rows_are_refused_in_a_short_line(label):
    with refused("malformed-row") as error:
        Example.from_label(label)
    assert len(str(error.value)) < 400
