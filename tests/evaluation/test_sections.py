"""What is measured together: rows of one pair, and real cells of the very sets those rows are about; external sets."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from contextlib import nullcontext
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from cellduality_plugin.cell_sentences import Cell
from cellduality_plugin.evaluation.baselines import MEAN_SHIFT, response_baselines
from cellduality_plugin.evaluation.evaluate import evaluate, measured
from cellduality_plugin.evaluation.metrics.given import read_cells
from cellduality_plugin.evaluation.predictions import PredictionSettings
from cellduality_plugin.evaluation.report import read_metrics, write_report
from cellduality_plugin.evaluation.sections import (
    COARSE_FILE,
    EvaluationSettings,
    read_sections,
    read_shared_types,
    rows_by_section,
)
from cellduality_plugin.files import read_jsonl, write_jsonl
from cellduality_plugin.tasks import TASKS, get_task
from data_prep.rows import RowMaker
from tests.evaluation.conftest import RuleDecoder, open_expert
from tests.evaluation.test_evaluate import printed
from tests.refused import refused

ANNOTATION, GENERATION = "cell_type_annotation", "conditional_cell_generation"
EXPOSURE, RESPONSE = "drug_exposure_prediction", "perturbation_response_generation"


@pytest.fixture
def read(vocabulary):
    """Return a function that reads the sections of a folder."""

    def of(data: Path, split: str = "test", **more):
        settings = EvaluationSettings(components=5, neighbours=(5,), resamples=10, **more)
        return {s.key: s for s in read_sections(data, split, TASKS, vocabulary, settings)}

    return of


def sources(ids) -> set[str]:
    return {name.partition("/")[0] for name in ids}


def test_sections_are_by_task_held_out_kinds_last_and_know_what_their_answers_are(sections) -> None:
    label, cell, response = (True, False, False), (False, True, False), (False, True, True)
    assert [(k, len(s.rows), (s.names_labels, s.writes_cells, s.writes_responses)) for k, s in sections.items()] == [
        (ANNOTATION, 30, label), (GENERATION, 30, cell), (EXPOSURE, 48, label), (RESPONSE, 48, response),
        (f"{EXPOSURE}@ood", 32, label), (f"{RESPONSE}@ood", 32, response),
    ]  # fmt: skip


def test_a_reference_holds_cells_of_the_sets_of_its_rows_and_no_split_is_its_own_floor(two_sources, read, sections):
    split_of = {row["id"]: row["split"] for row in read_jsonl(two_sources / "cells.jsonl")}
    validation = read(two_sources, "validation")
    for split, floor, found in (("test", "validation", sections), ("validation", "test", validation)):
        for key, section in found.items():
            asked, reference = {row for _, row in section.rows}, section.reference
            of = reference.train, reference.held_out, reference.others
            splits = [{split_of[name] for name in cells.ids} if cells else set() for cells in of]
            assert splits == [{"train"}, *([{"ood"}, set()] if key.endswith("@ood") else [{split}, {floor}])]
            assert {len(sources(asked))} == {1}
            assert all(real is None or sources(real.ids) == sources(asked) for real in of)
            assert f"fitted on {len(reference.train)} real training cells" in reference.embedding.name
            assert asked == set(reference.held_out.ids)
            assert len(reference.points) == len(reference.held_out)
            assert len(reference.other_points) == len(reference.others or ())
    one, other = (sections[key].reference.embedding for key in (ANNOTATION, GENERATION))
    assert one is other, "one set of training cells, one space"


def test_cell_lines_stand_in_for_types_and_a_screen_of_one_kind_needs_neither(two_sources, sections, tmp_path, read):
    folder = Path(shutil.copytree(two_sources, tmp_path / "lines"))
    rows, named = list(read_jsonl(folder / "cells.jsonl")), sections[RESPONSE].reference.held_out.names
    for row in rows:
        if row["id"].startswith("kang/"):
            row["cell_line"] = row.pop("cell_type")
    write_jsonl(folder / "cells.jsonl", rows)
    assert read(folder)[RESPONSE].reference.held_out.names == named
    write_jsonl(folder / "cells.jsonl", [{key: row[key] for key in row if key != "cell_line"} for row in rows])
    section = read(folder)[RESPONSE]
    assert {*section.reference.held_out.names} == {"cell, control", "cell, cytokine IFN-beta"}
    found = measured(response_baselines(section.rows, section.reference)[MEAN_SHIFT], section)
    assert found["validity"].value == 1
    assert found["shift_error"].value is not None


def test_cells_without_a_label_or_state_are_left_out_and_rows_without_a_field_refused(data: Path) -> None:
    path = data / "cells.jsonl"
    rows = list(read_jsonl(path))
    rows[0].pop("cell_type")
    rows[1]["perturbation"] = "control"
    write_jsonl(path, rows)
    assert len(read_cells(path, "train")) == 89
    alone = read_cells(path, "train", state="perturbation")
    assert (alone.ids, alone.names) == (("made/1",), ("NK, control",))
    assert alone.by_state(labelled=True) == alone.by_state() == {("NK", "control"): [alone.genes[0]]}
    for split, wanted in (("test", {"state": "perturbation"}), ("test", {"sources": {"elsewhere"}}), ("holdout", {})):
        with refused("no-cells"):
            read_cells(path, split, **wanted)
    path.write_text(path.read_text().replace('"labelled"', '"labeled"', 1))
    with refused("missing-field") as error:
        read_cells(path, "test")
    assert error.value.where == f"{path}:1"


def test_every_set_of_several_is_a_section_and_a_limit_is_one_of_rows_of_each(two_sources: Path, data: Path) -> None:
    whole, cut = (rows_by_section(two_sources, "test", TASKS, limit) for limit in (None, 5))
    assert {key: list(rows) for key, rows in cut.items()} == {key: list(rows)[:5] for key, rows in whole.items()}
    path = data / "eval_test.jsonl"
    path.write_text(path.read_text().replace("made/13", "other/13"))
    sets = [f"{task}@{name}" for task in (ANNOTATION, GENERATION) for name in ("made", "other")]
    found = {key: len(rows) for key, rows in rows_by_section(data, "test", TASKS).items()}
    assert list(found.items()) == [(ANNOTATION, 30), (GENERATION, 30), *zip(sets, [20, 10] * 2, strict=True)]
    path.write_text("")
    with refused("no-rows"):
        rows_by_section(data, "test", TASKS)


@pytest.fixture(scope="module")
def metrics(run_of_two: Path):
    return read_metrics(run_of_two / "metrics.json")


def test_every_answer_counts_in_the_section_of_its_row_and_baselines_in_those_of_their_kind(metrics) -> None:
    labels, responses = {ANNOTATION, EXPOSURE, f"{EXPOSURE}@ood"}, {RESPONSE, f"{RESPONSE}@ood"}
    columns = {name: {key.rpartition("/")[0] for key in own["metrics"]} for name, own in metrics["columns"].items()}
    assert list(columns.items()) == [
        ("GRPO", {*metrics["spaces"]}),
        *((name, labels) for name in ("logistic regression", "k-NN transfer", "majority")),
        *((name, {GENERATION}) for name in ("training cells", "class mean")),
        *((name, responses) for name in ("no change", "mean shift")),
        ("real cells", {GENERATION, *responses}),
    ]
    own = metrics["columns"]["GRPO"]
    assert (set(own["failures"]), set(own["confusion"])) == ({*metrics["spaces"]}, labels)
    assert [own["metrics"][f"{key}/dual_similarity"]["n"] for key in metrics["spaces"]] == [30, 60, 48, 96, 32, 64]
    right = [(key, "accuracy") for key in labels] + [(key, "validity") for key in (GENERATION, *responses)]
    assert {own["metrics"][f"{key}/{name}"]["value"] for key, name in right} == {1}


def test_a_pair_of_ones_own_is_measured_by_its_dual_alone(data: Path, model: Path, tmp_path: Path, vocabulary) -> None:
    """Genes for genes: neither labels to be right about nor cells of a condition."""
    mine = get_task("my_pair.py:DropoutRecovery", Path(__file__).parents[1] / "stack")
    cells = [Cell(row["id"], tuple(row["genes"])) for row in read_jsonl(data / "cells.jsonl") if row["split"] == "test"]
    rows = RowMaker([mine], vocabulary).evaluation(cells, np.random.default_rng(0))
    write_jsonl(data / "eval_test.jsonl", rows)

    def open_rule(model: Path):
        return nullcontext(RuleDecoder(lambda request: request.prompt.rsplit(": ", 1)[1]))

    where = data, "test", tmp_path / "run"
    found = evaluate({"SFT": model}, *where, FAR_SETTINGS, tasks={mine.name: mine}, opener=open_rule)["columns"]
    duals = {"dropout_recovery/dual_similarity", "dropout_recovery/dual_given_truth"}
    assert {name: own["metrics"].keys() for name, own in found.items()} == {"SFT": duals, "real cells": set()}
    assert (tmp_path / "run" / "points.jsonl").read_text() == ""
    assert "No task of this run writes cells." in write_report(tmp_path / "run", tmp_path / "page.html").read_text()


def test_points_are_all_cells_of_sections_that_write_them(run_of_two: Path, sections) -> None:
    rows = list(read_jsonl(run_of_two / "points.jsonl"))
    for row in rows:
        assert (len(row["point"]), row["point"][:2]) == (5, [row["x"], row["y"]])
        held_out = sections[row["section"]].reference.held_out.names
        assert row["column"] == "training cells" or row["condition"] in held_out
        assert row["nearest"] is None or row["column"] == "GRPO"
    keys = product((GENERATION, RESPONSE, f"{RESPONSE}@ood"), ("training cells", "real cells", "GRPO"))
    counts = dict(zip(keys, [90, 30, 60, 64, 48, 96, 64, 32, 64], strict=True))
    assert Counter((row["section"], row["column"]) for row in rows) == counts


FAR = f"{ANNOTATION}@far"
FAR_SETTINGS = EvaluationSettings(PredictionSettings(samples=1), neighbours=(3,), components=5, resamples=20)
SHARED_TYPES = {
    "training": {"made": {"B": "B lineage", "NK": "cytotoxic", "T": "cytotoxic"}},
    "foreign": {"far": {"bee": "B lineage", "killer": "cytotoxic"}},
}
COUNTS = {("bee", 0): 6, ("killer", 1): 8, ("killer", 2): 4}
"""Foreign cells by label and by the training type whose genes they have."""


def add_foreign(folder: Path, vocabulary, types=SHARED_TYPES) -> Path:
    """Add a foreign set to a prepared folder; some of its killers look like T cells, which is as good."""
    rng, cells = np.random.default_rng(2), []
    for (label, block), count in COUNTS.items():
        for number in range(count):
            genes = tuple(f"G{12 * block + place}" for place in rng.permutation(12)[:8])
            cells.append(Cell(f"far/{label}{block}-{number}", genes, {"cell_type": label}))
    rows = [{"id": c.id, "split": "ood", "labelled": False, "genes": list(c.genes), **c.obs} for c in cells]
    write_jsonl(folder / "cells.jsonl", [*read_jsonl(folder / "cells.jsonl"), *rows])
    held_out = folder / "eval_ood.jsonl"
    asked = RowMaker([TASKS[ANNOTATION]], vocabulary).evaluation(cells, rng)
    write_jsonl(held_out, [*(read_jsonl(held_out) if held_out.is_file() else []), *asked])
    (folder / COARSE_FILE).write_text(json.dumps(types))
    return folder


def values(metrics, column: str) -> dict[str, float]:
    found = metrics["columns"][column]["metrics"]
    return {key.partition("/")[2]: metric["value"] for key, metric in found.items() if key.startswith(f"{FAR}/")}


def test_an_expert_on_the_training_labels_is_right_about_the_shared_types(data, model, vocabulary, tmp_path) -> None:
    add_foreign(data, vocabulary)
    metrics = evaluate({"SFT": model}, data, "test", tmp_path / "run", FAR_SETTINGS, opener=open_expert)
    own, found = metrics["columns"]["SFT"], values(metrics, "SFT")
    names = {"accuracy", "macro_f1", "sampled_accuracy", "sampled_macro_f1", "majority_accuracy"}
    assert {key for key in found if key.startswith("coarse_")} == {f"coarse_{name}" for name in names}
    assert found.keys() == {"dual_similarity", "sampled_dual_similarity", *(f"coarse_{name}" for name in names)}
    assert {value for key, value in found.items() if key.startswith("coarse")} == {1}
    accuracy = own["metrics"][f"{FAR}/coarse_accuracy"]
    assert (accuracy["n"], accuracy["interval"]) == (18, (1, 1))
    assert accuracy["note"] == "by the types that both sets share: B lineage, cytotoxic"
    assert own["confusion"][FAR] == {"labels": ["B lineage", "cytotoxic"], "counts": [[6, 0, 0], [0, 12, 0]]}
    assert COARSE_FILE in metrics["provenance"]["data"]
    assert values(metrics, "logistic regression")["coarse_accuracy"] == 1
    assert values(metrics, "majority") == pytest.approx({"coarse_accuracy": 6 / 18, "coarse_macro_f1": 0.25})
    assert values(metrics, "real cells") == {}
    lines = [line.strip() for line in printed(metrics).splitlines()]
    for name in ("shared-type accuracy ↑", "shared-type macro-F1 ↑"):
        assert lines[lines.index(name) + 1].startswith("far  ")
    assert "cell type annotation, far" in write_report(tmp_path / "run", tmp_path / "report.html").read_text()


def test_every_label_of_a_shared_type_is_as_good_and_an_answer_or_gold_without_one_is_not(data, vocabulary, read):
    shared = read_shared_types(
        add_foreign(data, vocabulary, {**SHARED_TYPES, "training": {"made": {"B": "B lineage", "NK": "cytotoxic"}}})
        / COARSE_FILE
    )["far"]
    section = read(data)[FAR]
    assert (section.shared, section.labels(vocabulary)) == (shared, ["B lineage", "cytotoxic"])
    gold, answers = section.comparable(["bee", "killer", "killer"], ["NK", "NK", "T"])
    assert (gold, answers) == (["B lineage", "cytotoxic", "cytotoxic"], ["cytotoxic", "cytotoxic", ""])
    with refused("no-shared-type"):
        section.comparable(["nobody's"], ["NK"])


def test_held_out_kinds_and_foreign_sets_are_sections_of_their_own(two_sources, vocabulary, read, tmp_path) -> None:
    found = read(add_foreign(Path(shutil.copytree(two_sources, tmp_path / "both")), vocabulary), rows=7)
    assert {key.partition("@")[2] for key in found} == {"", "ood", "far"}
    assert (list(found)[-1], len(found[FAR].rows)) == (FAR, 7)
    for key, section in found.items():
        names = sources(row for _, row in section.rows)
        assert (names == {"far"}) == (key == FAR) == (section.shared is not None)
        assert sources(section.reference.held_out.ids) == names
    assert sources(found[FAR].reference.train.ids) == {"made"}


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("{", "unreadable-file"),
        (json.dumps({"training": {"made": ["B"]}, "foreign": {}}), "unreadable-file"),
        (json.dumps({"training": {"one": {"B": "x"}, "two": {"B": "y"}}, "foreign": {}}), "ambiguous-label"),
    ],
)
def test_a_malformed_file_is_refused(text: str, code: str, tmp_path: Path) -> None:
    (tmp_path / COARSE_FILE).write_text(text)
    with refused(code):
        read_shared_types(tmp_path / COARSE_FILE)
