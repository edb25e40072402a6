"""Labels for cells that have none: what the policy answers, checked by its own dual."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from cellduality_plugin.duals import Dual
from cellduality_plugin.errors import CellDualityError
from cellduality_plugin.evaluation.audit.contenders import CONFIGURED
from cellduality_plugin.evaluation.audit.engine import Players
from cellduality_plugin.evaluation.rounds.labelling import NOBODY, Opinion, Panel, opinions, refuse_every
from cellduality_plugin.examples import Example
from cellduality_plugin.inference.calibration import Calibration
from cellduality_plugin.inference.checkpoint import Checkpoint
from cellduality_plugin.parsing import OneOf
from cellduality_plugin.policies.cache import AnswerCache
from cellduality_plugin.seeds import request_seed
from cellduality_plugin.settings import Settings
from cellduality_plugin.tasks import DualTask
from data_prep.cells import RankedCells
from data_prep.views import known_by

if TYPE_CHECKING:
    from pandas import DataFrame

UNASSIGNED = "unassigned"
"""The label of a cell that gets none."""

BAR = " | "
"""Between the labels of a set."""


class AnnotateSettings(Settings):
    """How cells are annotated.

    Parameters
    ----------
    verify
        Answers drawn to each cell, each different one of which is judged once by the reward of training: the label is
        the one with the highest share of votes x reward. 0: one greedy answer, which nobody judges.
    unassigned_below
        Cells whose confidence is lower than this get no label.
    coverage
        How often the true label shall be in a cell's set of labels (split conformal prediction); 0: no sets. For a
        calibrated model.
    temperature, batch, seed
        Of the draws; cells that are asked together, and then kept; and of every draw.
    """

    verify: int = Field(8, ge=0)
    unassigned_below: float = Field(0.0, ge=0, le=1)
    coverage: float = Field(0.0, ge=0, lt=1)
    temperature: float = Field(1.0, gt=0)
    batch: int = Field(64, ge=1)
    seed: int = 42

    @property
    def asked(self) -> str:
        """What a calibration is of: how the model is asked."""
        return f"verify {self.verify}, temperature {self.temperature:g}" if self.verify else "greedy"


@dataclass(frozen=True)
class Annotation:
    """The labels of cells, in the order they were given.

    Parameters
    ----------
    labels
        The label set, in the order of the columns of ``probabilities``; of a set that no question lists, those of it
        that some cell has a share of.
    table
        By cell: ``label`` (:data:`UNASSIGNED` where there is none), ``confidence`` in [0, 1], ``votes`` (the share of
        the answers that named the label; 1 without draws), ``reasoning`` (of the first such answer), and with a
        ``coverage`` ``set`` (labels, the likeliest first, between bars).
    probabilities
        float32, cells x labels, of a calibrated model. Else shares of votes x reward; without draws how likely each
        label is as an answer without reasoning. Rows sum to 1, or to 0 where nothing could be read.
    """

    labels: tuple[str, ...]
    table: DataFrame
    probabilities: NDArray[np.float32]


class Annotator:
    """One label task of a checkpoint, ready to be asked about cells.

    Parameters
    ----------
    task
        The name of the pair; by default the one that names cell types, or else the only one that answers with a label.
    calibrating
        Every label is judged, as for a calibrated model, and a ``coverage`` needs no calibration yet.

    Raises
    ------
    CellDualityError
        If the checkpoint has no such pair, its reward reads the true label, there is no calibration for ``coverage``
        with enough cells, or one is wanted of more labels than a question lists.
    """

    def __init__(
        self, checkpoint: Checkpoint, settings: AnnotateSettings, task: str = "", *, calibrating: bool = False
    ) -> None:
        self.checkpoint, self.settings = checkpoint, settings
        self.task = _label_task(checkpoint, task)
        self._vocabulary = checkpoint.config.load_vocabulary()
        self.labels = self._vocabulary.labels[self.kind]
        if calibrating:
            refuse_every(self.task, self._vocabulary)
        self.calibration = Calibration.of_notes(checkpoint.notes, self.task.name, settings.asked)
        if settings.coverage and not self.calibration and not calibrating:
            raise CellDualityError(
                f"no calibration of {self.task.name} ({settings.asked}), which sets of labels need",
                code="not-calibrated",
                where="--coverage",
                hint=f"first: cellduality calibrate {checkpoint.model} --data DATA --verify {settings.verify}",
            )
        if settings.coverage and self.calibration and not calibrating:
            self.calibration.threshold(settings.coverage)  # refused before a cell is asked about
        self._panel = Panel(
            checkpoint.config, votes=settings.verify or 1, judge=CONFIGURED if settings.verify else NOBODY,
            tasks=[self.task.name], every=bool(settings.verify and (self.calibration or calibrating)),
        )  # fmt: skip
        if self._panel.needs_gold:
            raise CellDualityError(
                "the reward of this task reads the true label, which a new file has not",
                code="reward-needs-gold",
                where=f"tasks.{self.task.name}.reward",
                hint="pack the model with another configuration, or annotate with --verify 0",
            )

    @property
    def kind(self) -> str:
        """The label set of the answers."""
        assert isinstance(self.task.answer, OneOf)
        return self.task.answer.kind

    @property
    def genes(self) -> frozenset[str]:
        """The genes that the questions of the task showed in training."""
        return self.checkpoint.genes_of(self.task.name)

    def annotate(self, cells: RankedCells, players: Players, kept: AnswerCache, name: str = "") -> Annotation:
        """Return the labels of ``cells``; what is in ``kept`` is not asked again.

        ``name`` is what the progress bar shows; no bar if it is empty.
        """
        import pandas

        rows, sets, every = [], list[str](), list[Mapping[str, float]]()
        labels = self.labels if self._vocabulary.lists(self.kind) else ()
        probabilities = np.zeros((len(cells), len(labels)), dtype=np.float32)
        asked = self.opinions(self._examples(cells), len(cells), players, kept, name)
        for number, opinion in enumerate(asked):
            shares = self.shares(opinion)
            if labels:
                probabilities[number] = [shares.get(label, 0.0) for label in labels]
            else:
                every.append(shares)
            rows.append(self._row(opinion, shares))
            if self.settings.coverage:
                sets.append(self._set(opinion, shares))
        table = pandas.DataFrame(rows, columns=["label", "confidence", "votes", "reasoning"], index=cells.obs.index)
        if sets:
            table["set"] = sets
        if every:
            labels = tuple(sorted(set().union(*every)))
            probabilities = np.array([[s.get(label, 0.0) for label in labels] for s in every], dtype=np.float32)
        return Annotation(labels, table, probabilities)

    def opinions(
        self, examples: Iterable[Example], total: int, players: Players, kept: AnswerCache, name: str = ""
    ) -> Iterator[Opinion]:
        """Yield what the policy and its judge make of each example; what is in ``kept`` is not asked again."""
        ask = partial(self._opinion, players=players)
        for _, found in opinions(ask, examples, kept, batch=self.settings.batch, total=total, name=name):
            yield found

    def shares(self, opinion: Opinion, *, calibrated: bool = True) -> Mapping[str, float]:
        """Return how likely each label is; empty where nothing speaks for any."""
        if calibrated and self.calibration:
            found = self.calibration.confidence.probabilities([opinion], self.labels)[0]
            return dict(zip(self.labels, found.tolist(), strict=True))
        return opinion.shares() if self.settings.verify else opinion.rewards

    def label(self, opinion: Opinion, shares: Mapping[str, float]) -> str:
        """Return the likeliest label, the greedy answer where it was asked for, or nothing if none could be read."""
        if not (self.settings.verify and opinion.votes):
            return next(iter(opinion.votes), "")
        return min(shares, key=lambda label: (-shares[label], -opinion.votes.get(label, 0), label), default="")

    def _row(self, opinion: Opinion, shares: Mapping[str, float]) -> tuple[str, float, float, str]:
        label = self.label(opinion, shares)
        confidence = shares.get(label, 0.0)
        if not label or confidence < self.settings.unassigned_below:
            return UNASSIGNED, confidence, 0.0, ""
        votes = opinion.votes.get(label, 0) / (self.settings.verify or 1)
        return label, confidence, votes, opinion.traces.get(label, "")

    def _set(self, opinion: Opinion, shares: Mapping[str, float]) -> str:
        """Return the labels in the set of a cell, the likeliest first."""
        assert self.calibration is not None  # without one a coverage is refused
        inside = self.calibration.inside([opinion], self.labels, self.settings.coverage)[0]
        chosen = [label for label, own in zip(self.labels, inside.tolist(), strict=True) if own]
        return BAR.join(sorted(chosen, key=lambda label: -shares[label]))

    def rng(self, cell_id: str) -> np.random.Generator:
        """Return what hides genes of a cell from the dual; the same whenever it is asked about."""
        return np.random.default_rng(request_seed(self.settings.seed, "question", cell_id))

    @property
    def hidden(self) -> float:
        """The share of a cell that duals rebuild."""
        return float(self.checkpoint.config.tasks[self.task.name].hidden or self.checkpoint.notes["hidden"])

    def _examples(self, cells: RankedCells) -> Iterator[Example]:
        known = cells.known(self.task.needs)
        for cell in cells:
            shown = known_by(replace(cell, obs={}, condition={}), known[cell.id])
            yield self.task.example(shown, hidden=self.hidden, labelled=False, rng=self.rng(cell.id))

    async def _opinion(self, example: Example, players: Players) -> Opinion:
        if self.settings.verify:
            return await self._panel.opinion(example, players)
        greedy = await self._panel.opinion(example, replace(players, sampler=players.greedy))
        if not greedy.votes:
            return greedy
        labels = Dual(self.task, example, self._vocabulary, players.greedy).choices(self.kind, next(iter(greedy.votes)))
        texts = [self.task.answer_response(each) for each in labels]
        prompt = self.task.primal_prompt(example.inputs, self._vocabulary)
        logs = np.array(await players.greedy.choice_log_probs(prompt, texts))
        shares = np.exp(logs - logs.max()) / np.exp(logs - logs.max()).sum()
        return replace(greedy, rewards=dict(zip(labels, shares.tolist(), strict=True)))


def _label_task(checkpoint: Checkpoint, name: str) -> DualTask:
    pairs = checkpoint.config.load_tasks().items()
    named = {each: task for each, task in pairs if isinstance(task.answer, OneOf)}
    tasks = {each: task for each, task in named.items() if "control" not in task.needs}
    of_types = [
        each for each, task in tasks.items() if isinstance(task.answer, OneOf) and task.answer.kind == "cell_type"
    ]
    chosen = name or (of_types[0] if of_types else next(iter(tasks)) if len(tasks) == 1 else "")
    if chosen in tasks:
        return tasks[chosen]
    what = "several pairs answer with a label of one cell, or none does"
    if name in named:
        what = f"{name} is asked about a cell beside an untreated one, and cells of a new file stand alone"
    elif name:
        what = f"no pair {name!r} that answers with a label of one cell"
    raise CellDualityError(
        what,
        code="no-label-task",
        where="--task",
        hint=f"use one of: {', '.join(tasks) or '(there is none)'}",
    )
