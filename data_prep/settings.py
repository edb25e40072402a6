"""Everything that decides what a preparation holds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field, field_validator, model_validator

from cellduality_plugin.errors import CellDualityError
from cellduality_plugin.settings import Settings
from data_prep.sources import Expression, Matrix

DEFAULT_SOURCE = "pbmc68k_reduced"
DEFAULT_TASKS = ("cell_type_annotation", "conditional_cell_generation")

STREAMS = (
    "split", "labels", "sft", "rl", "eval_validation", "eval_test", "sample", "pairs", "eval_ood", "audit", "pretrain",
)  # fmt: skip
"""What is drawn at random, each from a generator of its own, so that one choice does not move another."""

Fraction = Annotated[float, Field(gt=0, lt=1)]
Share = Annotated[float, Field(gt=0, le=1)]
Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]


class SourceSettings(Settings):
    """One set of cells, and what a run takes of it.

    Parameters
    ----------
    name
        A set of the registry, or a path to an .h5ad file.
    tasks
        The pairs that are asked about its cells, as the run's ``tasks`` name them; None: all of them.
    label_column, matrix, layer, expression, gene_symbols, species, columns
        What to read of a file; see :func:`data_prep.h5ad.loaders.load_h5ad`. None: what the set is known to use.
    control
        What the file's column of perturbations calls untreated cells; empty: as the tasks do.
    variant
        Of a set of the registry; empty: its default.
    n_labelled
        Training cells that show their label; None: what the run says.
    max_cells
        The size of a sample, in proportion by class; None: all cells.
    held_out
        Values by column, e.g. ``{"cell_type": ("B cell",)}``: such cells are in no split but for out-of-distribution
        evaluation.
    """

    name: str
    tasks: tuple[str, ...] | None = None
    label_column: str | None = None
    matrix: Matrix | None = None
    layer: str | None = None
    expression: Expression = "auto"
    gene_symbols: str | None = None
    species: Literal["human", "mouse"] | None = None
    columns: dict[str, str] = Field(default_factory=dict)
    control: str = ""
    variant: Literal["", "as_published", "corrected"] = ""
    n_labelled: Count | None = None
    max_cells: Count | None = None
    held_out: dict[str, tuple[str, ...]] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _name_alone(cls, values: Any) -> Any:
        return {"name": values} if isinstance(values, str) else values


class PrepareSettings(Settings):
    """Everything that decides what :func:`data_prep.prepare.prepare` writes.

    Parameters
    ----------
    sources
        The sets of cells. ``source``, ``label_column``, ``matrix`` and ``expression`` in place of it describe one.
    foreign
        Sets that never train: their cells are asked for their type with the labels of ``sources``. Of their settings
        ``name``, ``variant`` and ``max_cells`` count.
    tasks
        Pairs by name or import path, with their share of the RL rows; 0 leaves a pair to SFT and evaluation.
    top_genes, min_genes
        Most and fewest genes of a cell sentence.
    n_genes
        The vocabulary is so many of the most variable genes of each source's training cells; None: all genes that any
        cell expresses.
    hidden
        The fraction of a cell's genes that the duals of labels rebuild, up to 1; of several, the first splits the rows
        for RL, audit and evaluation, and SFT has a dual at each.
    thin
        The fraction of genes that RL questions about labels do not show; the dual rebuilds the whole cell.
    n_labelled
        Training cells of a source that show their label: all that SFT sees.
    sft_views, sft_label_views
        Versions of each labelled cell in SFT, and where the answer is a label (None: as many).
    pretrain_views, clusters
        Versions of every training cell, without its label, for a stage before SFT (0: no such stage), and how many
        clusters at most stand for the types of a source there.
    n_rl, rl_includes_labelled
        RL rows, and whether they ask about the labelled cells too.
    rl_gold
        Tasks, by their own names, whose RL rows hold the true answer.
    masks
        Splits into known and hidden genes that an RL row holds.
    n_audit
        Validation cells of each task for the audit, at most.
    fractions
        Of train, validation and test cells.
    small_classes
        What to do about classes with fewer than three cells. A class is a combination of all columns that the tasks
        speak of.
    seed, label_seed
        Of all random choices, and of which training cells show their label (None: ``seed``).
    """

    sources: tuple[SourceSettings, ...] = Field(default=(SourceSettings(name=DEFAULT_SOURCE),), min_length=1)
    foreign: tuple[SourceSettings, ...] = ()
    tasks: dict[str, Weight] = Field(default_factory=lambda: dict.fromkeys(DEFAULT_TASKS, 1.0), min_length=1)
    top_genes: int = Field(default=64, ge=2)
    min_genes: int = Field(default=8, ge=2)
    n_genes: int | None = Field(default=None, ge=2)
    hidden: tuple[Share, ...] = Field(default=(0.25,), min_length=1)
    thin: float = Field(default=0.0, ge=0, lt=1)
    n_labelled: Count = 140
    sft_views: Count = 1
    sft_label_views: Count | None = None
    pretrain_views: int = Field(default=0, ge=0)
    clusters: Count = 16
    n_rl: int = Field(default=512, ge=0)
    rl_includes_labelled: bool = True
    rl_gold: tuple[str, ...] = ()
    masks: Count = 1
    n_audit: int = Field(default=128, ge=0)
    fractions: tuple[Fraction, Fraction, Fraction] = (0.6, 0.2, 0.2)
    small_classes: Literal["refuse", "drop"] = "refuse"
    seed: int = Field(default=0, ge=0)
    label_seed: int | None = Field(default=None, ge=0)

    @field_validator("hidden", mode="before")
    @classmethod
    def _one_share(cls, hidden: Any) -> Any:
        return (hidden,) if isinstance(hidden, (int, float, str)) else hidden

    @model_validator(mode="before")
    @classmethod
    def _one_source(cls, values: Any) -> Any:
        """Take what describes a single source for a list of one."""
        flags = ("source", "label_column", "matrix", "expression")
        if not isinstance(values, Mapping) or not any(flag in values for flag in flags):
            return values
        if "sources" in values:
            raise CellDualityError("both source and sources are given", where="sources", hint="leave one of them out")
        given = {flag: values[flag] for flag in flags[1:] if flag in values}
        others = {name: value for name, value in values.items() if name not in flags}
        return {**others, "sources": [{"name": values.get("source", DEFAULT_SOURCE), **given}]}

    @classmethod
    def read(cls, values: object, where: str = "") -> PrepareSettings:
        """Return the settings in ``values``, each valid and all of them fitting together; see :meth:`Settings.read`."""
        settings = super().read(values, where)
        settings.check()
        return settings

    def check(self) -> None:
        """Raise a CellDualityError where settings that are valid one by one do not fit together."""
        for where, what, hint in self._misfits():
            raise CellDualityError(what, where=where, hint=hint)

    def _misfits(self) -> Iterator[tuple[str, str, str]]:
        """Yield (where, what is wrong, how to mend it)."""
        if abs(sum(self.fractions) - 1) > 1e-6:
            yield "fractions", f"fractions add up to {sum(self.fractions):g}", "make it 1"
        if self.min_genes > self.top_genes:
            yield "min_genes", f"min_genes {self.min_genes} is above top_genes {self.top_genes}", "lower it"
        if self.thin and self.hidden[0] < 1:
            what = f"questions show thinned cells, and the dual rebuilds {self.hidden[0]:g} of what they show"
            yield "thin", what, "let hidden begin with 1, so that the dual rebuilds the whole cell"
        if self.n_rl and not any(self.tasks.values()):
            yield "tasks", "every task has the weight 0", "give one a weight above 0"
        names = [source.name for source in (*self.sources, *self.foreign)]
        for source in self.foreign:
            if names.count(source.name) > 1:
                yield "foreign", f"{source.name} is foreign and named twice", "train on a set or ask about it, not both"
        served = {name for source in self.sources for name in self.tasks_of(source)}
        hint = f"the tasks are {', '.join(self.tasks)}; name each with a source that serves it"
        for name in [*served - set(self.tasks), *set(self.tasks) - served]:
            known = "asked of no source" if name in self.tasks else "not among the tasks"
            yield "sources", f"the task {name!r} is {known}", hint

    def tasks_of(self, source: SourceSettings) -> tuple[str, ...]:
        """Return the tasks that are asked about the cells of ``source``."""
        return tuple(self.tasks) if source.tasks is None else source.tasks

    def stream(self, name: str) -> np.random.Generator:
        """Return a new generator for one of :data:`STREAMS`; the same for every source, whatever others a run has."""
        seed = self.label_seed if name == "labels" and self.label_seed is not None else self.seed
        return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(STREAMS.index(name),)))
