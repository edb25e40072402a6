"""How rewards are written: what is read is what was meant, and a slip is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cellduality_plugin.commands.arguments import reward_of
from cellduality_plugin.reward_names import Factor, Term, read_reward, renamed
from tests.refused import refused

numbers = st.floats(1e-6, 1e6).map(lambda number: float(f"{number:.12g}"))
kinds = st.sampled_from(["posterior", "duality-rbo", "a.b:C", "mine.py:Mine", "/a dir/c++*^/mine.py:Mine"])
terms = st.builds(
    Term, st.lists(st.builds(Factor, kinds, numbers), min_size=1, max_size=3).map(tuple), st.none() | numbers
)


@given(st.lists(terms, min_size=1, max_size=3))
def test_what_is_written_is_read(written):
    text = "+".join(map(str, written))
    assert read_reward(text) == tuple(written)
    assert read_reward(f" {text} ".replace(":Mine*", ":Mine * ")) == tuple(written)
    assert renamed(text, str) == text


@pytest.mark.parametrize(
    "text",
    ["", "+", "posterior+", "*posterior", "posterior*", "posterior**profile", "posterior^^2", "posterior^",
     "posterior^x", "posterior^0", "posterior^-1", "posterior^inf", "nan*posterior", "0*posterior", "-1*posterior",
     "0.5*", "a:b:c"],
)  # fmt: skip
def test_what_cannot_be_read_is_refused(text):
    with refused("wrong-reward"):
        read_reward(text)


def test_a_weight_of_one_is_a_sum_of_one():
    assert reward_of("1*posterior^0.5", "") == {"posterior^0.5": 1.0}
    assert reward_of("posterior^0.5", "") == "posterior^0.5"
