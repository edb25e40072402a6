"""A trained model in Python: load it, annotate AnnData or files, write cells."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from cellduality_plugin.evaluation.audit.engine import Players, checkpoint_players
from cellduality_plugin.evaluation.checkpoints import versions
from cellduality_plugin.inference.annotating import UNASSIGNED, AnnotateSettings, Annotator
from cellduality_plugin.inference.asking import AskSettings, no_file
from cellduality_plugin.inference.calibrating import FITTED, known_cells, measured
from cellduality_plugin.inference.calibration import fit
from cellduality_plugin.inference.checkpoint import Checkpoint, note_calibration, read_checkpoint
from cellduality_plugin.inference.files import PROVENANCE, refuse_taken_keys, write_copy
from cellduality_plugin.inference.predicting import Predicting
from cellduality_plugin.policies.cache import AnswerCache
from cellduality_plugin.policies.offline import EngineSettings
from data_prep.cells import CellTable

if TYPE_CHECKING:
    from anndata import AnnData
    from pandas import DataFrame

Backend = Literal["transformers", "vllm"]

KEY = "cell_type_cellduality"


class Model(Predicting):
    """A trained model with all that it needs to be used.

    ``Model.load("runs/cpu/grpo").annotate(adata)``; then ``scanpy.pl.umap(adata, color="cell_type_cellduality")``.
    """

    def __init__(self, checkpoint: Checkpoint, backend: Backend = "transformers") -> None:
        self.checkpoint, self._backend = checkpoint, backend

    @classmethod
    def load(cls, folder: str | Path, *, backend: Backend = "transformers") -> Model:
        """Return the model in ``folder``, which ``cellduality pack`` has completed (the recipes do).

        ``backend`` is ``"transformers"``, in this process; or ``"vllm"``, faster on a GPU. A CellDualityError if the
        folder lacks what its use needs.
        """
        return cls(read_checkpoint(Path(folder)), backend)

    def annotate(
        self,
        adata: AnnData,
        *,
        key_added: str = KEY,
        task: str = "",
        given: Mapping[str, str] | None = None,
        copy: bool = False,
        progress: bool = True,
        **settings: Any,
    ) -> AnnData | None:
        """Name each cell of ``adata``, in ``obs[key_added]``; return None, or a changed copy with ``copy``.

        Further columns of ``obs`` are ``KEY_confidence`` in [0, 1], ``KEY_votes`` and ``KEY_reasoning``, with a
        ``coverage`` also ``KEY_set``; ``obsm`` gets ``KEY_probability`` (cells x labels, whose names are
        ``uns["cellduality"]["labels"]``). A CellDualityError if the cells share no gene with the model, or a column is
        there already.

        Parameters
        ----------
        adata
            ``X`` holds counts or log1p values; ``var_names`` are gene symbols as in the training data.
        task
            The pair that is asked; by default the one that names cell types.
        given
            What every question shows besides the cell, by column; other such columns are read from ``obs``.
        settings
            Those of :class:`~cellduality_plugin.inference.annotating.AnnotateSettings`.
        """
        annotator = Annotator(self.checkpoint, AnnotateSettings.read(settings, where="annotate"), task)
        name = key_added if progress else ""
        with no_file() as kept:
            _, obs, obsm, uns = self._annotated(
                annotator, adata, adata.obs, "adata", key_added, given or {}, kept, name
            )
        result = adata.copy() if copy else adata
        for column, values in obs.items():
            result.obs[column] = values
        result.obsm.update(obsm)
        result.uns.update(uns)
        return result if copy else None

    def annotate_file(
        self,
        source: Path,
        out: Path,
        settings: AnnotateSettings,
        *,
        key_added: str = KEY,
        task: str = "",
        given: Mapping[str, str] | None = None,
        **reading: Any,
    ) -> tuple[DataFrame, float]:
        """Write ``out``, a copy of the file ``source`` with the columns of :meth:`annotate`.

        The matrix is read in blocks and never held. What was answered is kept in ``out.answers`` while it runs: a run
        that was stopped goes on where it was. ``reading`` is how the file is read, as
        :func:`~data_prep.h5ad.loaders.load_h5ad` has it. A CellDualityError as of :meth:`annotate`, or if the file
        cannot be read, or ``out`` is a file that we did not write.

        Returns
        -------
        The table of the cells that could be read, and the share of the model's genes that the file has.
        """
        annotator, given = Annotator(self.checkpoint, settings, task), given or {}
        asked = settings.model_dump(exclude={"unassigned_below", "coverage"})
        with annotator.opened(source, out, given, reading, settings=asked, backend=self._backend) as (cells, obs, kept):
            table, *added = self._annotated(annotator, cells, obs, source.stem, key_added, given, kept, source.stem)
            write_copy(source, out, *added)
        return table, added[-1][PROVENANCE]["shared_genes"]

    def calibrate(
        self, data: Path, *, split: str = "validation", cells: int = 128, task: str = "", **settings: Any
    ) -> dict[str, Any]:
        """Fit confidence, the worth of a reward against votes, and sets of labels on cells of the prepared ``data``.

        The questions are those of :meth:`annotate`. On ``"validation"`` cells the fit goes into the model's notes, for
        the same ``verify`` and ``temperature``; of another split nothing is fitted. A CellDualityError if there are no
        such cells, or too few of them.

        Returns
        -------
        What :func:`~cellduality_plugin.inference.calibrating.measured` says of these cells.
        """
        own = AnnotateSettings.read(settings, where="calibrate")
        annotator = Annotator(self.checkpoint, own, task, calibrating=True)
        if split != FITTED and own.coverage and annotator.calibration:
            annotator.calibration.threshold(own.coverage)  # refused before a cell is asked about
        examples, truth = zip(*known_cells(data, annotator, split, cells), strict=True)
        with no_file() as kept, self._players(own) as players:
            found = list(annotator.opinions(examples, len(examples), players, kept, split))
        if split == FITTED:
            annotator.calibration = fit(found, truth, annotator.labels)
            if own.coverage:
                annotator.calibration.threshold(own.coverage)
            self.checkpoint = note_calibration(
                self.checkpoint, annotator.task.name, own.asked, asdict(annotator.calibration)
            )
        return measured(annotator, found, truth, split)

    def _annotated(
        self,
        annotator: Annotator,
        cells: AnnData | CellTable,
        everything: DataFrame,
        source: str,
        key: str,
        given: Mapping[str, str],
        kept: AnswerCache,
        name: str,
    ) -> tuple[DataFrame, dict[str, Any], dict[str, Any], dict[str, Any]]:
        """Return the table of the cells that were asked, and what goes into obs, obsm and uns of ``everything``."""
        import pandas

        names = ("confidence", "votes", "reasoning", "set")
        refuse_taken_keys(everything.columns, [key, *(f"{key}_{each}" for each in names)])
        ranked, origin = annotator.readable(cells, source, given)
        with self._players(annotator.settings) as players:
            found = annotator.annotate(ranked, players, kept, name)
        index = everything.index.astype(str)
        table = found.table.reindex(index)
        table = table.fillna({"label": UNASSIGNED, "confidence": 0.0, "votes": 0.0, "reasoning": "", "set": ""})
        label = pandas.Categorical(table.pop("label"), categories=[*found.labels, UNASSIGNED])
        obs = {key: label.remove_unused_categories(), **{f"{key}_{each}": table[each].to_numpy() for each in table}}
        rows = found.table.index.get_indexer(index)
        probabilities = np.where(rows[:, None] >= 0, found.probabilities[rows], np.float32(0))
        provenance = {
            "model": str(self.checkpoint.model), "task": annotator.task.name, "labels": list(found.labels), **origin,
            "versions": versions(), **annotator.settings.model_dump(),
            "calibration_labels": annotator.calibration.labels if annotator.calibration else 0,
        }  # fmt: skip
        return found.table, obs, {f"{key}_probability": probabilities}, {PROVENANCE: provenance}

    def _players(self, settings: AskSettings) -> AbstractContextManager[Players]:
        model, notes, dual = self.checkpoint.model, self.checkpoint.notes, self.checkpoint.config.dual
        engine, backend = EngineSettings(notes["max_len"], notes["max_new_tokens"]), self._backend
        return checkpoint_players(
            model, engine, dual, temperature=settings.temperature, seed=settings.seed, backend=backend
        )
