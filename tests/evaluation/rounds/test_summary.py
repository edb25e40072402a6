"""The summary of pseudo-labels, and when it is an alarm."""

from __future__ import annotations

from collections import Counter

import pytest

from cellduality_plugin.evaluation.rounds.labelling import Decision, Opinion
from cellduality_plugin.evaluation.rounds.summary import Tally, entropy, sentence

EVEN, RARE = Counter({"B": 20, "NK": 20, "T": 20}), Counter({"B": 30, "NK": 30, "T": 1})


def tally(labels: dict[str, int], labelled: Counter[str] = EVEN) -> Tally:
    found = Tally(labelled, 3)
    for label, count in labels.items():
        for _ in range(count):
            decision = Decision(label, 1.0) if label else Decision("", reason="no_answer")
            found.add(Opinion({label: 8}, {label: 1.0}, {}), decision)
    return found


def test_what_changed_is_counted_among_cells_that_had_a_label():
    found, said = Tally(EVEN, 3), Opinion({"B": 5, "T": 2}, {"B": 0.1, "T": 0.9}, {})
    for previous in ("T", "B", None):
        found.add(said, Decision("T", 0.78), previous, "T")
    found.add(Opinion({}, {}, {}), Decision("", reason="no_answer"), "B", "T")
    summary = found.summary()
    assert (summary["compared"], summary["flip_rate"], summary["reasons"]) == (2, 0.5, {"no_answer": 1})
    assert (summary["cells"], summary["labelled_by_policy"], summary["answers"]) == (4, 3, 21)
    assert (summary["accuracy"], summary["accuracy_of_votes"], summary["overruled_votes"]) == (1.0, 0.0, 1.0)
    assert summary["share_of_likeliest"] == pytest.approx(0.78)
    line = sentence("a_task", summary)
    assert line.startswith("pseudo-labels of a_task: 3 of 4 cells (1 no_answer), entropy 0.00 (labelled cells 1.00)")
    assert line.endswith("50 % changed since, 100 % other than most votes, 100 % right")
    assert tally({"B": 3}).summary().keys() == summary.keys() - {"accuracy", "accuracy_of_votes"}


@pytest.mark.parametrize(
    ("labels", "labelled", "alarms"),
    [
        ({"B": 30, "NK": 34, "T": 28}, EVEN, []),
        ({"B": 95, "NK": 1, "T": 4}, EVEN, ["labels have an entropy of 0.20, those of labelled cells 1.00"]),
        ({"B": 30, "NK": 30}, EVEN, ["no cell is called T"]),
        ({"B": 30, "NK": 30}, RARE, []),
        ({"": 1}, EVEN, ["no cell was given a label"]),
    ],
)
def test_labels_that_are_too_much_alike_or_gone_are_an_alarm(labels, labelled, alarms):
    assert tally(labels, labelled).alarms() == alarms


def test_entropy_is_a_share_of_the_most_there_could_be():
    assert entropy({"B": 1, "T": 1}, 4) == pytest.approx(0.5)
    assert entropy({"B": 7, "T": 0}, 2) == entropy({}, 2) == entropy({"B": 7}, 1) == 0.0
