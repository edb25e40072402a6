"""What is measured together: rows of one pair, and real cells of the very sets those rows are about; external sets."""

from __future__ import annotations

import json
import shutil
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest

from cellduality_plugin.cell_sentences import Cell
from cellduality_plugin.evaluation.evaluate import EvaluationSettings, evaluate
from cellduality_plugin.evaluation.metrics.given import read_cells
from cellduality_plugin.evaluation.predictions import PredictionSettings
from cellduality_plugin.evaluation.report import read_metrics, write_report
from cellduality_plugin.evaluation.sections import COARSE_FILE, read_sections, read_shared_types, rows_by_section
from cellduality_plugin.files import read_jsonl, write_jsonl
from cellduality_plugin.tasks import TASKS, get_task
from data_prep.rows import RowMaker
from tests.evaluation.conftest import RuleDecoder, open_expert, write_model
from tests.evaluation.test_evaluate import printed
from tests.refused import refused

ANNOTATION, GENERATION = "cell_type_annotation", "conditional_cell_generation"
EXPOSURE, RESPONSE = "drug_exposure_prediction", "perturbation_response_generation"


@pytest.fixture
def read(vocabulary):
    """Return a function that reads the sections of a folder."""

    def of(data: Path, split: str = "test"):
        settings = EvaluationSettings(components=5, neighbours=(5,), resamples=10)
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


def test_a_reference_holds_cells_of_the_sets_its_rows_are_about_and_no_others(sections) -> None:
    for section in sections.values():
        asked, reference = sources(row for _, row in section.rows), section.reference
        assert len(asked) == 1
        for real in (reference.train, reference.held_out, reference.others):
            assert real is None or sources(real.ids) == asked
        assert f"fitted on {len(reference.train)} real training cells" in reference.embedding.name
        assert {row for _, row in section.rows} == set(reference.held_out.ids)
        assert len(reference.points) == len(reference.held_out)
    one, other = (sections[key].reference.embedding for key in (ANNOTATION, GENERATION))
    assert one is other, "one set of training cells, one space"


def test_no_split_is_its_own_floor(two_sources: Path, read, sections) -> None:
    split_of = {row["id"]: row["split"] for row in read_jsonl(two_sources / "cells.jsonl")}
    for split, floor, found in (
        ("test", "validation", sections),
        ("validation", "test", read(two_sources, "validation")),
    ):
        for key, reference in ((key, section.reference) for key, section in found.items()):
            of = reference.train, reference.held_out, reference.others
            splits = [{split_of[name] for name in cells.ids} if cells else set() for cells in of]
            assert splits == [{"train"}, *([{"ood"}, set()] if key.endswith("@ood") else [{split}, {floor}])]
            assert len(reference.other_points) == len(reference.others or ())


def test_cell_lines_stand_in_for_types_where_there_are_none(two_sources: Path, sections, tmp_path: Path, read) -> None:
    folder = Path(shutil.copytree(two_sources, tmp_path / "lines"))
    rows = list(read_jsonl(folder / "cells.jsonl"))
    for row in rows:
        if row["id"].startswith("kang/"):
            row["cell_line"] = row.pop("cell_type")
    write_jsonl(folder / "cells.jsonl", rows)
    assert read(folder)[RESPONSE].reference.held_out.names == sections[RESPONSE].reference.held_out.names


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


def test_a_limit_is_one_of_rows_of_every_section(two_sources: Path, data: Path) -> None:
    whole, cut = (rows_by_section(two_sources, "test", TASKS, limit) for limit in (None, 5))
    assert {key: list(rows) for key, rows in cut.items()} == {key: list(rows)[:5] for key, rows in whole.items()}
    (data / "eval_test.jsonl").write_text("")
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
    rng = np.random.default_rng(0)
    cells = [Cell(row["id"], tuple(row["genes"])) for row in read_jsonl(data / "cells.jsonl") if row["split"] == "test"]
    write_jsonl(data / "eval_test.jsonl", RowMaker([mine], vocabulary).evaluation(cells, rng))

    def rule(request) -> str:
        return "G0 G1" if request.prompt.startswith("The measurement") else request.prompt.rsplit(": ", 1)[1]

    settings = EvaluationSettings(PredictionSettings(samples=1), neighbours=(3,), components=5, resamples=10)
    found = evaluate(
        {"SFT": model}, data, "test", tmp_path / "run", settings, tasks={mine.name: mine},
        opener=lambda _: nullcontext(RuleDecoder(rule)),
    )  # fmt: skip
    assert found["columns"]["SFT"]["metrics"].keys() == {
        "dropout_recovery/dual_similarity", "dropout_recovery/dual_given_truth",
    }  # fmt: skip
    assert found["columns"].keys() == {"SFT", "real cells"}
    assert (tmp_path / "run" / "points.jsonl").read_text() == ""
    assert "No task of this run writes cells." in write_report(tmp_path / "run", tmp_path / "page.html").read_text()


def test_points_are_all_cells_of_sections_that_write_them(run_of_two: Path, sections) -> None:
    counts: dict[tuple[str, str], int] = {}
    for row in read_jsonl(run_of_two / "points.jsonl"):
        key, reference = (row["section"], row["column"]), sections[row["section"]].reference
        counts[key] = counts.get(key, 0) + 1
        assert np.isfinite(row["point"]).all()
        assert row["point"][:2] == [row["x"], row["y"]]
        assert len(row["point"]) == 5
        if row["column"] != "training cells":
            assert row["condition"] in reference.held_out.names
        assert row["nearest"] is None or row["column"] == "GRPO"
    columns = ("training cells", "real cells", "GRPO")
    keys = [(key, column) for key in (GENERATION, RESPONSE, f"{RESPONSE}@ood") for column in columns]
    assert counts == dict(zip(keys, [90, 30, 60, 64, 48, 96, 64, 32, 64], strict=True))


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
    far_metrics = evaluate({"SFT": model}, data, "test", tmp_path / "run", FAR_SETTINGS, opener=open_expert)
    found = values(far_metrics, "SFT")
    assert found.keys() == {
        "coarse_accuracy", "coarse_macro_f1", "dual_similarity", "coarse_sampled_accuracy",
        "coarse_sampled_macro_f1", "coarse_majority_accuracy", "sampled_dual_similarity",
    }  # fmt: skip
    assert {value for key, value in found.items() if key.startswith("coarse")} == {1}
    assert 0 < found["dual_similarity"] <= 1
    metric = far_metrics["columns"]["SFT"]["metrics"][f"{FAR}/coarse_accuracy"]
    assert (metric["n"], metric["interval"]) == (18, (1, 1))
    assert metric["note"] == "by the types that both sets share: B lineage, cytotoxic"
    confusion = {"labels": ["B lineage", "cytotoxic"], "counts": [[6, 0, 0], [0, 12, 0]]}
    assert far_metrics["columns"]["SFT"]["confusion"][FAR] == confusion
    assert COARSE_FILE in far_metrics["provenance"]["data"]
    assert values(far_metrics, "logistic regression")["coarse_accuracy"] == 1
    assert values(far_metrics, "majority") == pytest.approx({"coarse_accuracy": 6 / 18, "coarse_macro_f1": 0.25})
    assert values(far_metrics, "real cells") == {}
    lines = [line.strip() for line in printed(far_metrics).splitlines()]
    for name in ("shared-type accuracy ↑", "shared-type macro-F1 ↑"):
        assert lines[lines.index(name) + 1].startswith("far  ")
    assert "cell type annotation, far" in write_report(tmp_path / "run", tmp_path / "report.html").read_text()


def test_every_label_of_a_shared_type_is_as_good_and_an_answer_without_one_is_wrong(data, vocabulary, tmp_path) -> None:
    add_foreign(data, vocabulary, {**SHARED_TYPES, "training": {"made": {"B": "B lineage", "NK": "cytotoxic"}}})
    right = {"NK": 12 / 18, "T": 0, "bee": 0}  # the last is no label that was taught
    models = {name: write_model(tmp_path / name) for name in right}
    for name, model in models.items():
        (model / "model.safetensors").write_text(f"always says {name}")
    metrics = evaluate(
        models, data, "test", tmp_path / "run", FAR_SETTINGS,
        opener=lambda model: nullcontext(RuleDecoder(lambda request: model.name)),
    )  # fmt: skip
    assert {name: values(metrics, name)["coarse_accuracy"] for name in right} == pytest.approx(right)
    assert metrics["columns"]["T"]["confusion"][FAR]["counts"] == [[0, 0, 6], [0, 0, 12]]


def test_held_out_kinds_and_foreign_sets_are_sections_of_their_own(two_sources, vocabulary, tmp_path) -> None:
    folder = add_foreign(Path(shutil.copytree(two_sources, tmp_path / "both")), vocabulary)
    settings = EvaluationSettings(components=5, neighbours=(3,), resamples=10, rows=7)
    found = {s.key: s for s in read_sections(folder, "test", TASKS, vocabulary, settings)}
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


def test_gold_that_nobody_shares_is_told(data, vocabulary, model: Path, tmp_path: Path) -> None:
    add_foreign(data, vocabulary, {**SHARED_TYPES, "foreign": {"far": {"bee": "B lineage"}}})
    with refused("no-shared-type"):
        evaluate({"SFT": model}, data, "test", tmp_path / "run", FAR_SETTINGS, opener=open_expert)
    assert not (tmp_path / "run" / "metrics.json").exists()
