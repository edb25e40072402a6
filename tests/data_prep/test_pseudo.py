"""Cells without a label as questions: what is asked of whom, and that nothing of their labels is in it."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest

from cellduality_plugin.tasks import TASKS
from cellduality_plugin.tasks.cell_type_annotation import CellTypeAnnotation
from data_prep.pseudo import label_tasks, question, served
from tests.refused import refused

LABELS = ("cell_type_annotation", "drug_sensitivity_prediction", "drug_exposure_prediction")


class ShowsTheType(CellTypeAnnotation):
    """Its question shows what only labelled cells have."""

    needs = ("cell_type",)


@pytest.fixture
def row(cell) -> Mapping[str, object]:
    own = {"id": cell.id, "split": "train", "labelled": False, "genes": list(cell.genes)}
    return {**own, **cell.obs, **cell.condition, "control": "set/other"}


def test_tasks_whose_answer_is_a_label_are_asked_unless_they_show_one():
    assert set(label_tasks(TASKS)) == set(LABELS)
    assert label_tasks({"mine": ShowsTheType()}) == {}


def test_a_set_is_asked_what_its_labelled_cells_were():
    rows = [
        {"datasource": name, "id": cell}
        for name, cell in (("a", "one/1"), ("b", "two/1"), ("a", "one/2"), ("other", "one/1"), ("a", "two/1"))
    ]
    assert served(rows, {"a": TASKS[LABELS[0]], "b": TASKS[LABELS[1]]}) == ({"one": ["a"], "two": ["a", "b"]}, 5)


@pytest.mark.parametrize("name", LABELS)
def test_nothing_of_a_label_is_in_the_question(name, row, vocabulary):
    task = TASKS[name]
    asked = question(task, row, hidden=0.25, masks=3, rng=np.random.default_rng(1))
    assert asked.gold is None
    assert len(asked.splits()) == 3
    lies = {**row, "cell_type": "T", "exposure": "not exposed", "sensitivity": "resistant"}
    assert question(task, lies, hidden=0.25, masks=3, rng=np.random.default_rng(1)) == asked


def test_a_column_that_is_not_there_is_named(row):
    short = {key: value for key, value in row.items() if key != "drug"}
    with refused("unknown-column") as error:
        question(TASKS["drug_exposure_prediction"], short, hidden=0.25, masks=1, rng=np.random.default_rng(0))
    assert "'drug'" in error.value.what
