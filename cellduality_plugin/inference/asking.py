"""One pair of a trained model, ready to be asked about the cells of AnnData or of a file, and the file that is made."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeAlias, TypeVar

import h5py
import numpy as np
from anndata import AnnData
from anndata.io import read_elem, write_elem
from pandas import DataFrame
from pydantic import Field

from cellduality_plugin.cell_sentences import Cell
from cellduality_plugin.errors import CellDualityError
from cellduality_plugin.evaluation.audit.engine import Players, checkpoint_players
from cellduality_plugin.evaluation.predictions import file_hash, model_hash, versions
from cellduality_plugin.evaluation.rounds.labelling import answered
from cellduality_plugin.examples import Example
from cellduality_plugin.files import whole_file
from cellduality_plugin.inference.checkpoint import Checkpoint
from cellduality_plugin.perturbations import CONTROL
from cellduality_plugin.perturbations import KIND as PERTURBATION
from cellduality_plugin.policies.cache import AnswerCache
from cellduality_plugin.policies.offline import EngineSettings
from cellduality_plugin.rewards import get_reward
from cellduality_plugin.seeds import request_seed
from cellduality_plugin.settings import Settings
from cellduality_plugin.tasks import DualTask
from data_prep.cells import CellTable, RankedCells, rank_cells
from data_prep.h5ad.loaders import load_h5ad
from data_prep.h5ad.matrices import open_tables
from data_prep.sources import own_file, untreated
from data_prep.splits import pair_with_controls
from data_prep.views import GROUPS, known_by

Cells: TypeAlias = tuple[AnnData | CellTable, DataFrame]  # cells, and all that is known of them
Control: TypeAlias = tuple[str, str] | Path | AnnData | None
"""Untreated cells: those of the same table with (column, value), or all of another file or table. None: as it is said
where they are chosen."""
Found = TypeVar("Found")

PROVENANCE = "cellduality"  # the key of ``uns`` by which a file of ours is known
UNTREATED = "<untreated>"  # what stands for the source of untreated cells that are in a file of their own
_CONTROL_HINT = "say which are: --control COLUMN=VALUE, or --control FILE.h5ad that holds untreated cells alone"


class AskSettings(Settings):
    """How a model is asked: draws for each question (0: a single one, which nobody judges), and how they are made."""

    verify: int = Field(ge=0)
    temperature: float = Field(1.0, gt=0)
    batch: int = Field(64, ge=1)  # questions that are asked together, and then kept
    seed: int = 42  # of every draw


class Asker(ABC, Generic[Found]):
    """A pair of a checkpoint, whose questions show ``columns`` and the ``genes`` of the training questions alone.

    Every question shows what is ``given`` by column; other columns are read from ``obs``. ``control`` says which cells
    are untreated. New columns are called by ``key``. A CellDualityError if the model was not trained on the pair,
    cells are judged by their true answer, or untreated cells are named and the question shows none.
    """

    answer: ClassVar[type[Any]]
    """The dataclass of what is found out about one cell."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        task: DualTask,
        settings: AskSettings,
        *,
        given: Mapping[str, str] | None = None,
        control: Control = None,
        key: str = "",
        progress: bool = True,
    ) -> None:
        self.checkpoint, self.task, self.settings = checkpoint, task, settings
        self.given, self.control, self.key, self._progress = dict(given or {}), control, key, progress
        self.vocabulary, self.genes = checkpoint.config.load_vocabulary(), checkpoint.genes_of(task.name)
        self.columns = tuple(column for column in task.needs if column != "control")
        self.pay = checkpoint.config.tasks[task.name]
        self.hidden = float(self.pay.hidden or checkpoint.notes["hidden"])  # the share of a cell that duals rebuild
        if settings.verify and get_reward(self.pay.reward, checkpoint.config.folder).needs_gold:
            what = "the reward of this task reads the true answer, which is not known here"
            hint = "pack the model with another configuration, or ask with --verify 0"
            raise CellDualityError(what, code="reward-needs-gold", where=f"tasks.{task.name}.reward", hint=hint)
        if control is not None and "control" not in task.needs:
            what, hint = f"{task.name} asks about no untreated cell", "leave it out: all cells are asked about"
            raise CellDualityError(what, code="no-control", where="--control", hint=hint)

    @abstractmethod
    def of_cells(self, cells: Cells, source: str, kept: AnswerCache | None, others: Cells | None) -> Found:
        """Return what was answered about the cells that can be read.

        ``source`` is what they are called. What is in ``kept`` is not asked again. ``others`` are untreated cells. A
        CellDualityError as for :meth:`readable` and :meth:`beside_untreated`, or if a new column is there already.
        """

    @abstractmethod
    def write(self, found: Found, source: Path, out: Path) -> None:
        """Write what was found out about the file ``source`` to ``out``, whole or not at all."""

    @abstractmethod
    async def ask(self, example: Example, players: Players) -> Any:
        """Return the ``answer`` to one question."""

    def of_adata(self, adata: AnnData) -> Found:
        """Return what was answered about the cells of ``adata``, which stays as it is."""
        return self.of_cells((adata, adata.obs), "adata", None, self._beside())

    def _beside(self, **reading: Any) -> Cells | None:
        """Return the untreated cells where ``control`` is a file or an AnnData."""
        control = self.control
        if isinstance(control, Path):
            return load_h5ad(own_file(str(control)), None, **reading | {"columns": {}}), open_tables(control).obs
        return (control, control.obs) if isinstance(control, AnnData) else None

    def of_file(self, source: Path, out: Path, **reading: Any) -> Found:
        """Write ``out`` from what is answered about the file ``source``, and return that.

        The matrix is read in blocks and never held; ``reading`` is how, as :func:`~data_prep.h5ad.loaders.load_h5ad`
        has it. What was answered is kept in OUT.answers while it runs: a run that was stopped goes on where it was. A
        CellDualityError as of :meth:`of_cells`, or if a file cannot be read, or ``out`` is one that we did not write.
        """
        refuse_taken(out, source)
        if isinstance(control := self.control, AnnData):
            what, hint = "untreated cells beside a file come from a file", "write them to an .h5ad, and give its path"
            raise CellDualityError(what, code="no-control", where="control", hint=hint)
        columns = {name: name for name in self.columns if name not in self.given} | reading.get("columns", {})
        cells = load_h5ad(source, None, **reading | {"columns": columns}), open_tables(source).obs
        others = self._beside(**reading)
        for table, _ in filter(None, (cells, others)):
            table.counts()  # values that are refused are refused before answers of other settings are dropped
        made_from = {
            "model": model_hash(self.checkpoint.model), "packed": self.checkpoint.hash, "file": file_hash(source),
            "task": self.task.name, "given": self.given, "reading": reading | {"columns": columns},
            "control": file_hash(control) if isinstance(control, Path) else control, "versions": versions(),
            "settings": self.settings.model_dump(exclude={"unassigned_below", "coverage"}),
            "backend": self.checkpoint.backend,
        }  # fmt: skip
        with AnswerCache(out.with_suffix(".answers"), made_from) as kept:
            found = self.of_cells(cells, source.stem, kept, others)
            self.write(found, source, out)
            kept.discard()
        return found

    def answers(
        self, examples: Iterable[Example], total: int, name: str, kept: AnswerCache | None = None
    ) -> Iterator[Any]:
        """Yield the ``answer`` to each of ``total`` questions, none of which is asked twice, nor if it is in ``kept``.

        The progress bar shows ``name``.
        """
        how, notes, name = self.settings, self.checkpoint.notes, name if self._progress else ""
        opened = checkpoint_players(
            self.checkpoint.model, EngineSettings(notes["max_len"], notes["max_new_tokens"]),
            self.checkpoint.config.dual, temperature=how.temperature, seed=how.seed, backend=self.checkpoint.backend,
        )  # fmt: skip
        with opened as players, tempfile.TemporaryDirectory() as folder:
            ask, forgotten = partial(self.ask, players=players), Path(folder) / "answers"
            with contextlib.nullcontext(kept) if kept else AnswerCache(forgotten, {}) as known:
                found = answered(ask, examples, known, self.answer, batch=how.batch, total=total, name=name)
                yield from (each for _, each in found)

    def rng(self, cell_id: str) -> np.random.Generator:
        """Return what hides genes of a cell from the dual; the same whenever it is asked about."""
        return np.random.default_rng(request_seed(self.settings.seed, "question", cell_id))

    def questions(
        self,
        cells: Iterable[Cell],
        known: Mapping[str, Mapping[str, str]],
        controls: Mapping[str, tuple[str, ...]] | None = None,
    ) -> Iterator[Example]:
        """Yield the question about each cell, of which ``known`` is shown by its id.

        The untreated cell beside it has the genes of ``controls``, by its id; None: it is its own.
        """
        for cell in cells:
            shown = known_by(cell, known[cell.id])
            if "control" in self.task.needs:
                shown = replace(shown, control=cell.genes if controls is None else controls[cell.id])
            yield self.task.example(shown, hidden=self.hidden, labelled=False, rng=self.rng(cell.id))

    def readable(self, cells: AnnData | CellTable, source: str) -> tuple[RankedCells, dict[str, Any]]:
        """Return the cells as the model reads them, and what is known of them: ``source``, and the ``shared_genes``.

        Cells with too few of its genes are left out. A CellDualityError if they share no gene with the model, no cell
        is left, or a column that questions show is missing, or given though they do not show it.
        """
        table = cells if isinstance(cells, CellTable) else CellTable.of(cells)
        if self.given:
            self.refuse_unshown(self.given)
            table = replace(table, obs=table.obs.assign(**self.given))
        if missing := sorted(set(self.columns) - set(table.obs)):
            what, there = f"no column {missing[0]!r}, which the question shows", ", ".join(map(str, table.obs))
            hint = f"there is {there or 'none'}; or give it one value: --set {missing[0]}=VALUE"
            raise CellDualityError(what, code="unknown-column", where=f"{source}, obs", hint=hint)
        shared = self.genes.intersection(table.genes)
        if not shared:
            what = "none of its genes is one that the model knows"
            hint = "name genes by their symbols (--gene-symbols COLUMN), or say --species mouse"
            raise CellDualityError(what, code="no-shared-genes", where=source, hint=hint)
        return self._ranked(table, source), {"source": source, "shared_genes": len(shared) / len(self.genes)}

    def _ranked(self, cells: AnnData | CellTable, source: str) -> RankedCells:
        notes = self.checkpoint.notes
        return rank_cells(cells, source=source, top=notes["top_genes"], min_genes=notes["min_genes"], genes=self.genes)

    def beside_untreated(
        self, ranked: RankedCells, obs: DataFrame, others: Cells | None
    ) -> tuple[RankedCells, dict[str, tuple[str, ...]]]:
        """Return (the cells that have an untreated one of their type and line, as far as known; its genes by their id).

        Untreated are ``others``; or else cells of the same ``obs``: those with ``control``, None: of any usual name in
        the column ``perturbation``. They are asked about, too. A CellDualityError if there is none.
        """
        tables = [(ranked, obs), *([(self._ranked(others[0], UNTREATED), others[1])] if others else [])]
        column, value = self.control if isinstance(self.control, tuple) else (PERTURBATION, "")
        columns = [name for name in GROUPS if all(name in table for _, table in tables)]
        kinds, groups, genes = dict[str, str](), dict[str, str](), dict[str, tuple[str, ...]]()
        if others is None and column not in obs:
            what, hint = f"no column {column!r} in obs that says which cells are untreated", _CONTROL_HINT
            raise CellDualityError(what, code="no-control", where=ranked.source, hint=hint)
        for cells, table in tables:
            rows = table.set_axis(table.index.astype(str)).loc[cells.obs.index.astype(str)].astype(str)
            called = [cells.source] * len(cells) if others else rows[column]
            known = {UNTREATED} if others else untreated({*called}, value, ranked.source)
            kinds |= zip(cells.rows, (CONTROL if name in known else "" for name in called), strict=True)
            groups |= zip(cells.rows, map(" / ".join, rows[columns].to_numpy().tolist()), strict=True)
            genes |= {name: cells.genes(row) for name, row in cells.rows.items()}
        pairs = pair_with_controls(kinds, groups, self.rng(UNTREATED)) if CONTROL in kinds.values() else {}
        chosen = np.array([name in pairs for name in ranked.rows], dtype=bool)
        if not chosen.any():
            what = f"no cell has an untreated one{' of its ' if columns else ''}{', '.join(columns)} beside it"
            raise CellDualityError(what, code="no-control", where=ranked.source, hint=_CONTROL_HINT)
        kept = replace(ranked, top=ranked.top[chosen], obs=ranked.obs[chosen])
        return kept, {name: genes[pairs[name]] for name in kept.rows}

    def refuse_unshown(self, given: Iterable[str]) -> None:
        """Raise if a column is ``given`` that the question does not show."""
        if unknown := sorted(set(given) - set(self.columns)):
            what = f"the question shows no {unknown[0]!r}"
            hint = f"it shows {', '.join(self.columns) or 'nothing but the cell'}"
            raise CellDualityError(what, code="unshown-value", where="--set", hint=hint)


def refuse_taken(out: Path, source: Path) -> None:
    """Raise if ``out`` is the input, or a file that was not written by this command."""
    what = "would replace the input" if out.resolve() == source.resolve() else ""
    if not what and out.exists():
        what = "a file that we did not write is there"
        with contextlib.suppress(OSError), h5py.File(out) as file:
            what = "" if f"uns/{PROVENANCE}" in file else what
    if what:
        raise CellDualityError(what, code="file-taken", where=str(out), hint="choose another --out, or move it away")


def refuse_taken_keys(obs: Iterable[str], columns: Iterable[str]) -> None:
    """Raise if a column of ``obs`` has the name of one of ``columns``, which would be written."""
    if taken := sorted(set(obs) & set(columns)):
        what = f"obs has a column {taken[0]!r} already"
        raise CellDualityError(what, code="key-taken", where="--key-added", hint="give another name")


def write_copy(
    source: Path, out: Path, obs: Mapping[str, Any], obsm: Mapping[str, Any], uns: Mapping[str, Any]
) -> None:
    """Write ``out``, whole or not at all: ``source`` with further columns of ``obs``, ``obsm`` and ``uns``.

    The rest is copied as bytes: matrices of any size are never read.
    """
    with whole_file(out, "w+b") as stream, source.open("rb") as original:
        shutil.copyfileobj(original, stream)
        with h5py.File(stream, "r+") as file:
            table = file["obs"]
            if table.attrs.get("encoding-version") == "0.2.0":
                for column, values in obs.items():  # the others stay, readable by this anndata or not
                    write_elem(table, column, values)
                table.attrs["column-order"] = np.array([*table.attrs["column-order"], *obs], dtype=object)
            else:  # of an older layout, which is brought up to date
                write_elem(file, "obs", read_elem(table).assign(**obs))
            for group, items in (("obsm", obsm), ("uns", uns)):
                if group not in file:
                    write_elem(file, group, {})
                for key, value in items.items():
                    write_elem(file[group], key, value)
