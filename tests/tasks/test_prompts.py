"""Golden prompts: a change of wording is a change of the data, so it has to be seen.

To accept a change on purpose: UPDATE_GOLDEN=1 pytest tests/tasks/test_prompts.py
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cellduality_plugin.tasks import TASKS

GOLDEN = Path(__file__).parents[1] / "golden"


def _compare(name: str, text: str) -> None:
    path = GOLDEN / f"{name}.txt"
    if os.environ.get("UPDATE_GOLDEN") == "1":
        path.write_text(text + "\n", encoding="utf-8")
    assert text + "\n" == path.read_text(encoding="utf-8")


@pytest.mark.parametrize("direction", ["primal", "dual"])
def test_the_wording_is_the_agreed_one(task, example, vocabulary, direction):
    if direction == "primal":
        prompt = task.primal_prompt(example.inputs, vocabulary)
        response = task.answer_response(example.gold)
    else:
        prompt = task.dual_prompt(example.known, example.gold, vocabulary)
        response = task.rebuilt_response(example.unknown)
    _compare(f"{task.name}.{direction}", f"{prompt}\n-----\n{response}")


def test_the_wording_of_a_dual_that_sees_nothing_is_the_agreed_one(task, example, vocabulary):
    whole = task.hide(example, 1.0)
    prompt = task.dual_prompt(whole.known, whole.gold, vocabulary)
    if whole == example:
        return  # the dual of a written cell sees all of it
    _compare(f"{task.name}.whole_dual", f"{prompt}\n-----\n{task.rebuilt_response(whole.unknown)}")


def test_prompts_of_one_direction_share_their_opening(task, cell, vocabulary):
    """The part that changes from cell to cell comes last, so that the engine's prefix cache holds the rest."""
    length = {"length": str(len(cell.genes))}
    this = {"cell": cell.genes, "control": cell.control, **cell.obs, **cell.condition, **length}
    that = {"cell": cell.genes[::-1], "control": cell.control[::-1], "cell_type": "T", **length}
    that |= {"drug": "erlotinib", "perturbation": "control"}
    prompts = [task.primal_prompt(inputs, vocabulary) for inputs in (this, that)]
    shared = next(i for i, pair in enumerate(zip(*prompts, strict=False)) if len(set(pair)) > 1)
    assert shared > 0.6 * (len(prompts[0]) - len(" ".join(cell.genes)))


def test_every_direction_of_every_pair_has_its_golden_prompt():
    found = {path.stem for path in GOLDEN.glob("*.txt")}
    assert {f"{name}.{direction}" for name in TASKS for direction in ("primal", "dual")} <= found
