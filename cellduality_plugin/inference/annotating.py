"""Labels for cells that have none, checked by the policy's own dual; and how right they are where labels are known."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from scipy.special import softmax

from cellduality_plugin.duals import Dual
from cellduality_plugin.errors import CellDualityError
from cellduality_plugin.evaluation.audit.engine import Players
from cellduality_plugin.evaluation.audit.run import CONFIGURED
from cellduality_plugin.evaluation.confidence import (
    FORMAT,
    VERSION,
    confidence_metrics,
    reliability,
    risk_coverage,
    set_metrics,
)
from cellduality_plugin.evaluation.predictions import versions
from cellduality_plugin.evaluation.rounds.labelling import (
    NOBODY,
    Opinion,
    Panel,
    answered,
    likeliest,
    luck,
    refuse_every,
)
from cellduality_plugin.examples import Example
from cellduality_plugin.files import read_jsonl
from cellduality_plugin.inference.asking import PROVENANCE, Asker, AskSettings, Cells, refuse_taken_keys
from cellduality_plugin.inference.calibration import Calibration
from cellduality_plugin.inference.checkpoint import Checkpoint
from cellduality_plugin.parsing import OneOf
from cellduality_plugin.policies.cache import AnswerCache
from cellduality_plugin.profiles import Profiles
from cellduality_plugin.tasks import DualTask
from cellduality_plugin.tasks.base import LabelTask
from data_prep.cells import CellTable
from data_prep.pseudo import kind_of, question, read_sft, served
from data_prep.views import source_of

if TYPE_CHECKING:
    from anndata import AnnData
    from pandas import DataFrame

UNASSIGNED = "unassigned"
"""The label of a cell that gets none."""
FITTED = "validation"
"""The split whose labels a calibration is fitted to; the others are for measuring."""


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
            if "control" in self.task.needs:
                what = f"{self.task.name} is asked about a cell beside an untreated one, and is not calibrated"
                hint = "its confidence is the share of votes x reward"
                raise CellDualityError(what, code="no-label-task", where="--task", hint=hint)
            refuse_every(self.task, self.vocabulary)
        self.calibration = Calibration.of_notes(checkpoint.notes, self.task.name, settings.asked)
        if settings.coverage and not calibrating:
            if not self.calibration:
                what = f"no calibration of {self.task.name} ({settings.asked}), which sets of labels need"
                hint = f"first: cellduality calibrate {checkpoint.model} --data DATA --verify {settings.verify}"
                raise CellDualityError(what, code="not-calibrated", where="--coverage", hint=hint)
            self.calibration.threshold(settings.coverage)  # refused before a cell is asked about
        self._profiles = self._own_profiles() if self.calibration or calibrating else None
        self._panel = Panel(
            checkpoint.config, self.task.name, votes=settings.verify or 1,
            judge=CONFIGURED if settings.verify else NOBODY,
            every=bool(settings.verify and (self.calibration or calibrating)), seed=settings.seed,
        )  # fmt: skip

    def annotate(
        self,
        cells: AnnData | CellTable,
        everything: DataFrame,
        source: str,
        key: str,
        given: Mapping[str, str],
        opened: AbstractContextManager[Players],
        kept: AnswerCache,
        name: str = "",
        control: tuple[str, str] | None = None,
        others: Cells | None = None,
    ) -> tuple[DataFrame, dict[str, Any], dict[str, Any], dict[str, Any]]:
        """Return the table of the cells that were asked, and what goes into obs, obsm and uns of ``everything``.

        The table has by cell ``label`` (:data:`UNASSIGNED` where there is none), ``confidence`` in [0, 1], ``votes``
        (the share of the answers that named the label), ``reasoning`` (of the first such answer), and with a
        ``coverage`` ``set`` (labels, the likeliest first, between bars). The probabilities in obsm are cells x labels;
        rows sum to 1, or to 0 where nothing could be read. The labels are the whole set, or of one that no question
        lists those that some cell has a share of. What is in ``kept`` is not asked again; the progress bar shows
        ``name``. ``control`` and ``others`` are as :meth:`.asking.Asker.beside_untreated` has them.
        """
        import pandas

        names = ("confidence", "votes", "reasoning", "set")
        refuse_taken_keys(everything.columns, [key, *(f"{key}_{each}" for each in names)])
        ranked, origin = self.readable(cells, source, given)
        controls = None
        if "control" in self.task.needs:
            ranked, controls = self.beside_untreated(ranked, everything, control, others)
        with opened as players:
            questions = self.questions(ranked, ranked.known(self.columns), controls)
            rows, labels, every = [], self.labels if self.vocabulary.lists(self.kind) else (), list[Any]()
            for opinion in self.opinions(questions, len(ranked), players, kept, name):
                own = self.shares(opinion)
                rows.append(self._row(opinion, own))
                every.append(_row_of(own, labels) if labels else own)
        if not labels:
            labels = tuple(sorted(set().union(*every)))
            every = [_row_of(own, labels) for own in every]
        shares = np.array(every)
        asked, index = pandas.DataFrame(rows, index=ranked.obs.index), everything.index.astype(str)
        table = asked.reindex(index)
        table = table.fillna({"label": UNASSIGNED, "confidence": 0.0, "votes": 0.0, "reasoning": "", "set": ""})
        label = pandas.Categorical(table.pop("label"), categories=[*labels, UNASSIGNED])
        obs = {key: label.remove_unused_categories(), **{f"{key}_{each}": table[each].to_numpy() for each in table}}
        places = asked.index.get_indexer(index)
        probabilities = np.where(places[:, None] >= 0, shares[places], np.float32(0))
        provenance = {
            "model": str(self.checkpoint.model), "task": self.task.name, "labels": list(labels), **origin,
            "versions": versions(), **self.settings.model_dump(),
            "calibration_labels": self.calibration.labels if self.calibration else 0,
        }  # fmt: skip
        return asked, obs, {f"{key}_probability": probabilities}, {PROVENANCE: provenance}

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

    def known_cells(self, data: Path, split: str, count: int) -> list[tuple[Example, str]]:
        """Return up to ``count`` (question, true label) of a split, in random order, those of the audit first.

        The questions are those of annotation: nothing of the label is in them. A CellDualityError if there is no such
        cell.
        """
        task = self.task
        by_source, _ = served(read_sft(data / "sft.jsonl"), {task.name: task})
        audit, place = data / "audit.jsonl", dict[str, int]()
        for row in read_jsonl(audit) if audit.is_file() else ():
            example = Example.from_label(row["label"])
            if example.task == task.name:
                place.setdefault(example.id, len(place))
        rows = [row for row in read_jsonl(data / "cells.jsonl") if row.get(self.kind) in self.labels]
        rows = [row for row in rows if row["split"] == split and source_of(row["id"]) in by_source]
        if not rows:
            hint = "use validation (to fit) or test (to measure)"
            raise CellDualityError(f"no {split} cell of {task.name}", code="no-cells", where=str(data), hint=hint)
        rows.sort(key=lambda row: (place.get(row["id"], len(place)), luck(self.settings.seed, "known", row["id"])))
        asked = [question(task, row, hidden=self.hidden, masks=1, rng=self.rng(row["id"])) for row in rows[:count]]
        return [(each, str(row[self.kind])) for each, row in zip(asked, rows, strict=False)]

    def measured(self, opinions: Sequence[Opinion], truth: Sequence[str], split: str) -> dict[str, Any]:
        """Return how right and how true the confidence is on cells whose labels are known, as JSON.

        ``metrics`` has :func:`.confidence.confidence_metrics` of each way to weigh the same answers: ``calibrated``,
        which is what annotation gives and has those of its sets, too; ``uncalibrated``; and the ``votes`` alone. On the
        split of the fit, ``in_sample``, they are those of cells that were fitted to.
        """
        calibration, draws = self.calibration, self.settings.verify or 1
        ways = {"uncalibrated": [self.shares(each, calibrated=False) for each in opinions]}
        if self.settings.verify:
            ways["votes"] = [{label: n / draws for label, n in each.votes.items()} for each in opinions]
        if calibration:
            ways = {"calibrated": [self.shares(each) for each in opinions], **ways}
        content: dict[str, Any] = {
            "format": FORMAT, "version": VERSION, "split": split, "in_sample": split == FITTED,
            "task": self.task.name, "asked": self.settings.asked, "n": len(truth),
            "calibration": calibration and asdict(calibration), "metrics": {}, "reliability": {}, "risk_coverage": {},
        }  # fmt: skip
        for way, shares in ways.items():
            labels = [self.label(*each) for each in zip(opinions, shares, strict=True)]
            sure = [own.get(label, 0.0) for own, label in zip(shares, labels, strict=True)]
            right = [label == true for label, true in zip(labels, truth, strict=True)]
            content["metrics"][way] = confidence_metrics(sure, right, self.settings.seed)
            content["reliability"][way] = reliability(sure, right)
            content["risk_coverage"][way] = np.round(risk_coverage(sure, right), 6).T.tolist()
        if calibration and (coverage := self.settings.coverage):
            inside = calibration.inside(opinions, self.labels, coverage)
            columns = [self.labels.index(true) for true in truth]
            content["coverage"] = coverage
            content["metrics"]["calibrated"] |= set_metrics(inside, columns, self.settings.seed)
        return content

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

    def _own_profiles(self) -> Profiles | None:
        """Return the class profiles of the labels, if the model has any: a judge that costs nothing."""
        if self.checkpoint.config.profiles is None or not isinstance(self.task, LabelTask):
            return None
        found = self.checkpoint.config.load_profiles()
        there = self.kind in found.by_kind and {*self.labels} <= {*found.by_kind[self.kind].labels}
        return found if there else None

    async def _opinion(self, example: Example, players: Players) -> Opinion:
        opinion = await (self._panel.opinion if self.settings.verify else self._greedy)(example, players)
        if not self._profiles:
            return opinion
        assert isinstance(self.task, LabelTask)
        scores = self._profiles.log_scores(self.kind, self.task.whole(example))
        shares = softmax([scores[label] for label in self.labels]).tolist()
        return replace(opinion, profiles=dict(zip(self.labels, shares, strict=True)))

    async def _greedy(self, example: Example, players: Players) -> Opinion:
        greedy = await self._panel.opinion(example, replace(players, sampler=players.greedy))
        if not greedy.votes:
            return greedy
        labels = Dual(self.task, example, self.vocabulary, players.greedy).choices(self.kind, next(iter(greedy.votes)))
        texts = [self.task.answer_response(each) for each in labels]
        prompt = self.task.primal_prompt(example.inputs, self.vocabulary)
        logs = np.array(await players.greedy.choice_log_probs(prompt, texts))
        return replace(greedy, rewards=dict(zip(labels, softmax(logs).tolist(), strict=True)))


def _row_of(shares: Mapping[str, float], labels: Sequence[str]) -> NDArray[np.float32]:
    return np.array([shares.get(label, 0.0) for label in labels], dtype=np.float32)


def _label_task(checkpoint: Checkpoint, name: str) -> DualTask:
    pairs = checkpoint.config.load_tasks().items()
    tasks = {each: task for each, task in pairs if isinstance(task.answer, OneOf) and name in ("", each)}
    alone = [each for each, task in tasks.items() if "control" not in task.needs]
    of_types = [each for each in alone if kind_of(tasks[each]) == "cell_type"]
    chosen = name or next(iter(of_types or (alone if len(alone) == 1 else [])), "")
    if chosen in tasks:
        return tasks[chosen]
    what = f"no pair {name!r} that answers with a label"
    what = what if name else "several pairs answer with a label of one cell, or none does"
    labels = [each for each, task in pairs if isinstance(task.answer, OneOf)]
    hint = f"use one of: {', '.join(labels) or '(there is none)'}"
    raise CellDualityError(what, code="no-label-task", where="--task", hint=hint)
