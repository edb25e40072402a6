"""A small world of questions, and replies to them that are good, or bad for one reason each."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from cellduality_plugin.cell_sentences import Cell
from cellduality_plugin.config import Config
from cellduality_plugin.files import write_jsonl
from cellduality_plugin.parsing import OneOf
from cellduality_plugin.tasks import TASKS, DualTask
from cellduality_plugin.vocabulary import Vocabulary
from data_prep.rows import RowMaker
from data_prep.traces.candidates import Candidate, CandidateLog, Reply, prompt_hash
from data_prep.traces.filtering.curation import CANDIDATES, QUESTIONS
from data_prep.traces.questions import Question, read_questions

VOCABULARY = Vocabulary(
    genes=tuple(f"G{number}" for number in range(80)),
    labels={
        "cell_type": ("B", "NK", "T"),
        "exposure": ("exposed", "not exposed"),
        "perturbation": ("control", "IFN-beta"),
        "sensitivity": ("resistant", "sensitive"),
    },
)
TRACE = "What is high in this cell speaks for one answer."


def make_cells(count: int) -> list[Cell]:
    """Return cells of 24 of the 80 genes in random order."""
    rng = np.random.default_rng(0)
    cells = []
    for number in range(count):
        genes = [f"G{place}" for place in rng.permutation(80)[:24]]
        obs = {
            "cell_type": ("B", "NK", "T")[number % 3],
            "exposure": ("exposed", "not exposed")[number % 2],
            "sensitivity": ("resistant", "sensitive")[number % 2],
        }
        condition = {"perturbation": ("control", "IFN-beta")[number % 2], "drug": "erlotinib"}
        cells.append(
            Cell(f"set/cell#{number}@1", tuple(genes), obs=obs, condition=condition, control=tuple(genes[::-1]))
        )
    return cells


def prepared(folder: Path, cells: int = 3, tasks: Iterable[DualTask] = tuple(TASKS.values()), seed: int = 0) -> Path:
    """Return ``folder`` with a small preparation in it."""
    tasks = list(tasks)
    VOCABULARY.save(folder / "vocabulary.json")
    Config.read({"tasks": {task.name: {"pair": task.name} for task in tasks}}).save(folder / "cellduality.json")
    rng = np.random.default_rng(seed)
    write_jsonl(folder / QUESTIONS, RowMaker(tasks, VOCABULARY).sft(make_cells(cells), rng))
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


def good(question: Question, words: str = "") -> Reply:
    """Return the right answer behind a trace."""
    return Reply(question.response(question.gold, f"{TRACE} {words}".strip()))


def others(question: Question, count: int) -> list[str]:
    """Return genes that are not in the right answer."""
    return [gene for gene in VOCABULARY.genes if gene not in question.gold][:count]


def bad_replies(question: Question) -> dict[str, Reply]:
    """Return a reply that fails for each reason a candidate can fail for on its own, by that reason."""
    right = question.response(question.gold, TRACE)
    found = {
        "cut_off": Reply(right, finish="length"),
        "too_long": Reply("x" * 70_000),
        "no_answer": Reply(f"<think>{TRACE}</think>"),
        "unclosed": Reply(right.replace("</answer>", "")),
        "ambiguous": Reply(f"{right} I am sure."),
        "empty": Reply(f"<think>{TRACE}</think><answer> </answer>"),
        "no_trace": Reply(question.response(question.gold)),
        "trace_too_short": Reply(question.response(question.gold, "So it.")),
        "trace_too_long": Reply(question.response(question.gold, " ".join([TRACE] * 41))),
        "leak": Reply(question.response(question.gold, f"{TRACE} The correct answer was known.")),
    }
    if isinstance(question.field, OneOf):
        wrong = next(label for label in VOCABULARY.labels[question.field.kind] if label != question.gold)
        return {
            **found,
            "unknown_label": Reply(f"<think>{TRACE}</think><answer>no such label</answer>"),
            "wrong_label": Reply(question.response(wrong, TRACE)),
        }
    genes = tuple(question.gold)
    few, third = len(genes) // 3, -(-len(genes) // 3)

    def listed(words: Sequence[str]) -> Reply:
        return Reply(f"<think>{TRACE}</think><answer>{' '.join(words)}</answer>")

    return {
        **found,
        "answer_too_short": listed(genes[:few]),
        "answer_too_long": listed([*genes, *others(question, len(genes) + 1)]),
        "strangers": listed([*genes, *["smuggled"] * third]),
        "repeats": listed([*genes, *genes[:third]]),
        "low_similarity": listed(others(question, len(genes))),
    }
