"""Everything that decides what a preparation holds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from cellduality_plugin.errors import CellDualityError
from cellduality_plugin.settings import Settings
from data_prep.reading import Fraction, SourceSettings
from data_prep.views import Rules

DEFAULT_SOURCE = "pbmc68k_reduced"

DEFAULT_TASKS = ("cell_type_annotation", "conditional_cell_generation")

Share = Annotated[float, Field(gt=0, le=1)]

Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class PrepareSettings(Settings):
    """Everything that decides what :func:`prepare` writes.

    Parameters
    ----------
    sources
        The sets of cells, each with the tasks it serves. ``source``, ``label_column``, ``matrix`` and ``expression``
        in place of it describe a single one.
    foreign
        Sets no cell of which trains: their cells are asked for their type with the labels of ``sources``. Of their
        settings ``name``, ``variant`` and ``max_cells`` count.
    tasks
        Pairs by name or import path, with their share of the RL rows; 0 leaves a pair to SFT and evaluation.
    top_genes, min_genes
        Most and fewest genes of a cell sentence.
    n_genes
        How many of the most variable genes of each source's training cells make up the vocabulary; None: all that
        any cell expresses.
    hidden
        The fraction of a cell's genes that the duals of labels have to rebuild, up to 1 for the whole cell; or several:
        the first splits the rows for RL, audit and evaluation, and SFT tells of the dual at each.
    thin
        The fraction of genes that the questions of RL rows about labels do not show of a cell. The dual still has to
        rebuild all of it, so ``hidden`` has to begin with 1.
    n_labelled
        How many training cells of a source show their label: all that SFT sees.
    sft_views
        How many versions of each labelled cell SFT sees: the whole cell, then ones that lost genes.
    sft_label_views
        The same for questions whose answer is a label; None: as ``sft_views``.
    pretrain_views
        How many versions of every training cell a stage before SFT sees, without its label; 0: there is no such stage.
    clusters
        How many clusters, at most, stand for the types of a source there.
    n_rl, rl_includes_labelled
        How many RL rows, and whether they ask about the labelled cells too.
    rl_gold
        The tasks, by their own names, whose RL rows hold the true answer: for the ground truth as a reward, to compare.
    masks
        How many splits into known and hidden genes an RL row holds; the reward is the mean over them.
    n_audit
        How many validation cells of each task ``cellduality audit`` may look at.
    fractions
        Of train, validation and test cells.
    small_classes
        What to do about classes with fewer than three cells. Where several columns matter to the tasks, such as cell
        type and perturbation, a class is a combination of them.
    seed
        Of the only random generators.
    label_seed
        Of which training cells show their label; None: ``seed``. The split stays where it is.
    """

    sources: tuple[SourceSettings, ...] = Field(default=(SourceSettings(name=DEFAULT_SOURCE),), min_length=1)
    foreign: tuple[SourceSettings, ...] = ()
    tasks: dict[str, Weight] = Field(default_factory=lambda: dict.fromkeys(DEFAULT_TASKS, 1.0), min_length=1)
    top_genes: int = Field(default=64, ge=2)
    min_genes: int = Field(default=8, ge=2)
    n_genes: int | None = Field(default=None, ge=2)
    hidden: tuple[Share, ...] = Field(default=(0.25,), min_length=1)
    thin: float = Field(default=0.0, ge=0, lt=1)
    n_labelled: int = Field(default=140, ge=1)
    sft_views: int = Field(default=1, ge=1)
    sft_label_views: int | None = Field(default=None, ge=1)
    pretrain_views: int = Field(default=0, ge=0)
    clusters: int = Field(default=16, ge=1)
    n_rl: int = Field(default=512, ge=0)
    rl_includes_labelled: bool = True
    rl_gold: tuple[str, ...] = ()
    masks: int = Field(default=1, ge=1)
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
            raise CellDualityError("both source and sources are given", where="sources", mend="leave one of them out")
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
        if abs(sum(self.fractions) - 1) > 1e-6:
            raise CellDualityError(f"fractions add up to {sum(self.fractions):g}", where="fractions", mend="make it 1")
        if self.min_genes > self.top_genes:
            raise CellDualityError(
                f"min_genes {self.min_genes} is above top_genes {self.top_genes}",
                where="min_genes",
                mend="lower it",
            )
        if self.thin and self.hidden[0] < 1:
            raise CellDualityError(
                f"questions show thinned cells, and the dual rebuilds {self.hidden[0]:g} of what they show",
                where="thin",
                mend="let hidden begin with 1, so that the dual rebuilds the whole cell",
            )
        if self.n_rl and not any(self.tasks.values()):
            raise CellDualityError("every task has the weight 0", where="tasks", mend="give one a weight above 0")
        names = [source.name for source in (*self.sources, *self.foreign)]
        for name in (source.name for source in self.foreign if names.count(source.name) > 1):
            raise CellDualityError(
                f"{name} is foreign and named twice", where="foreign", mend="train on a set or ask about it, not both"
            )
        served = {name for source in self.sources for name in self.tasks_of(source)}
        for name in [*served - set(self.tasks), *set(self.tasks) - served]:
            raise CellDualityError(
                f"the task {name!r} is {'asked of no source' if name in self.tasks else 'not among the tasks'}",
                where="sources",
                mend=f"the tasks are {', '.join(self.tasks)}; name each with a source that serves it",
            )

    def tasks_of(self, source: SourceSettings) -> tuple[str, ...]:
        """Return the tasks that are asked about the cells of ``source``."""
        return tuple(self.tasks) if source.tasks is None else source.tasks

    def rules(self) -> Rules:
        """Return what is the same for every source."""
        return Rules(
            top=self.top_genes,
            min_genes=self.min_genes,
            fractions=self.fractions,
            n_labelled=self.n_labelled,
            drop_small_classes=self.small_classes == "drop",
            seed=self.seed,
            label_seed=self.seed if self.label_seed is None else self.label_seed,
        )
