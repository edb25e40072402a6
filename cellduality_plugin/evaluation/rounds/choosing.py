"""Which round is kept, and whether another one is worth its time; by validation cells alone."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cellduality_plugin.errors import CellDualityError
from cellduality_plugin.evaluation.compare import headline_of
from cellduality_plugin.evaluation.report import read_metrics

FORMAT, VERSION = "cellduality-rounds", 1
METRICS, PSEUDO = Path("validation", "metrics.json"), "pseudo.json"


def read_round(folder: Path) -> dict[str, Any]:
    """Return what the file of rounds holds of the round in ``folder``, which is called by its number.

    Its ``metrics`` are the headlines that are better the higher, in [0, 1], of cells like those that train; its
    ``score`` is their mean. Beside them stands what is known of its pseudo-labels, by task. A CellDualityError if it
    was not evaluated on validation cells, as one checkpoint, or has no headline metric.
    """
    content, where = read_metrics(folder / METRICS), str(folder / METRICS)
    columns = [column for column in content["columns"].values() if column["kind"] == "checkpoint"]
    if content["split"] != "validation" or len(columns) != 1:
        what, hint = "not one checkpoint on validation cells", "evaluate one with --split validation"
        raise CellDualityError(what, code="not-a-round", where=where, hint=hint)
    metrics = {
        key: float(metric["value"])
        for key, metric in columns[0]["metrics"].items()
        if headline_of(key) and "@" not in key and metric["better"] == "higher" and metric["value"] is not None
    }
    if not metrics:
        hint = "evaluate with --decode headline"
        raise CellDualityError("no headline metric", code="no-headline", where=where, hint=hint)
    pseudo = folder / PSEUDO
    tasks = json.loads(pseudo.read_text(encoding="utf-8"))["tasks"] if pseudo.is_file() else {}
    labels = {key: {task: own[key] for task, own in tasks.items()} for key in ("flip_rate", "entropy", "alarms")}
    return {"round": int(folder.name), "score": statistics.fmean(metrics.values()), "metrics": metrics, **labels}


def as_json(rounds: Sequence[Mapping[str, Any]], patience: int) -> dict[str, Any]:
    """Return what the file of rounds holds: which is ``kept`` (the first of equal ones), and whether it ``goes_on``.

    ``rounds`` are in their order; so many in a row as ``patience`` may do no better than the best before them.
    """
    best = max(rounds, key=lambda each: each["score"])
    since = rounds[-1]["round"] - best["round"]
    why = f"round {best['round']} is best, {best['score']:.3f} on validation cells"
    why += f"; {since} since did no better" if since else ""
    decision = {"kept": best["round"], "why": why, "goes_on": since < patience}
    return {"format": FORMAT, "version": VERSION, **decision, "rounds": list(rounds)}
