from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.commands.conftest import invoke
from tests.evaluation.test_compare import KEY, make_runs
from tests.refused import refused

ACCURACIES = {"SFT": [0.5, 0.6, 0.7], "oracle": [0.7, 0.81, 0.89], "paper": [0.6, 0.7, 0.81]}


@pytest.fixture
def paths(tmp_path: Path) -> list[str]:
    """The metrics.json of three seeds."""
    written = [tmp_path / f"{seed}.json" for seed in range(3)]
    for path, run in zip(written, make_runs({KEY: ("higher", ACCURACIES)}), strict=True):
        path.write_text(json.dumps({"format": "cellduality-metrics", "version": 2, **run}))
    return [*map(str, written)]


def test_the_tables_are_printed_and_written_with_a_plot_and_the_seeds(paths, tmp_path):
    printed = invoke("arms", *paths, "--out", tmp_path / "arms")
    assert "closes 52 % of the gap" in printed
    assert (tmp_path / "arms" / "arms.md").read_text(encoding="utf-8") == printed
    assert json.loads((tmp_path / "arms" / "arms.json").read_text(encoding="utf-8"))["seeds"] == [0, 1, 2]
    kinds = {path.name for path in (tmp_path / "arms").iterdir()}
    assert kinds == {f"arms.{suffix}" for suffix in ("md", "json", "csv", "svg", "png")}
    printed = invoke("seeds", *paths, "--after", "paper")
    assert "0.703 ± 0.105" in printed
    assert "0.103 ± 0.0058" in printed
    assert "gains (+0.103)" in invoke("arms", *paths, "--oracle", "")


def test_a_seed_that_is_given_twice_and_runs_without_a_headline_are_refused(paths, tmp_path):
    copy = tmp_path / "copy.json"
    copy.write_bytes(Path(paths[0]).read_bytes())
    for command in ("seeds", "arms"):
        with refused("repeated-run"):
            invoke(command, *paths, copy)
    copy.write_text(copy.read_text().replace("accuracy", "validity"))
    with refused("no-headline"):
        invoke("arms", copy, "--oracle", "")
