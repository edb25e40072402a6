"""Written cells as AnnData: what scanpy reads, aligned with what was asked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from cellduality_plugin.cell_sentences import Cell
from cellduality_plugin.errors import CellDualityError
from cellduality_plugin.evaluation.audit.engine import Players
from cellduality_plugin.evaluation.checkpoints import model_hash, versions
from cellduality_plugin.evaluation.generated import RANK, RANK_IS, as_anndata
from cellduality_plugin.inference.asking import no_file
from cellduality_plugin.inference.checkpoint import Checkpoint
from cellduality_plugin.inference.expression import expression_by
from cellduality_plugin.inference.files import PROVENANCE, refuse_taken_keys
from cellduality_plugin.inference.writing import Writer, Written
from cellduality_plugin.parsing import Genes
from cellduality_plugin.perturbations import CONTROL
from cellduality_plugin.policies.cache import AnswerCache
from cellduality_plugin.tasks import DualTask
from data_prep.cells import CellTable, RankedCells

if TYPE_CHECKING:
    from anndata import AnnData
    from pandas import DataFrame

KEY = "cellduality"
"""The first part of the columns of ``obs`` that say of each written cell what was asked and how it was answered."""
_FOUND = ("validity", "reward", "failure", "reasoning")


@dataclass(frozen=True)
class Asking:
    """How written cells are asked for, and what new columns are called.

    Untreated cells are those with ``control``, (column, value) of ``obs``; None: all are, or, where the perturbation is
    given and there is a column ``perturbation``, those that are called ``"control"`` in it.
    """

    given: Mapping[str, str]  # what every question shows, by column, such as {"perturbation": "cytokine IFN-beta"}
    control: tuple[str, str] | None = None
    key_added: str = KEY  # the first part of the names of new columns
    name: str = ""  # what the progress bar shows; no bar if it is empty


def cell_pair(checkpoint: Checkpoint, name: str, *, from_control: bool = False) -> DualTask:
    """Return the pair called ``name``, or else the first one that writes cells, from an untreated one or from nothing.

    A CellDualityError if there is no such pair, or it does not answer with genes.
    """
    tasks = [checkpoint.task(name)] if name else list(checkpoint.config.load_tasks().values())
    fit = [task for task in tasks if isinstance(task.answer, Genes)]
    if not name:
        fit = [task for task in fit if task.needs and ("control" in task.needs) == from_control]
    if fit:
        return fit[0]
    what = f"{name!r} answers with a label" if name else "the model was trained on no such pair"
    hint = "name one that writes cells with --task; `cellduality predict` asks any"
    raise CellDualityError(what, code="no-cell-task", where=str(checkpoint.model), hint=hint)


def refuse_control(task: DualTask, control: tuple[str, str] | None) -> None:
    """Raise if untreated cells are named for a pair that asks about none."""
    if control and "control" not in task.needs:
        what, hint = (
            f"{task.name} asks about no untreated cell",
            "leave it out, or give a file of the cells to ask about",
        )
        raise CellDualityError(what, code="no-control", where="--control", hint=hint)


def write_of_nothing(
    writer: Writer,
    rows: Sequence[Mapping[str, str]],
    length: int,
    asking: Asking,
    opened: AbstractContextManager[Players],
) -> AnnData:
    """Return a written cell for each of ``rows``, of which each says what is asked for, as ``length`` genes.

    A CellDualityError if the pair asks about a cell, something that it shows is not given, or there are not so many
    genes.
    """
    import pandas

    if not rows:
        raise CellDualityError("no cell was asked for", code="wrong-count", where="-n", hint="ask for one at least")
    if missing := sorted(set(writer.columns) - set(rows[0])):
        hint = f"give it: --{missing[0].replace('_', '-')} or --set {missing[0]}=VALUE"
        raise CellDualityError(f"no {missing[0]!r}, which the question shows", code="missing-value", hint=hint)
    writer.refuse_unshown(rows[0])
    rows = [{column: writer.named(column, row[column]) for column in writer.columns} for row in rows]
    genes = sorted(writer.genes)
    if not 1 <= length <= len(genes):
        hint = f"choose from 1 to {len(genes)}, the genes that the model knows"
        raise CellDualityError(f"cells of {length} genes", code="wrong-length", where="--length", hint=hint)
    names = [f"{' '.join(row.values())} {number}" for number, row in enumerate(rows, start=1)]
    known = {f"{KEY}/{name}": row for name, row in zip(names, rows, strict=True)}
    # Its genes stand for their number alone: a question that shows any of them is about a cell.
    one, other = (
        next(writer.questions([Cell(next(iter(known)), tuple(some[:length]))], known)) for some in (genes, genes[::-1])
    )
    if "control" in writer.task.needs or (one.inputs, one.known) != (other.inputs, other.known):
        what, hint = f"{writer.task.name} asks about a cell", f"cellduality predict {writer.task.name} CELLS.h5ad"
        raise CellDualityError(what, code="needs-cells", where="--task", hint=hint)
    cells = (Cell(name, tuple(genes[:length])) for name in known)
    with no_file() as kept, opened as players:
        found = writer.write(writer.questions(cells, known), len(known), players, kept, asking.name)
    asked = {column: [row[column] for row in rows] for column in writer.columns}
    return _as_anndata(writer, found, pandas.DataFrame(index=names), {**asked, "length": [length] * len(rows)}, asking)


def write_of_cells(
    writer: Writer,
    cells: AnnData | CellTable,
    obs: DataFrame,
    source: str,
    asking: Asking,
    opened: AbstractContextManager[Players],
    kept: AnswerCache,
) -> AnnData:
    """Return a written cell for each of ``cells`` that can be read, with its name and what ``obs`` says of it.

    A CellDualityError as for :meth:`.asking.Asker.readable`, or if none is untreated, something that the question shows
    is a label the model does not know, or a column is there already.
    """
    refuse_control(writer.task, asking.control)
    if not obs.index.is_unique:
        hint = "call adata.obs_names_make_unique()"
        raise CellDualityError("two cells share a name", code="duplicate-names", where=source, hint=hint)
    refuse_taken_keys(obs, [f"{asking.key_added}_{name}" for name in (*_FOUND, *writer.columns)])
    given = {column: writer.named(column, value) for column, value in asking.given.items()}
    ranked, origin = writer.readable(cells, source, given)
    if "control" in writer.task.needs:
        ranked = _untreated(ranked, obs, asking)
    known = ranked.known(writer.columns)
    for column in writer.columns:  # each value once: an atlas has few
        spelled = {value: writer.named(column, value) for value in {each[column] for each in known.values()}}
        for each in known.values():
            each[column] = spelled[each[column]]
    with opened as players:
        found = writer.write(writer.questions(ranked, known), len(ranked), players, kept, asking.name)
    asked = {column: [each[column] for each in known.values()] for column in writer.columns}
    rows = obs.set_axis(obs.index.astype(str)).loc[ranked.obs.index.astype(str)]
    return _as_anndata(writer, found, rows, asked, asking, **origin)


def _untreated(ranked: RankedCells, obs: DataFrame, asking: Asking) -> RankedCells:
    column, value = asking.control or ("perturbation", CONTROL)
    if asking.control is None and not ("perturbation" in asking.given and "perturbation" in obs):
        return ranked
    if column not in obs:
        hint = f"there is {', '.join(map(str, obs.columns)) or 'none'}"
        raise CellDualityError(f"no column {column!r} in obs", code="unknown-column", where="--control", hint=hint)
    values = obs[column].astype(str).set_axis(obs.index.astype(str))
    chosen = (values.loc[ranked.obs.index.astype(str)] == value).to_numpy()
    if not chosen.any():
        there = ", ".join(sorted(set(values))[:5])
        hint = f"say which cells are untreated with --control COLUMN=VALUE; obs[{column!r}] holds {there}"
        raise CellDualityError(f"no cell has {column} {value!r}", code="no-control", where=ranked.source, hint=hint)
    return replace(ranked, top=ranked.top[chosen], obs=ranked.obs[chosen])


def _as_anndata(
    writer: Writer,
    found: Sequence[Written],
    obs: DataFrame,
    asked: Mapping[str, Sequence[Any]],
    asking: Asking,
    **origin: Any,
) -> AnnData:
    """Return the written cells over the genes of the vocabulary; one that could not be read has none."""
    checkpoint = writer.checkpoint
    top = max([checkpoint.notes["top_genes"], *(len(one.genes) for one in found)])
    line = checkpoint.notes.get("line", {}).get(writer.task.name)
    expression, what = expression_by(line, top)
    own: dict[str, Any] = {**asked, **{name: [getattr(one, name) for one in found] for name in _FOUND}}
    own["reward"] = np.array(own["reward"], dtype=float)  # NaN where nobody judged
    obs = obs.assign(**{f"{asking.key_added}_{name}": values for name, values in own.items()})
    result = as_anndata([one.genes for one in found], writer.vocabulary.genes, top, obs, expression)
    result.uns[PROVENANCE] = {
        "model": str(checkpoint.model), "weights": model_hash(checkpoint.model), "packed": checkpoint.hash,
        "task": writer.task.name, **writer.settings.model_dump(), **origin, "X": what, RANK: RANK_IS,
        "given": dict(asking.given), "control": "=".join(asking.control or ()), "versions": versions(),
    }  # fmt: skip
    if line:
        result.uns["log1p"] = {}  # what scanpy goes by
    return result
