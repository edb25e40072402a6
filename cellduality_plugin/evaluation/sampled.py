"""Measures of labels that were drawn several times for each cell, and of the dual when it is told the truth."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellduality_plugin.evaluation import measures, metrics
from cellduality_plugin.evaluation.measures import Yardstick
from cellduality_plugin.evaluation.metrics import Metric, bootstrap_interval
from cellduality_plugin.evaluation.predictions import Prediction
from cellduality_plugin.evaluation.sections import Section


def majority_vote(answers: Sequence[str]) -> str:
    """Return the commonest answer, of equally common ones the one drawn first; unreadable ones (empty) do not vote.

    Examples
    --------
    >>> majority_vote(["", "T", "B", "B"]), majority_vote(["T", "B"]), majority_vote(["", ""])
    ('B', 'T', '')
    """
    votes = Counter(filter(None, answers))
    return max(votes, key=votes.__getitem__) if votes else ""


def truth_metrics(predictions: Sequence[Prediction], yardstick: Yardstick) -> dict[str, Metric]:
    """Return how well the dual is played from true answers, in [0, 1], best value 1; empty where no row has gold.

    Beside the similarity of what is rebuilt from the checkpoint's own answers it tells whether a high one is earned:
    both directions may agree with each other on what is wrong.
    """
    told = [replace(p, similarity=p.truth_similarity, gold=None) for p in predictions if p.truth_similarity is not None]
    if not told:
        return {}
    estimator = f"{measures.ESTIMATORS['dual']}; rebuilt from the true answer"
    return {"dual_given_truth": replace(measures.dual_similarity(told, yardstick), estimator=estimator)}


def sampled_metrics(drawn: Sequence[Prediction], section: Section) -> dict[str, Metric]:
    """Return accuracy, macro-F1 and dual similarity of drawn labels, and the accuracy of the majority of each cell's.

    Intervals are over cells, all draws of a cell together: draws of one cell are no independent evidence. Best value 1
    each. Labels of a foreign set count by shared types, under names of their own.

    Parameters
    ----------
    drawn
        Of one section, as many for each row.
    section
        Whose labels they are.
    """
    yardstick = section.yardstick
    found = {"sampled_dual_similarity": measures.dual_similarity(drawn, yardstick)}
    rows: dict[str, list[Prediction]] = {}
    for p in sorted(drawn, key=lambda p: (p.id, p.sample)):
        if isinstance(p.gold, str):
            rows.setdefault(p.id, []).append(p)
    if not rows:
        return found
    golds, answers = [], []
    for made in rows.values():
        gold, told = section.comparable(*measures.gold_and_predicted(made))
        golds.append(gold)
        answers.append(told)
    votes = [majority_vote(told) for told in answers]
    draws = len(answers[0])
    note = f"{draws} drawn a cell"
    if section.shared is not None:
        note += f", by the types that both sets share: {', '.join(section.shared.names)}"
    measured = {
        "sampled_accuracy": _over_cells("accuracy", golds, answers, yardstick, note),
        "sampled_macro_f1": _over_cells("macro_f1", golds, answers, yardstick, note),
        "majority_accuracy": _over_cells(
            "accuracy",
            [gold[:1] for gold in golds],
            [[vote] for vote in votes],
            yardstick,
            f"{note}, the commonest of which counts",
        ),
    }
    prefix = "" if section.shared is None else "coarse_"
    return found | {f"{prefix}{name}": metric for name, metric in measured.items()}


_MEASURES = {"accuracy": metrics.accuracy, "macro_f1": metrics.macro_f1}


def _over_cells(
    name: str,
    golds: Sequence[Sequence[str]],
    answers: Sequence[Sequence[str]],
    yardstick: Yardstick,
    note: str,
) -> Metric:
    codes = {label: code for code, label in enumerate(sorted({label for rows in (*golds, *answers) for label in rows}))}
    truth, told = (np.array([[codes[label] for label in row] for row in rows]) for rows in (golds, answers))
    flat, seed = partial(_flat, _MEASURES[name]), yardstick.seed
    interval = bootstrap_interval(flat, truth, told, seed=seed, resamples=yardstick.resamples)
    estimator = measures.ESTIMATORS[name]
    return Metric(flat(truth, told), "higher", 1.0, truth.size, interval, "", estimator, "", seed, note)


def _flat(measure: Callable[[Any, Any], float], truth: NDArray[np.int64], told: NDArray[np.int64]) -> float:
    return measure(truth.ravel(), told.ravel())
