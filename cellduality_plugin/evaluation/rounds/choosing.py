"""Which round is kept, and whether another one is worth its time; by validation cells alone."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cellduality_plugin.errors import CellDualityError
from cellduality_plugin.evaluation.compare import headline_of
from cellduality_plugin.evaluation.report import read_metrics

FORMAT, VERSION = "cellduality-rounds", 1
METRICS, PSEUDO = Path("validation", "metrics.json"), "pseudo.json"


@dataclass(frozen=True)
class Round:
    """One round: its number from 1, its headline metrics on validation cells, and its pseudo-labels by task, if any.

    Metrics are those that are better the higher, in [0, 1], of cells like those that train.
    """

    number: int
    metrics: Mapping[str, float]
    pseudo: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @property
    def score(self) -> float:
        """The mean of ``metrics``, in [0, 1]. Best value 1."""
        return statistics.fmean(self.metrics.values())

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON holds it."""
        told = {
            key: {task: found[key] for task, found in self.pseudo.items()} for key in ("flip_rate", "entropy", "alarms")
        }
        return {"round": self.number, "score": self.score, "metrics": dict(self.metrics), **told}


def read_round(folder: Path) -> Round:
    """Return the round in ``folder``, which is called by its number.

    Raises
    ------
    CellDualityError
        If it was not evaluated on validation cells, as one checkpoint, or has no headline metric.
    """
    content, where = read_metrics(folder / METRICS), str(folder / METRICS)
    columns = [column for column in content["columns"].values() if column["kind"] == "checkpoint"]
    if content["split"] != "validation" or len(columns) != 1:
        hint = "evaluate one with --split validation"
        raise CellDualityError("not one checkpoint on validation cells", where=where, hint=hint)
    metrics = {
        key: float(metric["value"])
        for key, metric in columns[0]["metrics"].items()
        if headline_of(key) and "@" not in key and metric["better"] == "higher" and metric["value"] is not None
    }
    if not metrics:
        raise CellDualityError("no headline metric", where=where, hint="evaluate with --decode headline")
    pseudo = folder / PSEUDO
    tasks = json.loads(pseudo.read_text(encoding="utf-8"))["tasks"] if pseudo.is_file() else {}
    return Round(int(folder.name), metrics, tasks)


def choose(rounds: Sequence[Round], patience: int) -> tuple[int, bool, str]:
    """Return (the number of the round that is kept, the first of equal ones; whether another is worth its time; why).

    ``rounds`` are in their order; so many in a row as ``patience`` may do no better than the best before them.
    """
    best = max(rounds, key=lambda each: (each.score, -each.number))
    since = rounds[-1].number - best.number
    why = f"round {best.number} is best, {best.score:.3f} on validation cells"
    return best.number, since < patience, why + (f"; {since} since did no better" if since else "")


def as_json(rounds: Sequence[Round], patience: int) -> dict[str, Any]:
    """Return what the file of rounds holds."""
    kept, goes_on, why = choose(rounds, patience)
    told = [each.as_dict() for each in rounds]
    return {"format": FORMAT, "version": VERSION, "kept": kept, "why": why, "goes_on": goes_on, "rounds": told}
