"""Who is best, the headlines, and what the page shows of an evaluation."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import get_args

import pytest

from cellduality_plugin.evaluation.generated import point_rows
from cellduality_plugin.evaluation.metrics.registry import BY_CONSTRUCTION
from cellduality_plugin.evaluation.page import results
from cellduality_plugin.evaluation.predictions import Prediction
from cellduality_plugin.evaluation.tables import REAL, best_columns, compared, headlines, sentences, wins_line
from cellduality_plugin.parsing import Failure

LABELS, CELLS = "cell_type_annotation", "conditional_cell_generation"
KINDS = {"SFT": "checkpoint", "GRPO": "checkpoint", "majority": "baseline", "logistic": "baseline", REAL: "real"}


def metric(value, interval=None, better="higher", note=""):
    return {"value": value, "better": better, "interval": interval, "note": note}


def row(better="higher", note="", real=None, **values):
    """One metric by column, of real cells if they have it."""
    values |= {} if real is None else {REAL: real}
    return {name: metric(value, None, better, note) for name, value in values.items()}


def evaluation(task="task", **rows):
    """Metrics of so many rows, each {column: metric}."""
    columns = {
        name: {"kind": kind, "metrics": {f"{task}/{key}": cells[name] for key, cells in rows.items() if name in cells}}
        for name, kind in KINDS.items()
    }
    return {"columns": columns, "spaces": {task: ""}, "settings": {"neighbours": [3]}}


@pytest.mark.parametrize(
    ("cells", "best"),
    [
        (row(SFT=0.5, GRPO=0.7, majority=0.6, real=0.9), {"GRPO"}),
        (row("lower", SFT=0.5, GRPO=0.7, majority=0.6, real=0.1), {"SFT"}),
        (row("like real cells", SFT=0.5, GRPO=1.3, majority=0.9, real=1.0), {"majority"}),
        (row("like real cells", SFT=0.5, GRPO=1.3), set()),
        (row(SFT=0.7, GRPO=0.7, majority=0.6), {"SFT", "GRPO"}),
        (row(SFT=None, GRPO=0.7, majority=0.8), {"majority"}),
        (row(SFT=0.7, GRPO=None, real=0.9), set()),
        ({}, set()),
    ],
)
def test_the_best_of_a_row(cells, best):
    assert best_columns(cells) == best


def test_baselines_that_beat_every_checkpoint():
    found = evaluation(
        accuracy=row(SFT=0.5, GRPO=0.7, majority=0.6, logistic=0.8),
        f1=row(SFT=0.5, GRPO=0.7, majority=0.6, real=1.0),
        error=row("lower", SFT=0.5, GRPO=0.7, majority=0.4, logistic=0.6),
        tie=row(SFT=0.5, GRPO=0.7, majority=0.7),
        alone=row(SFT=0.5, GRPO=0.7, real=0.9),
        unmeasured=row(SFT=None, GRPO=None, majority=0.9),
        spread=row("like real cells", SFT=0.5, GRPO=1.3, majority=0.9, real=1.0),
        validity=row(SFT=0.9) | row(note=BY_CONSTRUCTION, majority=1.0),
    )
    assert wins_line(found) == "A baseline beats every checkpoint in 3 of 5 rows that both have: task 3 of 5."
    even = evaluation(accuracy=row(SFT=0.5, majority=0.5))
    assert wins_line(even) == "No baseline beats every checkpoint in any of 1 rows that both have."


def one(before, after, name="accuracy", task=LABELS, **others):
    [found] = headlines(evaluation(task, **{name: {"SFT": before, "GRPO": after, **others}}))
    return found


@pytest.mark.parametrize(
    ("before", "after", "better", "verdict", "gain"),
    [
        (metric(0.5, [0.4, 0.6]), 0.3, "higher", "worse", -0.2),
        (metric(0.5, [0.4, 0.6]), 0.64, "higher", "within interval", 0.14),
        (metric(0.5, [0.4, 0.6]), 0.65, "higher", "better", 0.15),
        (metric(0.5, [0.4, 0.6], "lower"), 0.3, "lower", "better", 0.2),
        (metric(0.5, [0.4, 0.6], "lower"), 0.7, "lower", "worse", -0.2),
        (metric(0.5, None), 0.7, "higher", "within interval", 0.2),
        (metric(0.5, [0.4, 0.6]), 0.50001, "higher", "unchanged", 0.00001),
        (metric(None), 0.7, "higher", "–", None),
    ],
)
def test_a_change_counts_beyond_what_both_intervals_allow_together(before, after, better, verdict, gain):
    found = one(before, metric(after, [after - 0.1, after + 0.1], better))
    assert found["verdict"] == verdict
    assert found["gain"] == (None if gain is None else pytest.approx(gain))
    assert one(before, metric(after, None, better))["outside"] is False


def test_the_best_of_a_headline_and_whether_a_baseline_wins():
    for majority, logistic, better, *expected in [
        (0.6, None, "higher", {"after"}, "majority", False),
        (0.2, 0.8, "higher", {"baseline"}, "logistic", True),
        (0.6, 0.8, "lower", {"before"}, "majority", True),
        (None, None, "higher", {"after"}, None, False),
    ]:
        before, after, *rivals = (metric(value, better=better) for value in (0.5, 0.7, majority, logistic))
        found = one(before, after, majority=rivals[0], logistic=rivals[1])
        assert [found["best"], (found["baseline"] or [None])[0], found["beaten"]] == expected
    assert one(metric(0.5), metric(0.5))["best"] == {"before", "after"}


def test_the_summary_opens_with_what_changed_and_names_baselines_that_win():
    cells = {"SFT": metric(0.5, [0.4, 0.6]), "GRPO": metric(0.7, [0.6, 0.8]), "logistic": metric(0.8)}
    change, baselines = sentences(headlines(evaluation(LABELS, accuracy=cells)), ["SFT", "GRPO"])
    assert "cell type annotation (accuracy 0.500 to 0.700)" in change
    assert "logistic in cell type annotation" in baselines
    found = evaluation(LABELS, accuracy={"SFT": metric(0.5)})
    del found["columns"]["GRPO"]
    [alone] = headlines(found)
    assert (alone["before"], alone["after"]["value"], alone["verdict"]) == (None, 0.5, "–")
    assert sentences([alone], ["SFT"]) == []


def test_the_last_checkpoint_is_held_against_sft_or_the_one_before_by_the_first_number_of_neighbours():
    for names, pair in {"SFT refit GRPO": "SFT GRPO", "base SFT": "base SFT", "a b c": "b c", "a": "a", "": ""}.items():
        columns = {name: {"kind": "checkpoint"} for name in names.split()} | {"majority": {"kind": "baseline"}}
        assert compared({"columns": columns}) == pair.split()
    both = {"SFT": metric(0.1), "GRPO": metric(0.2)}
    assert one(*both.values(), name="knn_agreement_3", task=f"{CELLS}@ood")["metric"] == "k-NN agreement (3) ↑"
    assert headlines(evaluation(CELLS, knn_agreement_5=both)) == []
    assert headlines(evaluation(LABELS, accuracy={**both, "GRPO": metric(None)})) == []


def test_a_table_a_section_and_what_no_column_has_is_told_once_with_its_reason(run_of_two):
    measured = json.loads((run_of_two / "metrics.json").read_text())
    for column in measured["columns"].values():
        for key, cell in column["metrics"].items():
            if "@ood/scfid" in key:
                cell |= {"value": None, "interval": None, "note": "mean over 0 of 2 types; more"}
    tables = {table["name"]: table for table in results.section_tables(measured)}
    assert len(tables) == len(measured["spaces"])
    for table in tables.values():
        assert all(set(cells) <= set(table["columns"]) for _, cells, _ in table["rows"])
        assert all(winners for name, _, winners in table["rows"] if name.startswith(("accuracy", "diversity")))
        assert list(table["how"]) == [name for name, _, _ in table["rows"]]
        assert all("Range" in told and "n = " in told for told in table["how"].values())
    assert "n = 60 (GRPO)" in tables["conditional cell generation"]["how"]["k-NN agreement (5) ↑"]
    table = tables["perturbation response generation, held-out cell types"]
    assert table["unmeasured"] == {"mean over 0 of 2 types": ["scFID", "scFID, shrunk"]}
    assert not any("scFID" in row for row, _, _ in table["rows"])
    counts = [[3, 0, 1, 1], [0, 0, 0, 0], [0, 0, 0, 2]]  # nobody has or answers the second label
    matrix = {"cell_type_annotation": {"labels": ["B", "NK", "T"], "counts": counts}}
    [found] = results.confusions({"columns": {"SFT": {"confusion": matrix}}}, ["SFT"])["cell type annotation"]
    assert found["labels"] == ["B", "T"]
    assert found["rows"] == [("B", 5, [(3, 0.6), (1, 0.2), (1, 0.2)]), ("T", 2, [(0, 0.0), (0, 0.0), (2, 1.0)])]
    assert found["read"] == (4, 7)


def labelled(number, answer, similarity, gold="B"):
    row = Prediction(f"set/{number}", LABELS, 0, ("G1", "G2"), gold, f"<answer>{answer}</answer>", answer, "")
    return replace(row, rebuilt=("G1",), similarity=similarity, validity=1.0)


MADE = [
    *(labelled(number, "B", similarity) for number, similarity in enumerate((0.4, 0.2, 0.6))),
    *(labelled(number, "T", similarity) for number, similarity in enumerate((0.5, 0.1), start=3)),
    labelled(5, "NK", 0.9, gold="T"),
]


@pytest.fixture(scope="module")
def questions(sections):
    return {key: section.rows for key, section in sections.items()}


def test_of_each_section_the_best_the_middle_and_the_worst(questions, answered):
    sections_of = results.by_section(answered, questions)
    assert list(sections_of) == sorted(questions)
    found = [each["prediction"] for each in results.examples(sections_of, questions)]
    assert len(found) == 3 * len(questions)
    for own in sections_of.values():
        rewards = {p.reward for p in found if p in own}
        assert {max(p.reward for p in own), min(p.reward for p in own)} <= rewards
    assert set(results.by_section(answered, {})) == {p.task for p in answered}


def test_wrong_labels_by_how_often_and_what_they_are_paid_beside_right_ones():
    [found] = results.wrong_labels({LABELS: MADE})
    assert (found["wrong"], found["of"], found["right_reward"]) == (3, 6, pytest.approx(0.4))
    assert found["confused"] == [
        {"gold": "B", "answer": "T", "number": 2, "of": 5, "reward": pytest.approx(0.3), "as_right": 0.5},
        {"gold": "T", "answer": "NK", "number": 1, "of": 1, "reward": pytest.approx(0.9), "as_right": 1.0},
    ]
    lost = replace(MADE[0], id="set/9", answer=None, failure="no_answer", similarity=0.0)
    assert [(each["wrong"], each["of"]) for each in results.wrong_labels({LABELS: [lost, MADE[0]]})] == [(0, 2)]
    assert results.wrong_labels({f"{LABELS}@far": MADE}) == []


def test_a_content_dual_of_a_wrong_label_or_of_a_cell_that_is_another_is_hollow(sections, questions, answered):
    [found] = results.hollow({LABELS: MADE}, [], 5, {})
    assert (found["number"], found["of"]) == (2, 4)  # similarity of at least 0.4, the median of right ones
    assert [each["prediction"].id for each in found["traces"]] == ["set/5", "set/3"]
    assert results.hollow({LABELS: [MADE[5]]}, [], 5, {}) == [], "without a right label nothing says what is content"

    def hollow(predictions):
        rows = [row for row in point_rows({"GRPO": predictions}, [sections[CELLS]]) if row["column"] == "GRPO"]
        return results.hollow({CELLS: predictions}, rows, 5, questions)

    own = sections[CELLS].own(answered)
    assert [(each["number"], each["of"]) for each in hollow(own)] == [(0, sum(p.similarity == 1 for p in own))]
    cells = {str(p.unknown): p.answer for p in own}
    [found] = hollow([replace(p, answer=cells["T"], similarity=1.0) if p.unknown == "B" else p for p in own])
    assert found["number"] == sum(p.unknown == "B" for p in own) > 0
    assert {each["title"] for each in found["traces"]} == {"asked for B, nearest to T"}
    assert {each["asked"]["cell type"] for each in found["traces"]} == {"B"}


def test_causes_are_counted_by_checkpoint_with_the_last_one_s_example():
    def lost(cause, response):
        return replace(MADE[0], answer=None, failure=cause, response=response)

    cut = replace(MADE[1], dual_failure="unclosed", dual_response="long " * 400 + "end")
    grpo = [lost("no_answer", "<b>grpo"), lost("no_answer", "later"), cut]
    found = results.unreadable({"SFT": [lost("no_answer", "sft"), lost("empty", "nothing"), MADE[0]], "GRPO": grpo})
    assert [(each["cause"], *each["counts"].values()) for each in found] == [
        ("no_answer", 1, 2), ("dual: unclosed", 0, 1), ("empty", 1, 0),
    ]  # fmt: skip
    assert found[0]["example"] == "<b>grpo"
    assert (found[1]["example"][:5], found[1]["example"][-3:], len(found[1]["example"]) < 700) == ("long ", "end", True)
    assert results.unreadable({"SFT": [MADE[0]]}) == results.unreadable({}) == []
    assert {*get_args(Failure)} - {""} <= results.CAUSES.keys()
