"""Votes weighed by a reward and what is decided on them; their summary, and which round is kept."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cellduality_plugin.evaluation.report import FORMAT, VERSION
from cellduality_plugin.evaluation.rounds.labelling import Decision, Opinion, chosen, decide, drawn, luck
from cellduality_plugin.evaluation.rounds.summary import entropy, read_round, sentence, summary
from cellduality_plugin.parsing import Answer
from cellduality_plugin.scoring import Score, votes_for
from tests.refused import refused

LABELS = ("B", "NK", "T")
VOTES = st.dictionaries(st.sampled_from(LABELS), st.tuples(st.integers(1, 8), st.floats(0.0, 1.0)), min_size=1)


def opinion(**counted: tuple[int, float]) -> Opinion:
    return Opinion(
        {label: votes for label, (votes, _) in counted.items()},
        {label: reward for label, (_, reward) in counted.items()},
        {label: f"seen as {label}" for label in counted},
    )


@given(VOTES, st.floats(0.0, 1.0, exclude_max=True))
def test_the_shares_are_those_of_a_group_that_shares_its_evidence_by_votes(counted, number):
    shares = opinion(**counted).shares()
    answers = [(label, reward) for label, (votes, reward) in counted.items() for _ in range(votes)]
    scores = [Score(reward, {}, answer=Answer(label), similarity=reward) for label, reward in answers]
    if not any(reward for _, reward in answers):
        assert shares == {}
        return
    assert list(shares) == sorted(counted)
    for score in scores:
        assert shares[str(score.answer.value)] == pytest.approx(votes_for(score, scores))
    assert shares[drawn(shares, number)] > 0


DECISIONS = {
    "the reward overrules the votes": (opinion(T=(6, 0.1), B=(2, 0.9)), "best", 0.0, "B"),
    "without a judge they count alone": (opinion(T=(6, 1.0), B=(2, 1.0)), "best", 0.0, "T"),
    "drawn": (opinion(T=(6, 0.1), B=(2, 0.9)), "drawn", 0.0, "T"),
    "of equals the one with more votes": (opinion(B=(1, 0.8), T=(2, 0.4)), "best", 0.0, "T"),
    "then the first": (opinion(T=(2, 0.4), B=(2, 0.4)), "best", 0.0, "B"),
    "no_answer": (Opinion({}, {}, {}), "best", 0.0, ""),
    "no_evidence": (opinion(B=(3, 0.0)), "best", 0.0, ""),
    "unsure": (opinion(B=(1, 1), T=(1, 1)), "best", 0.6, ""),
}


@pytest.mark.parametrize("name", DECISIONS)
def test_a_cell_has_a_label_with_its_reasoning_or_a_reason_why_not(name):
    said, choice, keep_above, label = DECISIONS[name]
    decision = decide(said, choice, keep_above, 0.8)
    trace, reason = (f"seen as {label}", "") if label else ("", name)
    assert (decision.label, decision.trace, decision.reason) == (label, trace, reason)
    assert decision.share == pytest.approx(max(said.shares().values(), default=0.0))
    assert (decision.answers, decision.voted) == (
        sum(said.votes.values()),
        max(said.votes, key=said.votes.get, default=""),
    )


def test_draws_come_as_often_as_they_are_likely():
    found = Counter(drawn({"B": 0.2, "T": 0.8}, luck(0, "cell", cell)) for cell in range(4000))
    assert found["B"] / 4000 == pytest.approx(0.2, abs=0.02)


@given(st.floats(0.05, 1.0), st.integers(1, 60))
def test_more_cells_hold_all_that_fewer_did(weight, limit):
    cells = [(task, f"set/{number}") for number in range(50) for task in ("a", "b")]
    few = chosen(cells, weight=weight, limit=limit, seed=3)
    assert max(Counter(task for task, _ in few).values(), default=0) <= limit
    assert few <= chosen(cells, weight=min(1.0, weight * 2), limit=limit * 2, seed=3) <= {*cells}


LABELLING = "cell_type_annotation"
KEY = f"{LABELLING}/accuracy"
EVEN, RARE = Counter({"B": 20, "NK": 20, "T": 20}), Counter({"B": 30, "NK": 30, "T": 1})


def test_what_changed_is_counted_among_cells_that_had_a_label():
    given = Decision("T", 0.78, answers=7, voted="B")
    decisions = {("t", cell): given for cell in "abc"} | {("t", "d"): Decision("", reason="no_answer")}
    previous, truth = {("t", "a"): "T", ("t", "b"): "B", ("t", "d"): "B"}, dict.fromkeys(decisions, "T")
    found = summary(decisions, EVEN, 3, previous, truth)
    assert (found["compared"], found["flip_rate"], found["reasons"]) == (2, 0.5, {"no_answer": 1})
    assert (found["cells"], found["labelled_by_policy"], found["answers"]) == (4, 3, 21)
    assert (found["accuracy"], found["accuracy_of_votes"], found["overruled_votes"]) == (1.0, 0.0, 1.0)
    assert found["share_of_likeliest"] == pytest.approx(0.78)
    assert "3 of 4 cells (1 no_answer), entropy 0.00 (labelled cells 1.00), 50 %" in sentence("a_task", found)
    assert summary(decisions, EVEN, 3, {}, {}).keys() == found.keys() - {"accuracy", "accuracy_of_votes"}


@pytest.mark.parametrize(
    ("labels", "labelled", "alarms"),
    [
        ({"B": 30, "NK": 34, "T": 28}, EVEN, []),
        ({"B": 95, "NK": 1, "T": 4}, EVEN, ["labels have an entropy of 0.20, those of labelled cells 1.00"]),
        ({"B": 30, "NK": 30}, EVEN, ["no cell is called T"]),
        ({"B": 30, "NK": 30}, RARE, []),
        ({"": 1}, EVEN, ["no cell was given a label"]),
        ({}, EVEN, []),
    ],
)
def test_labels_that_are_too_much_alike_or_gone_are_an_alarm(labels, labelled, alarms):
    decisions = {("t", str(place)): Decision(label) for place, label in enumerate(Counter(labels).elements())}
    assert summary(decisions, labelled, 3, {}, {})["alarms"] == alarms
    assert entropy({"B": 1, "T": 1}, 4) == pytest.approx(0.5), "a share of the most there could be"
    assert entropy({"B": 7, "T": 0}, 2) == entropy({}, 2) == entropy({"B": 7}, 1) == 0.0


def write_round(folder: Path, values: dict[str, float], split: str = "validation", columns: int = 1) -> Path:
    found = {key: {"value": value, "better": "lower" if "error" in key else "higher"} for key, value in values.items()}
    made = {f"round-{place}": {"kind": "checkpoint", "metrics": found} for place in range(columns)}
    baseline = {"majority": {"kind": "baseline", "metrics": {KEY: {"value": 1.0, "better": "higher"}}}}
    content = {"format": FORMAT, "version": VERSION, "split": split, "columns": made | baseline}
    (folder / "validation").mkdir(parents=True)
    (folder / "validation" / "metrics.json").write_text(json.dumps(content))
    return folder


def test_headlines_of_cells_like_those_that_train_are_what_counts(tmp_path: Path):
    values = {KEY: 0.6, "conditional_cell_generation/knn_agreement_10": 0.8}
    others = {f"{LABELLING}@ood/accuracy": 1.0, f"{LABELLING}/dual_similarity": 0.9}
    others["perturbation_response_generation/shift_error"] = 3.0
    folder = write_round(tmp_path / "2", values | others)
    summary = {"flip_rate": 0.25, "entropy": 0.9, "alarms": [], "cells": 7}
    (folder / "pseudo.json").write_text(json.dumps({"tasks": {LABELLING: summary}}))
    labels = {"flip_rate": {LABELLING: 0.25}, "entropy": {LABELLING: 0.9}, "alarms": {LABELLING: []}}
    assert read_round(folder) == {"round": 2, "score": pytest.approx(0.7), "metrics": values, **labels}
    assert read_round(write_round(tmp_path / "1", {KEY: 0.5}))["entropy"] == {}


@pytest.mark.parametrize(
    ("how", "code"), [({"split": "test"}, "not-a-round"), ({"columns": 2}, "not-a-round"), ({}, "no-headline")]
)
def test_test_cells_choose_nothing_nor_does_a_round_without_a_headline(how, code, tmp_path: Path):
    with refused(code):
        read_round(write_round(tmp_path / "1", {f"{LABELLING}@ood/accuracy": 1.0}, **how))
