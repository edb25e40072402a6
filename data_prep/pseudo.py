"""Training cells that show no label as questions, and what stands in for their labels as SFT rows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from cellduality_plugin.cell_sentences import Cell
from cellduality_plugin.errors import CellDualityError
from cellduality_plugin.examples import Example
from cellduality_plugin.files import read_jsonl
from cellduality_plugin.parsing import OneOf
from cellduality_plugin.tasks import DualTask
from cellduality_plugin.vocabulary import Vocabulary
from data_prep.manifests import read_manifest
from data_prep.rows import Row, masked_example
from data_prep.splits import SPLITS
from data_prep.traces.questions import COLUMNS, Question
from data_prep.traces.rule.teacher import RuleTeacher
from data_prep.views import CONDITIONS, known_by, source_of

CELLS = "cells.jsonl"
CANDIDATES = 6  # how often the rule teacher is asked for a reasoning that ends with a given label


def read_sft(path: Path) -> Iterator[Row]:
    """Yield the rows of an SFT file, with :data:`COLUMNS` alone; a CellDualityError names a line that lacks one."""
    for number, row in enumerate(read_jsonl(path), start=1):
        if not row.keys() >= {*COLUMNS}:
            where, hint = f"{path}:{number}", "give sft.jsonl, or what was made of it"
            raise CellDualityError("not a row of an SFT file", code="malformed-row", where=where, hint=hint)
        yield {column: row[column] for column in COLUMNS}


def label_tasks(tasks: Mapping[str, DualTask]) -> dict[str, DualTask]:
    """Return the pairs whose answer is a label and whose question shows nothing that only labelled cells have."""
    fit = {name: task for name, task in tasks.items() if isinstance(task.answer, OneOf)}
    return {name: task for name, task in fit.items() if set(task.needs) <= set(CONDITIONS)}


def kind_of(task: DualTask) -> str:
    assert isinstance(task.answer, OneOf)
    return task.answer.kind


def served(rows: Iterable[Mapping[str, str]], tasks: Mapping[str, DualTask]) -> tuple[dict[str, list[str]], int]:
    """Return ({source: the names of those of ``tasks`` that are asked about its cells}, how many rows), of SFT rows."""
    found: dict[str, dict[str, None]] = {}
    count = 0
    for row in rows:
        count += 1
        if row["datasource"] in tasks:
            found.setdefault(source_of(row["id"]), {})[row["datasource"]] = None
    return {source: [name for name in tasks if name in names] for source, names in found.items()}, count


def training_cells(
    path: Path, asked: Mapping[str, list[str]], *, labelled: bool
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield (task, row of the cells file) for every training cell that shows its label, or that does not."""
    for row in read_jsonl(path):
        if row["split"] == SPLITS[0] and row["labelled"] == labelled:
            yield from ((name, row) for name in asked.get(source_of(row["id"]), ()))


def hidden_share(data: Path) -> float:
    """Return the share of a cell's genes that the rows of a preparation hide."""
    hidden = read_manifest(data / CELLS)["settings"]["hidden"]
    return float(hidden[0] if isinstance(hidden, list) else hidden)


def cell_of(row: Mapping[str, Any], columns: Iterable[str]) -> Cell:
    """Return a cell of the cells file, of whose columns only ``columns`` are known."""
    return known_by(Cell(row["id"], tuple(row["genes"])), {column: row[column] for column in columns})


def question(task: DualTask, row: Mapping[str, Any], *, hidden: float, masks: int, rng: np.random.Generator) -> Example:
    """Return the question about a cell of the cells file, as RL rows ask it; nothing of its labels is in it.

    A CellDualityError names a column that the question shows and the file lacks.
    """
    if missing := [column for column in task.needs if column not in row]:
        what = f"no {missing[0]!r}, which {task.name} asks for"
        raise CellDualityError(what, code="unknown-column", where=str(row["id"]), hint="prepare the data again")
    return masked_example(task, cell_of(row, task.needs), hidden, masks, rng, labelled=False)


def sft_pair(
    task: DualTask,
    example: Example,
    label: str,
    vocabulary: Vocabulary,
    *,
    trace: str | RuleTeacher,
    hidden: float,
    rng: np.random.Generator,
) -> list[Row]:
    """Return the primal and the dual row of ``sft.jsonl`` in which ``label`` is the answer.

    Which genes the dual rebuilds is drawn anew from ``rng``: what is learnt is not the very split that was judged.
    ``trace`` is the reasoning of the primal row, or the teacher who writes that of both.
    """
    labelled = replace(example, gold=label, masks=())
    split = task.hide(labelled, hidden, rng)
    primal = Question.of(task, "primal", labelled, 0, label, vocabulary)
    rows = []
    for question in (primal, Question.of(task, "dual", split, 0, label, vocabulary)):
        reasoning = trace if question is primal and isinstance(trace, str) else ""
        if isinstance(trace, RuleTeacher):  # the first reasoning that ends with the right answer, if any does
            answers = (question.read(trace.write(question, number), vocabulary) for number in range(CANDIDATES))
            reasoning = next((answer.trace for answer in answers if answer.value == question.gold), "")
        rows.append(question.row(question.response(question.gold, reasoning)))
    return rows


def previous_labels(path: Path) -> dict[tuple[str, str], str]:
    """Return {(task, cell id): label} of the primal rows of an SFT file."""
    rows = (row for row in read_sft(path) if row["direction"] == "primal")
    golds = ((row, Example.from_label(row["label"]).gold) for row in rows)
    return {(row["datasource"], row["id"]): gold for row, gold in golds if isinstance(gold, str)}
