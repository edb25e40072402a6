"""Rollouts worth looking at: examples, unreadable answers, wrong labels, and duals that are content with them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, median
from typing import Any, TypeAlias

from cellduality_plugin.evaluation.predictions import PROMPT_TOO_LONG, Prediction, Rows
from cellduality_plugin.evaluation.sections import OOD
from cellduality_plugin.evaluation.tables import section_title
from cellduality_plugin.examples import Value

CHARACTERS = 1200
"""Of a text that is shown."""
_EXCERPT = 300
CAUSES = {
    "too_long": "more characters than are read at all",
    "no_answer": "no answer in tags",
    "unclosed": "the answer was begun and not ended: often cut at its length",
    "ambiguous": "more than one answer, tags out of order, or words outside of them",
    "empty": "an answer without a gene of the vocabulary",
    "unknown_label": "a label that is none of those asked for",
    PROMPT_TOO_LONG: "the question is longer than the context",
}

Questions: TypeAlias = Mapping[str, Rows]
"""Rows by the key of their section; empty where the prepared folder was not given."""


@dataclass(frozen=True)
class Trace:
    """One rollout, its section's title, why it is shown, and what the question showed, by name."""

    prediction: Prediction
    section: str
    title: str
    asked: Mapping[str, str]


def by_section(predictions: Iterable[Prediction], questions: Questions) -> dict[str, list[Prediction]]:
    """Return the predictions by section, or by task where the questions are not known."""
    found: dict[str, list[Prediction]] = {}
    place = {row: key for key, rows in questions.items() for row in rows}
    for p in predictions:
        found.setdefault(place.get((p.task, p.id), p.task), []).append(p)
    return dict(sorted(found.items()))


def trace(p: Prediction, title: str, questions: Questions) -> Trace:
    """Return one prediction with what it was asked."""
    key, rows = next(((key, rows) for key, rows in questions.items() if (p.task, p.id) in rows), (p.task, {}))
    asked = rows[p.task, p.id].inputs if rows else {}
    words = {name: value if isinstance(value, str) else " ".join(value) for name, value in asked.items()}
    return Trace(p, section_title(key), title, {name.replace("_", " "): cut(text) for name, text in words.items()})


def examples(predictions: Iterable[Prediction], questions: Questions) -> list[Trace]:
    """Return of each section the rollouts with the best, the middle and the worst reward."""
    traces = []
    for own in by_section(predictions, questions).values():
        ranked = sorted(own, key=lambda p: (-p.reward, p.id, p.sample))
        for name, place in {"best": 0, "middle": len(ranked) // 2, "worst": len(ranked) - 1}.items():
            traces.append(trace(ranked[place], f"{name} reward", questions))
    return traces


def marked(value: Value | None, against: Value | None) -> list[tuple[str, bool]]:
    """Return the words of ``value``, each with whether it stands in ``against``, too.

    Examples
    --------
    >>> marked(("A", "B"), ("B", "C")), marked("T cell", "T cell"), marked(None, "T cell")
    ([('A', False), ('B', True)], [('T cell', True)], [])
    """
    words, others = (each if isinstance(each, tuple) else (each,) for each in (value, against))
    return [(word, word in others) for word in words if word is not None]


def cut(text: str, characters: int = CHARACTERS) -> str:
    """Return the beginning of a text.

    Examples
    --------
    >>> cut("abcdef", 3)
    'abc ...'
    """
    return text if len(text) <= characters else text[:characters] + " ..."


@dataclass(frozen=True)
class Unreadable:
    """One cause for which answers could not be read, what it means, and how often it was by checkpoint.

    ``example`` is the beginning and the end of a response, ``where`` its checkpoint, task and row.
    """

    cause: str
    words: str
    counts: Mapping[str, int]
    where: str
    example: str


def unreadable(predictions: Mapping[str, Sequence[Prediction]]) -> list[Unreadable]:
    """Return the causes in either direction, by checkpoint: those most frequent in the last come first."""
    found: dict[tuple[bool, str], dict[str, list[Prediction]]] = {}
    for name, made in predictions.items():
        for p in made:
            if cause := p.failure or p.dual_failure:
                found.setdefault((not p.failure, cause), {}).setdefault(name, []).append(p)
    last = list(predictions)[-1] if predictions else ""
    told = []
    for (dual, cause), failed in sorted(found.items(), key=lambda item: (-len(item[1].get(last, ())), item[0])):
        name, (p, *_) = list(failed.items())[-1]
        text = p.dual_response if dual else p.response
        example = text if len(text) <= 2 * _EXCERPT else f"{cut(text, _EXCERPT)} {text[-_EXCERPT:]}"
        words, where = CAUSES.get(cause, cause.replace("_", " ")), f"{name}, {section_title(p.task)}, {p.id}"
        counts = {each: len(failed.get(each, ())) for each in predictions}
        told.append(Unreadable(f"dual: {cause}" if dual else cause, words, counts, where, example))
    return told


@dataclass(frozen=True)
class Confused:
    """A label that was answered for another: ``count`` of the ``of`` cells of the gold label.

    ``reward`` is the mean of these answers, ``as_right`` the share of them that are paid at least as much as half of
    the right answers of the section are.
    """

    gold: str
    answer: str
    count: int
    of: int
    reward: float
    as_right: float


@dataclass(frozen=True)
class WrongLabels:
    """The wrong labels of a section: those that come up most, and the mean that right ones are paid."""

    section: str
    wrong: int
    of: int
    right_reward: float | None
    confused: Sequence[Confused]


def _labelled(predictions: Iterable[Prediction], questions: Questions) -> Iterator[tuple[str, list[Prediction]]]:
    """Yield the sections that name labels; external sets are left out, since their labels are others."""
    for key, own in by_section(predictions, questions).items():
        labelled = [p for p in own if isinstance(p.gold, str)]
        if labelled and key.partition("@")[2] in ("", OOD):
            yield key, labelled


def wrong_labels(predictions: Sequence[Prediction], questions: Questions, at_most: int = 5) -> list[WrongLabels]:
    """Return of each section that names labels what is wrong."""
    found = []
    for key, labelled in _labelled(predictions, questions):
        right = [p.reward for p in labelled if p.answer == p.gold]
        bar = median(right) if right else 0.0
        golds = Counter(str(p.gold) for p in labelled)
        paid: dict[tuple[str, str], list[float]] = {}
        for p in labelled:
            if isinstance(p.answer, str) and p.answer != p.gold:
                paid.setdefault((str(p.gold), p.answer), []).append(p.reward)
        confused = [
            Confused(*pair, len(own), golds[pair[0]], fmean(own), fmean(reward >= bar for reward in own))
            for pair, own in sorted(paid.items(), key=lambda item: (-len(item[1]), item[0]))[:at_most]
        ]
        wrong = sum(map(len, paid.values()))
        found.append(WrongLabels(section_title(key), wrong, len(labelled), fmean(right) if right else None, confused))
    return found


@dataclass(frozen=True)
class Hollow:
    """Hollow consistency in a section: ``count`` of the ``of`` answers with which the dual is content are wrong.

    ``what`` tells what is called content, and what wrong.
    """

    section: str
    count: int
    of: int
    what: str
    traces: Sequence[Trace]


def hollow_labels(predictions: Sequence[Prediction], questions: Questions, at_most: int = 2) -> list[Hollow]:
    """Return the hollow consistency of each section that names labels, and has a right one."""
    found = []
    for key, labelled in _labelled(predictions, questions):
        named = [p for p in labelled if isinstance(p.answer, str)]
        if not (right := [p.similarity for p in named if p.answer == p.gold]):
            continue
        bar = median(right)
        content = [p for p in named if p.similarity >= bar]
        wrong = sorted((p for p in content if p.answer != p.gold), key=lambda p: (-p.similarity, p.id))
        as_right = f"at least what it does from half of the right labels (similarity {bar:.3f})"
        traces = [trace(p, "content dual, wrong label", questions) for p in wrong[:at_most]]
        what = f"it rebuilds {as_right}, the label is wrong"
        found.append(Hollow(section_title(key), len(wrong), len(content), what, traces))
    return found


def hollow_cells(
    predictions: Sequence[Prediction],
    points: Iterable[Mapping[str, Any]],
    neighbours: int,
    questions: Questions,
    at_most: int = 2,
) -> list[Hollow]:
    """Return the hollow consistency of each section that writes cells.

    Parameters
    ----------
    predictions
        Of one checkpoint.
    points
        Its rows of :func:`cellduality_plugin.evaluation.points.point_rows`, with ``neighbours`` nearest cells.
    """
    made = {(p.task, p.id, p.sample): p for p in predictions}
    sections: dict[str, list[tuple[Prediction, str, str]]] = {}
    for row in points:
        p = made.get((row["section"].partition("@")[0], row["id"], row["sample"])) if "id" in row else None
        if p and p.similarity == 1.0 and row["nearest"]:
            sections.setdefault(row["section"], []).append((p, row["condition"], row["nearest"]))
    what = f"it names the condition, the {neighbours} nearest real cells say that the cell is another"
    found = []
    for key, content in sorted(sections.items()):
        wrong = [each for each in content if each[1] != each[2]]
        wrong.sort(key=lambda each: (-each[0].reward, each[0].id, each[0].sample))
        traces = [trace(p, f"asked for {name}, nearest to {other}", questions) for p, name, other in wrong[:at_most]]
        found.append(Hollow(section_title(key), len(wrong), len(content), what, traces))
    return found
