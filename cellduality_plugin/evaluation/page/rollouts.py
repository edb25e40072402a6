"""Rollouts worth looking at: examples, unreadable answers, wrong labels, and duals that agree with them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
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


def by_section(predictions: Iterable[Prediction], questions: Questions) -> dict[str, list[Prediction]]:
    """Return the predictions by section, or by task where the questions are not known."""
    found: dict[str, list[Prediction]] = {}
    place = {row: key for key, rows in questions.items() for row in rows}
    for p in predictions:
        found.setdefault(place.get((p.task, p.id), p.task), []).append(p)
    return dict(sorted(found.items()))


def trace(p: Prediction, title: str, questions: Questions) -> dict[str, Any]:
    """Return one ``prediction`` with its ``section``, the ``title`` and what it was ``asked``, text by name."""
    key, rows = next(((key, rows) for key, rows in questions.items() if (p.task, p.id) in rows), (p.task, {}))
    inputs = rows[p.task, p.id].inputs if rows else {}
    words = {name: value if isinstance(value, str) else " ".join(value) for name, value in inputs.items()}
    asked = {name.replace("_", " "): cut(text) for name, text in words.items()}
    return {"prediction": p, "section": section_title(key), "title": title, "asked": asked}


def examples(predictions: Iterable[Prediction], questions: Questions) -> list[dict[str, Any]]:
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


def unreadable(predictions: Mapping[str, Sequence[Prediction]]) -> list[dict[str, Any]]:
    """Return why answers could not be read in either direction, by checkpoint; what is commonest in the last is first.

    Of each ``cause`` what it means (``words``), ``counts`` by checkpoint, and the beginning and the end of an
    ``example`` with ``where`` it is.
    """
    found: dict[tuple[bool, str], dict[str, list[Prediction]]] = {}
    for name, made in predictions.items():
        for p in made:
            if cause := p.failure or p.dual_failure:
                found.setdefault((not p.failure, cause), {}).setdefault(name, []).append(p)
    last = list(predictions)[-1] if predictions else ""
    causes = []
    for (dual, cause), failed in sorted(found.items(), key=lambda item: (-len(item[1].get(last, ())), item[0])):
        name, (p, *_) = list(failed.items())[-1]
        text = p.dual_response if dual else p.response
        causes.append(
            {
                "cause": f"dual: {cause}" if dual else cause,
                "words": CAUSES.get(cause, cause.replace("_", " ")),
                "counts": {each: len(failed.get(each, ())) for each in predictions},
                "where": f"{name}, {section_title(p.task)}, {p.id}",
                "example": text if len(text) <= 2 * _EXCERPT else f"{cut(text, _EXCERPT)} {text[-_EXCERPT:]}",
            }
        )
    return causes


def _labelled(predictions: Iterable[Prediction], questions: Questions) -> Iterator[tuple[str, list[Prediction]]]:
    """Yield the sections that name labels; external sets are left out, since their labels are others."""
    for key, own in by_section(predictions, questions).items():
        labelled = [p for p in own if isinstance(p.gold, str)]
        if labelled and key.partition("@")[2] in ("", OOD):
            yield key, labelled


def wrong_labels(predictions: Sequence[Prediction], questions: Questions, at_most: int = 5) -> list[dict[str, Any]]:
    """Return of each section that names labels how many are ``wrong`` ``of`` all, and what right ones are paid.

    ``confused`` are the commonest pairs: ``number`` ``of`` the cells of the ``gold`` label, their mean ``reward``, and
    ``as_right``, the share that is paid at least as much as half of the right answers of the section.
    """
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
            {
                "gold": gold,
                "answer": answer,
                "number": len(own),
                "of": golds[gold],
                "reward": fmean(own),
                "as_right": fmean(reward >= bar for reward in own),
            }
            for (gold, answer), own in sorted(paid.items(), key=lambda item: (-len(item[1]), item[0]))[:at_most]
        ]
        counts = {"wrong": sum(map(len, paid.values())), "of": len(labelled)}
        right_reward = fmean(right) if right else None
        found.append({"section": section_title(key), **counts, "right_reward": right_reward, "confused": confused})
    return found


def hollow_labels(predictions: Sequence[Prediction], questions: Questions, at_most: int = 2) -> list[dict[str, Any]]:
    """Return the hollow consistency of each section that names labels, and has a right one.

    ``number`` ``of`` the answers with which the dual agrees are wrong, such as ``traces``; ``what`` says what is
    called agreement, and what wrong.
    """
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
        found.append(_hollow(key, len(wrong), len(content), f"it rebuilds {as_right}, the label is wrong", traces))
    return found


def hollow_cells(
    predictions: Sequence[Prediction],
    points: Iterable[Mapping[str, Any]],
    neighbours: int,
    questions: Questions,
    at_most: int = 2,
) -> list[dict[str, Any]]:
    """Return the hollow consistency of each section that writes cells, as :func:`hollow_labels` does.

    ``points`` are rows of :func:`cellduality_plugin.evaluation.generated.point_rows` with ``neighbours`` nearest cells.
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
        found.append(_hollow(key, len(wrong), len(content), what, traces))
    return found


def _hollow(key: str, number: int, of: int, what: str, traces: Sequence[Any]) -> dict[str, Any]:
    return {"section": section_title(key), "number": number, "of": of, "what": what, "traces": traces}
