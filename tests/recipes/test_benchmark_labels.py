"""The baselines of labels on a tiny folder: who sees which labels, and what they make of them."""

from __future__ import annotations

import json
import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cellduality_plugin.files import write_jsonl, write_text
from cellduality_plugin.profiles import Profile, Profiles
from cellduality_plugin.vocabulary import Vocabulary
from tests.refused import refused

SCRIPT = Path(__file__).parents[2] / "recipes" / "benchmarks" / "labels_baselines.py"
GENES = tuple(sorted(f"G{number:02}" for number in range(24)))
CEILING, PROFILES = "logistic regression, all labels", "tempered EM (profiles)"


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


@pytest.fixture
def measure(tmp_path: Path, monkeypatch, capsys) -> Callable[..., dict[str, dict[str, float]]]:
    """Return a function that runs the script on the cells and gives what it prints."""

    def measured(cells: list[dict[str, Any]], split: str = "test") -> dict[str, dict[str, float]]:
        Vocabulary(genes=GENES, labels={"cell_type": ("B", "T")}).save(tmp_path / "vocabulary.json")
        write_jsonl(tmp_path / "cells.jsonl", cells)
        monkeypatch.setattr("sys.argv", [str(SCRIPT), str(tmp_path), "--split", split])
        runpy.run_path(str(SCRIPT), run_name="__main__")
        found: dict[str, dict[str, float]] = json.loads(capsys.readouterr().out)
        return found

    return measured


def test_unlabelled_cells_help_and_their_labels_are_seen_by_the_ceiling_alone(measure, cells):
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


def test_profiles_are_scored_where_there_are_any(measure, tmp_path, cells):
    weights = np.array([[1] * 8 + [0] * 16, [0] * 8 + [1] * 8 + [0] * 8], np.float32)
    profile = Profile(("T", "B"), weights, np.zeros(2, np.float32))  # by the wrong names: every answer is wrong
    Profiles(GENES, {"cell_type": profile}).save(tmp_path / "profiles.npz")
    assert measure(cells, "validation")[PROFILES] == {"accuracy": 0.0, "macro_f1": 0.0}


def test_all_cells_may_be_labelled(measure, cells):
    found = measure([{**row, "labelled": row["split"] == "train"} for row in cells])
    assert found["naive Bayes"] == found["naive Bayes with EM"]
    assert found["logistic regression"] == found[CEILING]


def test_curves_pair_seeds_and_set_the_baselines_beside_the_checkpoints(tmp_path, monkeypatch):
    script = SCRIPT.with_name("label_curves.py")
    monkeypatch.syspath_prepend(script.parent)

    def column(value: float) -> dict[str, Any]:
        names = ("cell_type_annotation/accuracy", "cell_type_annotation/macro_f1")
        return {"kind": "checkpoint", "metrics": {name: {"value": value, "better": "higher"} for name in names}}

    for count in (20, 100):
        for place, seed in enumerate(("42", "43")):
            folder = tmp_path / str(count) / seed / "test"
            columns = {name: column(value + 0.1 * place) for name, value in {"SFT": 0.5, "refit": 0.7}.items()}
            found = {"split": "test", "settings": {"neighbours": []}, "columns": columns}
            write_text(folder / "metrics.json", json.dumps(found))
            write_text(folder / "baselines.json", json.dumps({"mean": {"accuracy": 0.25, "macro_f1": 0.25}}))
    monkeypatch.setattr("sys.argv", [str(script), str(tmp_path), "--reference", "refit"])
    runpy.run_path(str(script), run_name="__main__")
    table, _ = (tmp_path / "test.md").read_text(encoding="utf-8").split("\n\n### ")
    rows = {
        cells[1].strip(): [cell.strip() for cell in cells[2:-1]]
        for line in table.splitlines()
        if (cells := line.split("|"))[1:]
    }
    assert list(rows)[2:] == ["SFT", "refit", "mean"]
    assert rows["SFT"] == ["0.550 ± 0.071", "-0.200 (-0.200 to -0.200)"] * 2
    assert rows["mean"][0] == "0.250 ± 0.000"
    assert (tmp_path / "test.png").read_bytes().startswith(b"\x89PNG")
    monkeypatch.setattr("sys.argv", [str(script), str(tmp_path), "--split", "validation"])
    with refused("no-runs"):
        runpy.run_path(str(script), run_name="__main__")
