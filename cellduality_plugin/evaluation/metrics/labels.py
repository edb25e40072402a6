"""Metrics of labels, named greedily, drawn several times a cell, and the majority of those; and of the dual."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from cellduality_plugin.evaluation.metrics.given import Names, Reference
from cellduality_plugin.evaluation.metrics.registry import METRICS, SHARED, Measurement, Metric, group, metric
from cellduality_plugin.evaluation.metrics.statistics import bootstrap_interval, mean_of
from cellduality_plugin.evaluation.predictions import Prediction, counted

if TYPE_CHECKING:
    from cellduality_plugin.evaluation.sections import Section

Both: TypeAlias = tuple[Sequence[str], Sequence[str]]  # gold labels, and answers: empty if they could not be read


@metric(
    "accuracy", "accuracy", "higher", group="labels", headline="accuracy", sums_up=True,
    estimator="share of cells with the gold label", titles={"coarse_sampled_accuracy": "sampled shared type"},
)  # fmt: skip
def accuracy(gold: Names, predicted: Names) -> float:
    """Return the share of cells whose predicted label is the gold one, in [0, 1]."""
    return float(np.mean(np.asarray(gold) == np.asarray(predicted)))


@metric(
    "macro_f1", "macro-F1", "higher", group="labels", headline="macro_f1",
    estimator="F1, unweighted mean over the labels that gold holds",
    titles={"coarse_sampled_macro_f1": "sampled shared F1"},
)  # fmt: skip
def macro_f1(gold: Names, predicted: Names) -> float:
    """Return the unweighted mean F1 over the labels present in ``gold``, in [0, 1]; without a prediction it is 0."""
    # scikit-learn's f1_score, but a hundred times as fast: a bootstrap asks hundreds of times.
    codes = np.concatenate([np.asarray(gold), np.asarray(predicted)])
    if codes.dtype.kind != "i":
        codes = np.unique(codes, return_inverse=True)[1]
    in_gold, in_answers = codes[: len(gold)], codes[len(gold) :]
    size = int(codes.max()) + 1
    found = np.bincount(in_gold, minlength=size)
    hits = np.bincount(in_gold[in_gold == in_answers], minlength=size)
    present = found > 0
    return float(np.mean(2 * hits[present] / (found + np.bincount(in_answers, minlength=size))[present]))


def measure(made: Sequence[Prediction], section: Section) -> dict[str, Measurement]:
    """Return every metric of labels, with its interval over cells, all draws of a cell together.

    Greedy answers, drawn ones and the commonest of a cell's draws each have metrics of their own; so have answers about
    an external set, which are compared by shared types. Rows without gold are left out.
    """
    shared = section.shared.names if section.shared else ()
    types = [f"by the types that both sets share: {', '.join(shared)}"] if shared else []
    # Greedy ones in an order of their own, so that the resamples are those of any other order.
    greedy, drawn = (_by_cell([p for p in made if p.drawn is each], section) for each in (False, True))
    ways = {"": (sorted(greedy), types)}
    if drawn:
        ways["sampled_"] = drawn, [f"{len(drawn[0][0])} drawn a cell", *types]
        # Of equally common answers the one drawn first; unreadable ones do not vote.
        votes = [(gold[:1], Counter(filter(None, answers)).most_common(1)) for gold, answers in drawn]
        commonest: list[Both] = [(gold, [vote[0][0] if vote else ""]) for gold, vote in votes]
        ways["majority_"] = commonest, [*ways["sampled_"][1], "the commonest of which counts"]
    return {
        f"{SHARED if shared else ''}{way}{each.key}": _over_cells(each, cells, section.reference, note)
        for way, (cells, note) in ways.items()
        for each in (group("labels") if way != "majority_" else [METRICS["accuracy"]])
        if cells
    }


def _over_cells(each: Metric, cells: Sequence[Both], reference: Reference, note: Sequence[str]) -> Measurement:
    codes = {label: code for code, label in enumerate(sorted({x for both in cells for side in both for x in side}))}
    gold, answers = (np.array([[codes[label] for label in both[side]] for both in cells]) for side in (0, 1))

    def score(gold: NDArray[Any], answers: NDArray[Any]) -> float:
        return float(each.of(gold.ravel(), answers.ravel()))

    interval = bootstrap_interval(score, gold, answers, seed=reference.seed, resamples=reference.resamples)
    found = Measurement(score(gold, answers), n=gold.size, interval=interval, seed=reference.seed, note=", ".join(note))
    return each.measurement(found)


def _by_cell(made: Sequence[Prediction], section: Section) -> list[Both]:
    """Return gold labels and answers of each row that has gold, in the order of rows and draws."""
    rows: dict[str, list[Prediction]] = {}
    for p in sorted(made, key=lambda p: (p.id, p.sample)):
        if isinstance(p.gold, str):
            rows.setdefault(p.id, []).append(p)
    said = [([str(p.gold) for p in own], [p.answer for p in own]) for own in rows.values()]
    return [section.comparable(gold, [a if isinstance(a, str) else "" for a in answers]) for gold, answers in said]


def confusion(made: Sequence[Prediction], section: Section, labels: Sequence[str]) -> NDArray[np.int64]:
    """Return counts, gold labels x (predicted ``labels`` and last "no label")."""
    place = {label: index for index, label in enumerate(labels)}
    counts = np.zeros((len(labels), len(labels) + 1), dtype=np.int64)
    for gold, answers in _by_cell(made, section):
        for truth, answer in zip(gold, answers, strict=True):
            counts[place[truth], place.get(answer, len(labels))] += 1
    return counts


DUAL = "similarity of what was hidden and what was rebuilt, mean over answers, 0 where nothing could be read"


@metric("sampled_dual_similarity", "sampled dual", "higher", group="dual", estimator=DUAL)
@metric("dual_similarity", "dual similarity", "higher", group="dual", estimator=DUAL, sums_up=True)
def similarity(prediction: Prediction) -> float | None:
    return prediction.similarity


@metric(
    "dual_given_truth", "dual given truth", "higher", group="dual", estimator=f"{DUAL}; rebuilt from the true answer"
)
def truth_similarity(prediction: Prediction) -> float | None:
    """Return how well the dual is played from the true answer: both directions may agree on what is wrong."""
    return prediction.truth_similarity


def measure_duals(made: Sequence[Prediction], section: Section) -> dict[str, Measurement]:
    """Return the mean similarities of the answers that count, of drawn labels, and of true answers that were taught."""
    headline, found = counted(made), dict[str, Measurement]()
    drawn = [p for p in made if p.drawn and section.names_labels]
    taught = headline if section.shared is None else ()  # the labels of an external set were not
    groups = {"dual_similarity": headline, "sampled_dual_similarity": drawn, "dual_given_truth": taught}
    for key, predictions in groups.items():
        values = [(p.id, value) for p in predictions if (value := METRICS[key].of(p)) is not None]
        if values:
            found[key] = METRICS[key].measurement(mean_of(values, section.reference))
    return found


def failures(predictions: Sequence[Prediction]) -> dict[str, int]:
    """Return how often each reason kept an answer or a reconstruction from being read."""
    causes = (cause for p in predictions for cause in (p.failure, p.dual_failure and f"dual_{p.dual_failure}"))
    return dict(sorted(Counter(filter(None, causes)).items()))
