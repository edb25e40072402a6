from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cellduality_plugin.errors import CellDualityError
from cellduality_plugin.examples import Example, Mask

values = st.one_of(st.text(), st.lists(st.text()).map(tuple))
named = st.dictionaries(st.text(), values)
examples = st.builds(
    Example,
    task=st.text(),
    id=st.text(),
    inputs=named,
    known=named,
    unknown=values,
    gold=st.none() | values,
    masks=st.lists(st.builds(Mask, named, values), max_size=3).map(tuple),
)


@given(examples)
def test_the_label_column_brings_the_row_back(example):
    assert Example.from_label(example.to_label()) == example


@given(examples)
def test_a_split_is_the_row_under_one_mask(example):
    splits = example.splits()
    assert [Mask(split.known, split.unknown) for split in splits] == [
        Mask(example.known, example.unknown), *example.masks,
    ]  # fmt: skip
    for split in splits:
        assert (split.task, split.id, split.inputs, split.gold) == (
            example.task, example.id, example.inputs, example.gold,
        )  # fmt: skip
        assert split.splits() == (split,)


def test_a_row_with_one_mask_reads_as_before_there_were_several():
    assert set(GOOD) == {"schema", "task", "id", "inputs", "known", "unknown", "gold"}


GOOD = json.loads(Example("t", "1", {}, {}, "x", None).to_label())


@pytest.mark.parametrize(
    ("label", "message"),
    [
        ("", "not JSON"),
        ("B cell", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ("[]", "schema"),
        (json.dumps({**GOOD, "schema": 99}), "schema"),
        (json.dumps({key: value for key, value in GOOD.items() if key != "unknown"}), "'unknown' is missing"),
        (json.dumps({**GOOD, "unknown": 3}), "expected text"),
        (json.dumps({**GOOD, "unknown": ["A", 3]}), "expected text"),
        (json.dumps({**GOOD, "known": []}), "items"),
        (json.dumps({**GOOD, "masks": {}}), "expected a list"),
        (json.dumps({**GOOD, "masks": [{"known": {}}]}), "'unknown' is missing"),
        (json.dumps({**GOOD, "masks": [3]}), "malformed"),
    ],
)
def test_malformed_rows_are_one_line(label, message):
    with pytest.raises(CellDualityError, match=message) as caught:
        Example.from_label(label)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400
