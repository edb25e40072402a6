"""A trained model in Python: load it, annotate AnnData or files, write cells, ask any pair."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from anndata import AnnData

from cellduality_plugin.inference.annotating import FITTED, Annotator
from cellduality_plugin.inference.calibration import fit
from cellduality_plugin.inference.checkpoint import Checkpoint, note_calibration, read_checkpoint
from cellduality_plugin.inference.writing import KEY as WRITTEN
from cellduality_plugin.inference.writing import Writer, cell_pair
from cellduality_plugin.parsing import OneOf

KEY = "cell_type_cellduality"


class Model:
    """A trained model with all that it needs to be used.

    ``Model.load("runs/cpu/grpo").annotate(adata)``; then ``scanpy.pl.umap(adata, color="cell_type_cellduality")``. What
    answers about files of any size is :meth:`asker`.
    """

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.checkpoint = checkpoint

    @classmethod
    def load(cls, folder: str | Path, *, backend: str = "transformers") -> Model:
        """Return the model in ``folder``, which ``cellduality pack`` has completed (the recipes do).

        ``backend`` is ``"transformers"``, in this process; ``"vllm"``, faster on a GPU; or the address of a vLLM server
        that has the model, see :func:`~cellduality_plugin.policies.endpoint.served_policies`. A CellDualityError if the
        folder lacks what its use needs.
        """
        return cls(read_checkpoint(Path(folder), backend))

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
        CellDualityError if the cells share no gene with the model, none is untreated where one is needed, ``control``
        is given where none is, or a column is there already.
        """
        how: dict[str, Any] = {"given": given, "control": control, "key": key_added, "progress": progress}
        return self._labelled(Annotator(self.checkpoint, task, settings, **how), adata, copy)

    def calibrate(
        self, data: Path, *, split: str = "validation", cells: int = 400, task: str = "", **settings: Any
    ) -> dict[str, Any]:
        """Fit confidence, the worth of a reward against votes, and sets of labels on cells of the prepared ``data``.

        The questions are those of :meth:`annotate`. On ``"validation"`` cells the fit goes into the model's notes, for
        the same ``verify`` and ``temperature``; of another split nothing is fitted. A CellDualityError if there are no
        such cells, or too few of them. Returned is what :meth:`.annotating.Annotator.measured` says of them.
        """
        annotator = Annotator(self.checkpoint, task, settings, calibrating=True)
        coverage = annotator.settings.coverage
        if split != FITTED and coverage and annotator.calibration:
            annotator.calibration.threshold(coverage)  # refused before a cell is asked about
        examples, truth = zip(*annotator.known_cells(data, split, cells), strict=True)
        found = list(annotator.answers(examples, len(examples), split))
        if split == FITTED:
            annotator.calibration = fit(found, truth, annotator.labels)
            if coverage:
                annotator.calibration.threshold(coverage)
            kept_fit, asked = asdict(annotator.calibration), annotator.settings.asked
            self.checkpoint = note_calibration(self.checkpoint, annotator.task.name, asked, kept_fit)
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
        pair, how = cell_pair(self.checkpoint, task), {"given": shown, "key": key_added, "progress": progress}
        size = self.checkpoint.notes["top_genes"] if length is None else length
        return Writer(self.checkpoint, pair, settings, **how).of_nothing(rows, size)

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
        pair, given = cell_pair(self.checkpoint, task, from_control=True), {"perturbation": perturbation}
        how = {"given": given, "control": control, "key": key_added, "progress": progress}
        return Writer(self.checkpoint, pair, settings, **how).of_adata(adata)

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
        how = {"given": given, "control": control, "key": key_added, "progress": progress}
        asker = self.asker(task, settings, **how)
        return self._labelled(asker, adata, copy) if isinstance(asker, Annotator) else asker.of_adata(adata)

    def asker(self, task: str, settings: Mapping[str, Any] | None = None, **how: Any) -> Annotator | Writer:
        """Return what asks a pair by its name: ``model.asker(task).of_file(source, out)`` about a file of any size.

        ``how`` is as for :class:`.asking.Asker`. A CellDualityError if there is no such pair.
        """
        pair = self.checkpoint.task(task)
        if isinstance(pair.answer, OneOf):
            return Annotator(self.checkpoint, task, settings, **how)
        return Writer(self.checkpoint, cell_pair(self.checkpoint, task), settings or {}, **how)

    def _labelled(self, annotator: Annotator, adata: AnnData, copy: bool) -> AnnData | None:
        found = annotator.of_adata(adata)
        result = adata.copy() if copy else adata
        for column, values in found.obs.items():
            result.obs[column] = values
        result.obsm.update(found.obsm)
        result.uns.update(found.uns)
        return result if copy else None
