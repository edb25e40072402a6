"""Failures worth looking at: what could not be read, labels that are wrong, and duals that agree with wrong answers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, median

from scipy.spatial.distance import cdist

from cellduality_plugin.evaluation.distances import nearest_labels
from cellduality_plugin.evaluation.page.rollouts import Trace, by_section, cut, trace
from cellduality_plugin.evaluation.predictions import PROMPT_TOO_LONG, Prediction
from cellduality_plugin.evaluation.sections import Section
from cellduality_plugin.evaluation.tables import section_title

CAUSES = {
    "too_long": "more characters than are read at all",
    "no_answer": "no answer in tags",
    "unclosed": "the answer was begun and not ended: often cut at its length",
    "ambiguous": "more than one answer, tags out of order, or words outside of them",
    "empty": "an answer without a gene of the vocabulary",
    "unknown_label": "a label that is none of those asked for",
    PROMPT_TOO_LONG: "the question is longer than the context",
}
_EXCERPT = 300


@dataclass(frozen=True)
class Unreadable:
    """One reason why answers could not be read.

    Parameters
    ----------
    direction, cause, words
        Primal or dual, the parser's reason, and what it means.
    counts
        By checkpoint.
    where
        The checkpoint, the task and the row of the example: of the last checkpoint that has one.
    example
        The beginning and the end of the response.
    """

    direction: str
    cause: str
    words: str
    counts: Mapping[str, int]
    where: str
    example: str


def unreadable(predictions: Mapping[str, Sequence[Prediction]]) -> list[Unreadable]:
    """Return the reasons why answers of either direction could not be read, the most frequent first."""
    found: dict[tuple[str, str], dict[str, list[Prediction]]] = {}
    for name, made in predictions.items():
        for p in made:
            if p.failure or p.dual_failure:
                key = ("primal", p.failure) if p.failure else ("dual", p.dual_failure)
                found.setdefault(key, {}).setdefault(name, []).append(p)
    last = list(predictions)[-1] if predictions else ""
    told = []
    for (direction, cause), by_name in found.items():
        name = list(by_name)[-1]
        p = by_name[name][0]
        told.append(
            Unreadable(
                direction,
                cause,
                CAUSES.get(cause, cause.replace("_", " ")),
                {each: len(by_name.get(each, ())) for each in predictions},
                f"{name}, {section_title(p.task)}, {p.id}",
                _both_ends(p.response if direction == "primal" else p.dual_response),
            )
        )
    return sorted(told, key=lambda each: (-each.counts[last], each.direction != "primal", each.cause))


def _both_ends(text: str) -> str:
    if len(text) <= 2 * _EXCERPT:
        return text
    return f"{cut(text, _EXCERPT)} {text[-_EXCERPT:]}"


@dataclass(frozen=True)
class Confused:
    """A label that was answered for another.

    Parameters
    ----------
    count, of
        How often, and how many cells have the gold label.
    reward
        Mean of these answers.
    as_right
        Share of them that are paid at least as much as half of the right answers of the section are.
    """

    gold: str
    answer: str
    count: int
    of: int
    reward: float
    as_right: float


@dataclass(frozen=True)
class WrongLabels:
    """The wrong labels of a section: those that come up most, and what they are paid beside the right ones."""

    section: str
    wrong: int
    of: int
    right_reward: float | None
    confused: Sequence[Confused]


def wrong_labels(
    predictions: Sequence[Prediction], sections: Sequence[Section] | None, at_most: int = 5
) -> list[WrongLabels]:
    """Return of each section that names labels what is wrong; foreign sets, whose labels are others, are left out."""
    found = []
    foreign = {section.key for section in sections or () if section.shared}
    for key, own in by_section(predictions, sections).items():
        labelled = [p for p in own if isinstance(p.gold, str)]
        if not labelled or key in foreign:
            continue
        right = [p.reward for p in labelled if p.answer == p.gold]
        wrong = [p for p in labelled if isinstance(p.answer, str) and p.answer != p.gold]
        bar = median(right) if right else 0.0
        golds = Counter(str(p.gold) for p in labelled)
        pairs = Counter((str(p.gold), str(p.answer)) for p in wrong)
        confused = []
        for (gold, answer), count in sorted(pairs.items(), key=lambda item: (-item[1], item[0]))[:at_most]:
            paid = [p.reward for p in wrong if (p.gold, p.answer) == (gold, answer)]
            as_right = fmean(reward >= bar for reward in paid)
            confused.append(Confused(gold, answer, count, golds[gold], fmean(paid), as_right))
        mean = fmean(right) if right else None
        found.append(WrongLabels(section_title(key), len(wrong), len(labelled), mean, confused))
    return found


@dataclass(frozen=True)
class Hollow:
    """Hollow consistency in a section: the dual is content, the answer is wrong.

    Parameters
    ----------
    count, of
        How many of the answers with which the dual is content.
    what
        What is called content, and what wrong.
    """

    section: str
    count: int
    of: int
    what: str
    traces: Sequence[Trace]


def hollow(predictions: Sequence[Prediction], sections: Sequence[Section] | None, at_most: int = 2) -> list[Hollow]:
    """Return the hollow consistency of each section.

    Of generated cells it takes the real ones to tell: without sections they are left out.
    """
    found = []
    for key, own in by_section(predictions, sections).items():
        section = next((each for each in sections or () if each.key == key), None)
        if section is None or section.names_labels:
            found += _hollow_labels(key, own, section, sections, at_most)
        elif section.writes_cells:
            found += _hollow_cells(section, own, sections, at_most)
    return found


def _hollow_labels(
    key: str,
    own: Sequence[Prediction],
    section: Section | None,
    sections: Sequence[Section] | None,
    at_most: int,
) -> list[Hollow]:
    named = [p for p in own if isinstance(p.gold, str) and isinstance(p.answer, str)]
    right = [p.similarity for p in named if p.answer == p.gold]
    if not right or (section and section.shared):
        return []
    bar = median(right)
    content = [p for p in named if p.similarity >= bar]
    wrong = sorted((p for p in content if p.answer != p.gold), key=lambda p: (-p.similarity, p.id))
    what = f"it rebuilds at least what it does from half of the right labels (similarity {bar:.3f}), the label is wrong"
    traces = [trace(p, "content dual, wrong label", sections) for p in wrong[:at_most]]
    return [Hollow(section_title(key), len(wrong), len(content), what, traces)]


def _hollow_cells(
    section: Section, own: Sequence[Prediction], sections: Sequence[Section] | None, at_most: int
) -> list[Hollow]:
    yardstick, real = section.yardstick, section.yardstick.held_out
    k = yardstick.neighbours[0]
    content = [p for p in own if p.similarity == 1.0 and p.answer and not isinstance(p.answer, str)]
    if not content or k > len(real):
        return []
    apart = cdist(yardstick.embedding([tuple(p.answer or ()) for p in content]), yardstick.points)
    taken_for = nearest_labels(apart, real.names, k)
    names = real.name_of
    wrong = [
        (p, str(other))
        for p, other in zip(content, taken_for, strict=True)
        if str(other) != names.get(p.id, str(p.unknown))
    ]
    wrong.sort(key=lambda each: (-each[0].reward, each[0].id, each[0].sample))
    what = f"it names the condition, the {k} nearest real cells say that the cell is another"
    traces = [
        trace(p, f"asked for {names.get(p.id, p.unknown)}, nearest to {other}", sections)
        for p, other in wrong[:at_most]
    ]
    return [Hollow(section_title(section.key), len(wrong), len(content), what, traces)]
