"""Labels for cells that have none: what the policy answers, checked by its own dual."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from scipy.special import softmax

from cellduality_plugin.duals import Dual
from cellduality_plugin.errors import CellDualityError
from cellduality_plugin.evaluation.audit.contenders import CONFIGURED
from cellduality_plugin.evaluation.audit.engine import Players
from cellduality_plugin.evaluation.rounds.labelling import NOBODY, Opinion, Panel, answered, likeliest, refuse_every
from cellduality_plugin.examples import Example
from cellduality_plugin.inference.asking import Asker, AskSettings
from cellduality_plugin.inference.calibration import Calibration
from cellduality_plugin.inference.checkpoint import Checkpoint
from cellduality_plugin.parsing import OneOf
from cellduality_plugin.policies.cache import AnswerCache
from cellduality_plugin.tasks import DualTask
from data_prep.cells import RankedCells
from data_prep.pseudo import kind_of

if TYPE_CHECKING:
    from pandas import DataFrame

UNASSIGNED = "unassigned"
"""The label of a cell that gets none."""


class AnnotateSettings(AskSettings):
    """How cells are annotated. Each different one of ``verify`` answers is judged once by the reward of training.

    The label is the one with the highest share of votes x reward; without draws the greedy answer.
    """

    verify: int = Field(8, ge=0)
    unassigned_below: float = Field(0.0, ge=0, le=1)  # cells of a lower confidence get no label
    coverage: float = Field(0.0, ge=0, lt=1)  # of sets by split conformal prediction, once calibrated; 0: no sets

    @property
    def asked(self) -> str:
        """What a calibration is of: how the model is asked."""
        return f"verify {self.verify}, temperature {self.temperature:g}" if self.verify else "greedy"


@dataclass(frozen=True)
class Annotation:
    """The labels of cells, in the order they were given.

    ``table`` has by cell ``label`` (:data:`UNASSIGNED` where there is none), ``confidence`` in [0, 1], ``votes`` (the
    share of the answers that named the label), ``reasoning`` (of the first such answer), and with a ``coverage``
    ``set`` (labels, the likeliest first, between bars). ``probabilities`` are cells x ``labels``, of a calibrated
    model; else shares of votes x reward, or how likely each label is as an answer without reasoning. Rows sum to 1, or
    to 0 where nothing could be read. ``labels`` are the whole set, or of one that no question lists those that some
    cell has a share of.
    """

    labels: tuple[str, ...]
    table: DataFrame
    probabilities: NDArray[np.float32]


class Annotator(Asker):
    """One label pair of a checkpoint: by default the one that names cell types, or else the only one.

    If it is ``calibrating``, every label is judged, as for a calibrated model, and a ``coverage`` needs no calibration.
    A CellDualityError as for :class:`.asking.Asker`, or if there is no such pair, no calibration with enough cells for
    the ``coverage``, or one is wanted of more labels than a question lists.
    """

    def __init__(
        self, checkpoint: Checkpoint, settings: AnnotateSettings, task: str = "", *, calibrating: bool = False
    ) -> None:
        super().__init__(checkpoint, _label_task(checkpoint, task), settings)
        self.settings, self.kind = settings, kind_of(self.task)
        self.labels = self.vocabulary.labels[self.kind]
        if calibrating:
            refuse_every(self.task, self.vocabulary)
        self.calibration = Calibration.of_notes(checkpoint.notes, self.task.name, settings.asked)
        if settings.coverage and not calibrating:
            if not self.calibration:
                what = f"no calibration of {self.task.name} ({settings.asked}), which sets of labels need"
                hint = f"first: cellduality calibrate {checkpoint.model} --data DATA --verify {settings.verify}"
                raise CellDualityError(what, code="not-calibrated", where="--coverage", hint=hint)
            self.calibration.threshold(settings.coverage)  # refused before a cell is asked about
        self._panel = Panel(
            checkpoint.config, votes=settings.verify or 1, judge=CONFIGURED if settings.verify else NOBODY,
            tasks=[self.task.name], every=bool(settings.verify and (self.calibration or calibrating)),
        )  # fmt: skip

    def annotate(self, cells: RankedCells, players: Players, kept: AnswerCache, name: str = "") -> Annotation:
        """Return the labels of ``cells``; what is in ``kept`` is not asked again. The progress bar shows ``name``."""
        import pandas

        rows, every = [], list[Mapping[str, float]]()
        labels = self.labels if self.vocabulary.lists(self.kind) else ()
        probabilities = np.zeros((len(cells), len(labels)), dtype=np.float32)
        questions = self.questions(cells, cells.known(self.columns))
        for number, opinion in enumerate(self.opinions(questions, len(cells), players, kept, name)):
            shares = self.shares(opinion)
            if labels:
                probabilities[number] = [shares.get(label, 0.0) for label in labels]
            else:
                every.append(shares)
            rows.append(self._row(opinion, shares))
        if every:
            labels = tuple(sorted(set().union(*every)))
            probabilities = np.array([[s.get(label, 0.0) for label in labels] for s in every], dtype=np.float32)
        return Annotation(labels, pandas.DataFrame(rows, index=cells.obs.index), probabilities)

    def opinions(
        self, examples: Iterable[Example], total: int, players: Players, kept: AnswerCache, name: str = ""
    ) -> Iterator[Opinion]:
        """Yield what the policy and its judge make of each example; what is in ``kept`` is not asked again."""
        ask = partial(self._opinion, players=players)
        for _, found in answered(ask, examples, kept, Opinion, batch=self.settings.batch, total=total, name=name):
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
        return likeliest(shares, opinion.votes)

    def _row(self, opinion: Opinion, shares: Mapping[str, float]) -> dict[str, str | float]:
        label = self.label(opinion, shares)
        confidence = shares.get(label, 0.0)
        row: dict[str, str | float] = {"label": UNASSIGNED, "confidence": confidence, "votes": 0.0, "reasoning": ""}
        if label and confidence >= self.settings.unassigned_below:
            votes = opinion.votes.get(label, 0) / (self.settings.verify or 1)
            row |= {"label": label, "votes": votes, "reasoning": opinion.traces.get(label, "")}
        if self.settings.coverage and self.calibration:
            inside = self.calibration.inside([opinion], self.labels, self.settings.coverage)[0]
            chosen = [each for each, own in zip(self.labels, inside.tolist(), strict=True) if own]
            row["set"] = " | ".join(sorted(chosen, key=lambda each: -shares[each]))
        return row

    async def _opinion(self, example: Example, players: Players) -> Opinion:
        if self.settings.verify:
            return await self._panel.opinion(example, players)
        greedy = await self._panel.opinion(example, replace(players, sampler=players.greedy))
        if not greedy.votes:
            return greedy
        labels = Dual(self.task, example, self.vocabulary, players.greedy).choices(self.kind, next(iter(greedy.votes)))
        texts = [self.task.answer_response(each) for each in labels]
        prompt = self.task.primal_prompt(example.inputs, self.vocabulary)
        logs = np.array(await players.greedy.choice_log_probs(prompt, texts))
        return replace(greedy, rewards=dict(zip(labels, softmax(logs).tolist(), strict=True)))


def _label_task(checkpoint: Checkpoint, name: str) -> DualTask:
    pairs = checkpoint.config.load_tasks().items()
    named = {each: task for each, task in pairs if isinstance(task.answer, OneOf)}
    tasks = {each: task for each, task in named.items() if "control" not in task.needs}
    of_types = [each for each, task in tasks.items() if kind_of(task) == "cell_type"]
    chosen = name or next(iter(of_types or (tasks if len(tasks) == 1 else [])), "")
    if chosen in tasks:
        return tasks[chosen]
    what = f"no pair {name!r} that answers with a label of one cell"
    what = what if name else "several pairs answer with a label of one cell, or none does"
    if name in named:
        what = f"{name} is asked about a cell beside an untreated one, and cells of a new file stand alone"
    hint = f"use one of: {', '.join(tasks) or '(there is none)'}"
    raise CellDualityError(what, code="no-label-task", where="--task", hint=hint)
