from __future__ import annotations

import pytest

from cellduality_plugin.evaluation.metrics.registry import BY_CONSTRUCTION
from cellduality_plugin.evaluation.tables import baseline_wins, best_columns, wins_line

KINDS = {"SFT": "checkpoint", "GRPO": "checkpoint", "majority": "baseline", "logistic": "baseline", "real": "real"}


def row(better: str = "higher", note: str = "", **values: float | None):
    return {name: {"value": value, "better": better, "note": note} for name, value in values.items()}


def metrics(**rows):
    columns = {name: {"kind": kind, "metrics": {}} for name, kind in KINDS.items()}
    for key, cells in rows.items():
        for name, cell in cells.items():
            columns[name]["metrics"][f"task/{key}"] = cell
    return {"columns": columns}


@pytest.mark.parametrize(
    ("cells", "best"),
    [
        (row(SFT=0.5, GRPO=0.7, majority=0.6, real=0.9), {"GRPO"}),
        (row("lower", SFT=0.5, GRPO=0.7, majority=0.6, real=0.1), {"SFT"}),
        (row("like real cells", SFT=0.5, GRPO=1.3, majority=0.9, real=1.0), {"majority"}),
        (row("like real cells", SFT=0.5, GRPO=1.3), set()),
        (row(SFT=0.7, GRPO=0.7, majority=0.6), {"SFT", "GRPO"}),
        (row(SFT=None, GRPO=0.7, majority=0.8), {"majority"}),
        (row(SFT=0.7, GRPO=None, real=0.9), set()),
        (row(SFT=None), set()),
        ({}, set()),
    ],
)
def test_the_best_of_a_row(cells, best) -> None:
    assert best_columns(cells, "real") == best


def test_baselines_that_beat_every_checkpoint() -> None:
    found = metrics(
        accuracy=row(SFT=0.5, GRPO=0.7, majority=0.6, logistic=0.8),
        f1=row(SFT=0.5, GRPO=0.7, majority=0.6, real=1.0),
        error=row("lower", SFT=0.5, GRPO=0.7, majority=0.4, logistic=0.6),
        tie=row(SFT=0.5, GRPO=0.7, majority=0.7),
        alone=row(SFT=0.5, GRPO=0.7, real=0.9),
        unmeasured=row(SFT=None, GRPO=None, majority=0.9),
        spread=row("like real cells", SFT=0.5, GRPO=1.3, majority=0.9, real=1.0),
    )
    found["columns"]["majority"]["metrics"]["task/validity"] = row(note=BY_CONSTRUCTION, majority=1.0)["majority"]
    found["columns"]["SFT"]["metrics"]["task/validity"] = row(SFT=0.9)["SFT"]
    won = baseline_wins(found)
    assert won == {f"task/{key}": key not in ("f1", "tie") for key in ("accuracy", "f1", "error", "tie", "spread")}
    assert wins_line(won) == "A baseline beats every checkpoint in 3 of 5 rows that both have: task 3 of 5."
    even = baseline_wins(metrics(accuracy=row(SFT=0.5, majority=0.5)))
    assert wins_line(even) == "No baseline beats every checkpoint in any of 1 rows that both have."
