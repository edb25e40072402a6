"""A trained model in Python: load it, annotate AnnData or files, write cells."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from cellduality_plugin.chat import render, token_count
from cellduality_plugin.evaluation.audit.engine import Players, checkpoint_players
from cellduality_plugin.evaluation.checkpoints import file_hash, model_hash, versions
from cellduality_plugin.inference.annotating import UNASSIGNED, AnnotateSettings, Annotation, Annotator
from cellduality_plugin.inference.calibrating import FITTED, known_cells, measured
from cellduality_plugin.inference.calibration import fit
from cellduality_plugin.inference.checkpoint import Checkpoint, note_calibration, read_checkpoint
from cellduality_plugin.inference.files import (
    PROVENANCE,
    columns_of,
    obs_of,
    readable_cells,
    refuse_taken,
    refuse_taken_keys,
    write_copy,
)
from cellduality_plugin.inference.predicting import Predicting
from cellduality_plugin.inference.writing import WriteSettings
from cellduality_plugin.policies.cache import AnswerCache
from cellduality_plugin.policies.local import LocalModel, LocalPolicy
from cellduality_plugin.policies.offline import EngineSettings
from data_prep.cells import RankedCells
from data_prep.h5ad.loaders import load_h5ad

if TYPE_CHECKING:
    import pandas
    from anndata import AnnData

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

        Parameters
        ----------
        backend
            ``"transformers"``, in this process; or ``"vllm"``, faster on a GPU.

        Raises
        ------
        CellDualityError
            If the folder lacks what its use needs.
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
        ``uns["cellduality"]["labels"]``).

        Parameters
        ----------
        adata
            ``X`` holds counts or log1p values; ``var_names`` are gene symbols as in the training data.
        key_added
            Name of the column; it must not be there already.
        task
            The pair that is asked; by default the one that names cell types.
        given
            What every question shows besides the cell, by column; other such columns are read from ``obs``.
        settings
            Those of :class:`~cellduality_plugin.inference.annotating.AnnotateSettings`.

        Raises
        ------
        CellDualityError
            If the cells share no gene with the model, or the column is there already.
        """
        annotator = Annotator(self.checkpoint, AnnotateSettings.read(settings, where="annotate"), task)
        refuse_taken_keys(adata.obs, key_added)
        ranked, shared = readable_cells(
            adata, annotator.genes, self.checkpoint.notes, "adata", annotator.task.needs, given
        )
        with tempfile.TemporaryDirectory() as folder, AnswerCache(Path(folder) / "answers", {}) as kept:
            found = self._asked(annotator, ranked, kept, key_added if progress else "")
            kept.discard()
        result = adata.copy() if copy else adata
        obs, obsm, uns = self._columns(annotator, found, adata.obs.index, key_added, shared)
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
    ) -> tuple[pandas.DataFrame, float]:
        """Write ``out``, a copy of the file ``source`` with the columns of :meth:`annotate`.

        The matrix is read in blocks and never held. What was answered is kept in ``out.answers`` while it runs: a run
        that was stopped goes on where it was.

        Parameters
        ----------
        reading
            How the file is read, as :func:`~data_prep.h5ad.loaders.load_h5ad` has it: ``matrix``, ``layer``,
            ``expression``, ``gene_symbols``, ``species``, ``columns``.

        Returns
        -------
        The table of the cells that could be read, and the share of the model's genes that the file has.

        Raises
        ------
        CellDualityError
            If the file cannot be read or shares no gene with the model, a column is there already, or ``out`` is a file
            that we did not write.
        """
        refuse_taken(out, source)
        annotator = Annotator(self.checkpoint, settings, task)
        needs = [name for name in annotator.task.needs if name not in (given or {})]
        reading["columns"] = {**{name: name for name in needs}, **reading.get("columns", {})}
        loaded = load_h5ad(source, None, **reading)
        everything = obs_of(source)
        refuse_taken_keys(everything.columns, key_added)
        ranked, shared = readable_cells(
            loaded, annotator.genes, self.checkpoint.notes, source.stem, annotator.task.needs, given
        )
        made_from = {
            "model": model_hash(self.checkpoint.model), "packed": self.checkpoint.hash, "file": file_hash(source),
            "task": annotator.task.name, "given": dict(given or {}), "reading": reading, "backend": self._backend,
            "settings": settings.model_dump(exclude={"unassigned_below", "coverage"}), "versions": versions(),
        }  # fmt: skip
        with AnswerCache(out.with_suffix(".answers"), made_from) as kept:
            found = self._asked(annotator, ranked, kept, source.stem)
            write_copy(source, out, *self._columns(annotator, found, everything.index, key_added, shared))
            kept.discard()
        return found.table, shared

    def calibrate(
        self, data: Path, *, split: str = "validation", cells: int = 128, task: str = "", **settings: Any
    ) -> dict[str, Any]:
        """Fit confidence, the worth of a reward against votes, and sets of labels on cells of the prepared ``data``.

        The questions are those of :meth:`annotate`. On ``"validation"`` cells the fit goes into the model's notes, for
        the same ``verify`` and ``temperature``; of another split nothing is fitted.

        Returns
        -------
        What :func:`~cellduality_plugin.inference.calibrating.measured` says of these cells.

        Raises
        ------
        CellDualityError
            If there are no such cells, or too few of them.
        """
        own = AnnotateSettings.read(settings, where="calibrate")
        annotator = Annotator(self.checkpoint, own, task, calibrating=True)
        if split != FITTED and own.coverage and annotator.calibration:
            annotator.calibration.threshold(own.coverage)  # refused before a cell is asked about
        asked = known_cells(data, annotator, split, cells)
        examples, truth = [example for example, _ in asked], [label for _, label in asked]
        with tempfile.TemporaryDirectory() as folder, AnswerCache(Path(folder) / "answers", {}) as kept:
            with self._players(own) as players:
                found = list(annotator.opinions(examples, len(asked), players, kept, split))
            kept.discard()
        if split == FITTED:
            annotator.calibration = fit(found, truth, annotator.labels)
            if own.coverage:
                annotator.calibration.threshold(own.coverage)
            self.checkpoint = note_calibration(
                self.checkpoint, annotator.task.name, own.asked, asdict(annotator.calibration)
            )
        return measured(annotator, found, truth, split)

    def _asked(self, annotator: Annotator, cells: RankedCells, kept: AnswerCache, name: str) -> Annotation:
        with self._players(annotator.settings) as players:
            return annotator.annotate(cells, players, kept, name)

    def _columns(
        self, annotator: Annotator, found: Annotation, cells: pandas.Index[str], key: str, shared: float
    ) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        """Return what goes into (obs, obsm, uns) of all ``cells``, of which some may not have been asked about."""
        import pandas

        table = found.table.reindex(cells.astype(str))
        table = table.fillna({"label": UNASSIGNED, "confidence": 0.0, "votes": 0.0, "reasoning": "", "set": ""})
        table["label"] = pandas.Categorical(
            table["label"], categories=[*found.labels, UNASSIGNED]
        ).remove_unused_categories()
        rows = found.table.index.get_indexer(cells.astype(str))
        probabilities = np.where(rows[:, None] >= 0, found.probabilities[rows], np.float32(0))
        obs = {
            column: table[name].to_numpy() if name != "label" else table[name].array
            for column, name in columns_of(key).items()
            if name in table
        }
        provenance = {
            "model": str(self.checkpoint.model), "task": annotator.task.name, "labels": list(found.labels),
            "shared_genes": shared, "versions": versions(), **annotator.settings.model_dump(),
            "calibration_labels": annotator.calibration.labels if annotator.calibration else 0,
        }  # fmt: skip
        return obs, {f"{key}_probability": probabilities}, {PROVENANCE: provenance}

    @contextlib.contextmanager
    def _players(self, settings: AnnotateSettings | WriteSettings) -> Iterator[Players]:
        notes, dual = self.checkpoint.notes, self.checkpoint.config.dual
        lengths = {"max_model_len": notes["max_len"], "max_new_tokens": notes["max_new_tokens"]}
        if self._backend == "vllm":
            engine, model = EngineSettings(**lengths), self.checkpoint.model
            with checkpoint_players(
                model, engine, dual, temperature=settings.temperature, seed=settings.seed
            ) as players:
                yield players
            return
        local = LocalModel.load(self.checkpoint.model, **lengths)
        judge, greedy, sampler = (
            LocalPolicy(local, temperature=at, seed=settings.seed)
            for at in (dual.temperature, 0.0, settings.temperature)
        )
        yield Players(
            judge,
            greedy,
            sampler,
            prompt_tokens=lambda prompt: len(render(local.tokenizer, prompt)),
            response_tokens=lambda text: token_count(local.tokenizer, text),
        )
