"""Golden prompts: a change of wording is a change of the data, so it has to be seen.

To accept a change on purpose: UPDATE_GOLDEN=1 pytest tests/tasks/test_prompts.py
"""

from __future__ import annotations

import os
from pathlib import Path

GOLDEN = Path(__file__).parents[1] / "golden"


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
