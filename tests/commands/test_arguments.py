"""Values with names, and rewards, on the command line: read as they were meant, or refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cellduality_plugin.commands.arguments import by_name, folders, pairs, reward_of
from cellduality_plugin.reward_names import Factor, Term, read_reward, renamed
from tests.refused import refused

words = st.text(st.characters(codec="ascii", categories=["L", "N"], include_characters="_.-/:"), min_size=1)


@given(st.dictionaries(words, words))
def test_pairs_are_read_as_they_are_written(values: dict[str, str]) -> None:
    assert pairs(",".join(f"{key}={value}" for key, value in values.items()), "--flag") == values
    assert pairs(" , ".join(f"{key} = {value}" for key, value in values.items()), "--flag") == values


def test_a_key_may_hold_what_parts_it_from_its_value() -> None:
    assert pairs("lr=1e-5/pair.py:Pair=3", "--task") == {"lr=1e-5/pair.py:Pair": "3"}
    assert pairs("a,,b=2,", "--task", "") == {"a": "", "b": "2"}
    assert pairs("", "--task") == {}


@pytest.mark.parametrize("text", ["a", "=1", "a=1,b", "a=1,=2"])
def test_what_has_no_name_or_no_value_is_refused(text: str) -> None:
    with refused("malformed") as error:
        pairs(text, "--flag")
    assert error.value.where == "--flag"


def test_numbers_by_name_are_for_those_of_this_run() -> None:
    assert by_name("a=1,c=3", ["a", "b"], "--flag", known={"a", "b", "c"}) == {"a": 1}
    assert by_name("", ["a", "b"], "--flag") == {}
    assert by_name("cells/my.h5ad=7", ["cells/my.h5ad"], "--flag") == {"cells/my.h5ad": 7}


@pytest.mark.parametrize("text", ["many", "-1", "1.5", "²", "1e3", "a=", "a=many", "a=-1", "a=1,c=1", "a=1,2"])
def test_what_is_no_number_or_of_no_set_is_refused(text: str) -> None:
    with refused("malformed") as error:
        by_name(text, ["a", "b"], "--flag", known={"d"})
    assert "a, b" in error.value.hint


def test_a_folder_has_a_name_and_may_hold_any_character() -> None:
    assert folders(["SFT=runs/lr=1e-5, a b"], "--model") == {"SFT": Path("runs/lr=1e-5, a b")}
    for item in ("SFT", "=x", "SFT=", ""):
        with refused("malformed"):
            folders([item], "--model")


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
