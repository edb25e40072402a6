from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from cellduality_plugin.cli import app
from cellduality_plugin.commands.comparing import read_runs
from cellduality_plugin.errors import CellDualityError


def write_runs(folder: Path, accuracies: dict[str, list[float]]) -> list[str]:
    paths = []
    for seed in range(len(accuracies["SFT"])):
        metrics: dict[str, Any] = {
            "format": "cellduality-metrics",
            "version": 2,
            "split": "test",
            "settings": {"neighbours": [10], "seed": 40 + seed},
            "columns": {
                name: {
                    "kind": "checkpoint",
                    "metrics": {"cell_type_annotation/accuracy": {"value": values[seed], "better": "higher"}},
                }
                for name, values in accuracies.items()
            },
        }
        path = folder / f"{40 + seed}" / "metrics.json"
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps(metrics), encoding="utf-8")
        paths.append(str(path))
    return paths


@pytest.fixture
def paths(tmp_path):
    accuracies = {"SFT": [0.5, 0.6, 0.7], "oracle": [0.7, 0.81, 0.89], "paper": [0.6, 0.7, 0.81]}
    return write_runs(tmp_path, accuracies)


def test_the_tables_are_printed_and_written_with_a_plot_and_the_seeds(paths, tmp_path):
    done = CliRunner().invoke(app, ["arms", *paths, "--out", str(tmp_path / "arms")])
    assert done.exit_code == 0, done.output
    assert "closes 52 % of the gap" in done.stdout
    assert (tmp_path / "arms" / "arms.md").read_text(encoding="utf-8") == done.stdout
    assert json.loads((tmp_path / "arms" / "arms.json").read_text(encoding="utf-8"))["seeds"] == [40, 41, 42]
    assert {path.name for path in (tmp_path / "arms").iterdir()} == {
        f"arms.{s}" for s in ("md", "json", "csv", "svg", "png")
    }


def test_without_a_folder_nothing_is_written(paths, tmp_path):
    before = sorted(tmp_path.rglob("*"))
    assert CliRunner().invoke(app, ["arms", *paths]).exit_code == 0
    assert sorted(tmp_path.rglob("*")) == before


def test_a_missing_oracle_is_told_and_can_be_done_without(paths):
    done = CliRunner().invoke(app, ["arms", *paths, "--oracle", "gold"])
    assert isinstance(done.exception, CellDualityError)
    assert "--oracle ''" in str(done.exception)
    done = CliRunner().invoke(app, ["arms", *paths, "--oracle", ""])
    assert done.exit_code == 0
    assert "gains (+0.103)" in done.stdout


def test_a_seed_that_is_given_twice_is_refused(paths, tmp_path):
    copy = tmp_path / "copy.json"
    copy.write_bytes(Path(paths[0]).read_bytes())
    with pytest.raises(CellDualityError, match="the same run twice"):
        read_runs([*map(Path, paths), copy])
    assert len(read_runs([Path(path) for path in paths])) == 3


def test_runs_without_a_headline_are_told(tmp_path):
    [path] = write_runs(tmp_path, {"SFT": [0.5]})
    Path(path).write_text(Path(path).read_text().replace("accuracy", "validity"))
    done = CliRunner().invoke(app, ["arms", path, "--oracle", ""])
    assert isinstance(done.exception, CellDualityError)
    assert "no headline metric" in str(done.exception)
