"""The paper's tables from the evaluations of several seeds: whose number stands where, and what is a dash."""

from __future__ import annotations

import json
import runpy
from pathlib import Path

import pytest

from cellduality_plugin.evaluation.metrics import METRICS
from cellduality_plugin.tasks import TASKS
from data_prep.registry import DATASETS

SCRIPT = Path(__file__).parents[2] / "recipes" / "benchmarks" / "paper_tables.py"


@pytest.fixture
def printed(tmp_path, monkeypatch, capsys):
    """Return a function that gives the lines printed of {theme: [{metric: value} of each seed]}, words by line."""

    def run(**themes: list[dict[str, float]]) -> list[list[str]]:
        for theme, seeds in themes.items():
            for seed, metrics in enumerate(seeds):
                column = {"metrics": {key: {"value": value} for key, value in metrics.items()}}
                content = {"format": "cellduality-metrics", "version": 2, "columns": {"duality": column}}
                path = tmp_path / theme / str(seed) / "test" / "metrics.json"
                path.parent.mkdir(parents=True)
                path.write_text(json.dumps(content))
        monkeypatch.setattr("sys.argv", ["paper_tables.py", str(tmp_path)])
        monkeypatch.setenv("COLUMNS", "300")
        for name in ("FORCE_COLOR", "TTY_COMPATIBLE"):  # a dumb terminal has 80 columns
            monkeypatch.delenv(name, raising=False)
        runpy.run_path(str(SCRIPT), run_name="__main__")
        return [line.replace("│", " ").split() for line in capsys.readouterr().out.splitlines()]

    return run


def test_a_column_is_a_set_and_a_cell_the_mean_and_spread_over_seeds(printed):
    one = {"cell_type_annotation@he_2020_liver/accuracy": 0.5, "cell_type_annotation@ma_2020/macro_f1": 0.25}
    other = {"cell_type_annotation@he_2020_liver/accuracy": 0.7, "cell_type_annotation/accuracy": 0.9}
    lines = printed(identity=[one, other], dynamics=[{"perturbation_response_generation@ood/mmd": 0.1234}])
    ours = [line for line in lines if line and line[0] == "duality"]
    assert ours == [["duality", "60.00", "±", "14.14", *"––––––", "25.00", "–", "–"], ["duality", "–", "0.123", "–"]]
    (paper,) = [line[2:] for line in lines if line[:2] == ["paper,", "CellDuality"] and len(line) == 12]
    assert paper[0:8:7] == ["96.34", "81.78"]
    assert [line for line in lines if line and line[0] == "none"] == [["none", *"––––––"], ["none", *"–––––"]]


def test_tables_name_tasks_sets_and_metrics_that_there_are():
    for table in runpy.run_path(str(SCRIPT))["TABLES"]:
        assert table.task in TASKS
        assert {*table.sets} - {"ood"} <= {*DATASETS}
        assert {
            metric.removesuffix(f"_{metric.split('_')[-1]}") if "knn" in metric else metric for metric in table.metrics
        } <= {*METRICS}
        assert all(len(row.split()) == len(table.sets) * len(table.metrics) for row in table.rows.values())
