from __future__ import annotations

import json
import shutil
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from cellduality_plugin.evaluation.baselines import BASELINES, CLASS_MEAN, RESAMPLED
from cellduality_plugin.evaluation.evaluate import evaluate
from cellduality_plugin.evaluation.metrics import METRICS
from cellduality_plugin.evaluation.predictions import PredictionSettings
from cellduality_plugin.evaluation.tables import table
from tests.evaluation.conftest import OF_ONE, OF_TWO, open_expert
from tests.refused import refused

ANNOTATION, GENERATION = "cell_type_annotation", "conditional_cell_generation"
RESPONSE = "perturbation_response_generation"
AT_ONCE = ("base", "SFT", "GRPO", "no change", "mean shift", "real cells")
"""The columns of a table of responses."""


@pytest.fixture
def metrics(run_of_one: Path):
    return json.loads((run_of_one / "metrics.json").read_text())


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_an_expert_reaches_the_ceiling_and_provenance_tells_what_the_numbers_were_made_from(metrics) -> None:
    assert metrics["columns"]["SFT"] == metrics["columns"]["GRPO"], "one checkpoint"
    names = ("SFT", "real cells", "training cells", "class mean")
    found, real, *baselines = (metrics["columns"][name]["metrics"] for name in names)
    best = {"knn_agreement_5": 1, "dual_similarity": 1, "validity": 1, "duplicates": 0}
    assert {key: found[f"{GENERATION}/{key}"]["value"] for key in best} == best
    assert found[f"{ANNOTATION}/accuracy"]["value"] == found[f"{ANNOTATION}/macro_f1"]["value"] == 1
    assert real[f"{GENERATION}/knn_agreement_5"]["value"] == 1
    # The expert draws from the very distribution of the real cells: nothing but noise is left of every distance.
    mmd, spread = ([own[f"{GENERATION}/{key}"]["value"] for own in (found, real)] for key in ("mmd", "spread"))
    assert (max(mmd) < 0.01, spread[0]) == (True, pytest.approx(spread[1], rel=0.2))
    for own in (found, real):
        metric = own[f"{GENERATION}/knn_agreement_100"]
        assert (metric["value"], metric["note"]) == (None, "only 30 real cells")
    for own in baselines:
        assert {own[f"{GENERATION}/{key}"]["note"] for key in ("validity", "duplicates")} == {"by construction"}
    provenance = metrics["provenance"]
    assert provenance["command"] == ["evaluate", "--twice"]
    assert provenance["data"].keys() == {"vocabulary.json", "cells.jsonl", "eval_test.jsonl"}
    assert provenance["versions"].keys() >= {"cellduality", "python", "numpy", "scikit-learn"}
    assert len(provenance["models"]["SFT"]["model"]) == 12


def test_every_number_carries_what_it_takes_to_read_it(run_of_two: Path) -> None:
    columns = json.loads((run_of_two / "metrics.json").read_text())["columns"]
    real = {key: metric["value"] for key, metric in columns["real cells"]["metrics"].items()}
    every = [(key, metric, column["kind"]) for column in columns.values() for key, metric in column["metrics"].items()]
    shifts = {f"{a}_{b}" for a in ("shift", "delta") for b in ("correlation", "error")}
    measured = {key.rpartition("/")[2] for key, _, _ in every}
    cells = {each.key for each in METRICS.values() if each.group == "cells" and each.key != "knn_agreement"}
    labels = {"accuracy", "macro_f1", "sampled_accuracy", "sampled_macro_f1", "majority_accuracy"}
    assert measured >= cells | shifts | labels | {"knn_agreement_5", "knn_agreement_3"}
    distances = cells - {"validity", "duplicates", "distinct"}
    for key, metric, kind in every:
        name = key.rpartition("/")[2]
        low, high = metric["bounds"]
        assert metric["estimator"], key
        assert metric["note"] or (metric["value"] is not None and metric["interval"] is not None), key
        if name in distances | shifts or name.startswith("knn"):
            assert metric["space"], key
        assert bool(metric["kernel"]) == name.startswith("mmd"), key
        assert metric["seed"] == 0 or name == "distinct" or metric["note"] == "by construction", key
        for value in (metric["value"], *(metric["interval"] or ())):
            assert value is None or low <= value <= (np.inf if high is None else high), key
        assert metric["real"] == real.get(key), key
        if kind == "checkpoint" and name in cells | shifts:
            assert key in real, key
        if metric["value"] is not None and name != "distinct" and metric["note"] != "by construction":
            low, high = metric["interval"]
            assert low - 1e-9 <= metric["value"] <= high + 1e-9, key


def printed(metrics) -> str:
    """The table on a screen of 80 characters."""
    console = Console(width=80, record=True)
    console.print(table(metrics))
    return console.export_text()


def test_the_table_has_headlines_first_and_of_a_whole_run_cuts_no_number_on_a_small_screen(metrics) -> None:
    lines = [line.strip() for line in printed(metrics).splitlines()]
    split = lines.index("conditional cell generation")
    annotation, generation = lines[lines.index("cell type annotation") : split], lines[split:]
    names = [line.split("  ")[0] for line in annotation if "↑" in line]
    assert names[:3] == ["accuracy ↑", "macro-F1 ↑", "sampled accuracy ↑"]
    assert names[-3:] == ["dual similarity ↑", "sampled dual ↑", "dual given truth ↑"]
    accuracy, dual = (next(line for line in annotation if line.startswith(name)).split() for name in ("acc", "dual"))
    assert (accuracy[2:], dual[-3:]) == (["1.000*"] * 4 + ["0.333"], ["–"] * 3)
    assert next(line for line in generation if line.startswith("k-NN")).startswith("k-NN agreement (5) ↑")
    assert "majority" not in "".join(generation[:-2])  # nothing of it was measured there
    # Three checkpoints, all baselines, and the longest names there are.
    response = {"shift_correlation": -0.1234, "shift_error": 0.00234, "knn_agreement_25": 0.5, "mmd_within_types": 0.5}
    columns = {}
    for name in ("base", "SFT", "GRPO", *BASELINES, "real cells"):
        labels = {} if name in (*AT_ONCE, RESAMPLED, CLASS_MEAN) else {"drug_sensitivity_prediction/accuracy": 0.5}
        own = {f"{RESPONSE}@ood/{key}": value for key, value in response.items()} if name in AT_ONCE else labels
        found = {key: {"value": value, "better": "higher"} for key, value in own.items()}
        columns[name] = {"kind": "baseline" if name in BASELINES else "checkpoint", "metrics": found}
    text = printed({"split": "test", "settings": {"neighbours": [25]}, "columns": columns})
    assert "…" not in text
    assert text.count("-0.123") == text.count("0.0023") == 6
    for name in ("logistic", "regression", "majority", "transfer", "k-NN agreement (25) ↑", "MMD² within types ↑"):
        assert name in text


def test_names_that_cannot_be_columns_are_refused_and_nothing_is_written_when_a_model_fails(data, model, tmp_path):
    for name in ("real cells", "majority", "a/b", "", ".hidden"):
        with refused("wrong-name"):
            evaluate({name: model}, data, "test", tmp_path / "run", OF_ONE)
    with refused("no-checkpoint"):
        evaluate({"SFT": tmp_path / "nowhere"}, data, "test", tmp_path / "run", OF_ONE)
    assert not (tmp_path / "run").exists()


def test_the_order_of_rows_changes_nothing_that_is_written(two_sources, run_of_two, model, tmp_path):
    shuffled = Path(shutil.copytree(two_sources, tmp_path / "data"))
    for path in shuffled.glob("eval_*.jsonl"):
        lines = path.read_text().splitlines(keepends=True)
        path.write_text("".join(np.random.default_rng(0).permutation(lines)))
    evaluate({"GRPO": model}, shuffled, "test", tmp_path / "run", OF_TWO, opener=open_expert)
    files, others = files_of(run_of_two), files_of(tmp_path / "run")
    assert {Path(name).suffix for name in files} == {".json", ".jsonl", ".h5ad"}
    one, other = (json.loads(each.pop("metrics.json")) for each in (files, others))
    assert files == others
    assert one.pop("provenance") != other.pop("provenance"), "the rows as they stand there"
    assert one == other
    assert str(tmp_path) not in json.dumps(other), "what was measured does not say where"


def test_what_was_stopped_goes_on_with_the_same_bytes(one_source, model, tmp_path, opened, expert_decoder):
    asking = PredictionSettings(samples=2, batch=25)
    settings = replace(OF_ONE, prediction=asking, resamples=10, anndata=True, real_cells=True)

    class Mortal:
        batches = 9

        def generate(self, requests, title):
            if not self.batches:
                raise KeyboardInterrupt
            self.batches -= 1
            return expert_decoder.generate(requests, title)

    def write(name: str, opener=opened) -> dict[str, bytes]:
        evaluate({"SFT": model}, one_source, "test", tmp_path / name, settings, opener=opener)
        return files_of(tmp_path / name)

    whole, needed = write("whole"), len(expert_decoder.asked)
    with pytest.raises(KeyboardInterrupt):
        write("cut", lambda _: nullcontext(Mortal()))
    assert list(files_of(tmp_path / "cut")) == ["predictions/SFT.partial"]
    assert write("cut") == whole
    assert len(expert_decoder.asked) == 2 * needed, "nothing was asked twice"
