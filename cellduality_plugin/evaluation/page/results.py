"""What the page shows of an evaluation: numbers by section, confusion matrices, rollouts, and failures among them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from statistics import fmean, median
from typing import Any, TypeAlias

import numpy as np

from cellduality_plugin.evaluation.predictions import PROMPT_TOO_LONG, Prediction, Rows
from cellduality_plugin.evaluation.sections import OOD
from cellduality_plugin.evaluation.tables import best_columns, section_title, table_rows
from cellduality_plugin.examples import Value

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

Questions: TypeAlias = Mapping[str, Rows]  # by section; empty where the prepared folder was not given
Answers: TypeAlias = Mapping[str, Sequence[Prediction]]  # the answers of one checkpoint by the key of their section


def section_tables(metrics: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the table of each section of ``metrics``: only columns and rows that were measured in it.

    ``rows`` are (metric, cells, best columns), ``how`` says how each metric was measured, ``unmeasured`` are the others
    by the reason why.
    """
    found: dict[str, dict[str, Any]] = {}
    for section, name, cells in table_rows(metrics):
        empty = {"name": section_title(section), "space": "", "rows": [], "how": {}, "unmeasured": {}}
        own = found.setdefault(section, empty)
        if any(cell["space"] for cell in cells.values()):
            own["space"] = metrics["spaces"][section]
        if any(cell["value"] is not None for cell in cells.values()):
            own["rows"].append((name, cells, best_columns(cells)))
            own["how"][name] = _how_measured(cells)
        else:
            why = next(iter(cells.values()))["note"].partition("; ")[0]
            own["unmeasured"].setdefault(why, []).append(name.rpartition(" ")[0])
    for own in found.values():
        own["columns"] = [name for name in metrics["columns"] if any(name in cells for _, cells, _ in own["rows"])]
    return [*found.values()]


def _how_measured(cells: Mapping[str, Mapping[str, Any]]) -> str:
    """Return how one metric was measured, by its first column that has a value, and the n of each column."""
    valued = {name: cell for name, cell in cells.items() if cell["value"] is not None}
    first = next(iter(valued.values()))
    parts = [first[key] for key in ("estimator", "kernel", "note") if first.get(key)]
    if "bounds" in first:
        low, high = first["bounds"]
        reach = f"{low:g} and more" if high is None else f"{low:g} to {high:g}"
        parts.append(f"range {reach}, best {'as real cells' if first['best'] is None else format(first['best'], 'g')}")
    alike = len({cell["n"] for cell in valued.values()}) == 1
    counts = f"{first['n']}" if alike else ", ".join(f"{cell['n']} ({name})" for name, cell in valued.items())
    return " ".join([*(f"{part[:1].upper()}{part[1:]}." for part in parts), f"n = {counts}."])


def confusions(metrics: Mapping[str, Any], checkpoints: Sequence[str]) -> dict[str, list[dict[str, Any]]]:
    """Return {section: the matrix of each checkpoint}, without labels that neither gold nor answers hold.

    ``rows`` are (gold label, its cells, and of each answer, unreadable ones last, count and share of the cells);
    ``read`` is (answers that could be read, all answers).
    """
    found: dict[str, list[dict[str, Any]]] = {}
    for name in checkpoints:
        for key, matrix in metrics["columns"][name]["confusion"].items():
            counts = np.array(matrix["counts"])
            golds, answered = counts.sum(axis=1), counts[:, :-1].sum(axis=0)
            kept = np.flatnonzero(golds + answered).tolist()
            labels, rows = [matrix["labels"][place] for place in kept], []
            for place, label in zip(kept, labels, strict=True):
                shown = counts[place, [*kept, -1]].tolist()
                rows.append((label, int(golds[place]), [(n, n / max(golds[place], 1)) for n in shown]))
            own = {"column": name, "labels": labels, "rows": rows, "read": (int(answered.sum()), int(counts.sum()))}
            found.setdefault(section_title(key), []).append(own)
    return found


def by_section(predictions: Iterable[Prediction], questions: Questions) -> dict[str, list[Prediction]]:
    """Return the predictions by section, or by task where the questions are not known."""
    found: dict[str, list[Prediction]] = {}
    place = {row: key for key, rows in questions.items() for row in rows}
    for p in predictions:
        found.setdefault(place.get((p.task, p.id), p.task), []).append(p)
    return dict(sorted(found.items()))


def _trace(p: Prediction, key: str, title: str, questions: Questions) -> dict[str, Any]:
    row = questions.get(key, {}).get((p.task, p.id))
    inputs = row.inputs.items() if row else ()
    asked = {
        name.replace("_", " "): cut(value if isinstance(value, str) else " ".join(value)) for name, value in inputs
    }
    return {"prediction": p, "section": section_title(key), "title": title, "asked": asked}


def examples(answers: Answers, questions: Questions) -> list[dict[str, Any]]:
    """Return of each section the rollouts with the best, the middle and the worst reward."""
    traces = []
    for key, own in answers.items():
        ranked = sorted(own, key=lambda p: (-p.reward, p.id, p.sample))
        for name, place in {"best": 0, "middle": len(ranked) // 2, "worst": -1}.items():
            traces.append(_trace(ranked[place], key, f"{name} reward", questions))
    return traces


def marked(value: Value | None, against: Value | None) -> list[tuple[str, bool]]:
    """Return the words of ``value``, each with whether it stands in ``against``, too."""
    words, others = (each if isinstance(each, tuple) else (each,) for each in (value, against))
    return [(word, word in others) for word in words if word is not None]


def cut(text: str, characters: int = 1200) -> str:
    """Return the beginning of a text."""
    return text if len(text) <= characters else text[:characters] + " ..."


def unreadable(predictions: Answers) -> list[dict[str, Any]]:
    """Return why answers could not be read in either direction; what is commonest in the last checkpoint is first."""
    found: dict[tuple[bool, str], dict[str, list[Prediction]]] = {}
    for name, made in predictions.items():
        for p in made:
            if cause := p.failure or p.dual_failure:
                found.setdefault((not p.failure, cause), {}).setdefault(name, []).append(p)
    last, causes = ["", *predictions][-1], []
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


def _labelled(answers: Answers) -> Iterator[tuple[str, list[Prediction], list[Prediction], list[Prediction]]]:
    """Yield (section, its answers, the right ones, the wrong ones) of labels; those of external sets are others."""
    for key, own in answers.items():
        labelled = [p for p in own if isinstance(p.gold, str)]
        named = [p for p in labelled if isinstance(p.answer, str)]
        if labelled and key.partition("@")[2] in ("", OOD):
            yield key, labelled, [p for p in named if p.answer == p.gold], [p for p in named if p.answer != p.gold]


def wrong_labels(answers: Answers, at_most: int = 5) -> list[dict[str, Any]]:
    """Return of each section that names labels how many are ``wrong``, and the commonest pairs.

    ``as_right`` is the share of a pair that is paid no less than half of the right answers of the section.
    """
    found = []
    for key, labelled, right, wrong in _labelled(answers):
        bar, golds = median(p.reward for p in right) if right else 0.0, Counter(p.gold for p in labelled)
        paid: dict[tuple[str, str], list[float]] = {}
        for p in wrong:
            paid.setdefault((str(p.gold), str(p.answer)), []).append(p.reward)
        confused = [
            {"gold": gold, "answer": answer, "number": len(own), "of": golds[gold], "reward": fmean(own)}
            | {"as_right": fmean(reward >= bar for reward in own)}
            for (gold, answer), own in sorted(paid.items(), key=lambda item: (-len(item[1]), item[0]))[:at_most]
        ]
        counts = {"wrong": len(wrong), "of": len(labelled), "confused": confused}
        right_reward = fmean(p.reward for p in right) if right else None
        found.append({"section": section_title(key), "right_reward": right_reward, **counts})
    return found


def hollow(
    answers: Answers, points: Iterable[Mapping[str, Any]], neighbours: int, questions: Questions
) -> list[dict[str, Any]]:
    """Return of each section how many of the answers with which the dual is content are wrong, and two of them.

    It is content with a label from which it rebuilds at least what it does from half of the right ones, and with a cell
    of which it names the condition. A cell is wrong by its nearest ones among ``points``: those of the same checkpoint
    in :func:`.generated.point_rows`.
    """
    found: dict[str, tuple[str, list[tuple[Prediction, bool, str]]]] = {}
    for key, _, right, wrong in _labelled(answers):
        if right:
            bar = median(p.similarity for p in right)
            what = f"it rebuilds at least what it does from half of the right labels (similarity {bar:.3f}), "
            agreed = [p for p in right + wrong if p.similarity >= bar]
            told = [(p, p.answer != p.gold, "content dual, wrong label") for p in agreed]
            found[key] = what + "the label is wrong", told
    what = f"it names the condition, the {neighbours} nearest real cells say that the cell is another"
    made = {(p.task, p.id, p.sample): p for own in answers.values() for p in own}
    for row in points:
        p = made.get((row["section"].partition("@")[0], row["id"], row["sample"])) if "id" in row else None
        if p and p.similarity == 1.0 and (other := row["nearest"]):
            title = f"asked for {row['condition']}, nearest to {other}"
            found.setdefault(row["section"], (what, []))[1].append((p, row["condition"] != other, title))
    shown = []
    for key, (what, content) in sorted(found.items(), key=lambda item: section_title(item[0])):
        false = [(p, title) for p, is_wrong, title in content if is_wrong]
        false.sort(key=lambda each: (-each[0].similarity, -each[0].reward, each[0].id, each[0].sample))
        counts = {"section": section_title(key), "number": len(false), "of": len(content), "what": what}
        shown.append(counts | {"traces": [_trace(p, key, title, questions) for p, title in false[:2]]})
    return shown
