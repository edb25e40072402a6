"""Written cells as AnnData: what scanpy reads, aligned with what was asked."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cellduality_plugin.cell_sentences import Cell
from cellduality_plugin.errors import CellDualityError
from cellduality_plugin.evaluation.audit.engine import Players
from cellduality_plugin.evaluation.checkpoints import file_hash, model_hash, versions
from cellduality_plugin.evaluation.generated import RANK, RANK_IS, rank_matrix, write_anndata
from cellduality_plugin.inference.checkpoint import Checkpoint
from cellduality_plugin.inference.expression import expression_of
from cellduality_plugin.inference.files import (
    PROVENANCE,
    obs_of,
    readable_cells,
    refuse_taken,
    refuse_taken_keys,
    refuse_unshown,
)
from cellduality_plugin.inference.writing import Writer, WriteSettings, Written
from cellduality_plugin.parsing import Genes
from cellduality_plugin.perturbations import CONTROL
from cellduality_plugin.policies.cache import AnswerCache
from cellduality_plugin.tasks import DualTask
from data_prep.cells import CellTable, RankedCells
from data_prep.h5ad.loaders import load_h5ad

if TYPE_CHECKING:
    from anndata import AnnData
    from pandas import DataFrame

KEY = "cellduality"
"""The first part of the columns of ``obs`` that say of each written cell what was asked and how it was answered."""

Opener = Callable[[WriteSettings], AbstractContextManager[Players]]


@dataclass(frozen=True)
class Asking:
    """How written cells are asked for.

    Parameters
    ----------
    given
        What every question shows, by column, such as ``{"perturbation": "cytokine IFN-beta"}``.
    control
        (column, value) of ``obs``: only these cells are untreated ones. None: all are, or, where the perturbation is
        ``given`` and there is a column ``perturbation``, those that are called ``"control"`` in it.
    key_added
        The first part of the names of new columns.
    name
        What the progress bar shows; no bar if it is empty.
    """

    given: Mapping[str, str]
    settings: WriteSettings
    control: tuple[str, str] | None = None
    key_added: str = KEY
    name: str = ""


def cell_pair(checkpoint: Checkpoint, name: str, *, from_control: bool) -> DualTask:
    """Return the pair called ``name``, or else the first one that writes cells, from an untreated one or from nothing.

    Raises
    ------
    CellDualityError
        If there is no such pair, or it does not answer with genes.
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
        hint = "leave it out, or give a file of the cells that shall be asked about"
        raise CellDualityError(
            f"{task.name} asks about no untreated cell", code="no-control", where="--control", hint=hint
        )


def write_of_nothing(
    checkpoint: Checkpoint,
    task: DualTask,
    rows: Sequence[Mapping[str, str]],
    length: int,
    asking: Asking,
    opener: Opener,
) -> AnnData:
    """Return a written cell for each of ``rows``, of which each says what is asked for, as ``length`` genes.

    Raises
    ------
    CellDualityError
        If the pair asks about a cell, something that it shows is not given, or there are not so many genes.
    """
    import pandas

    writer = Writer(checkpoint, asking.settings, task)
    if not rows:
        raise CellDualityError("no cell was asked for", code="wrong-count", where="-n", hint="ask for one at least")
    if missing := sorted(set(writer.columns) - set(rows[0])):
        hint = f"give it: --{missing[0].replace('_', '-')} or --set {missing[0]}=VALUE"
        raise CellDualityError(f"no {missing[0]!r}, which the question shows", code="missing-value", hint=hint)
    refuse_unshown(rows[0], writer.columns)
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
    if "control" in task.needs or (one.inputs, one.known) != (other.inputs, other.known):
        hint = f"cellduality predict {task.name} CELLS.h5ad"
        raise CellDualityError(f"{task.name} asks about a cell", code="needs-cells", where="--task", hint=hint)
    cells = (Cell(name, tuple(genes[:length])) for name in known)
    with no_file() as kept, opener(asking.settings) as players:
        found = writer.write(writer.questions(cells, known), len(known), players, kept, asking.name)
    asked: dict[str, Sequence[Any]] = {column: [row[column] for row in rows] for column in writer.columns}
    asked["length"] = [length] * len(rows)
    return _as_anndata(checkpoint, writer, found, pandas.DataFrame(index=names), asked, asking, {})


def write_of_cells(
    checkpoint: Checkpoint,
    task: DualTask,
    cells: AnnData | CellTable,
    obs: DataFrame,
    source: str,
    asking: Asking,
    opener: Opener,
    kept: AnswerCache,
) -> AnnData:
    """Return a written cell for each of ``cells`` that can be read, with its name and what ``obs`` says of it.

    Raises
    ------
    CellDualityError
        If the cells share no gene with the model, none is untreated, something that the question shows is not known or
        is a label the model does not know, or a column is there already.
    """
    writer = Writer(checkpoint, asking.settings, task)
    refuse_control(task, asking.control)
    if not obs.index.is_unique:
        hint = "call adata.obs_names_make_unique()"
        raise CellDualityError("two cells share a name", code="duplicate-names", where=source, hint=hint)
    refuse_taken_keys(obs, asking.key_added, [f"{asking.key_added}_{name}" for name in (*_FOUND, *writer.columns)])
    given = {column: writer.named(column, value) for column, value in asking.given.items()}
    ranked, shared = readable_cells(cells, writer.genes, checkpoint.notes, source, writer.columns, given)
    if "control" in task.needs:
        ranked = _untreated(ranked, obs, asking)
    known = ranked.known(writer.columns)
    for column in writer.columns:  # each value once: an atlas has few
        spelled = {value: writer.named(column, value) for value in {each[column] for each in known.values()}}
        for each in known.values():
            each[column] = spelled[each[column]]
    with opener(asking.settings) as players:
        found = writer.write(writer.questions(ranked, known), len(ranked), players, kept, asking.name)
    asked = {column: [each[column] for each in known.values()] for column in writer.columns}
    rows = obs.set_axis(obs.index.astype(str)).loc[ranked.obs.index.astype(str)]
    return _as_anndata(checkpoint, writer, found, rows, asked, asking, {"shared_genes": shared, "source": source})


def write_of_file(
    checkpoint: Checkpoint,
    task: DualTask,
    source: Path,
    out: Path,
    asking: Asking,
    opener: Opener,
    reading: Mapping[str, Any],
    backend: str,
) -> AnnData:
    """Write ``out``, the written cells of the file ``source``, and return them; see :func:`write_of_cells`.

    What was answered is kept in ``out.answers`` while it runs: a run that was stopped goes on where it was.
    """
    refuse_taken(out, source)
    columns = [name for name in task.needs if name != "control" and name not in asking.given]
    reading = {**reading, "columns": {**{name: name for name in columns}, **reading.get("columns", {})}}
    loaded, obs = load_h5ad(source, None, **reading), obs_of(source)
    made_from = {
        "model": model_hash(checkpoint.model), "packed": checkpoint.hash, "file": file_hash(source),
        "task": task.name, "given": dict(asking.given), "control": asking.control, "reading": reading,
        "settings": asking.settings.model_dump(), "backend": backend, "versions": versions(),
    }  # fmt: skip
    with AnswerCache(out.with_suffix(".answers"), made_from) as kept:
        result = write_of_cells(checkpoint, task, loaded, obs, source.stem, asking, opener, kept)
        write_anndata(out, result)
        kept.discard()
    return result


@contextlib.contextmanager
def no_file() -> Iterator[AnswerCache]:
    """Open a cache that is gone afterwards."""
    with tempfile.TemporaryDirectory() as folder, AnswerCache(Path(folder) / "answers", {}) as kept:
        yield kept
        kept.discard()


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


_FOUND = ("validity", "reward", "failure", "reasoning")


def _as_anndata(
    checkpoint: Checkpoint,
    writer: Writer,
    found: Sequence[Written],
    obs: DataFrame,
    asked: Mapping[str, Sequence[Any]],
    asking: Asking,
    more: Mapping[str, Any],
) -> AnnData:
    """Return the written cells over the genes of the vocabulary; one that could not be read has none."""
    import anndata
    import pandas

    top = max([checkpoint.notes["top_genes"], *(len(one.genes) for one in found)])
    line = checkpoint.notes.get("line", {}).get(writer.task.name)
    ranks = rank_matrix([one.genes for one in found], writer.vocabulary.genes, top)
    matrix = ranks.astype(np.float32)
    matrix.data, what = expression_of(ranks.data, line, top)
    own: dict[str, Any] = {f"{asking.key_added}_{name}": values for name, values in asked.items()}
    for name in _FOUND:
        own[f"{asking.key_added}_{name}"] = [getattr(one, name) for one in found]
    own[f"{asking.key_added}_reward"] = np.array([np.nan if one.reward is None else one.reward for one in found])
    result = anndata.AnnData(
        X=matrix, obs=obs.assign(**own), var=pandas.DataFrame(index=list(writer.vocabulary.genes)), layers={RANK: ranks}
    )
    result.uns[PROVENANCE] = {
        "model": str(checkpoint.model), "weights": model_hash(checkpoint.model), "packed": checkpoint.hash,
        "task": writer.task.name, **asking.settings.model_dump(), **more, "X": what, RANK: RANK_IS,
        "given": dict(asking.given), "control": "=".join(asking.control or ()), "versions": versions(),
    }  # fmt: skip
    if line:
        result.uns["log1p"] = {}  # what scanpy goes by
    return result
