"""A small world of cells and questions, and replies to them that are good, or bad for one reason each."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from cellduality_plugin.cell_sentences import Cell
from cellduality_plugin.config import Config
from cellduality_plugin.files import write_jsonl
from cellduality_plugin.tasks import TASKS
from cellduality_plugin.vocabulary import Vocabulary
from data_prep.rows import RowMaker
from data_prep.settings import PrepareSettings
from data_prep.traces.candidates import Candidate, CandidateLog, Reply, prompt_hash
from data_prep.traces.filtering.curation import CANDIDATES, QUESTIONS
from data_prep.traces.questions import Question, read_questions

GENES = tuple(f"G{number:03}" for number in range(120))
KINDS = {
    "cell_type": ("CD19+ B", "CD4+ Naive T", "CD8+ T"),
    "exposure": ("exposed", "not exposed"),
    "perturbation": ("control", "cytokine IFN-beta", "drug erlotinib 2 uM"),
    "sensitivity": ("resistant", "sensitive"),
}
VOCABULARY = Vocabulary(GENES, KINDS)
# Six genes of its own for every label; the rest belong to all cells.
PLANTED = {
    label: GENES[6 * place : 6 * place + 6]
    for place, label in enumerate(label for labels in KINDS.values() for label in labels)
}
TRACE = "What is high in this cell speaks for one answer."


def planted_genes(labels: Mapping[str, str], rng: np.random.Generator) -> tuple[str, ...]:
    own = [gene for label in labels.values() for gene in PLANTED[label] if rng.random() < 0.8]
    return tuple(rng.permutation([*own, *rng.permutation(GENES[6 * len(PLANTED) :])[:20].tolist()]).tolist())


def planted_cells(count: int = 36) -> list[Cell]:
    """Return cells with every combination of labels once."""
    rng, cells = np.random.default_rng(0), []
    for number in range(count):
        labels, rest = {}, number
        for kind, names in KINDS.items():
            rest, place = divmod(rest, len(names))
            labels[kind] = names[place]
        condition = {"perturbation": labels["perturbation"], "drug": "erlotinib"}
        obs = {kind: label for kind, label in labels.items() if kind != "perturbation"}
        control = planted_genes({**labels, "perturbation": "control"}, rng)
        cells.append(Cell(f"set/cell#{number}@1", planted_genes(labels, rng), obs, condition, control))
    return cells


def prepared(folder: Path, cells: int = 3, *, tasks: Iterable[str] = tuple(TASKS), views: int = 1) -> Path:
    """Return ``folder`` with a small preparation of labelled training cells in it."""
    chosen, rng = planted_cells(cells), np.random.default_rng(0)
    VOCABULARY.save(folder / "vocabulary.json")
    Config.read({"tasks": {name: {"pair": name} for name in tasks}}).save(folder / "cellduality.json")
    rows = RowMaker([TASKS[name] for name in tasks], VOCABULARY, PrepareSettings(sft_views=views)).sft(chosen, rng)
    write_jsonl(folder / QUESTIONS, rows)
    learnt = {"split": "train", "labelled": True, "control": "another"}
    known = ({"id": each.id, "genes": each.genes, **each.obs, **each.condition, **learnt} for each in chosen)
    write_jsonl(folder / "cells.jsonl", known)
    return folder


def questions_in(folder: Path) -> list[Question]:
    return list(read_questions(folder / QUESTIONS, TASKS))


def candidate(question: Question, number: int, reply: Reply | str, teacher: str = "planted") -> Candidate:
    reply = Reply(reply) if isinstance(reply, str) else reply
    return Candidate(question.key, number, prompt_hash(question.prompt), teacher, "0" * 12, reply)


def write_candidates(folder: Path, candidates: Iterable[Candidate]) -> None:
    with CandidateLog(folder / CANDIDATES) as log:
        for each in candidates:
            log.add(each)


def good(question: Question, words: str = "") -> str:
    """Return the right answer behind a trace."""
    return question.response(question.gold, f"{TRACE} {words}".strip())


def others(question: Question, count: int) -> list[str]:
    """Return genes that are not in the right answer."""
    return [gene for gene in GENES if gene not in question.gold][:count]


def bad_replies(question: Question) -> dict[str, Reply]:
    """Return a reply that fails for each reason a candidate can fail for on its own, by that reason."""
    gold, right, traced = question.gold, good(question), f"<think>{TRACE}</think>"
    found = {
        "too_long": "x" * 70_000,
        "no_answer": traced,
        "unclosed": right.replace("</answer>", ""),
        "ambiguous": f"{right} I am sure.",
        "empty": f"{traced}<answer> </answer>",
        "no_trace": question.response(gold),
        "trace_too_short": question.response(gold, "So it."),
        "trace_too_long": question.response(gold, " ".join([TRACE] * 41)),
        "leak": question.response(gold, f"{TRACE} The correct answer was known."),
    }
    if isinstance(gold, str):
        wrong = next(label for labels in KINDS.values() if gold in labels for label in labels if label != gold)
        answers = {"unknown_label": ["no such label"], "wrong_label": [wrong]}
    else:
        third = -(-len(gold) // 3)
        answers = {
            "answer_too_short": gold[: third - 1],
            "answer_too_long": [*gold, *others(question, len(gold) + 1)],
            "strangers": [*gold, *["smuggled"] * third],
            "repeats": [*gold, *gold[:third]],
            "low_similarity": others(question, len(gold)),
        }
    found |= {reason: f"{traced}<answer>{' '.join(words)}</answer>" for reason, words in answers.items()}
    return {"cut_off": Reply(right, finish="length")} | {reason: Reply(text) for reason, text in found.items()}


def wrong_reply(question: Question) -> Reply:
    return bad_replies(question)["wrong_label" if isinstance(question.gold, str) else "low_similarity"]
