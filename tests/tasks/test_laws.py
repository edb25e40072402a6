"""What every dual pair must obey; a new pair in TASKS is tested without a new line here.

A change of wording is a change of the data, so it has to be seen. To accept one: UPDATE_GOLDEN=1 pytest tests/tasks
"""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cellduality_plugin.cell_sentences import Cell
from cellduality_plugin.examples import Example
from cellduality_plugin.parsing import Genes, OneOf
from cellduality_plugin.tasks import TASKS, DualTask
from tests.conftest import GENES

GOLDEN = Path(__file__).parents[1] / "golden"


def test_what_is_true_of_a_row_is_written_read_and_scored_as_such(task, example, vocabulary, cell):
    assert TASKS[task.name] is task
    answer = task.parse_answer(task.answer_response(example.gold), vocabulary)
    assert (answer.value, task.validity(example, answer)) == (example.gold, 1.0)
    assert task.parse_rebuilt(task.rebuilt_response(example.unknown), vocabulary).value == example.unknown
    assert task.similarity(example.unknown, example.unknown) == 1.0
    assert task.similarity(example.unknown, "" if isinstance(task.unknown, OneOf) else ()) == 0.0
    assert Example.from_label(example.to_label()) == example
    assert task.example(cell, hidden=0.25, labelled=True, rng=np.random.default_rng(0)) == example, "seeded"


def test_with_everything_hidden_no_gene_of_the_cell_is_in_the_dual_prompt(task, example, vocabulary):
    whole = task.hide(example, 1.0)
    assert task.hide(whole, 1.0) == whole
    assert whole.inputs == example.inputs
    if isinstance(task.unknown, Genes):
        assert whole.unknown == example.inputs["cell"]
        words = set(task.dual_prompt(whole.known, whole.gold, vocabulary).split())
        assert words & set(vocabulary.genes) == set(whole.known.get("control", ())), "of its control, all are shown"
        assert str(len(whole.unknown)) in words
    else:
        assert whole == example, "what a dual of a written cell rebuilds is no part of a cell"


@pytest.mark.parametrize(
    ("naming", "writing"),
    [
        ("cell_type_annotation", "conditional_cell_generation"),
        ("perturbation_identification", "perturbation_response_generation"),
    ],
)
def test_naming_a_label_is_undone_in_the_words_of_the_task_that_writes_a_cell(naming, writing, cell, vocabulary):
    both, rng = (TASKS[naming], TASKS[writing]), np.random.default_rng(0)
    named, written = (task.example(cell, hidden=1.0, labelled=True, rng=rng) for task in both)
    undone = both[0].dual_prompt(named.known, named.gold, vocabulary)
    assert undone == both[1].primal_prompt(written.inputs, vocabulary)
    asked_back = both[1].dual_prompt(written.known, written.gold, vocabulary)
    assert asked_back == both[0].primal_prompt(named.inputs, vocabulary)
    assert (named.unknown, named.gold) == (written.gold, written.unknown)
    assert both[0].rebuilt_response(named.unknown) == both[1].answer_response(written.gold)


@given(share=st.floats(0.01, 0.99))
def test_another_split_hangs_on_the_row_and_on_nothing_else(share, cell):
    task = TASKS["drug_sensitivity_prediction"]
    rows = [task.example(cell, hidden=h, labelled=False, rng=np.random.default_rng(0)) for h in (0.25, 1.0)]
    first, again = (task.hide(row, share) for row in rows)
    assert first == again
    assert sorted((*first.known["observed"], *first.unknown)) == sorted(cell.genes)
    assert first.known["drug"] == cell.condition["drug"]


@pytest.mark.parametrize("hidden", [0.25, 1.0])
def test_an_unlabelled_row_holds_nothing_that_is_gold(task, cell, hidden):
    """Every column and every gene of the cell is a word of its own; only what the task needs may turn up."""
    planted = replace(
        cell,
        obs={column: f"planted-{column}" for column in cell.obs},
        condition={column: f"planted-{column}" for column in cell.condition},
    )
    bare = planted.stripped(task.needs)
    assert (bare.id, bare.genes, bool(bare.control)) == (cell.id, cell.genes, "control" in task.needs)
    assert {*bare.obs, *bare.condition} == set(task.needs) - {"control"}
    row = task.example(bare, hidden=hidden, labelled=False, rng=np.random.default_rng(0))
    assert row.gold is None
    told = row.to_label()
    assert {c for c in (*cell.obs, *cell.condition) if f"planted-{c}" in told} == set(task.needs) - {"control"}
    if isinstance(task.answer, Genes):
        gold = set(cell.genes) - set(cell.control)
        assert gold
        assert not [gene for gene in gold if json.dumps(gene) in told]


def test_nothing_hidden_and_no_trace_reaches_the_dual_prompt_but_through_the_answer(task, example, vocabulary):
    answers = vocabulary.labels[task.answer.kind] if isinstance(task.answer, OneOf) else [example.gold]
    for label in answers:
        text = task.answer_response(label, trace="whispered-secret " + json.dumps(example.unknown))
        answer = task.parse_answer(text, vocabulary).value
        assert answer == label
        words = set(task.dual_prompt(example.known, answer, vocabulary).split())
        assert "whispered-secret" not in words
        allowed = set(example.known.get("control", ())) | (set() if isinstance(answer, str) else set(answer))
        assert not (set(example.unknown if isinstance(example.unknown, tuple) else ()) - allowed) & words


def test_the_unknown_part_reaches_the_dual_prompt_only_as_one_of_its_set(task, example, vocabulary):
    """Where x_u is a label, the dual's question is the same whichever label it is."""
    if isinstance(task.unknown, OneOf):
        lines = task.dual_prompt(example.known, example.gold, vocabulary).splitlines()
        assert [line for line in lines if line.startswith("- ")] == [
            f"- {x}" for x in vocabulary.labels[task.unknown.kind]
        ]
        assert [line for line in lines if example.unknown in line] == [f"- {example.unknown}"]


@pytest.mark.parametrize("name", sorted(TASKS))
@given(genes=st.lists(st.sampled_from(GENES), min_size=2, unique=True).map(tuple), seed=st.integers(0, 99))
def test_any_cell_makes_a_whole_example(name, genes, seed):
    task: DualTask = TASKS[name]
    known = {"cell_type": "T", "exposure": "exposed", "sensitivity": "resistant"}
    condition = {"perturbation": "knockdown LYZ", "drug": "erlotinib"}
    cell = Cell("x", genes, known, condition, control=genes[::-1])
    row = task.example(cell, hidden=0.5, labelled=True, rng=np.random.default_rng(seed))
    if isinstance(row.unknown, tuple):
        assert set(row.unknown).isdisjoint(row.known["observed"])
    assert task.similarity(row.unknown, row.unknown) == 1.0


def _compare(name: str, text: str) -> None:
    path = GOLDEN / f"{name}.txt"
    if os.environ.get("UPDATE_GOLDEN") == "1":
        path.write_text(text + "\n", encoding="utf-8")
    assert text + "\n" == path.read_text(encoding="utf-8")


def test_the_wording_is_the_agreed_one(task, example, vocabulary):
    asked = task.primal_prompt(example.inputs, vocabulary)
    _compare(f"{task.name}.primal", f"{asked}\n-----\n{task.answer_response(example.gold)}")
    whole = task.hide(example, 1.0)
    for name, row in {"dual": example, "whole_dual": whole}.items():
        if name != "dual" and row == example:
            continue  # the dual of a written cell sees all of it
        asked = task.dual_prompt(row.known, row.gold, vocabulary)
        _compare(f"{task.name}.{name}", f"{asked}\n-----\n{task.rebuilt_response(row.unknown)}")


def test_prompts_of_one_direction_share_their_opening(task, cell, vocabulary):
    """The part that changes from cell to cell comes last, so that the engine's prefix cache holds the rest."""
    length = {"length": str(len(cell.genes))}
    this = {"cell": cell.genes, "control": cell.control, **cell.obs, **cell.condition, **length}
    that = {"cell": cell.genes[::-1], "control": cell.control[::-1], "cell_type": "T", **length}
    that |= {"drug": "erlotinib", "perturbation": "control"}
    prompts = [task.primal_prompt(inputs, vocabulary) for inputs in (this, that)]
    shared = next(i for i, pair in enumerate(zip(*prompts, strict=False)) if len(set(pair)) > 1)
    assert shared > 0.6 * (len(prompts[0]) - len(" ".join(cell.genes)))
