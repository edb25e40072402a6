from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from cellduality_plugin.errors import CellDualityError
from cellduality_plugin.evaluation import measures
from cellduality_plugin.evaluation.baselines import logistic_labels, majority_labels
from cellduality_plugin.evaluation.evaluate import EvaluationSettings, evaluate, table
from cellduality_plugin.evaluation.predictions import Prediction, PredictionSettings
from cellduality_plugin.evaluation.real_cells import RealCells, matched, read_cells
from cellduality_plugin.evaluation.sections import read_sections
from cellduality_plugin.tasks import TASKS

ANNOTATION, GENERATION = "cell_type_annotation", "conditional_cell_generation"
SETTINGS = EvaluationSettings(PredictionSettings(samples=2), neighbours=(5, 3, 100), components=5, resamples=50)


def planted(task: str, answer, unknown, gold=None, *, id: str = "1", sample: int = 0, **fields) -> Prediction:
    failure = "" if answer else "no_answer"
    return Prediction(id, task, sample, unknown, gold, "", answer, failure, **fields)


@pytest.fixture
def yardstick(data: Path, vocabulary):
    _, generation = read_sections(
        data, "test", TASKS, vocabulary, components=5, neighbours=SETTINGS.neighbours, seed=0, resamples=50
    )
    assert generation.key == GENERATION
    return generation.yardstick


@pytest.fixture
def metrics(data: Path, model: Path, tmp_path: Path, opened):
    models = {"SFT": model, "GRPO": model}
    return evaluate(models, data, "test", tmp_path / "run", SETTINGS, opener=opened, command=["evaluate", "--twice"])


def test_an_expert_reaches_the_ceiling(metrics) -> None:
    found = {key: metric["value"] for key, metric in metrics["columns"]["SFT"]["metrics"].items()}
    real = {key: metric["value"] for key, metric in metrics["columns"]["real cells"]["metrics"].items()}
    assert found[f"{ANNOTATION}/accuracy"] == found[f"{ANNOTATION}/macro_f1"] == 1
    assert found[f"{GENERATION}/knn_agreement_5"] == real[f"{GENERATION}/knn_agreement_5"] == 1
    assert found[f"{GENERATION}/dual_similarity"] == 1
    assert (found[f"{GENERATION}/validity"], found[f"{GENERATION}/duplicates"]) == (1, 0)
    # The expert draws from the very distribution of the real cells: nothing but noise is left of every distance.
    assert max(found[f"{GENERATION}/mmd"], real[f"{GENERATION}/mmd"]) < 0.01
    assert found[f"{GENERATION}/spread"] == pytest.approx(real[f"{GENERATION}/spread"], rel=0.2)


def test_every_column_of_one_checkpoint_is_the_same(metrics) -> None:
    assert metrics["columns"]["SFT"] == metrics["columns"]["GRPO"]


def test_metrics_carry_what_is_needed_to_read_and_repeat_them(metrics, tmp_path: Path) -> None:
    assert json.loads((tmp_path / "run" / "metrics.json").read_text()) == metrics
    mmd = metrics["columns"]["SFT"]["metrics"][f"{GENERATION}/mmd"]
    assert mmd["n"] == 30
    assert mmd["space"].startswith("PCA(5) of 1 - log(rank)/log(9), fitted on 90 real training cells")
    assert "V-statistic" in mmd["estimator"]
    assert "RBF, sigma" in mmd["kernel"]
    provenance = metrics["provenance"]
    assert provenance["command"] == ["evaluate", "--twice"]
    assert provenance["data"].keys() == {"vocabulary.json", "cells.jsonl", "eval_test.jsonl"}
    assert provenance["versions"].keys() >= {"cellduality", "python", "numpy", "scikit-learn"}
    assert len(provenance["models"]["SFT"]["model"]) == 12
    assert metrics["settings"]["prediction"]["samples"] == 2


def test_a_second_evaluation_says_the_same_and_asks_nothing(
    metrics, data: Path, model: Path, tmp_path: Path, opened, expert_decoder
) -> None:
    before = len(expert_decoder.asked)
    models = {"SFT": model, "GRPO": model}
    again = evaluate(models, data, "test", tmp_path / "run", SETTINGS, opener=opened, command=["evaluate", "--twice"])
    assert again == metrics
    assert len(expert_decoder.asked) == before


def test_more_neighbours_than_cells_is_told_not_guessed(metrics) -> None:
    for name in ("SFT", "real cells"):
        metric = metrics["columns"][name]["metrics"][f"{GENERATION}/knn_agreement_100"]
        assert (metric["value"], metric["note"]) == (None, "only 30 real cells")


def test_table_has_a_row_a_metric_and_headlines_first(metrics) -> None:
    console = Console(width=80, record=True)
    console.print(table(metrics))
    lines = [line.strip() for line in console.export_text().splitlines()]
    annotation = lines[lines.index("cell type annotation") : lines.index("conditional cell generation")]
    accuracy, f1, dual = (line.split("  ")[0] for line in annotation if line.endswith(("0", "3", "7", "–")))
    assert (accuracy, f1, dual) == ("accuracy ↑", "macro-F1 ↑", "dual similarity ↑")
    assert next(line for line in annotation if line.startswith("acc")).split()[2:] == ["1.000"] * 3 + ["0.333"]
    assert next(line for line in annotation if line.startswith("dual")).split()[-2:] == ["–", "–"]
    generation = lines[lines.index("conditional cell generation") :]
    assert next(line for line in generation if line.startswith("k-NN")).startswith("k-NN agreement (5) ↑")
    assert "majority" not in "".join(generation)  # nothing of it was measured there


def test_the_table_of_a_whole_run_cuts_no_number_on_a_small_screen() -> None:
    """Three checkpoints, all baselines, and the longest names there are."""
    response = {"shift_correlation": -0.1234, "shift_error": 0.00234, "knn_agreement_25": 0.5, "mmd_within_types": 0.5}
    labels = {"accuracy": 0.5, "macro_f1": 0.5, "dual_similarity": 0.5}
    sections = {"perturbation_response_generation@ood": response, "drug_sensitivity_prediction": labels}
    columns = {}
    for name in ("base", "SFT", "GRPO", "logistic regression", "majority", "no change", "mean shift", "real cells"):
        of = {"logistic regression": labels, "majority": labels}.get(name, response)
        columns[name] = {
            "metrics": {
                f"{section}/{metric}": {"value": value, "better": "higher"}
                for section, found in sections.items()
                for metric, value in found.items()
                if found is of or name in ("base", "SFT", "GRPO")
            }
        }
    console = Console(width=80, record=True)
    console.print(table({"split": "test", "settings": {"neighbours": [25]}, "columns": columns}))
    text = console.export_text()
    assert "…" not in text
    assert text.count("-0.123") == text.count("0.0023") == 6
    for name in ("logistic", "regression", "majority", "k-NN agreement (25) ↑", "MMD² within types ↑"):
        assert name in text


def test_rows_limits_each_task(data: Path, model: Path, tmp_path: Path, opened, expert_decoder) -> None:
    settings = EvaluationSettings(PredictionSettings(samples=1), neighbours=(3,), resamples=10, rows=4)
    found = evaluate({"SFT": model}, data, "validation", tmp_path / "run", settings, opener=opened)
    assert found["columns"]["SFT"]["metrics"][f"{ANNOTATION}/accuracy"]["n"] == 4
    assert found["columns"]["logistic regression"]["metrics"][f"{ANNOTATION}/accuracy"]["n"] == 4
    assert len(expert_decoder.asked) == 16


@pytest.mark.parametrize("name", ["real cells", "majority", "no change", "mean shift", "a/b", "", ".hidden", ".."])
def test_names_that_cannot_be_columns_are_refused(name: str, data: Path, model: Path, tmp_path: Path) -> None:
    with pytest.raises(CellDualityError, match="cannot name a checkpoint"):
        evaluate({name: model}, data, "test", tmp_path / "run", SETTINGS)


def test_nothing_is_written_when_a_model_fails(data: Path, tmp_path: Path) -> None:
    with pytest.raises(CellDualityError, match="no checkpoint"):
        evaluate({"SFT": tmp_path / "nowhere"}, data, "test", tmp_path / "run", SETTINGS)
    assert not (tmp_path / "run").exists()


def test_label_metrics_of_planted_answers(yardstick) -> None:
    made = [planted(ANNOTATION, a, ("G1",), g) for a, g in [("B", "B"), ("T", "B"), (None, "T"), ("T", "T")]]
    made.append(planted(ANNOTATION, "B", ("G1",)))  # no gold: nothing to be right or wrong about
    gold, predicted = measures.gold_and_predicted(made)
    assert (gold, predicted) == (["B", "B", "T", "T"], ["B", "T", "", "T"])
    found = measures.label_metrics(gold, predicted, yardstick)
    assert found["accuracy"].value == 0.5
    assert found["macro_f1"].value == pytest.approx((2 / 3 + 1 / 2) / 2)
    low, high = found["accuracy"].interval
    assert 0 <= low < 0.5 < high <= 1


def test_dual_similarity_counts_failures_as_nothing(yardstick) -> None:
    made = [planted(ANNOTATION, "B", ("G1",), similarity=0.9), planted(ANNOTATION, None, ("G1",))]
    assert measures.dual_similarity(made, yardstick).value == pytest.approx(0.45)


def test_cell_metrics_of_planted_cells(yardstick) -> None:
    held_out = yardstick.held_out
    copies = [
        planted(GENERATION, genes, kind, id=str(place), listed=10, unknown_words=1, repeated=1)
        for place, (genes, kind) in enumerate(zip(held_out.genes, held_out.types, strict=True))
    ]
    found = measures.cell_metrics(copies, yardstick)
    assert found["mmd"].value == pytest.approx(0, abs=1e-12)  # the real cells themselves
    assert found["mmd_within_types"].value == pytest.approx(0, abs=1e-12)
    assert found["validity"].value == pytest.approx(0.9)
    assert found["duplicates"].value == pytest.approx(1 / 9)
    assert found["distinct"].value == 1
    assert found["knn_agreement_5"].value == 1
    unread = [planted(GENERATION, None, "B", id=f"x{place}") for place in range(len(copies))]
    halved = measures.cell_metrics(copies + unread, yardstick)
    assert halved["knn_agreement_5"].value == 0.5
    assert halved["validity"].value == pytest.approx(0.45)
    assert halved["duplicates"].value == pytest.approx(1 / 9)


def test_order_of_predictions_changes_no_bit_of_a_metric_of_cells(yardstick) -> None:
    held_out, rng = yardstick.held_out, np.random.default_rng(0)
    made = [
        planted(GENERATION, tuple(rng.permutation(genes)[:6].tolist()), kind, id=str(place), listed=8, repeated=2)
        for place, (genes, kind) in enumerate(zip(held_out.genes, held_out.types, strict=True))
    ]
    one = measures.cell_metrics(made, yardstick)
    other = measures.cell_metrics([made[place] for place in rng.permutation(len(made))], yardstick)
    assert one == other  # values, intervals and notes, to the last bit


def test_a_collapsed_generator_shows_in_distribution_not_in_agreement(yardstick) -> None:
    held_out = yardstick.held_out
    typical = dict(zip(held_out.types, held_out.genes, strict=True))
    kinds = enumerate(held_out.types)
    made = [planted(GENERATION, typical[kind], kind, id=str(place), listed=8) for place, kind in kinds]
    found, real = measures.cell_metrics(made, yardstick), measures.real_metrics(held_out.types, yardstick)
    assert found["knn_agreement_5"].value == 1
    assert found["spread"].value == 0
    assert found["distinct"].value == pytest.approx(3 / 30)
    assert found["mmd"].value > 3 * real["mmd"].value


def test_a_generator_of_nothing_has_no_distances(yardstick) -> None:
    found = measures.cell_metrics([planted(GENERATION, None, "B")], yardstick)
    assert found["knn_agreement_5"].value == 0
    assert {found[name].value for name in ("mmd", "mmd_within_types", "spread", "distinct", "duplicates")} == {None}


def test_mmd_takes_types_in_the_proportions_asked_for(yardstick) -> None:
    only_b = [place for place, kind in enumerate(yardstick.held_out.types) if kind == "B"]
    made = [planted(GENERATION, yardstick.held_out.genes[place], "B", id=str(place), listed=8) for place in only_b]
    assert measures.cell_metrics(made, yardstick)["mmd"].value == pytest.approx(0, abs=1e-12)


def test_failures_are_counted_by_cause() -> None:
    made = [
        planted(ANNOTATION, None, ("G1",)),
        planted(ANNOTATION, "B", ("G1",), dual_failure="empty"),
        planted(ANNOTATION, "B", ("G1",), dual_failure="empty"),
    ]
    assert measures.failures(made) == {"dual_empty": 2, "no_answer": 1}


def test_matched_draws_what_there_is_and_is_seeded() -> None:
    labels = ["B"] * 5 + ["T"] * 2
    wanted = ["B", "B", "T", "T", "T"]
    drawn = [matched(labels, wanted, np.random.default_rng(seed)).tolist() for seed in (0, 0)]
    assert drawn[0] == drawn[1]
    assert len(drawn[0]) == 4
    assert {5, 6} < set(drawn[0])
    assert matched(labels, []).tolist() == []


def test_baselines_learn_from_labelled_cells_only(vocabulary) -> None:
    cell_of = {"B": ("G0", "G1"), "NK": ("G20", "G21"), "T": ("G30", "G31")}
    types = ("B", "B", "B", "NK", "NK", *["T"] * 9)
    genes = tuple(cell_of[kind] for kind in types)
    train = RealCells(genes, types, tuple(kind != "T" for kind in types))
    assert majority_labels(train, 2) == ["B", "B"]  # T is commoner, but nobody saw its labels
    assert logistic_labels(train, [("G0", "G1"), ("G21", "G20")], vocabulary.genes) == ["B", "NK"]
    assert "T" not in logistic_labels(train, list(genes), vocabulary.genes)
    one_type = RealCells(genes[:2], types[:2], (True, True))
    assert logistic_labels(one_type, [("G30",)], vocabulary.genes) == ["B"]
    with pytest.raises(CellDualityError, match="no labelled training cell"):
        majority_labels(RealCells(genes[:1], ("B",), (False,)), 1)


def test_cells_file_mistakes_are_told(data: Path) -> None:
    path = data / "cells.jsonl"
    assert len(read_cells(path, "test")) == 30
    with pytest.raises(CellDualityError, match="no cells in split 'holdout'"):
        read_cells(path, "holdout")
    path.write_text(path.read_text().replace('"labelled"', '"labeled"', 1))
    with pytest.raises(CellDualityError, match=r"no 'labelled' in the row \[.*cells.jsonl:1\]"):
        read_cells(path, "test")
