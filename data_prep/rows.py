"""From cells to rows: questions with answers for SFT, questions alone for RL, both for evaluation.

And for a stage before the first label: training cells in both directions, under the number of their cluster.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeAlias

import numpy as np

from cellduality_plugin.cell_sentences import Cell, hide_genes
from cellduality_plugin.errors import CellDualityError
from cellduality_plugin.examples import Example, Mask
from cellduality_plugin.parsing import OneOf
from cellduality_plugin.tasks import TASKS, DualTask
from cellduality_plugin.tasks.base import LabelTask
from cellduality_plugin.vocabulary import Vocabulary
from data_prep.settings import PrepareSettings
from data_prep.splits import apportion, shuffled
from data_prep.traces.questions import Question

Row: TypeAlias = dict[str, str]

PRETRAIN_FILE = "pretrain.jsonl"  # beside the other rows of a preparation, where such a stage is wanted

DROPOUT = 0.25  # the share of genes that a further view of a cell has lost, where no share to hide says it
AUDIT_MASKS = 4  # masks of an audited cell at least: with fewer, the noise of a mask hides what the reward says
COMPONENTS, STARTS = 20, 4  # of the clustering

# Whether a task is asked about a cell: a set of cells may serve some tasks only.
Asked: TypeAlias = Callable[[DualTask, Cell], bool]


@dataclass(frozen=True)
class RowMaker:
    """The rows about some cells that ``tasks`` make as ``settings`` say; ``rng`` is all that is random in them."""

    tasks: Sequence[DualTask]
    vocabulary: Vocabulary
    settings: PrepareSettings = field(default_factory=PrepareSettings)
    asked: Asked = lambda task, cell: True

    def sft(self, cells: Sequence[Cell], rng: np.random.Generator) -> list[Row]:
        """Return the primal and dual question of every task for every cell, with answers and no trace, shuffled.

        There is a dual at each share to hide, but for the dual of a whole cell that is the very primal row of another
        task. Of the views of a cell the first is as it was measured; each further one has lost a random share of its
        genes: the first share to hide below 1, or else :data:`DROPOUT`. The hidden part is drawn anew for each.
        """
        rows: list[Row] = []
        views, label_views = self.settings.sft_views, self.settings.sft_label_views or self.settings.sft_views
        lost = next((share for share in self.settings.hidden if share < 1), DROPOUT)
        for cell in cells:
            for view in range(max(views, label_views)):
                seen = cell if view == 0 else replace(cell, genes=hide_genes(cell.genes, lost, rng)[0])
                made: list[Row] = []
                for task in (task for task in self.tasks if self.asked(task, cell)):
                    primal, *duals = self._primal_and_duals(task, seen, view, rng)
                    made += [primal] if view < (label_views if isinstance(task.answer, OneOf) else views) else []
                    made += duals if view < (label_views if isinstance(task.unknown, OneOf) else views) else []
                rows += _without_twins(made)
        return shuffled(rows, rng)

    def _primal_and_duals(self, task: DualTask, cell: Cell, view: int, rng: np.random.Generator) -> list[Row]:
        """Return the primal row, and a dual row for each share at which it is another."""
        first, *shares = self.settings.hidden
        example = _example(task, cell, first, True, rng)
        if (gold := example.gold) is None:
            what, hint = f"the dual pair {task.name!r} made no gold answer", "set gold when labelled is true"
            raise CellDualityError(what, code="broken-pair", where=cell.id, hint=hint)
        splits = [example]
        for share, stream in zip(shares, rng.spawn(len(shares)), strict=True):
            split = task.hide(example, share, stream)
            splits += [split] if split not in splits else []
        with _blamed_on(task):
            primal = Question.of(task, "primal", example, view, gold, self.vocabulary)
            asked = [primal, *(Question.of(task, "dual", split, view, gold, self.vocabulary) for split in splits)]
            return [question.row(question.response(question.gold)) for question in asked]

    def rl(
        self, labelled: Sequence[Cell], unlabelled: Sequence[Cell], weights: Iterable[float], rng: np.random.Generator
    ) -> list[Row]:
        """Return questions without gold answers, but for the tasks whose rows shall hold them, shuffled.

        ``weights`` are those by which the tasks share the rows. A task asks about cells stripped to what it needs; all
        of them once before any twice. A task whose question shows an annotation (its ``needs`` name a column of
        ``obs``) draws its cells, with replacement, from the labelled ones. A CellDualityError is raised if a task finds
        no cell.
        """
        rows, how = [], self.settings
        for task, share in zip(self.tasks, apportion(how.n_rl, [*weights]), strict=True):
            shown, others = ([cell for cell in cells if self.asked(task, cell)] for cells in (labelled, unlabelled))
            columns = set(task.needs) - {"control"}
            if any(not columns <= set(cell.condition) for cell in shown):
                chosen = [shown[place] for place in rng.integers(len(shown), size=share)]
            else:
                chosen = _cycle([*others, *shown] if how.rl_includes_labelled else others, share, rng)
            for cell in chosen:
                example = masked_example(task, cell, how.hidden[0], how.masks, rng, labelled=task.name in how.rl_gold)
                if how.thin and isinstance(task, LabelTask):
                    seen = hide_genes(task.whole(example), how.thin, rng.spawn(1)[0])[0]
                    example = replace(example, inputs={**example.inputs, "cell": seen})
                rows.append(self._question(task, example))
        return shuffled(rows, rng)

    def evaluation(self, cells: Sequence[Cell], rng: np.random.Generator) -> Iterator[Row]:
        """Yield one question with its gold answer for every cell and task, in the cells' order."""
        for cell in cells:
            for task in self.tasks:
                if self.asked(task, cell):
                    yield self._question(task, _example(task, cell, self.settings.hidden[0], True, rng))

    def audit(self, cells: Sequence[Cell], rng: np.random.Generator) -> list[Row]:
        """Return questions with gold answers about some cells of each task, under :data:`AUDIT_MASKS` masks or more.

        The cells of a task are in random order, so that the first few of them are a fair sample.
        """
        rows, masks = [], max(AUDIT_MASKS, self.settings.masks)
        for task in self.tasks:
            fit = [cell for cell in cells if self.asked(task, cell)]
            for place in rng.permutation(len(fit))[: self.settings.n_audit]:
                example = masked_example(task, fit[place], self.settings.hidden[0], masks, rng, labelled=True)
                rows.append(self._question(task, example))
        return rows

    def _question(self, task: DualTask, example: Example) -> Row:
        with _blamed_on(task):
            prompt = task.primal_prompt(example.inputs, self.vocabulary)
        return {"input": prompt, "label": example.to_label(), "datasource": task.name, "id": example.id}


def _without_twins(rows: Sequence[Row]) -> list[Row]:
    """Return ``rows`` without the duals of whole cells that equal another task's primal row."""
    primal = {(row["input"], row["output"]) for row in rows if row["direction"] == "primal"}

    def is_twin(row: Row) -> bool:
        same = row["direction"] != "primal" and (row["input"], row["output"]) in primal
        return same and not isinstance(Example.from_label(row["label"]).unknown, str)

    return [row for row in rows if not is_twin(row)]


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


def pretrain_rows(
    sets: Iterable[Sequence[Cell]], genes: tuple[str, ...], settings: PrepareSettings, rng: np.random.Generator
) -> list[Row]:
    """Return rows that know no label: each cell as an answer, and as a question for its cluster.

    They are worded as generation and annotation are, with clusters in the place of types; of a cell only its id and
    genes are read. ``sets`` are the training cells of each source: a cluster is of one source, and a question lists
    those of its own source. ``genes`` are those of the vocabulary.
    """
    views = {"sft_views": settings.pretrain_views, "sft_label_views": None, "hidden": settings.hidden[:1]}
    rows: list[Row] = []
    named = 0
    for cells in filter(None, sets):
        found = cluster_cells(cells, settings.clusters, rng)
        names = tuple(f"cluster {number}" for number in range(named + 1, named + max(found) + 2))
        named += len(names)
        typed = [Cell(cell.id, cell.genes, {"cell_type": names[own]}) for cell, own in zip(cells, found, strict=True)]
        world, task = Vocabulary(genes, {"cell_type": names}), TASKS["conditional_cell_generation"]
        rows += RowMaker([task], world, settings.model_copy(update=views)).sft(typed, rng)
    return shuffled(rows, rng)


def cluster_cells(cells: Sequence[Cell], count: int, rng: np.random.Generator) -> list[int]:
    """Return the cluster of each cell, numbered from 0 without a gap: at most ``count``, fewer where cells are alike.

    k-means on the first components of genes weighted by 1 / log2(rank + 2), with ranks from 0.
    """
    from scipy.sparse import csr_matrix
    from sklearn.cluster import KMeans
    from sklearn.decomposition import TruncatedSVD
    from threadpoolctl import threadpool_limits

    count = min(count, len({cell.genes for cell in cells}))
    if count < 2:
        return [0] * len(cells)
    columns = {gene: place for place, gene in enumerate(sorted({gene for cell in cells for gene in cell.genes}))}
    weights = np.concatenate([1 / np.log2(np.arange(len(cell.genes)) + 2) for cell in cells])
    ends = np.cumsum([0, *(len(cell.genes) for cell in cells)])
    matrix = csr_matrix((weights, [columns[gene] for cell in cells for gene in cell.genes], ends))
    one, other = rng.integers(2**31, size=2).tolist()
    with threadpool_limits(1):  # sums of several threads differ in their last bits from run to run
        shape = TruncatedSVD(min(COMPONENTS, *matrix.shape), random_state=one).fit_transform(matrix)
        found = KMeans(count, n_init=STARTS, random_state=other).fit_predict(shape)
    return [int(own) for own in np.unique(found, return_inverse=True)[1]]
