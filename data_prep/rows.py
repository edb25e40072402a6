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
from data_prep.splits import apportion, shuffled

Row: TypeAlias = dict[str, str]

DROPOUT = 0.25  # the share of genes that a further view of a cell has lost, where no share to hide says it

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
    """Return the primal and dual question of every task for every labelled cell, with answers and no trace, shuffled.

    ``hidden`` is the fraction of genes to hide, or several: there is a dual at each, but for the dual of a whole cell
    that is the very primal row of another task. Of the ``views`` of a cell the first is as it was measured; each
    further one has lost a random share of its genes: the first of ``hidden`` below 1, or else :data:`DROPOUT`. The
    hidden part is drawn anew for each. ``label_views`` is the same for questions whose answer is a label; None:
    ``views``. ``asked`` says which cells a task is asked about.
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
            rows += _without_twins(made)
    return shuffled(rows, rng)


def _without_twins(rows: Sequence[Row]) -> list[Row]:
    """Return ``rows`` without the duals of whole cells that equal another task's primal row."""
    primal = {(row["input"], row["output"]) for row in rows if row["direction"] == "primal"}

    def is_twin(row: Row) -> bool:
        same = row["direction"] != "primal" and (row["input"], row["output"]) in primal
        return same and not isinstance(Example.from_label(row["label"]).unknown, str)

    return [row for row in rows if not is_twin(row)]


def _sft_rows(
    task: DualTask, cell: Cell, view: int, vocabulary: Vocabulary, shares: Sequence[float], rng: np.random.Generator
) -> list[Row]:
    """Return the primal row, and a dual row for each share at which it is another."""
    example = _example(task, cell, shares[0], True, rng)
    if (gold := example.gold) is None:
        what, hint = f"the dual pair {task.name!r} made no gold answer", "set gold when labelled is true"
        raise CellDualityError(what, code="broken-pair", where=cell.id, hint=hint)
    splits = [example]
    for share, stream in zip(shares[1:], rng.spawn(len(shares) - 1), strict=True):
        split = task.hide(example, share, stream)
        splits += [split] if split not in splits else []

    def row(prompt: str, response: str, direction: str, example: Example) -> Row:
        origin = {"id": cell.id, "view": str(view), "label": example.to_label()}
        return {"input": prompt, "output": response, "direction": direction, "datasource": task.name, **origin}

    with _blamed_on(task):
        rows = [row(task.primal_prompt(example.inputs, vocabulary), task.answer_response(gold), "primal", example)]
        for split in splits:
            prompt, response = task.dual_prompt(split.known, gold, vocabulary), task.rebuilt_response(split.unknown)
            rows.append(row(prompt, response, "dual", split))
    return rows


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

    A task asks about cells stripped to what it needs; all of them once before any twice, the labelled ones only if
    ``includes_labelled``. A task whose question shows an annotation (its ``needs`` name a column of ``obs``) draws its
    cells, with replacement, from the labelled ones. ``tasks`` are the pairs and the weights by which they share the
    rows; those named in ``gold`` hold the true answer, for a reward that is the ground truth. ``masks`` is how many
    splits of its cell a row holds, see :func:`masked_example`; ``thin`` the fraction of genes that a question about a
    label does not show of its cell. A CellDualityError is raised if a task with rows to make finds no cell to make them
    of.
    """
    rows = []
    for (task, _), share in zip(tasks.items(), apportion(count, list(tasks.values())), strict=True):
        shown, others = ([cell for cell in cells if asked(task, cell)] for cells in (labelled, unlabelled))
        columns = set(task.needs) - {"control"}
        if any(not columns <= set(cell.condition) for cell in shown):
            chosen = [shown[place] for place in rng.integers(len(shown), size=share)]
        else:
            chosen = _cycle([*others, *shown] if includes_labelled else others, share, rng)
        for cell in chosen:
            example = masked_example(task, cell, hidden, masks, rng, labelled=task.name in gold)
            if thin and isinstance(task, LabelTask):
                seen = hide_genes(task.whole(example), thin, rng.spawn(1)[0])[0]
                example = replace(example, inputs={**example.inputs, "cell": seen})
            rows.append(_question(task, example, vocabulary))
    return shuffled(rows, rng)


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
    both = ((cell, task) for cell in cells for task in tasks if asked(task, cell))
    return [_question(task, _example(task, cell, hidden, True, rng), vocabulary) for cell, task in both]


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
            example = masked_example(task, fit[place], hidden, masks, rng, labelled=True)
            rows.append(_question(task, example, vocabulary))
    return rows


def masked_example(
    task: DualTask, cell: Cell, hidden: float, masks: int, rng: np.random.Generator, *, labelled: bool
) -> Example:
    """Return an example about ``cell`` with ``masks`` splits of it into known and hidden genes, all different.

    The further splits come from streams of their own: what follows from ``rng`` does not depend on their number. A pair
    that hides nothing, or whose question itself changes with the split, has one; a cell of few genes may have fewer.
    """
    example = _example(task, cell, hidden, labelled, rng)
    found = [Mask(example.known, example.unknown)]
    for stream in rng.spawn(masks - 1):
        again = _example(task, cell, hidden, labelled, stream)
        if again.inputs != example.inputs:
            return example
        if (mask := Mask(again.known, again.unknown)) not in found:
            found.append(mask)
    return replace(example, masks=tuple(found[1:]))


def _question(task: DualTask, example: Example, vocabulary: Vocabulary) -> Row:
    with _blamed_on(task):
        prompt = task.primal_prompt(example.inputs, vocabulary)
    return {"input": prompt, "label": example.to_label(), "datasource": task.name, "id": example.id}


def _example(task: DualTask, cell: Cell, hidden: float, labelled: bool, rng: np.random.Generator) -> Example:
    with _blamed_on(task):
        if not labelled:  # stripped here and not left to the task: what a task cannot see it cannot leak
            cell = cell.stripped(task.needs)
        example = task.example(cell, hidden=hidden, labelled=labelled, rng=rng)
    if not example.unknown:
        what = f"the dual pair {task.name!r} leaves nothing to rebuild with a share of {hidden:g} hidden"
        hint = "hide less (HIDDEN=...), or another part of the cell"
        raise CellDualityError(what, code="nothing-hidden", where=cell.id, hint=hint)
    return example


@contextlib.contextmanager
def _blamed_on(task: DualTask) -> Iterator[None]:
    try:
        yield
    except KeyError as error:
        what = f"the dual pair {task.name!r} asks for {error}, which these cells do not have"
        hint = "use columns the cells have, such as 'cell_type', and list in `needs` what the question shows"
        raise CellDualityError(what, code="unknown-column", where=f"task {task.name}", hint=hint) from error


def _cycle(cells: list[Cell], count: int, rng: np.random.Generator) -> list[Cell]:
    """Return ``count`` cells in random order; no cell comes again before every other has come."""
    if count and not cells:
        what, hint = "no unlabelled training cell is left for RL", "lower n_labelled or set rl_includes_labelled"
        raise CellDualityError(what, code="no-cells", where="n_labelled", hint=hint)
    chosen: list[Cell] = []
    while len(chosen) < count:
        chosen += shuffled(cells, rng)
    return chosen[:count]
