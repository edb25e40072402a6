"""Rows of the SFT set with their provenance, and how many of each task and direction."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from cellduality_plugin.errors import CellDualityError
from data_prep.traces.candidates import Candidate, prompt_hash
from data_prep.traces.filtering.filters import Verdict, by_group
from data_prep.traces.questions import Question


def taught_row(question: Question, candidate: Candidate, verdict: Verdict, traces: bool = True) -> dict[str, Any]:
    """Return the row of an accepted candidate, without its trace unless ``traces``.

    The answer is written as the field writes what was read in it: a list without unknown genes and repeats.
    """
    assert verdict.value is not None
    provenance = {
        "teacher": candidate.teacher,
        "teacher_version": candidate.version,
        "candidate": candidate.candidate,
        "score": verdict.score,
        "trace_words": verdict.trace_words if traces else 0,
    }
    response = question.response(verdict.value, verdict.trace if traces else "")
    return {**_columns(question, response), **provenance, "prompt": candidate.prompt}


def bare_row(question: Question) -> dict[str, Any]:
    """Return the row of the right answer without a trace, as ``sft.jsonl`` has it; its candidate is number -1."""
    nobody = {"teacher": "none", "teacher_version": "", "candidate": -1, "score": 1.0, "trace_words": 0}
    return {**_columns(question, question.response(question.gold)), **nobody, "prompt": prompt_hash(question.prompt)}


def rejection(candidate: Candidate, verdict: Verdict) -> dict[str, Any]:
    """Return what is told of a candidate that is no row; its text stands in the file of candidates."""
    who = {"teacher": candidate.teacher, "teacher_version": candidate.version}
    what = {"reason": verdict.reason, "score": verdict.score}
    return {"key": candidate.key, "candidate": candidate.candidate, **what, **who}


def _columns(question: Question, response: str) -> dict[str, Any]:
    origin = {"id": question.example.id, "view": str(question.view), "label": question.example.to_label()}
    known = {"direction": question.direction, "datasource": question.pair.name, **origin}
    return {"input": question.prompt, "output": response, **known}


def apportioned(counts: Mapping[str, int], shares: Mapping[str, float]) -> dict[str, int]:
    """Return how many rows of each group to keep so that they stand in the proportion of ``shares``.

    These are the largest numbers in that proportion, rounded; the group that is scarcest for its weight is kept whole.
    Without shares all rows are kept. ``counts`` are by ``"task/direction"``.

    Raises
    ------
    CellDualityError
        If every group weighs 0.

    Examples
    --------
    >>> apportioned({"a/primal": 100, "a/dual": 80}, {"a/dual": 0.5})
    {'a/primal': 100, 'a/dual': 50}
    """
    if not shares:
        return dict(counts)
    weights = {group: by_group(shares, group, 1.0) for group in counts}
    scales = [counts[group] / weight for group, weight in weights.items() if weight > 0 and counts[group]]
    if not scales:
        raise CellDualityError("every group weighs 0", where="--share", hint="give one a weight above 0")
    return {group: min(counts[group], round(min(scales) * weight)) for group, weight in weights.items()}


def chosen(groups: Sequence[str], shares: Mapping[str, float], rng: np.random.Generator) -> list[int]:
    """Return the places of the rows to keep, shuffled; ``groups`` is the ``"task/direction"`` of each row."""
    left = Counter(apportioned(Counter(groups), shares))
    places = []
    for place in rng.permutation(len(groups)).tolist():
        if left[groups[place]] > 0:
            left[groups[place]] -= 1
            places.append(place)
    return places


def in_order(groups: Iterable[str]) -> list[str]:
    """Return ``"task/direction"`` groups by task, the primal first.

    Examples
    --------
    >>> in_order(["b/dual", "a/dual", "a/primal"])
    ['a/primal', 'a/dual', 'b/dual']
    """
    return sorted(groups, key=lambda group: (group.rpartition("/")[0], group.endswith("/dual")))
