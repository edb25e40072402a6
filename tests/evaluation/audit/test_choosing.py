"""What a task is trained with, from findings made by hand."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cellduality_plugin.config import Config
from cellduality_plugin.evaluation.audit.choosing import AS_CHEAP, choices, choose
from cellduality_plugin.evaluation.audit.contenders import Contender

HOW = {"seed": 0, "resamples": 200}


def found(reward, scores, grade="agrees", *, requests=1.0, tokens=100.0, **settings):
    contender = Contender(reward, **settings)
    return {
        "task": "t",
        "reward": contender.title,
        "contender": {"reward": contender.reward, "hidden": contender.hidden, "traces": contender.traces},
        "score_of_cells": scores,
        "cost": {"requests": requests, "prefilled": tokens, "decoded": 0.0},
        "verdict": {"grade": grade, "words": f"words of {reward}"},
    }


def right(of, cells=100):
    """As many of the cells right as told."""
    return [float(place < of) for place in range(cells)]


def reward_of(*findings):
    contender = choose(findings, **HOW).contender
    return contender and contender.reward


def test_the_best_of_those_that_agree_is_chosen():
    worse, best = found("a", right(60)), found("b", right(80), hidden=1.0, traces=4)
    chosen = choose([worse, best, found("c", right(95), "unclear"), found("d", right(99), "harmful")], **HOW)
    assert chosen.contender == Contender("b", 1.0, 4)
    assert chosen.why == "words of b"


@pytest.mark.parametrize("grades", [[], ["unclear"], ["unclear", "harmful", "no signal", "unclear"]])
def test_a_task_for_which_none_agrees_stays_out(grades):
    chosen = choose([found(str(n), right(90), grade) for n, grade in enumerate(grades)], **HOW)
    assert chosen.contender is None
    assert chosen.as_dict()["contender"] is None
    assert chosen.as_dict()["reward"] == ""
    assert all(grade in chosen.why for grade in grades)
    assert ("2 unclear" in chosen.why) == (len(grades) == 4)


def test_within_the_noise_the_policy_s_own_dual_is_preferred():
    own = found("posterior", right(79))
    statistical = found("profile", right(80), requests=0.0, tokens=0.0)
    assert reward_of(own, statistical) == reward_of(statistical, own) == "posterior"
    assert (
        "profile scores 0.800 to 0.790, within the noise: this one asks the policy's own dual"
        in choose([own, statistical], **HOW).why
    )


def test_beyond_the_noise_it_is_not():
    assert reward_of(found("posterior", right(60)), found("profile", right(80), requests=0.0, tokens=0.0)) == "profile"


def test_of_two_that_cannot_be_told_apart_the_cheaper_is_chosen_and_of_two_as_cheap_the_better():
    dear, cheap = found("posterior", right(80), traces=4, tokens=500.0), found("posterior", right(79))
    assert choose([dear, cheap], **HOW).contender == Contender("posterior")
    assert "this one takes fewer tokens" in choose([dear, cheap], **HOW).why
    as_cheap = found("better", right(80), tokens=100.0 * AS_CHEAP)
    assert reward_of(as_cheap, cheap) == "better"


def test_the_difference_is_paired_cell_by_cell():
    # Half of the cells are right by either; a twentieth by the second alone, and none by the first alone.
    first, second = right(50), right(55)
    assert reward_of(found("a", first), found("b", second, tokens=900.0)) == "b"
    # The same numbers, but of other cells: 45 against 50 that only one of them has right.
    other = [float(place >= 45) for place in range(100)]
    assert reward_of(found("a", first), found("b", other, tokens=900.0)) == "a"


def test_cells_without_an_answer_do_not_count():
    assert reward_of(found("a", [1.0, None, 0.0]), found("b", [None, None, 1.0])) in ("a", "b")
    assert reward_of(found("a", [1.0, None]), found("b", [None, 0.5])) == "a"


shares = st.lists(st.integers(0, 4).map(lambda n: n / 4), min_size=5, max_size=5)
grades = st.sampled_from(["agrees", "unclear", "harmful", "no signal"])
contenders = st.builds(
    found,
    st.sampled_from("abcdef"),
    shares,
    grades,
    requests=st.sampled_from([0.0, 1.0]),
    tokens=st.integers(0, 500).map(float),
)


@given(st.lists(contenders, max_size=5))
def test_what_is_chosen_agrees(findings):
    chosen = choose(findings, seed=0, resamples=20)
    agreed = [each["contender"] for each in findings if each["verdict"]["grade"] == "agrees"]
    assert (chosen.contender is None) == (not agreed)
    assert chosen.contender is None or chosen.as_dict()["contender"] in agreed


def test_the_truth_itself_is_no_choice_and_what_was_not_audited_keeps_what_it_has():
    tasks = {name: {"pair": f"own.py:{name}", "reward": "likelihood"} for name in ("t", "u")}
    content = {"settings": HOW, "findings": [found("oracle", right(100)), found("posterior", right(60))]}
    chosen = choices(content, Config.read({"tasks": tasks}))
    assert [each.contender and each.contender.reward for each in chosen.values()] == ["posterior", "likelihood"]
    assert "could not be audited" in chosen["u"].why
    chosen = choices({**content, "findings": content["findings"][:1]}, Config.read({"tasks": tasks}))
    assert chosen["t"].contender is None
