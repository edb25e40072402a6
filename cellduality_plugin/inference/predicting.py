"""What :class:`~cellduality_plugin.inference.model.Model` answers besides the names of cells: cells, and any pair."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cellduality_plugin.evaluation.audit.engine import Players
from cellduality_plugin.evaluation.generated import write_anndata
from cellduality_plugin.inference.asking import AskSettings, no_file
from cellduality_plugin.inference.checkpoint import Checkpoint
from cellduality_plugin.inference.writing import Writer, WriteSettings
from cellduality_plugin.inference.written import (
    KEY,
    Asking,
    cell_pair,
    refuse_control,
    write_of_cells,
    write_of_nothing,
)
from cellduality_plugin.parsing import OneOf

if TYPE_CHECKING:
    from anndata import AnnData


class Predicting(ABC):
    """Cells of a type, responses to perturbations, and the answer of any pair; see :class:`.model.Model`."""

    checkpoint: Checkpoint
    _backend: str

    @abstractmethod
    def _players(self, settings: AskSettings) -> AbstractContextManager[Players]: ...

    @abstractmethod
    def annotate(self, adata: AnnData, **how: Any) -> AnnData | None:
        """Name each cell."""

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
        ``verify`` the ``KEY_reward`` in [0, 1]. A CellDualityError if the model does not know a type, or the pair asks
        about a cell.

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
        """
        types, shown = [cell_type] if isinstance(cell_type, str) else list(cell_type), dict(given or {})
        rows = [shown | ({"cell_type": kind} if kind else {}) for kind in types or [""] for _ in range(n)]
        writer = self._writer(cell_pair(self.checkpoint, task).name, settings, "generate")
        asking = Asking(shown, None, key_added, writer.task.name if progress else "")
        size = self.checkpoint.notes["top_genes"] if length is None else length
        return write_of_nothing(writer, rows, size, asking, self._players(writer.settings))

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

        Untreated are the cells with ``control``, (column, value) of ``obs``; by default those that are called
        ``"control"`` in the column ``perturbation``, or all, if there is no such column. The rest is as for
        :meth:`generate`. A CellDualityError if the model does not know the perturbation, no cell is untreated, or none
        shares genes with the model.
        """
        name = cell_pair(self.checkpoint, task, from_control=True).name
        asking = Asking({"perturbation": perturbation}, control, key_added, name if progress else "")
        return self._written(self._writer(name, settings, "perturb"), adata, asking)

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
        A CellDualityError if there is no such pair, or as for the other methods.

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
        """
        pair = self.checkpoint.task(task)
        if isinstance(pair.answer, OneOf):
            refuse_control(pair, control)
            key = key_added or f"{pair.answer.kind}_cellduality"
            return self.annotate(adata, task=task, given=given, key_added=key, copy=copy, progress=progress, **settings)
        asking = Asking(given or {}, control, key_added or KEY, task if progress else "")
        return self._written(self._writer(task, settings, "predict"), adata, asking)

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
        writer = Writer(self.checkpoint, cell_pair(self.checkpoint, task), settings)
        asking, players = Asking(given, control, key_added, source.stem), self._players(settings)
        how = {"settings": settings.model_dump(), "control": control, "backend": self._backend}
        with writer.opened(source, out, given, reading, **how) as (cells, obs, kept):
            result = write_of_cells(writer, cells, obs, source.stem, asking, players, kept)
            write_anndata(out, result)
        return result

    def _writer(self, task: str, settings: Mapping[str, Any], where: str) -> Writer:
        own = WriteSettings.read(settings, where=where)
        return Writer(self.checkpoint, cell_pair(self.checkpoint, task), own)

    def _written(self, writer: Writer, adata: AnnData, asking: Asking) -> AnnData:
        with no_file() as kept:
            players = self._players(writer.settings)
            return write_of_cells(writer, adata, adata.obs, "adata", asking, players, kept)
