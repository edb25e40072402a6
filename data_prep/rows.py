"""From cells to rows: questions with answers for SFT, questions alone for RL, both for evaluation."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TypeAlias

import numpy as np

from cellduality_plugin.cell_sentences import Cell, hide_genes
from cellduality_plugin.errors import CellDualityError
from cellduality_plugin.examples import Example, Mask
from cellduality_plugin.parsing import OneOf
from cellduality_plugin.tasks import DualTask
from cellduality_plugin.tasks.base import LabelTask
from cellduality_plugin.vocabulary import Vocabulary
from data_prep.splits import apportion

Row: TypeAlias = dict[str, str]

DROPOUT = 0.25
"""The share of genes that a further view of a cell has lost, where no share to hide says it."""

Asked: TypeAlias = Callable[[DualTask, Cell], bool]
"""Whether a task is asked about a cell: a set of cells may serve some tasks only."""


def _always(task: DualTask, cell: Cell) -> bool:
    return True


def sft_rows(
    cells: Sequence[Cell],
    tasks: Sequence[DualTask],
    vocabulary: Vocabulary,
    *,
    hidden: float | Sequence[float],
    views: int,
    rng: np.random.Generator,
    label_views: int | None = None,
    asked: Asked = _always,
) -> list[Row]:
    """Return the primal and dual question of every task for every labelled cell, with answers and no trace.

    Parameters
    ----------
    cells
        The labelled training cells.
    tasks
        The dual pairs.
    hidden
        The fraction of genes to hide, or several: the dual is told at each, but for the dual of a whole cell that is
        the very primal row of another task.
    views
        How many versions of a cell are told of. The first is the cell as it was measured; each further one has lost
        a random share of its genes, as dropout takes them: the first of ``hidden`` below 1, or else :data:`DROPOUT`.
        A policy that has seen only whole cells is a poor judge of the cells it writes. The hidden part is drawn anew
        for each.
    label_views
        The same for questions whose answer is a label, which is one word among the sixty of a list; None: ``views``.
    rng
        The only source of randomness; it also shuffles the rows.
    asked
        Which cells a task is asked about.
    """
    rows: list[Row] = []
    of_labels = views if label_views is None else label_views
    shares = (hidden,) if isinstance(hidden, (int, float)) else tuple(hidden)
    lost = next((share for share in shares if share < 1), DROPOUT)
    for cell in cells:
        for view in range(max(views, of_labels)):
            seen = cell if view == 0 else replace(cell, genes=hide_genes(cell.genes, lost, rng)[0])
            made: list[Row] = []
            for task in (task for task in tasks if asked(task, cell)):
                primal, *duals = _sft_rows(task, seen, view, vocabulary, shares, rng)
                made += [primal] if view < (of_labels if isinstance(task.answer, OneOf) else views) else []
                made += duals if view < (of_labels if isinstance(task.unknown, OneOf) else views) else []
            rows += _told_once(made)
    return _shuffled(rows, rng)


def _told_once(rows: Sequence[Row]) -> list[Row]:
    """Return ``rows`` without the duals of whole cells that another task's primal row tells in the same words."""
    told = {(row["input"], row["output"]) for row in rows if row["direction"] == "primal"}
    return [
        row
        for row in rows
        if row["direction"] == "primal"
        or (row["input"], row["output"]) not in told
        or isinstance(Example.from_label(row["label"]).unknown, str)
    ]


def _sft_rows(
    task: DualTask, cell: Cell, view: int, vocabulary: Vocabulary, shares: Sequence[float], rng: np.random.Generator
) -> list[Row]:
    """Return the primal row, and a dual row for each share at which it is another."""
    example = _example(task, cell, shares[0], True, rng)
    if example.gold is None:
        raise CellDualityError(
            f"the dual pair {task.name!r} made no gold answer",
            where=cell.id,
            mend="set gold when labelled is true",
        )
    splits = [example]
    for share, stream in zip(shares[1:], rng.spawn(len(shares) - 1), strict=True):
        split = task.hide(example, share, stream)
        splits += [split] if split not in splits else []

    def row(prompt: str, response: str, direction: str, example: Example) -> Row:
        origin = {"id": cell.id, "view": str(view), "label": example.to_label()}
        return {"input": prompt, "output": response, "direction": direction, "datasource": task.name, **origin}

    gold = example.gold
    with _blamed_on(task):
        primal = task.primal_prompt(example.inputs, vocabulary), task.answer_response(gold)
        duals = [(task.dual_prompt(s.known, gold, vocabulary), task.rebuilt_response(s.unknown)) for s in splits]
    return [
        row(*primal, "primal", example),
        *(row(*dual, "dual", split) for dual, split in zip(duals, splits, strict=True)),
    ]


def rl_rows(
    labelled: Sequence[Cell],
    unlabelled: Sequence[Cell],
    tasks: Mapping[DualTask, float],
    vocabulary: Vocabulary,
    *,
    count: int,
    hidden: float,
    includes_labelled: bool,
    rng: np.random.Generator,
    asked: Asked = _always,
    gold: Container[str] = (),
    masks: int = 1,
    thin: float = 0.0,
) -> list[Row]:
    """Return ``count`` questions without gold answers, but for the tasks in ``gold``, shuffled.

    A task asks about cells stripped to what it needs; all of them once before any twice. A task whose question shows
    an annotation (its ``needs`` name a column of ``obs``) draws its cells, with replacement, from the labelled ones.

    Parameters
    ----------
    labelled, unlabelled
        The two parts of the training cells.
    tasks
        The dual pairs and their weights.
    count
        How many rows, shared among the tasks by weight.
    hidden
        The fraction of genes to hide.
    includes_labelled
        Whether the labelled cells, too, are asked about (without their label).
    rng
        The only source of randomness.
    asked
        Which cells a task is asked about.
    gold
        The names of tasks whose rows hold the true answer, for a reward that is the ground truth.
    masks
        How many splits of its cell a row of a pair that hides genes holds; see :func:`with_masks`.
    thin
        The fraction of genes that a question about a label does not show of its cell.

    Raises
    ------
    CellDualityError
        If a task with rows to make finds no cell to make them of.
    """
    rows = []
    for (task, _), share in zip(tasks.items(), apportion(count, list(tasks.values())), strict=True):
        shown, others = ([cell for cell in cells if asked(task, cell)] for cells in (labelled, unlabelled))
        if _shows_annotation(task, shown):
            chosen = [shown[place] for place in rng.integers(len(shown), size=share)]
        else:
            chosen = _cycle([*others, *shown] if includes_labelled else others, share, rng)
        told = task.name in gold
        for cell in chosen:
            example = with_masks(task, cell, _example(task, cell, hidden, told, rng), masks, hidden, rng)
            if thin and isinstance(task, LabelTask):
                seen = hide_genes(task.whole(example), thin, rng.spawn(1)[0])[0]
                example = replace(example, inputs={**example.inputs, "cell": seen})
            rows.append(_question(task, example, vocabulary))
    return _shuffled(rows, rng)


def eval_rows(
    cells: Sequence[Cell],
    tasks: Sequence[DualTask],
    vocabulary: Vocabulary,
    *,
    hidden: float,
    rng: np.random.Generator,
    asked: Asked = _always,
) -> list[Row]:
    """Return one question with its gold answer for every held-out cell and task, in the cells' order."""
    return [
        _question(task, _example(task, cell, hidden, True, rng), vocabulary)
        for cell in cells
        for task in tasks
        if asked(task, cell)
    ]


def audit_rows(
    cells: Sequence[Cell],
    tasks: Sequence[DualTask],
    vocabulary: Vocabulary,
    *,
    count: int,
    hidden: float,
    masks: int,
    rng: np.random.Generator,
    asked: Asked = _always,
) -> list[Row]:
    """Return questions with gold answers about at most ``count`` cells a task, each under ``masks`` masks.

    The cells of a task are in random order, so that the first few of them are a fair sample.
    """
    rows = []
    for task in tasks:
        fit = [cell for cell in cells if asked(task, cell)]
        for place in rng.permutation(len(fit))[:count]:
            example = _example(task, fit[place], hidden, True, rng)
            rows.append(_question(task, with_masks(task, fit[place], example, masks, hidden, rng), vocabulary))
    return rows


def with_masks(
    task: DualTask, cell: Cell, example: Example, count: int, hidden: float, rng: np.random.Generator
) -> Example:
    """Return ``example`` with further splits of the same cell, ``count`` in all.

    They come from streams of their own: what follows from ``rng`` does not hang on ``count``. A pair that hides
    nothing, or whose question itself changes with the split, has one split whatever is asked for; a cell of few genes
    may have fewer than ``count`` different ones.
    """
    found: list[Mask] = []
    for stream in rng.spawn(count - 1):
        again = _example(task, cell, hidden, example.gold is not None, stream)
        if again.inputs != example.inputs:
            return example
        found.append(Mask(again.known, again.unknown))
    first = Mask(example.known, example.unknown)
    different = [mask for place, mask in enumerate(found) if mask not in (first, *found[:place])]
    return replace(example, masks=tuple(different))


def _shows_annotation(task: DualTask, cells: Sequence[Cell]) -> bool:
    """Return whether the question shows what only labelled cells have."""
    columns = set(task.needs) - {"control"}
    return any(not columns <= set(cell.condition) for cell in cells)


def _question(task: DualTask, example: Example, vocabulary: Vocabulary) -> Row:
    with _blamed_on(task):
        prompt = task.primal_prompt(example.inputs, vocabulary)
    return {"input": prompt, "label": example.to_label(), "datasource": task.name, "id": example.id}


def _example(task: DualTask, cell: Cell, hidden: float, labelled: bool, rng: np.random.Generator) -> Example:
    with _blamed_on(task):
        if not labelled:  # stripped here and not left to the task: what a task cannot see it cannot leak
            cell = cell.stripped(task.needs)
        return task.example(cell, hidden=hidden, labelled=labelled, rng=rng)


@contextlib.contextmanager
def _blamed_on(task: DualTask) -> Iterator[None]:
    try:
        yield
    except KeyError as error:
        raise CellDualityError(
            f"the dual pair {task.name!r} asks for {error}, which these cells do not have",
            where=f"task {task.name}",
            mend="use columns the cells have, such as 'cell_type', and list in `needs` what the question shows",
        ) from error


def _cycle(cells: list[Cell], count: int, rng: np.random.Generator) -> list[Cell]:
    """Return ``count`` cells in random order; no cell comes again before every other has come."""
    if count and not cells:
        raise CellDualityError(
            "no unlabelled training cell is left for RL",
            where="n_labelled",
            mend="lower n_labelled or set rl_includes_labelled",
        )
    chosen: list[Cell] = []
    while len(chosen) < count:
        chosen += [cells[place] for place in rng.permutation(len(cells))]
    return chosen[:count]


def _shuffled(rows: list[Row], rng: np.random.Generator) -> list[Row]:
    return [rows[place] for place in rng.permutation(len(rows))]
