"""What is measured together: rows of one pair, and real cells of the very sets those rows are about."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from cellduality_plugin.cell_sentences import Cell
from cellduality_plugin.errors import CellDualityError
from cellduality_plugin.evaluation.evaluate import EvaluationSettings, evaluate, table
from cellduality_plugin.evaluation.predictions import PredictionSettings
from cellduality_plugin.evaluation.real_cells import read_cells
from cellduality_plugin.evaluation.report import read_metrics, write_report
from cellduality_plugin.evaluation.sections import read_sections
from cellduality_plugin.files import read_jsonl, write_jsonl
from cellduality_plugin.tasks import TASKS, get_task
from data_prep.rows import eval_rows

ANNOTATION, GENERATION = "cell_type_annotation", "conditional_cell_generation"
EXPOSURE, RESPONSE = "drug_exposure_prediction", "perturbation_response_generation"


@pytest.fixture
def read(vocabulary):
    """Return a function that reads the sections of a folder."""

    def of(data: Path, split: str = "test", limit: int | None = None):
        settings = {"components": 5, "neighbours": (5,), "seed": 0, "resamples": 10}
        return {s.key: s for s in read_sections(data, split, TASKS, vocabulary, limit=limit, **settings)}

    return of


def sources(ids) -> set[str]:
    return {name.partition("/")[0] for name in ids}


def test_sections_are_by_task_and_held_out_kinds_come_last(sections) -> None:
    assert list(sections) == [ANNOTATION, GENERATION, EXPOSURE, RESPONSE, f"{EXPOSURE}@ood", f"{RESPONSE}@ood"]
    assert {key: len(section.rows) for key, section in sections.items()} == {
        ANNOTATION: 30, GENERATION: 30, EXPOSURE: 48, RESPONSE: 48, f"{EXPOSURE}@ood": 32, f"{RESPONSE}@ood": 32,
    }  # fmt: skip


def test_sections_know_what_their_answers_are(sections) -> None:
    told = {k: (s.names_labels, s.writes_cells, s.writes_responses) for k, s in sections.items() if "@" not in k}
    assert told == {
        ANNOTATION: (True, False, False),
        GENERATION: (False, True, False),
        EXPOSURE: (True, False, False),
        RESPONSE: (False, True, True),
    }


def test_a_yardstick_holds_cells_of_the_sets_its_rows_are_about_and_no_others(sections) -> None:
    for section in sections.values():
        asked, yardstick = sources(row for _, row in section.rows), section.yardstick
        assert len(asked) == 1
        for real in (yardstick.train, yardstick.held_out, yardstick.others):
            assert real is None or sources(real.ids) == asked
        assert f"fitted on {len(yardstick.train)} real training cells" in yardstick.embedding.name
        assert {row for _, row in section.rows} == set(yardstick.held_out.ids)
        assert len(yardstick.points) == len(yardstick.held_out)


def test_no_split_is_its_own_floor(two_sources: Path, read) -> None:
    split_of = {row["id"]: row["split"] for row in read_jsonl(two_sources / "cells.jsonl")}
    for split, floor in (("test", "validation"), ("validation", "test")):
        for key, section in read(two_sources, split).items():
            yardstick, where = section.yardstick, "ood" if key.endswith("@ood") else split
            assert {split_of[name] for name in yardstick.train.ids} == {"train"}
            assert {split_of[name] for name in yardstick.held_out.ids} == {where}
            if where == "ood":
                assert yardstick.others is None
            else:
                assert {split_of[name] for name in yardstick.others.ids} == {floor}
            assert len(yardstick.other_points) == len(yardstick.others or ())


def test_cells_are_called_by_what_the_pair_tells_apart(sections) -> None:
    names = {key: set(section.yardstick.held_out.names) for key, section in sections.items()}
    assert names[ANNOTATION] == names[GENERATION] == {"B", "NK", "T"}
    assert names[EXPOSURE] == {"exposed", "not exposed"}
    states = ("control", "cytokine IFN-beta")
    assert names[RESPONSE] == {f"{kind}, {state}" for kind in ("NK cell", "T cell") for state in states}
    assert names[f"{RESPONSE}@ood"] == {f"B cell, {state}" for state in states}


def test_cell_lines_stand_in_for_types_where_there_are_none(two_sources: Path, tmp_path: Path, read) -> None:
    for path in two_sources.glob("*.json*"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    rows = list(read_jsonl(tmp_path / "cells.jsonl"))
    for row in rows:
        if row["id"].startswith("kang/"):
            row["cell_line"] = row.pop("cell_type")
    write_jsonl(tmp_path / "cells.jsonl", rows)
    found, known = read(tmp_path)[RESPONSE].yardstick, read(two_sources)[RESPONSE].yardstick
    assert found.held_out.names == known.held_out.names


def test_cells_without_a_label_or_state_are_left_out(data: Path) -> None:
    path = data / "cells.jsonl"
    rows = list(read_jsonl(path))
    rows[0].pop("cell_type")
    rows[1]["perturbation"] = "control"
    write_jsonl(path, rows)
    assert len(read_cells(path, "train")) == 89
    alone = read_cells(path, "train", state="perturbation")
    assert (alone.ids, alone.names) == (("made/1",), ("NK, control",))
    assert alone.by_state(labelled=True) == alone.by_state() == {("NK", "control"): [alone.genes[0]]}
    with pytest.raises(CellDualityError, match="no cell of split 'test' has cell_type, and perturbation"):
        read_cells(path, "test", state="perturbation")
    with pytest.raises(CellDualityError, match="no cell of split 'test' has cell_type"):
        read_cells(path, "test", sources={"elsewhere"})


def test_a_limit_is_one_of_rows_of_every_section(two_sources: Path, read) -> None:
    whole, cut = read(two_sources), read(two_sources, limit=5)
    assert {key: list(s.rows) for key, s in cut.items()} == {key: list(s.rows)[:5] for key, s in whole.items()}


def test_without_rows_there_is_nothing_to_evaluate(data: Path, read) -> None:
    (data / "eval_test.jsonl").write_text("")
    with pytest.raises(CellDualityError, match="no rows to evaluate"):
        read(data)


@pytest.fixture(scope="module")
def metrics(run_of_two: Path):
    return read_metrics(run_of_two / "metrics.json")


def test_metrics_are_by_section_and_so_are_spaces(metrics) -> None:
    assert metrics["version"] == 2
    assert "space" not in metrics
    keys = {key.rpartition("/")[0] for column in metrics["columns"].values() for key in column["metrics"]}
    assert keys == set(metrics["spaces"]) == set(metrics["columns"]["GRPO"]["failures"])
    assert {EXPOSURE, f"{EXPOSURE}@ood", ANNOTATION} == set(metrics["columns"]["GRPO"]["confusion"])
    assert metrics["provenance"]["data"].keys() == {
        "vocabulary.json", "cells.jsonl", "eval_test.jsonl", "eval_ood.jsonl",
    }  # fmt: skip
    found = metrics["columns"]["GRPO"]["metrics"]
    assert {found[f"{key}/accuracy"]["value"] for key in (ANNOTATION, EXPOSURE, f"{EXPOSURE}@ood")} == {1}
    assert {found[f"{key}/validity"]["value"] for key in (GENERATION, RESPONSE, f"{RESPONSE}@ood")} == {1}


def test_every_answer_counts_in_the_section_of_its_row_and_in_no_other(metrics) -> None:
    found = {key: metric["n"] for key, metric in metrics["columns"]["GRPO"]["metrics"].items()}
    assert {key: found[f"{key}/dual_similarity"] for key in metrics["spaces"]} == {
        ANNOTATION: 30, GENERATION: 60, EXPOSURE: 48, RESPONSE: 96, f"{EXPOSURE}@ood": 32, f"{RESPONSE}@ood": 64,
    }  # fmt: skip
    assert found[f"{ANNOTATION}/accuracy"] == 30
    assert found[f"{RESPONSE}@ood/validity"] == 64


def test_baselines_stand_in_the_sections_of_their_kind(metrics) -> None:
    sections_of = {
        name: {key.rpartition("/")[0] for key in column["metrics"]} for name, column in metrics["columns"].items()
    }
    labels, responses = {ANNOTATION, EXPOSURE, f"{EXPOSURE}@ood"}, {RESPONSE, f"{RESPONSE}@ood"}
    assert sections_of["logistic regression"] == sections_of["k-NN transfer"] == sections_of["majority"] == labels
    assert sections_of["training cells"] == sections_of["class mean"] == {GENERATION}
    assert sections_of["no change"] == sections_of["mean shift"] == responses
    assert sections_of["real cells"] == {GENERATION, *responses}
    assert list(metrics["columns"]) == [
        "GRPO", "logistic regression", "k-NN transfer", "majority", "training cells", "class mean", "no change",
        "mean shift", "real cells",
    ]  # fmt: skip


def test_a_run_without_responses_has_no_column_of_them(data: Path, model: Path, tmp_path: Path, opened) -> None:
    settings = EvaluationSettings(PredictionSettings(samples=1), neighbours=(3,), components=5, resamples=10)
    found = evaluate({"SFT": model}, data, "test", tmp_path / "run", settings, opener=opened)
    assert list(found["columns"]) == [
        "SFT", "logistic regression", "k-NN transfer", "majority", "training cells", "class mean", "real cells",
    ]  # fmt: skip
    assert found["provenance"]["data"].keys() == {"vocabulary.json", "cells.jsonl", "eval_test.jsonl"}


def test_a_pair_of_ones_own_is_measured_by_its_dual_alone(
    data: Path, model: Path, tmp_path: Path, vocabulary, decode_by
) -> None:
    """Genes for genes: neither labels to be right about nor cells of a condition."""
    mine = get_task("my_pair.py:DropoutRecovery", Path(__file__).parents[1] / "stack")
    rng = np.random.default_rng(0)
    cells = [Cell(row["id"], tuple(row["genes"])) for row in read_jsonl(data / "cells.jsonl") if row["split"] == "test"]
    write_jsonl(data / "eval_test.jsonl", eval_rows(cells, [mine], vocabulary, hidden=0.25, rng=rng))

    def rule(request) -> str:
        return "G0 G1" if request.prompt.startswith("The measurement") else request.prompt.rsplit(": ", 1)[1]

    settings = EvaluationSettings(PredictionSettings(samples=1), neighbours=(3,), components=5, resamples=10)
    found = evaluate(
        {"SFT": model}, data, "test", tmp_path / "run", settings, tasks={mine.name: mine},
        opener=lambda _: nullcontext(decode_by(rule)),
    )  # fmt: skip
    assert found["columns"]["SFT"]["metrics"].keys() == {
        "dropout_recovery/dual_similarity", "dropout_recovery/dual_given_truth",
    }  # fmt: skip
    assert found["columns"]["SFT"]["metrics"]["dropout_recovery/dual_similarity"]["n"] == 30
    assert found["columns"].keys() == {"SFT", "real cells"}
    assert (tmp_path / "run" / "points.jsonl").read_text() == ""
    assert "No task of this run writes cells." in write_report(tmp_path / "run", tmp_path / "page.html").read_text()


def test_held_out_kinds_have_the_floor_of_two_halves_and_the_table_shows_a_dash_for_what_is_not_there(metrics) -> None:
    real = metrics["columns"]["real cells"]["metrics"]
    for name in ("mmd", "mmd_within_types", "shift_correlation", "shift_error"):
        assert f"{RESPONSE}/{name}" in real
        assert "half" in real[f"{RESPONSE}@ood/{name}"]["note"]
        assert f"{RESPONSE}@ood/{name}" in metrics["columns"]["GRPO"]["metrics"]
    console = Console(width=80, record=True)
    console.print(table(metrics))
    lines = [line.strip() for line in console.export_text().splitlines()]
    lines = lines[lines.index("perturbation response generation") :]
    below = {
        name: [
            cell == "–"
            for cell in lines[next(i for i, line in enumerate(lines) if line.startswith(name)) + 1].split()[2:]
        ]
        for name in ("shift correlation", "shift error", "MMD² ↓")
    }  # of held-out types: GRPO, no change, mean shift, real
    assert below["shift correlation"] == [False, True, False, False]
    assert below["shift error"] == below["MMD² ↓"] == [False] * 4


def test_points_tell_their_section(run_of_two: Path, sections) -> None:
    rows = list(read_jsonl(run_of_two / "points.jsonl"))
    counts = {
        (key, column): 0 for key in (GENERATION, RESPONSE, f"{RESPONSE}@ood") for column in ("real cells", "GRPO")
    }
    for row in rows:
        counts[row["section"], row["column"]] += 1
        assert row["condition"] in sections[row["section"]].yardstick.held_out.names
        assert np.isfinite([row["x"], row["y"]]).all()
    assert list(counts.values()) == [30, 60, 48, 96, 32, 64]


def test_the_page_has_a_plot_of_every_section_that_writes_cells(metrics, run_of_two: Path, tmp_path: Path) -> None:
    text = write_report(run_of_two, tmp_path / "report.html").read_text()
    for key in metrics["spaces"]:
        assert metrics["spaces"][key] in text
    assert "perturbation response generation, held-out cell types" in text
    assert "B cell, cytokine IFN-beta" in text
    assert "mean shift" in text
