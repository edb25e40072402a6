"""A trained model in Python: load it, annotate AnnData or files, write cells, ask any pair."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cellduality_plugin.errors import CellDualityError
from cellduality_plugin.evaluation.audit.engine import Players, checkpoint_players
from cellduality_plugin.evaluation.generated import write_anndata
from cellduality_plugin.evaluation.predictions import file_hash
from cellduality_plugin.inference.annotating import FITTED, AnnotateSettings, Annotator
from cellduality_plugin.inference.asking import PROVENANCE, AskSettings, Cells, no_file, write_copy
from cellduality_plugin.inference.calibration import fit
from cellduality_plugin.inference.checkpoint import Checkpoint, note_calibration, read_checkpoint
from cellduality_plugin.inference.writing import KEY as WRITTEN
from cellduality_plugin.inference.writing import Writer, WriteSettings, cell_pair, refuse_control
from cellduality_plugin.parsing import OneOf
from cellduality_plugin.policies.offline import EngineSettings
from cellduality_plugin.tasks import DualTask
from data_prep.h5ad.loaders import load_h5ad
from data_prep.h5ad.matrices import open_tables
from data_prep.sources import own_file

if TYPE_CHECKING:
    from anndata import AnnData
    from pandas import DataFrame

KEY = "cell_type_cellduality"


class Model:
    """A trained model with all that it needs to be used.

    ``Model.load("runs/cpu/grpo").annotate(adata)``; then ``scanpy.pl.umap(adata, color="cell_type_cellduality")``.
    """

    def __init__(self, checkpoint: Checkpoint, backend: str = "transformers") -> None:
        self.checkpoint, self._backend = checkpoint, backend

    @classmethod
    def load(cls, folder: str | Path, *, backend: str = "transformers") -> Model:
        """Return the model in ``folder``, which ``cellduality pack`` has completed (the recipes do).

        ``backend`` is ``"transformers"``, in this process; ``"vllm"``, faster on a GPU; or the address of a vLLM server
        that has the model, see :func:`~cellduality_plugin.policies.endpoint.served_policies`. A CellDualityError if the
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
        control: tuple[str, str] | AnnData | None = None,
        copy: bool = False,
        progress: bool = True,
        **settings: Any,
    ) -> AnnData | None:
        """Name each cell of ``adata``, in ``obs[key_added]``; return None, or a changed copy with ``copy``.

        Further columns of ``obs`` are ``KEY_confidence`` in [0, 1], ``KEY_votes`` and ``KEY_reasoning``, with a
        ``coverage`` also ``KEY_set``; ``obsm`` gets ``KEY_probability`` (cells x labels, whose names are
        ``uns["cellduality"]["labels"]``). ``X`` holds counts or log1p values, ``var_names`` are gene symbols as in the
        training data. The pair ``task`` is asked, by default the one that names cell types; ``given`` is what every
        question shows besides the cell, by column, other such columns are read from ``obs``. A pair that names what was
        done to a cell is asked about it beside an untreated one of its ``cell_type`` and ``cell_line``, where ``obs``
        has them: a cell of ``control``, or one of ``adata`` with ``control``, (column, value); None: of any usual name
        in the column ``perturbation``. The ``settings`` are those of :class:`.annotating.AnnotateSettings`. A
        CellDualityError if the cells share no gene with the model, none is untreated where one is needed, or a column
        is there already.
        """
        annotator = Annotator(self.checkpoint, AnnotateSettings.read(settings, where="annotate"), task)
        name, players = key_added if progress else "", self._players(annotator.settings)
        others = None if control is None or isinstance(control, tuple) else (control, control.obs)
        untreated = control if isinstance(control, tuple) else None
        asked = adata, adata.obs, "adata", key_added, given or {}
        with no_file() as kept:
            _, *added = annotator.annotate(*asked, players, kept, name, untreated, others)
        obs, obsm, uns = added
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
        control: tuple[str, str] | Path | None = None,
        **reading: Any,
    ) -> tuple[DataFrame, float]:
        """Write ``out``, a copy of the file ``source`` with the columns of :meth:`annotate`.

        The matrix is read in blocks and never held. What was answered is kept in ``out.answers`` while it runs: a run
        that was stopped goes on where it was. ``reading`` is how the file is read, as
        :func:`~data_prep.h5ad.loaders.load_h5ad` has it. Returned are the table of the cells that could be read, and
        the share of the model's genes that the file has. ``control`` may be a file. A CellDualityError as of
        :meth:`annotate`, or if a file cannot be read, or ``out`` is one that we did not write.
        """
        annotator, given = Annotator(self.checkpoint, settings, task), given or {}
        how: dict[str, Any] = {"settings": settings.model_dump(exclude={"unassigned_below", "coverage"})}
        players, name = self._players(settings), source.stem
        others: Cells | None = None
        if isinstance(control, Path):
            theirs = load_h5ad(own_file(str(control)), None, **{**reading, "columns": {}})
            others = theirs, open_tables(control).obs
            how["control"] = file_hash(control)
        elif control:
            how["control"] = control
        column = control if isinstance(control, tuple) else None
        with annotator.opened(source, out, given, reading, backend=self._backend, **how) as (cells, obs, kept):
            asked = cells, obs, name, key_added, given
            table, *added = annotator.annotate(*asked, players, kept, name, column, others)
            write_copy(source, out, *added)
        return table, added[-1][PROVENANCE]["shared_genes"]

    def calibrate(
        self, data: Path, *, split: str = "validation", cells: int = 400, task: str = "", **settings: Any
    ) -> dict[str, Any]:
        """Fit confidence, the worth of a reward against votes, and sets of labels on cells of the prepared ``data``.

        The questions are those of :meth:`annotate`. On ``"validation"`` cells the fit goes into the model's notes, for
        the same ``verify`` and ``temperature``; of another split nothing is fitted. A CellDualityError if there are no
        such cells, or too few of them. Returned is what :meth:`.annotating.Annotator.measured` says of them.
        """
        own = AnnotateSettings.read(settings, where="calibrate")
        annotator = Annotator(self.checkpoint, own, task, calibrating=True)
        if split != FITTED and own.coverage and annotator.calibration:
            annotator.calibration.threshold(own.coverage)  # refused before a cell is asked about
        examples, truth = zip(*annotator.known_cells(data, split, cells), strict=True)
        with no_file() as kept, self._players(own) as players:
            found = list(annotator.opinions(examples, len(examples), players, kept, split))
        if split == FITTED:
            annotator.calibration = fit(found, truth, annotator.labels)
            if own.coverage:
                annotator.calibration.threshold(own.coverage)
            kept_fit = asdict(annotator.calibration)
            self.checkpoint = note_calibration(self.checkpoint, annotator.task.name, own.asked, kept_fit)
        return annotator.measured(found, truth, split)

    def generate(
        self,
        cell_type: str | Sequence[str] = (),
        n: int = 100,
        *,
        length: int | None = None,
        given: Mapping[str, str] | None = None,
        task: str = "",
        key_added: str = WRITTEN,
        progress: bool = True,
        **settings: Any,
    ) -> AnnData:
        """Return ``n`` written cells of each type: ``X`` is expression by the fitted line, the layer ``rank`` ranks.

        ``obs`` holds ``KEY_cell_type`` and ``KEY_length`` as asked, ``KEY_validity`` in [0, 1] (the share of the cell
        that holds a different known gene), ``KEY_failure`` where nothing could be read, ``KEY_reasoning``, and with
        ``verify`` the ``KEY_reward`` in [0, 1]. A cell has ``length`` genes, by default as many as a cell sentence of
        training at most. The pair ``task`` is asked, by default the first that writes cells from labels alone;
        ``given`` is what a pair of one's own shows besides the type, by column. The ``settings`` are those of
        :class:`.writing.WriteSettings`. A CellDualityError if the model does not know a type, or the pair asks about a
        cell.

        ``cells = Model.load("runs/cpu/grpo").generate("CD19+ B", 200); scanpy.pp.pca(cells)``
        """
        types, shown = [cell_type] if isinstance(cell_type, str) else list(cell_type), dict(given or {})
        rows = [shown | ({"cell_type": kind} if kind else {}) for kind in types or [""] for _ in range(n)]
        pair, own = cell_pair(self.checkpoint, task), WriteSettings.read(settings, where="generate")
        writer = Writer(self.checkpoint, pair, own, shown, None, key_added, pair.name if progress else "")
        size = self.checkpoint.notes["top_genes"] if length is None else length
        return writer.of_nothing(rows, size, self._players(own))

    def perturb(
        self,
        adata: AnnData,
        perturbation: str,
        *,
        control: tuple[str, str] | None = None,
        task: str = "",
        key_added: str = WRITTEN,
        progress: bool = True,
        **settings: Any,
    ) -> AnnData:
        """Return what each untreated cell of ``adata`` becomes under a perturbation, with its name and its ``obs``.

        ``response = Model.load("runs/cpu/grpo").perturb(adata, "cytokine IFN-beta", control=("stim", "ctrl"))``

        Untreated are the cells with ``control``, (column, value) of ``obs``; by default those that are called
        ``"control"`` in the column ``perturbation``, or all, if there is no such column. The rest is as for
        :meth:`generate`. A CellDualityError if the model does not know the perturbation, no cell is untreated, or none
        shares genes with the model.
        """
        pair, own = cell_pair(self.checkpoint, task, from_control=True), WriteSettings.read(settings, where="perturb")
        return self._written(pair, adata, own, {"perturbation": perturbation}, control, key_added, progress)

    def predict(
        self,
        task: str,
        adata: AnnData,
        *,
        given: Mapping[str, str] | None = None,
        control: tuple[str, str] | AnnData | None = None,
        key_added: str = "",
        copy: bool = False,
        progress: bool = True,
        **settings: Any,
    ) -> AnnData | None:
        """Answer any pair of the model, also one of a user's own, about each cell of ``adata``.

        ``model.predict("drug_exposure_prediction", adata, given={"drug": "IFN-beta"})`` adds ``exposure_cellduality``.
        A pair that answers with a label is asked as by :meth:`annotate`, also as to ``copy``; of one that answers with
        genes, the written cells are returned as by :meth:`perturb`. ``key_added`` is the new column (by default
        ``LABELSET_cellduality``), or the first part of the new columns. A CellDualityError if there is no such pair, or
        as for the other methods.
        """
        pair = self.checkpoint.task(task)
        if isinstance(pair.answer, OneOf):
            refuse_control(pair, control)
            key = key_added or f"{pair.answer.kind}_cellduality"
            how: dict[str, Any] = {"given": given, "control": control, "copy": copy, "progress": progress, **settings}
            return self.annotate(adata, task=task, key_added=key, **how)
        if control is not None and not isinstance(control, tuple):
            what, hint = f"{task} writes cells from untreated ones of adata itself", "give them as adata"
            raise CellDualityError(what, code="no-control", where="control", hint=hint)
        own = WriteSettings.read(settings, where="predict")
        return self._written(pair, adata, own, given or {}, control, key_added or WRITTEN, progress)

    def write_file(
        self,
        task: str,
        source: Path,
        out: Path,
        settings: WriteSettings,
        *,
        given: Mapping[str, str],
        control: tuple[str, str] | None = None,
        key_added: str = WRITTEN,
        **reading: Any,
    ) -> AnnData:
        """Write ``out``, the cells that a pair answers with about the file ``source``, and return them.

        ``reading`` is that of :meth:`annotate_file`. What was answered is kept in ``out.answers`` while it runs.
        """
        pair, players = cell_pair(self.checkpoint, task), self._players(settings)
        writer = Writer(self.checkpoint, pair, settings, given, control, key_added, source.stem)
        how = {"settings": settings.model_dump(), "control": control, "backend": self._backend}
        with writer.opened(source, out, given, reading, **how) as (cells, obs, kept):
            result = writer.of_cells(cells, obs, source.stem, players, kept)
            write_anndata(out, result)
        return result

    def _written(
        self,
        pair: DualTask,
        adata: AnnData,
        settings: WriteSettings,
        given: Mapping[str, str],
        control: tuple[str, str] | None,
        key: str,
        progress: bool,
    ) -> AnnData:
        writer = Writer(self.checkpoint, pair, settings, given, control, key, pair.name if progress else "")
        with no_file() as kept:
            return writer.of_cells(adata, adata.obs, "adata", self._players(settings), kept)

    def _players(self, settings: AskSettings) -> AbstractContextManager[Players]:
        model, notes, dual = self.checkpoint.model, self.checkpoint.notes, self.checkpoint.config.dual
        engine, backend = EngineSettings(notes["max_len"], notes["max_new_tokens"]), self._backend
        return checkpoint_players(
            model, engine, dual, temperature=settings.temperature, seed=settings.seed, backend=backend
        )
