"""What is made of finished runs: baselines of labels, curves over the number of labels, the paper's tables."""

from __future__ import annotations

import json
import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cellduality_plugin.evaluation.metrics import METRICS
from cellduality_plugin.files import write_jsonl, write_text
from cellduality_plugin.profiles import Profile, Profiles
from cellduality_plugin.tasks import TASKS
from cellduality_plugin.vocabulary import Vocabulary
from data_prep.datasets import DATASETS
from tests.refused import refused

FOLDER = Path(__file__).parents[2] / "recipes" / "benchmarks"
GENES = tuple(sorted(f"G{number:02}" for number in range(24)))
CEILING, PROFILES = "logistic regression, all labels", "tempered EM (profiles)"
ACCURACY, MACRO_F1 = "cell_type_annotation/accuracy", "cell_type_annotation/macro_f1"


@pytest.fixture
def script(tmp_path: Path, monkeypatch, capsys) -> Callable[..., str]:
    """Return a function that runs a benchmark's script on the test's folder and gives what it prints."""
    monkeypatch.syspath_prepend(FOLDER)

    def run(name: str, *words: str) -> str:
        monkeypatch.setattr("sys.argv", [f"{name}.py", str(tmp_path), *words])
        runpy.run_path(str(FOLDER / f"{name}.py"), run_name="__main__")
        return str(capsys.readouterr().out)

    return run


@pytest.fixture
def cells() -> list[dict[str, Any]]:
    """Two types with eight genes of their own each, of which a cell shows three; four training cells are labelled."""
    rng, rows = np.random.default_rng(0), []
    for place in range(160):
        kind = "BT"[place % 2]
        own, shared = (GENES[:8] if kind == "B" else GENES[8:16]), GENES[16:]
        genes = [*rng.choice(own, 3, replace=False), *rng.choice(shared, 3, replace=False)]
        split = "train" if place < 100 else "validation" if place < 130 else "test"
        row = {"id": f"toy/{place:03}", "split": split, "labelled": place < 4, "cell_type": kind}
        rows.append({**row, "genes": [str(gene) for gene in rng.permutation(genes)]})
    return rows


class TestBaselinesOfLabels:
    @pytest.fixture
    def measure(self, tmp_path: Path, script) -> Callable[..., dict[str, dict[str, float]]]:
        """Return a function that gives the scores of each baseline on the cells."""

        def measured(cells: list[dict[str, Any]], split: str = "test") -> dict[str, dict[str, float]]:
            Vocabulary(genes=GENES, labels={"cell_type": ("B", "T")}).save(tmp_path / "vocabulary.json")
            write_jsonl(tmp_path / "cells.jsonl", cells)
            found: dict[str, dict[str, float]] = json.loads(script("labels_baselines", "--split", split))
            return found

        return measured

    def test_unlabelled_cells_help_and_their_labels_are_seen_by_the_ceiling_alone(self, measure, cells):
        found = measure(cells)
        assert set(found) == {"logistic regression", "naive Bayes", "naive Bayes with EM", "label spreading", CEILING}
        assert found["naive Bayes"]["accuracy"] < found["naive Bayes with EM"]["accuracy"] == 1.0
        assert found[CEILING] == {"accuracy": 1.0, "macro_f1": 1.0}
        for row in cells:  # whoever looks at a label that is not shown learns the opposite
            if row["split"] == "train" and not row["labelled"]:
                row["cell_type"] = "T" if row["cell_type"] == "B" else "B"
        misled = measure(cells)
        assert misled.pop(CEILING)["accuracy"] < 0.1
        assert misled == {name: scores for name, scores in found.items() if name != CEILING}

    def test_profiles_are_scored_where_there_are_any(self, measure, tmp_path, cells):
        weights = np.array([[1] * 8 + [0] * 16, [0] * 8 + [1] * 8 + [0] * 8], np.float32)
        profile = Profile(("T", "B"), weights, np.zeros(2, np.float32))  # by the wrong names: every answer is wrong
        Profiles(GENES, {"cell_type": profile}).save(tmp_path / "profiles.npz")
        assert measure(cells, "validation")[PROFILES] == {"accuracy": 0.0, "macro_f1": 0.0}

    def test_all_cells_may_be_labelled(self, measure, cells):
        found = measure([{**row, "labelled": row["split"] == "train"} for row in cells])
        assert found["naive Bayes"] == found["naive Bayes with EM"]
        assert found["logistic regression"] == found[CEILING]


@pytest.fixture
def plant(tmp_path: Path) -> Callable[..., Path]:
    """Return a function that writes the metrics of a run, {column: {metric: value}}, and gives its folder."""

    def write(run: str, **columns: dict[str, float | None]) -> Path:
        found = {
            name: {
                "kind": "checkpoint",
                "metrics": {key: {"value": v, "better": "higher", "note": "9 cells"} for key, v in own.items()},
            }
            for name, own in columns.items()
        }
        settings = {"format": "cellduality-metrics", "version": 2, "split": "test", "settings": {"neighbours": []}}
        folder = tmp_path / run / "test"
        write_text(folder / "metrics.json", json.dumps({**settings, "columns": found}))
        return folder

    return write


def test_curves_pair_seeds_and_set_the_baselines_beside_the_checkpoints(script, plant, tmp_path):
    for count in (20, 100):
        for place, seed in enumerate(("42", "43")):
            values = {"SFT": 0.5 + 0.1 * place, "refit": 0.7 + 0.1 * place}
            folder = plant(f"{count}/{seed}", **{name: {ACCURACY: v, MACRO_F1: v} for name, v in values.items()})
            write_text(folder / "baselines.json", json.dumps({"mean": {"accuracy": 0.25, "macro_f1": 0.25}}))
    script("label_curves", "--reference", "refit")
    table, _ = (tmp_path / "test.md").read_text(encoding="utf-8").split("\n\n### ")
    lines = [[cell.strip() for cell in line.split("|")] for line in table.splitlines()]
    rows = {words[1]: words[2:-1] for words in lines if len(words) > 1}
    assert list(rows)[2:] == ["SFT", "refit", "mean"]
    assert rows["SFT"] == ["0.550 ± 0.071", "-0.200 (-0.200 to -0.200)"] * 2
    assert rows["mean"][0] == "0.250 ± 0.000"
    assert (tmp_path / "test.png").read_bytes().startswith(b"\x89PNG")
    with refused("no-runs"):
        script("label_curves", "--split", "validation")


class TestPaperTables:
    def test_a_column_is_a_set_and_a_cell_the_mean_and_spread_over_seeds(self, script, plant, monkeypatch):
        monkeypatch.setenv("COLUMNS", "300")
        for name in ("FORCE_COLOR", "TTY_COMPATIBLE"):  # a dumb terminal has 80 columns
            monkeypatch.delenv(name, raising=False)
        of_set = "cell_type_annotation@he_2020_liver/accuracy"
        plant("identity/0", duality={of_set: 0.5, "cell_type_annotation@ma_2020/macro_f1": 0.25})
        plant("identity/1", duality={of_set: 0.7, ACCURACY: 0.9})
        response = "perturbation_response_generation@ood"
        plant("dynamics/0", duality={f"{response}/mmd": 0.1234, f"{response}/scfid": None})
        printed = script("paper_tables")
        assert printed.count("9 cells") == 1, "why there is a dash"
        lines = [line.replace("│", " ").split() for line in printed.splitlines()]
        ours = [line for line in lines if line and line[0] == "duality"]
        assert ours == [
            ["duality", "60.00", "±", "14.14", *"––––––", "25.00", "–", "–"],
            ["duality", "–", "0.123", "–"],
        ]
        (paper,) = [line[2:] for line in lines if line[:2] == ["paper,", "CellDuality"] and len(line) == 12]
        assert paper[0:8:7] == ["96.34", "81.78"]
        assert [line for line in lines if line and line[0] == "none"] == [["none", *"––––––"], ["none", *"–––––"]]

    def test_tables_name_tasks_sets_and_metrics_that_there_are(self, benchmarks):
        for table in benchmarks("paper_tables").TABLES:
            assert table.task in TASKS
            assert {*table.sets} - {"ood"} <= {*DATASETS}
            names = {name.rpartition("_")[0] if "knn" in name else name for name in table.metrics}
            assert names <= {*METRICS}
            assert all(len(row.split()) == len(table.sets) * len(table.metrics) for row in table.rows.values())
