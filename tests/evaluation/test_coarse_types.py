"""Foreign sets: gold labels and answers meet in the types that both sides share."""

from __future__ import annotations

import json
import shutil
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from cellduality_plugin.cell_sentences import Cell
from cellduality_plugin.evaluation.evaluate import EvaluationSettings, evaluate, table
from cellduality_plugin.evaluation.predictions import PredictionSettings
from cellduality_plugin.evaluation.report import write_report
from cellduality_plugin.evaluation.sections import COARSE_FILE, read_sections, read_shared_types
from cellduality_plugin.files import read_jsonl, write_jsonl
from cellduality_plugin.tasks import TASKS
from data_prep.rows import eval_rows
from tests.evaluation.conftest import RuleDecoder, open_expert, write_model
from tests.refused import refused

ANNOTATION = "cell_type_annotation"
FAR = f"{ANNOTATION}@far"
SETTINGS = EvaluationSettings(PredictionSettings(samples=1), neighbours=(3,), components=5, resamples=20)
TYPES = {
    "training": {"made": {"B": "B lineage", "NK": "cytotoxic", "T": "cytotoxic"}},
    "foreign": {"far": {"bee": "B lineage", "killer": "cytotoxic"}},
}
COUNTS = {("bee", 0): 6, ("killer", 1): 8, ("killer", 2): 4}
"""Foreign cells by label and by the training type whose genes they have."""


def add_foreign(folder: Path, vocabulary, types=TYPES) -> Path:
    """Add a foreign set to a prepared folder; some of its killers look like T cells, which is as good."""
    rng, cells = np.random.default_rng(2), []
    for (label, block), count in COUNTS.items():
        for number in range(count):
            genes = tuple(f"G{12 * block + place}" for place in rng.permutation(12)[:8])
            cells.append(Cell(f"far/{label}{block}-{number}", genes, {"cell_type": label}))
    rows = [{"id": c.id, "split": "ood", "labelled": False, "genes": list(c.genes), **c.obs} for c in cells]
    write_jsonl(folder / "cells.jsonl", [*read_jsonl(folder / "cells.jsonl"), *rows])
    held_out = folder / "eval_ood.jsonl"
    asked = eval_rows(cells, [TASKS[ANNOTATION]], vocabulary, hidden=0.25, rng=rng)
    write_jsonl(held_out, [*(read_jsonl(held_out) if held_out.is_file() else []), *asked])
    (folder / COARSE_FILE).write_text(json.dumps(types))
    return folder


@pytest.fixture(scope="module")
def far(one_source: Path, vocabulary, tmp_path_factory) -> Path:
    """A prepared folder of one source and a foreign set. Not to be changed."""
    return add_foreign(Path(shutil.copytree(one_source, tmp_path_factory.mktemp("far") / "data")), vocabulary)


@pytest.fixture(scope="module")
def run(far: Path) -> Path:
    """What an evaluation of the expert writes about them. Not to be changed."""
    evaluate({"SFT": write_model(far.parent / "model")}, far, "test", far.parent / "run", SETTINGS, opener=open_expert)
    return far.parent / "run"


@pytest.fixture
def metrics(run: Path):
    return json.loads((run / "metrics.json").read_text())


def values(metrics, column: str) -> dict[str, float]:
    found = metrics["columns"][column]["metrics"]
    return {key.partition("/")[2]: metric["value"] for key, metric in found.items() if key.startswith(f"{FAR}/")}


def test_an_expert_on_the_training_labels_is_right_about_the_shared_types(metrics) -> None:
    found = values(metrics, "SFT")
    assert found.keys() == {
        "coarse_accuracy", "coarse_macro_f1", "dual_similarity", "coarse_sampled_accuracy",
        "coarse_sampled_macro_f1", "coarse_majority_accuracy", "sampled_dual_similarity",
    }  # fmt: skip
    assert found["coarse_sampled_accuracy"] == found["coarse_majority_accuracy"] == 1
    assert found["coarse_accuracy"] == found["coarse_macro_f1"] == 1
    assert 0 < found["dual_similarity"] <= 1
    metric = metrics["columns"]["SFT"]["metrics"][f"{FAR}/coarse_accuracy"]
    assert (metric["n"], metric["interval"]) == (18, [1, 1])
    assert metric["note"] == "by the types that both sets share: B lineage, cytotoxic"
    assert metrics["columns"]["SFT"]["confusion"][FAR] == {
        "labels": ["B lineage", "cytotoxic"],
        "counts": [[6, 0, 0], [0, 12, 0]],
    }
    assert COARSE_FILE in metrics["provenance"]["data"]
    assert values(metrics, "logistic regression")["coarse_accuracy"] == 1
    assert values(metrics, "majority") == pytest.approx({"coarse_accuracy": 6 / 18, "coarse_macro_f1": 0.25})
    assert values(metrics, "real cells") == {}


def test_every_label_of_a_shared_type_is_as_good_and_an_answer_without_one_is_wrong(data, vocabulary, tmp_path) -> None:
    add_foreign(data, vocabulary, {**TYPES, "training": {"made": {"B": "B lineage", "NK": "cytotoxic"}}})
    right = {"NK": 12 / 18, "T": 0, "bee": 0}  # the last is no label that was taught
    models = {name: write_model(tmp_path / name) for name in right}
    for name, model in models.items():
        (model / "model.safetensors").write_text(f"always says {name}")
    metrics = evaluate(
        models, data, "test", tmp_path / "run", SETTINGS,
        opener=lambda model: nullcontext(RuleDecoder(lambda request: model.name)),
    )  # fmt: skip
    assert {name: values(metrics, name)["coarse_accuracy"] for name in right} == pytest.approx(right)
    assert metrics["columns"]["T"]["confusion"][FAR]["counts"] == [[0, 0, 6], [0, 0, 12]]


def test_held_out_kinds_and_foreign_sets_are_sections_of_their_own(two_sources, vocabulary, tmp_path) -> None:
    folder = add_foreign(Path(shutil.copytree(two_sources, tmp_path / "both")), vocabulary)
    settings = EvaluationSettings(components=5, neighbours=(3,), resamples=10, rows=7)
    found = {s.key: s for s in read_sections(folder, "test", TASKS, vocabulary, settings)}
    parts = {key.partition("@")[2] for key in found}
    assert parts == {"", "ood", "far"}
    assert list(found)[-1] == FAR
    assert len(found[FAR].rows) == 7
    for key, section in found.items():
        names = {row.partition("/")[0] for _, row in section.rows}
        assert (names == {"far"}) == (key == FAR)
        held_out = {name.partition("/")[0] for name in section.reference.held_out.ids}
        assert held_out == names
        assert (section.shared is None) == (key != FAR)
    assert {name.partition("/")[0] for name in found[FAR].reference.train.ids} == {"made"}


def test_table_and_report_name_the_set(run, metrics, tmp_path: Path) -> None:
    console = Console(width=80, record=True)
    console.print(table(metrics))
    text = console.export_text()
    lines = [line.strip() for line in text.splitlines()]
    for name in ("shared-type accuracy ↑", "shared-type macro-F1 ↑"):
        assert lines[lines.index(name) + 1].startswith("far  ")
    page = write_report(run, tmp_path / "report.html").read_text()
    assert "cell type annotation, far" in page
    assert "shared-type accuracy" in page


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("{", "unreadable-file"),
        (json.dumps({"training": TYPES["training"]}), "unreadable-file"),
        (json.dumps({"training": {"made": ["B"]}, "foreign": {}}), "unreadable-file"),
        (json.dumps({"training": {"one": {"B": "x"}, "two": {"B": "y"}}, "foreign": {}}), "ambiguous-label"),
    ],
)
def test_a_malformed_file_is_refused(text: str, code: str, tmp_path: Path) -> None:
    (tmp_path / COARSE_FILE).write_text(text)
    with refused(code) as error:
        read_shared_types(tmp_path / COARSE_FILE)
    assert error.value.where == str(tmp_path / COARSE_FILE)


def test_gold_that_nobody_shares_is_told(data, vocabulary, model: Path, tmp_path: Path) -> None:
    add_foreign(data, vocabulary, {**TYPES, "foreign": {"far": {"bee": "B lineage"}}})
    with refused("no-shared-type") as error:
        evaluate({"SFT": model}, data, "test", tmp_path / "run", SETTINGS, opener=open_expert)
    assert "killer" in error.value.what
    assert not (tmp_path / "run" / "metrics.json").exists()
