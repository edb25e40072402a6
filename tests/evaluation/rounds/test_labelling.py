"""Votes weighed by a reward, what is decided on them, and which cells are asked."""

from __future__ import annotations

import contextlib
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cellduality_plugin.evaluation.rounds.labelling import Opinion, Selection, answered, decide, drawn, luck
from cellduality_plugin.examples import Example
from cellduality_plugin.parsing import Answer
from cellduality_plugin.policies.cache import AnswerCache
from cellduality_plugin.scoring import Score, votes_for

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


def test_draws_come_as_often_as_they_are_likely():
    found = Counter(drawn({"B": 0.2, "T": 0.8}, luck(0, "cell", cell)) for cell in range(4000))
    assert found["B"] / 4000 == pytest.approx(0.2, abs=0.02)


def test_the_reward_may_overrule_the_votes():
    said = opinion(T=(6, 0.1), B=(2, 0.9))
    decision = decide(said, "best", 0.0, 0.5)
    assert (decision.label, decision.trace) == ("B", "seen as B")
    assert decision.share == pytest.approx(0.75)
    assert decide(opinion(T=(6, 1.0), B=(2, 1.0)), "best", 0.0, 0.5).label == "T"
    assert decide(said, "drawn", 0.0, 0.8).label == "T"
    # Of equally likely labels the one with more votes, and then the first.
    assert decide(opinion(B=(1, 0.8), T=(2, 0.4)), "best", 0.0, 0.0).label == "T"
    assert decide(opinion(T=(2, 0.4), B=(2, 0.4)), "best", 0.0, 0.0).label == "B"


@pytest.mark.parametrize(
    ("said", "reason"),
    [(Opinion({}, {}, {}), "no_answer"), (opinion(B=(3, 0.0)), "no_evidence"), (opinion(B=(1, 1), T=(1, 1)), "unsure")],
)
def test_a_cell_without_a_label_has_a_reason(said, reason):
    decision = decide(said, "best", 0.6, 0.0)
    assert (decision.label, decision.reason) == ("", reason)


@given(st.floats(0.05, 1.0), st.integers(1, 60))
def test_more_cells_hold_all_that_fewer_did(weight, limit):
    cells = [(task, f"set/{number}") for number in range(50) for task in ("a", "b")]
    few = Selection(cells, weight=weight, limit=limit, seed=3)
    chosen = [cell for cell in cells if cell in few]
    assert len(chosen) == few.count
    assert max(Counter(task for task, _ in chosen).values(), default=0) <= limit
    more = Selection(cells, weight=min(1.0, weight * 2), limit=limit * 2, seed=3)
    assert all(cell in more for cell in chosen)


def ask(path: Path, dies_after: int = 1000) -> tuple[list[str], list[tuple[str, Opinion]]]:
    """Return which of ten cells were asked, and what was found of those; it dies after some."""
    asked, found = list[str](), list[tuple[str, Opinion]]()

    async def ask_one(example: Example) -> Opinion:
        if len(asked) == dies_after:
            raise KeyboardInterrupt
        asked.append(example.id)
        return opinion(B=(1 + int(example.id) % 3, 0.5))

    examples = [Example("t", str(number), {}, {}, (), None) for number in range(10)]
    with AnswerCache(path, {"model": "abc"}) as kept, contextlib.suppress(KeyboardInterrupt):
        found += [(e.id, said) for e, said in answered(ask_one, examples, kept, Opinion, batch=4, total=10)]
    return asked, found


def test_what_was_stopped_goes_on_where_it_was(tmp_path: Path):
    path, (_, whole) = tmp_path / "rows.answers", ask(tmp_path / "other.answers")
    assert len(ask(path, dies_after=9)[0]) == 9
    assert ask(path) == (["8", "9"], whole)
    assert ask(path) == ([], whole)
