"""Bodies that are requests, bodies that are not, and what is said of those."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cellduality_plugin.openrlhf_hooks.remote.bodies import MAX_ITEMS, Malformed, read_items

GOOD = {"query": ["ab", "cd"], "prompts": ["a", "c"], "labels": ["1", "2"]}
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=10)


@given(st.lists(st.tuples(TEXT, TEXT, TEXT), min_size=1, max_size=5))
def test_what_was_sent_is_read_in_its_order(rollouts):
    fields = dict(zip(GOOD, map(list, zip(*rollouts, strict=True)), strict=True))
    assert read_items(json.dumps({**fields, "more": 1}).encode()) == rollouts


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"query": "ab"}, "query: not a list of 1 to 1024 texts"),
        ({"query": []}, "query: not a list of 1 to 1024 texts"),
        ({"query": ["a"] * (MAX_ITEMS + 1)}, "query: not a list of 1 to 1024 texts"),
        ({"prompts": ["a", None]}, r"prompts\[1\]: not a text"),
        ({"prompts": ["a", "\udc80"]}, r"prompts\[1\]: not Unicode"),
        ({"labels": ["1"]}, "labels: 1 texts, and 2 in query"),
    ],
)
def test_the_field_that_is_wrong_is_named(change, said):
    with pytest.raises(Malformed, match=f"^{said}$"):
        read_items(json.dumps({**GOOD, **change}).encode())


@pytest.mark.parametrize("name", GOOD)
def test_a_field_that_is_missing_is_named(name):
    body = json.dumps({field: texts for field, texts in GOOD.items() if field != name})
    with pytest.raises(Malformed, match=f"^{name}: missing$"):
        read_items(body.encode())


@given(st.binary(max_size=60))
def test_any_bytes_are_read_or_refused(body):
    with pytest.raises(Malformed, match="body: "):
        read_items(body)
