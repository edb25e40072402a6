"""Questions to ask a teacher; a module of its own, for the programs that tests start."""

from __future__ import annotations

from cellduality_plugin.examples import Example
from cellduality_plugin.tasks import get_task
from data_prep.traces.questions import Question


def question(number: int) -> Question:
    """Return a question; its prompt tells its number."""
    task = get_task("cell_type_annotation")
    example = Example(task.name, f"toy/{number}", {"cell": ("A", "B")}, {"observed": ("A",)}, ("B",), "B cell")
    return Question(task, "primal", example, 0, "B cell", f"question {number}")
