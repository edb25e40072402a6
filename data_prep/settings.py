"""Everything that decides what a preparation holds."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field, field_validator, model_validator

from cellduality_plugin.errors import CellDualityError
from cellduality_plugin.settings import Settings
from cellduality_plugin.vocabulary import LISTED
from data_prep.h5ad.loaders import Expression, Matrix
from data_prep.splits import FRACTIONS

STREAMS = (
    "split", "labels", "sft", "rl", "eval_validation", "eval_test", "sample", "pairs", "eval_ood", "audit", "pretrain",
)  # fmt: skip
"""What is drawn at random, each from a generator of its own, so that one choice does not move another."""

Fraction = Annotated[float, Field(gt=0, lt=1)]
Share = Annotated[float, Field(gt=0, le=1)]
Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]


class SourceSettings(Settings):
    """One set of cells, and what a run takes of it; a name alone stands for a set with all defaults.

    What to read of a file is as in :func:`data_prep.h5ad.loaders.load_h5ad`; None: what the set is known to use.
    """

    name: str  # of a set of the registry, or the path of an .h5ad file
    tasks: tuple[str, ...] | None = None  # asked about its cells, as the run names them; None: all
    label_column: str | None = None
    matrix: Matrix | None = None
    layer: str | None = None
    expression: Expression = "auto"
    gene_symbols: str | None = None
    species: Literal["human", "mouse"] | None = None
    columns: dict[str, str] = Field(default_factory=dict)
    # What the file's column of perturbations calls untreated cells, or several with commas; empty: by any usual name.
    control: str = ""
    drug: str = ""  # of a file that is all of one drug: its name
    match: tuple[str, ...] = ()  # columns that a cell and its control share, besides cell type and line
    variant: Literal["", "as_published", "corrected"] = ""  # of a set of the registry; empty: its default
    n_labelled: Count | None = None  # training cells that show their label; None: what the run says
    max_cells: Count | None = None  # the size of a sample, in proportion by class; None: all cells
    # Values by column, e.g. {"cell_type": ("B cell",)}, of cells for out-of-distribution evaluation alone.
    held_out: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    split: Literal["published", "fractions"] = "published"  # of a set of the registry; fractions: by class, as any file

    @model_validator(mode="before")
    @classmethod
    def _name_alone(cls, values: Any) -> Any:
        return {"name": values} if isinstance(values, str) else values


class PrepareSettings(Settings):
    """Everything that decides what :func:`data_prep.prepare.prepare` writes."""

    sources: tuple[SourceSettings, ...] = Field(default=(SourceSettings(name="pbmc68k_reduced"),), min_length=1)
    # Sets that never train, asked for their type with the labels of ``sources``; name, variant and max_cells count.
    foreign: tuple[SourceSettings, ...] = ()
    # Pairs by name or import path, with their share of the RL rows; 0 leaves a pair to SFT and evaluation.
    tasks: dict[str, Weight] = Field(
        default_factory=lambda: {"cell_type_annotation": 1.0, "conditional_cell_generation": 1.0}, min_length=1
    )
    top_genes: int = Field(default=64, ge=2)  # of a cell sentence, at most
    min_genes: int = Field(default=8, ge=2)  # of a cell sentence, at least
    # Most variable genes of each source's training cells that are the vocabulary; None: all genes that are expressed.
    n_genes: int | None = Field(default=None, ge=2)
    listed: Count = LISTED  # labels of a set that questions list, at most; past it they say how labels are written
    # The share of a cell's genes that the duals of labels rebuild; SFT has a dual at each, other rows at the first.
    hidden: tuple[Share, ...] = Field(default=(0.25,), min_length=1)
    # The share of genes that RL questions about labels do not show; the dual rebuilds the whole cell.
    thin: float = Field(default=0.0, ge=0, lt=1)
    n_labelled: Count = 140  # training cells of a source that show their label: all that SFT sees
    sft_views: Count = 1  # versions of each labelled cell in SFT
    sft_label_views: Count | None = None  # the same where the answer is a label; None: as many
    pretrain_views: int = Field(default=0, ge=0)  # of every training cell, for a stage before SFT without labels
    clusters: Count = 16  # that stand for the types of a source in that stage, at most
    n_rl: int = Field(default=512, ge=0)
    rl_includes_labelled: bool = True  # whether RL rows ask about the labelled cells too
    rl_gold: tuple[str, ...] = ()  # tasks, by their own names, whose RL rows hold the true answer
    masks: Count = 1  # splits into known and hidden genes that an RL row holds
    n_audit: int = Field(default=128, ge=0)  # validation cells of each task for the audit, at most
    fractions: tuple[Fraction, Fraction, Fraction] = FRACTIONS  # of train, validation and test cells
    # Of fewer than three cells; a class is a combination of all columns that the tasks speak of.
    small_classes: Literal["refuse", "drop"] = "refuse"
    seed: int = Field(default=0, ge=0)
    label_seed: int | None = Field(default=None, ge=0)  # of which training cells show their label; None: ``seed``

    @field_validator("hidden", mode="before")
    @classmethod
    def _one_share(cls, hidden: Any) -> Any:
        return (hidden,) if isinstance(hidden, (int, float, str)) else hidden

    @model_validator(mode="after")
    def _fit_together(self) -> PrepareSettings:
        """Raise a CellDualityError where settings that are valid one by one do not fit together."""
        names = [source.name for source in (*self.sources, *self.foreign)]
        asked = {name for source in self.sources for name in self.tasks_of(source)}
        if abs(sum(self.fractions) - 1) > 1e-6:
            where, what, hint = "fractions", f"fractions add up to {sum(self.fractions):g}", "make it 1"
        elif self.min_genes > self.top_genes:
            what = f"min_genes {self.min_genes} is above top_genes {self.top_genes}"
            where, hint = "min_genes", "lower it"
        elif self.thin and self.hidden[0] < 1:
            what = f"questions show thinned cells, and the dual rebuilds {self.hidden[0]:g} of what they show"
            where, hint = "thin", "let hidden begin with 1, so that the dual rebuilds the whole cell"
        elif self.n_rl and not any(self.tasks.values()):
            where, what, hint = "tasks", "every task has the weight 0", "give one a weight above 0"
        elif twice := [source.name for source in self.foreign if names.count(source.name) > 1]:
            what = f"{twice[0]} is foreign and named twice"
            where, hint = "foreign", "train on a set or ask about it, not both"
        elif wrong := [*asked - set(self.tasks), *set(self.tasks) - asked]:
            known = "asked of no source" if wrong[0] in self.tasks else "not among the tasks"
            where, what = "sources", f"the task {wrong[0]!r} is {known}"
            hint = f"the tasks are {', '.join(self.tasks)}; name each with a source that serves it"
        else:
            return self
        raise CellDualityError(what, code="settings-clash", where=where, hint=hint)

    def tasks_of(self, source: SourceSettings) -> tuple[str, ...]:
        """Return the tasks that are asked about the cells of ``source``."""
        return tuple(self.tasks) if source.tasks is None else source.tasks

    def stream(self, name: str) -> np.random.Generator:
        """Return a new generator for one of :data:`STREAMS`; the same for every source, whatever others a run has."""
        seed = self.label_seed if name == "labels" and self.label_seed is not None else self.seed
        return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(STREAMS.index(name),)))
