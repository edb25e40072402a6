"""The registry: that a metric is one decorated function, and that names, titles and headlines follow from it."""

from __future__ import annotations

from pathlib import Path

import pytest
from rich.console import Console

from cellduality_plugin.evaluation.compare import compare, headline_of
from cellduality_plugin.evaluation.evaluate import EvaluationSettings, evaluate, table
from cellduality_plugin.evaluation.metrics.registry import load_metric, metric, titled
from cellduality_plugin.evaluation.predictions import PredictionSettings
from cellduality_plugin.tasks import TASKS
from tests.refused import refused

GENERATION = "conditional_cell_generation"
OWN = """
from cellduality_plugin.evaluation.metrics import metric

@metric("length", "genes a cell", "like real cells", bounds=(0, None))
def length(cells):
    return sum(map(len, cells.genes)) / len(cells)

@metric("errors", "labels wrong", "lower", group="labels")
def errors(gold, predicted):
    return float((gold != predicted).mean())

def plain(cells):
    return 0.0
"""


@pytest.fixture
def own(tmp_path: Path) -> Path:
    path = tmp_path / "own.py"
    path.write_text(OWN)
    return path


def test_a_metric_of_ones_own_is_measured_of_every_column_shown_and_compared(
    own: Path, data: Path, model: Path, tmp_path: Path, opened
) -> None:
    asking = PredictionSettings(samples=1)
    settings = EvaluationSettings(asking, neighbours=(3,), components=5, resamples=10, metrics=(f"{own}:length",))
    found = evaluate({"SFT": model, "GRPO": model}, data, "test", tmp_path / "run", settings, opener=opened)
    assert found["settings"]["metrics"] == (f"{own}:length",)
    for column in ("SFT", "class mean", "real cells"):
        measured = found["columns"][column]["metrics"][f"{GENERATION}/length"]
        assert (measured["value"], measured["better"], measured["bounds"]) == (8, "like real cells", (0, None))
    assert found["columns"]["SFT"]["metrics"]["cell_type_annotation/sampled_errors"]["value"] == 0
    console = Console(width=120, record=True)
    console.print(table(found))
    assert "genes a cell ≈" in console.export_text()
    assert "cell_type_annotation/errors" in {row["key"] for row in compare([found], oracle="")}


def test_what_is_no_metric_or_has_a_name_that_is_taken_is_told(own: Path) -> None:
    for path in (f"{own}:plain", f"{own}:nothing", "no.such.module:metric", str(own), "nowhere.py:length"):
        with refused("wrong-metric") as error:
            load_metric(path)
        assert path in error.value.what
    with refused("repeated-name"):
        metric("accuracy", "accuracy", "higher", group="labels")(lambda gold, predicted: 0.0)


def test_titles_know_variants() -> None:
    assert titled("coarse_sampled_accuracy") == "sampled shared type"
    assert (titled("delta_error"), titled("shift_error")) == ("MSE Δ, DE genes", "shift error")


def test_every_task_has_a_headline_that_decides() -> None:
    deciding = {"OneOf": "accuracy", "Genes": "knn_agreement_10", "control": "shift_error"}
    for name, task in TASKS.items():
        kind = type(task.answer).__name__
        kind = "control" if kind == "Genes" and "control" in task.needs else kind
        assert headline_of(f"{name}/{deciding[kind]}") == 1
        assert headline_of(f"{name}/dual_similarity") == 0
    assert headline_of("perturbation_response_generation@ood/knn_agreement_10") == 2
