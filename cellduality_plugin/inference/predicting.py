"""What :class:`~cellduality_plugin.inference.model.Model` answers besides the names of cells: cells, and any pair."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cellduality_plugin.inference.checkpoint import Checkpoint
from cellduality_plugin.inference.writing import WriteSettings
from cellduality_plugin.inference.written import (
    KEY,
    Asking,
    Opener,
    cell_pair,
    no_file,
    refuse_control,
    write_of_cells,
    write_of_file,
    write_of_nothing,
)
from cellduality_plugin.parsing import OneOf

if TYPE_CHECKING:
    from anndata import AnnData
    from pandas import DataFrame


class Predicting:
    """Cells of a type, responses to perturbations, and the answer of any pair; see :class:`.model.Model`."""

    checkpoint: Checkpoint
    _backend: str
    _players: Opener
    annotate: Callable[..., AnnData | None]
    annotate_file: Callable[..., tuple[DataFrame, float]]

    def generate(
        self,
        cell_type: str | Sequence[str] = (),
        n: int = 100,
        *,
        length: int | None = None,
        given: Mapping[str, str] | None = None,
        task: str = "",
        key_added: str = KEY,
        progress: bool = True,
        **settings: Any,
    ) -> AnnData:
        """Return ``n`` written cells of each type: ``X`` is expression by the fitted line, the layer ``rank`` ranks.

        ``obs`` holds ``KEY_cell_type`` and ``KEY_length`` as asked, ``KEY_validity`` in [0, 1] (the share of the cell
        that holds a different known gene), ``KEY_failure`` where nothing could be read, ``KEY_reasoning``, and with
        ``verify`` the ``KEY_reward`` in [0, 1].

        ``cells = Model.load("runs/cpu/grpo").generate("CD19+ B", 200); scanpy.pp.pca(cells)``

        Parameters
        ----------
        length
            Genes of a cell; by default as many as a cell sentence of training holds at most.
        given
            What the question of a pair of one's own shows besides the type, by column.
        task
            The pair; by default the first that writes cells from labels alone.
        settings
            Those of :class:`~cellduality_plugin.inference.writing.WriteSettings`: ``verify``, ``temperature``, ...

        Raises
        ------
        CellDualityError
            If the model does not know a type, or the pair asks about a cell.
        """
        types, shown = [cell_type] if isinstance(cell_type, str) else list(cell_type), dict(given or {})
        rows = [shown | ({"cell_type": kind} if kind else {}) for kind in types or [""] for _ in range(n)]
        pair = cell_pair(self.checkpoint, task, from_control=False)
        asking = Asking(
            shown, WriteSettings.read(settings, where="generate"), None, key_added, pair.name if progress else ""
        )
        size = self.checkpoint.notes["top_genes"] if length is None else length
        return write_of_nothing(self.checkpoint, pair, rows, size, asking, self._players)

    def perturb(
        self,
        adata: AnnData,
        perturbation: str,
        *,
        control: tuple[str, str] | None = None,
        task: str = "",
        key_added: str = KEY,
        progress: bool = True,
        **settings: Any,
    ) -> AnnData:
        """Return what each untreated cell of ``adata`` becomes under a perturbation, with its name and its ``obs``.

        ``response = Model.load("runs/cpu/grpo").perturb(adata, "cytokine IFN-beta", control=("stim", "ctrl"))``

        Parameters
        ----------
        control
            (column, value) of ``obs`` by which untreated cells are known. By default those that are called
            ``"control"`` in the column ``perturbation``; all, if there is no such column.
        settings
            As for :meth:`generate`, which also says what is added to ``obs``.

        Raises
        ------
        CellDualityError
            If the model does not know the perturbation, no cell is untreated, or none shares genes with the model.
        """
        pair = cell_pair(self.checkpoint, task, from_control=True)
        given = {"perturbation": perturbation}
        return self._written(pair.name, adata, given, control, key_added, progress, "perturb", settings)

    def predict(
        self,
        task: str,
        adata: AnnData,
        *,
        given: Mapping[str, str] | None = None,
        control: tuple[str, str] | None = None,
        key_added: str = "",
        copy: bool = False,
        progress: bool = True,
        **settings: Any,
    ) -> AnnData | None:
        """Answer any pair of the model, also one of a user's own, about each cell of ``adata``.

        ``model.predict("drug_exposure_prediction", adata, given={"drug": "IFN-beta"})`` adds ``exposure_cellduality``.

        Parameters
        ----------
        task
            The name of the pair. One that answers with a label is :meth:`annotate` for it; of one that answers with
            genes, the written cells are returned as by :meth:`perturb`.
        given
            What every question shows, by column; other columns that it shows are read from ``obs``.
        control
            As for :meth:`perturb`; for pairs that ask about untreated cells.
        key_added
            The new column (by default ``LABELSET_cellduality``), or the first part of the new columns.
        copy
            For labels: return a changed copy, and None else.

        Raises
        ------
        CellDualityError
            If there is no such pair, or as for the other methods.
        """
        pair = self.checkpoint.task(task)
        answer = pair.answer
        if isinstance(answer, OneOf):
            refuse_control(pair, control)
            key = key_added or f"{answer.kind}_cellduality"
            return self.annotate(adata, task=task, given=given, key_added=key, copy=copy, progress=progress, **settings)
        return self._written(task, adata, given or {}, control, key_added or KEY, progress, "predict", settings)

    def write_file(
        self,
        task: str,
        source: Path,
        out: Path,
        settings: WriteSettings,
        *,
        given: Mapping[str, str],
        control: tuple[str, str] | None = None,
        key_added: str = KEY,
        **reading: Any,
    ) -> AnnData:
        """Write ``out``, the cells that a pair answers with about the file ``source``, and return them.

        ``reading`` is that of :meth:`annotate_file`. What was answered is kept in ``out.answers`` while it runs.
        """
        asking = Asking(given, settings, control, key_added, source.stem)
        pair = cell_pair(self.checkpoint, task, from_control=False)
        return write_of_file(self.checkpoint, pair, source, out, asking, self._players, reading, self._backend)

    def _written(
        self,
        task: str,
        adata: AnnData,
        given: Mapping[str, str],
        control: tuple[str, str] | None,
        key: str,
        progress: bool,
        where: str,
        settings: Mapping[str, Any],
    ) -> AnnData:
        asking = Asking(given, WriteSettings.read(settings, where=where), control, key, task if progress else "")
        pair = cell_pair(self.checkpoint, task, from_control=False)
        with no_file() as kept:
            return write_of_cells(self.checkpoint, pair, adata, adata.obs, "adata", asking, self._players, kept)
