from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cellduality_plugin.errors import CellDualityError
from cellduality_plugin.examples import Example

values = st.one_of(st.text(), st.lists(st.text()).map(tuple))
named = st.dictionaries(st.text(), values)
examples = st.builds(
    Example, task=st.text(), id=st.text(), inputs=named, known=named, unknown=values, gold=st.none() | values
)


@given(examples)
def test_the_label_column_brings_the_row_back(example):
    assert Example.from_label(example.to_label()) == example


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
    ],
)
def test_malformed_rows_are_one_line(label, message):
    with pytest.raises(CellDualityError, match=message) as caught:
        Example.from_label(label)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400
