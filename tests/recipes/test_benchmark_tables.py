"""What is made of finished runs: baselines of labels, curves over the number of labels, the paper's tables."""

from __future__ import annotations

import itertools
import json
import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch.utils.tensorboard import SummaryWriter

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
TASK = "cell_type_annotation"
ACCURACY, MACRO_F1 = f"{TASK}/accuracy", f"{TASK}/macro_f1"


@pytest.fixture
def script(tmp_path: Path, benchmarks, monkeypatch, capsys) -> Callable[..., str]:
    """Return a function that runs a benchmark's script on the test's folder and gives what it prints."""

    def run(name: str, *words: str) -> str:
        monkeypatch.setattr("sys.argv", [f"{name}.py", str(tmp_path), *words])
        runpy.run_path(str(FOLDER / f"{name}.py"), run_name="__main__")
        return str(capsys.readouterr().out)

    return run


@pytest.fixture
def cells() -> list[dict[str, Any]]:
    """Two types with eight genes of their own each, of which a cell shows three; four training cells are labelled."""
    rng, rows = np.random.default_rng(0), []
    splits = ["train"] * 100 + ["validation"] * 30 + ["test"] * 30
    for place, split in enumerate(splits):
        own = GENES[:8] if place % 2 == 0 else GENES[8:16]
        genes = [*rng.choice(own, 3, replace=False), *rng.choice(GENES[16:], 3, replace=False)]
        row = {"id": f"toy/{place:03}", "split": split, "labelled": place < 4, "cell_type": "BT"[place % 2]}
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
        found = {}
        for name, own in columns.items():
            metrics = {key: {"value": value, "better": "higher", "note": "9 cells"} for key, value in own.items()}
            found[name] = {"kind": "checkpoint", "metrics": metrics}
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


class TestDefaultRewards:
    """Tables and curves from planted runs of two seeds."""

    @staticmethod
    def audit(auc: float, reward: str = "likelihood") -> dict[str, Any]:
        value = {"value": auc, "interval": [0.0, 1.0]}
        return {"findings": [{"task": TASK, "reward": reward, "auc": value, "zero_variance": {"value": None}}]}

    def test_the_table_is_over_seeds_and_leaves_out_what_an_audit_lacks(self, benchmarks):
        table = benchmarks("default").audits_table
        *_, row = table([self.audit(0.6), self.audit(0.8)]).splitlines()
        cells = [cell.strip() for cell in row.split("|")[1:-1]]
        assert cells == ["cell type annotation", "likelihood", "0.70 ± 0.14", *"–––––"]
        with pytest.raises(SystemExit, match="audit all seeds alike"):
            table([self.audit(0.6), self.audit(0.8, "posterior")])

    def test_curves_show_every_arm_beside_the_oracle(self, benchmarks, tmp_path):
        seeds, arms = ["1", "2"], ["oracle", "posterior", "posterior-frozen"]
        for seed, arm in itertools.product(seeds, arms):
            with SummaryWriter(str(tmp_path / seed / "arms" / arm / "tensorboard/grpo")) as writer:
                names = ("dual_reward", "dual_share", "dual_truth", "dual_truth_share")
                for step, name in itertools.product((1, 2, 3), names):
                    writer.add_scalar(f"train/{name}/{TASK}", 0.25 * step, step)
        benchmarks("default").save_curves(tmp_path, seeds, arms, tmp_path / "curves.svg", tmp_path / "curves.png")
        drawn = (tmp_path / "curves.svg").read_text(encoding="utf-8")
        for word in ("cell type annotation, moving dual", "cell type annotation, frozen dual", "accuracy"):
            assert word in drawn
        assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")
