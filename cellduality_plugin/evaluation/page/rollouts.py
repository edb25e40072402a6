"""Rollouts as a reader sees them: what was asked, the answer, what the dual rebuilt from it, and the reward."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from cellduality_plugin.evaluation.predictions import Prediction
from cellduality_plugin.evaluation.sections import Section
from cellduality_plugin.evaluation.tables import section_title
from cellduality_plugin.examples import Value

CHARACTERS = 1200
"""Of a text that is shown."""

Words: TypeAlias = tuple[tuple[str, bool], ...]
"""Words with whether they also stand in what they are held against."""


@dataclass(frozen=True)
class Trace:
    """One rollout as a reader sees it.

    Parameters
    ----------
    title
        Why it is shown.
    asked
        What the question showed, by name; empty where the prepared folder was not given.
    response
        The primal response as it was written.
    answer, gold
        What the parser read, and the true answer; a word of one is marked where it stands in the other.
    unknown, rebuilt
        What was hidden from the dual, and what the dual rebuilt, marked likewise.
    no_answer, not_rebuilt
        Why there is none, empty where there is one.
    """

    prediction: Prediction
    section: str
    title: str
    asked: Mapping[str, str]
    response: str
    answer: Words
    gold: Words
    unknown: Words
    rebuilt: Words
    no_answer: str
    not_rebuilt: str


def by_section(predictions: Sequence[Prediction], sections: Sequence[Section] | None) -> dict[str, list[Prediction]]:
    """Return the predictions by section, or by task where the sections are not known."""
    found: dict[str, list[Prediction]] = {}
    place = {row: section.key for section in sections or () for row in section.rows}
    for p in predictions:
        found.setdefault(place.get((p.task, p.id), p.task), []).append(p)
    return dict(sorted(found.items()))


def examples(predictions: Sequence[Prediction], sections: Sequence[Section] | None) -> list[Trace]:
    """Return of each section the rollouts with the best, the middle and the worst reward."""
    traces = []
    for own in by_section(predictions, sections).values():
        ranked = sorted(own, key=lambda p: (-p.reward, p.id, p.sample))
        places = {"best": 0, "middle": len(ranked) // 2, "worst": len(ranked) - 1}
        traces += [trace(ranked[place], f"{name} reward", sections) for name, place in places.items()]
    return traces


def trace(p: Prediction, title: str, sections: Sequence[Section] | None) -> Trace:
    """Return one prediction as a reader sees it."""
    section = next((each for each in sections or () if (p.task, p.id) in each.rows), None)
    asked = section.rows[p.task, p.id].inputs if section else {}
    return Trace(
        prediction=p,
        section=section_title(section.key if section else p.task),
        title=title,
        asked={name.replace("_", " "): _text(value) for name, value in asked.items()},
        response=cut(p.response),
        answer=marked(p.answer, p.gold),
        gold=marked(p.gold, p.answer),
        unknown=marked(p.unknown, p.rebuilt),
        rebuilt=marked(p.rebuilt, p.unknown),
        no_answer=p.failure,
        not_rebuilt="" if p.rebuilt is not None else p.dual_failure or "the answer could not be read",
    )


def marked(value: Value | None, against: Value | None) -> Words:
    """Return the words of ``value``, each with whether it stands in ``against``, too.

    Examples
    --------
    >>> marked(("A", "B"), ("B", "C")), marked("T cell", "T cell"), marked(None, "T cell")
    ((('A', False), ('B', True)), (('T cell', True),), ())
    """
    if value is None:
        return ()
    if isinstance(value, str):
        return ((value, value == against),)
    other: Collection[str] = () if against is None or isinstance(against, str) else set(against)
    return tuple((word, word in other) for word in value)


def _text(value: Value) -> str:
    return cut(value if isinstance(value, str) else " ".join(value))


def cut(text: str, characters: int = CHARACTERS) -> str:
    """Return the beginning of a text.

    Examples
    --------
    >>> cut("abcdef", 3)
    'abc ...'
    """
    return text if len(text) <= characters else text[:characters] + " ..."
