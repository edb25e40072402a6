from __future__ import annotations

import math

import pytest
from rich.console import Console

from cellduality_plugin.errors import CellDualityError
from cellduality_plugin.evaluation.seeds import Spread, over_seeds, paired_change, seeds_table

KEY = "cell_type_annotation/accuracy"


def run(split: str = "test", **accuracies: float | None):
    columns = {
        name: {"kind": "checkpoint", "metrics": {} if value is None else {KEY: {"value": value, "better": "higher"}}}
        for name, value in accuracies.items()
    }
    return {"split": split, "settings": {"neighbours": [10]}, "columns": columns}


RUNS = [run(SFT=0.5, GRPO=0.7), run(SFT=0.6, GRPO=0.7)]


def test_mean_and_sample_deviation():
    spread = over_seeds(RUNS)[KEY]["SFT"]
    assert (spread.mean, spread.deviation) == pytest.approx((0.55, math.sqrt(0.005)))


def test_the_change_is_paired():
    """Seed by seed the changes are 0.2 and 0.1: their deviation is not that of either column."""
    change = paired_change(RUNS, KEY, "SFT", "GRPO")
    assert (change.mean, change.deviation) == pytest.approx((0.15, math.sqrt(0.005)))


def test_one_seed_has_no_deviation():
    assert math.isnan(Spread.of([0.5]).deviation)
    assert str(Spread.of([0.5])) == "0.500"


def test_a_metric_that_a_run_lacks_is_not_averaged_over_the_rest():
    assert "base" not in over_seeds([run(base=None, SFT=0.5), run(base=0.1, SFT=0.5)])[KEY]


@pytest.mark.parametrize("other", [run("validation", SFT=0.5, GRPO=0.7), run(SFT=0.5)])
def test_runs_of_different_kinds_are_not_mixed(other):
    with pytest.raises(CellDualityError, match="one recipe and one split"):
        over_seeds([RUNS[0], other])


def test_the_table_is_markdown_with_the_paired_change():
    console = Console(width=200, record=True, force_terminal=False)
    console.print(seeds_table(RUNS))
    text = console.export_text()
    assert "| cell type annotation: accuracy ↑ | 0.550 ± 0.071 | 0.700 ± 0.000 | 0.150 ± 0.071 |" in text
