"""Labels for cells that have none, checked by the policy's own dual; and how right they are where labels are known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas
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
from cellduality_plugin.evaluation.rounds.labelling import NOBODY, Opinion, Panel, likeliest, luck, refuse_every
from cellduality_plugin.examples import Example
from cellduality_plugin.files import read_jsonl
from cellduality_plugin.inference.asking import PROVENANCE, Asker, AskSettings, Cells, refuse_taken_keys, write_copy
from cellduality_plugin.inference.calibration import Calibration
from cellduality_plugin.inference.checkpoint import Checkpoint
from cellduality_plugin.parsing import OneOf
from cellduality_plugin.policies.cache import AnswerCache
from cellduality_plugin.profiles import Profiles
from cellduality_plugin.tasks import DualTask
from cellduality_plugin.tasks.base import LabelTask
from data_prep.pseudo import kind_of, question, read_sft, served
from data_prep.views import source_of

UNASSIGNED = "unassigned"  # the label of a cell that gets none
FITTED = "validation"  # the split whose labels a calibration is fitted to; the others are for measuring


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
class Labels:
    """What is found out about the cells of a table."""

    # By cell that was asked: label (UNASSIGNED where there is none), confidence in [0, 1], votes (the share of the
    # answers that named the label), reasoning, and with a coverage set (labels, the likeliest first, between bars).
    asked: pandas.DataFrame
    obs: dict[str, Any]  # new columns, as ``asked`` has them
    obsm: dict[str, Any]  # probabilities, cells x labels; rows sum to 1, or to 0 where nothing could be read
    uns: dict[str, Any]  # with the labels: all of the set, or where no question lists it those some cell has a share of


class Annotator(Asker[Labels]):
    """One label pair of a checkpoint: by default the one that names cell types, or else the only one.

    If it is ``calibrating``, every label is judged, as for a calibrated model, and a ``coverage`` needs no calibration.
    A CellDualityError as for :class:`.asking.Asker`, or if there is no such pair, no calibration with enough cells for
    the ``coverage``, or one is wanted of more labels than a question lists.
    """

    settings: AnnotateSettings
    answer = Opinion

    def __init__(
        self,
        checkpoint: Checkpoint,
        task: str = "",
        settings: Mapping[str, Any] | None = None,
        calibrating: bool = False,
        **how: Any,
    ) -> None:
        own = AnnotateSettings.read(settings or {}, where="calibrate" if calibrating else "annotate")
        super().__init__(checkpoint, _label_task(checkpoint, task), own, **how)
        self.kind = kind_of(self.task)
        self.key, self.labels = self.key or f"{self.kind}_cellduality", self.vocabulary.labels[self.kind]
        if calibrating:
            if "control" in self.task.needs:
                what = f"{self.task.name} is asked about a cell beside an untreated one, and is not calibrated"
                hint = "its confidence is the share of votes x reward"
                raise CellDualityError(what, code="no-label-task", where="--task", hint=hint)
            refuse_every(self.task, self.vocabulary)
        self.calibration = Calibration.of_notes(checkpoint.notes, self.task.name, own.asked)
        if own.coverage and not calibrating:
            if not self.calibration:
                what = f"no calibration of {self.task.name} ({own.asked}), which sets of labels need"
                hint = f"first: cellduality calibrate {checkpoint.model} --data DATA --verify {own.verify}"
                raise CellDualityError(what, code="not-calibrated", where="--coverage", hint=hint)
            self.calibration.threshold(own.coverage)  # refused before a cell is asked about
        judged = bool(self.calibration or calibrating)
        self._profiles = self._own_profiles() if judged else None
        self._panel = Panel(
            checkpoint.config, self.task.name, votes=own.verify or 1, judge=CONFIGURED if own.verify else NOBODY,
            every=judged and own.verify > 0, seed=own.seed,
        )  # fmt: skip

    def of_cells(self, cells: Cells, source: str, kept: AnswerCache | None, others: Cells | None) -> Labels:
        obs, names = cells[1], ("confidence", "votes", "reasoning", "set")
        refuse_taken_keys(obs, [self.key, *(f"{self.key}_{each}" for each in names)])
        ranked, origin = self.readable(cells[0], source)
        controls = None
        if "control" in self.task.needs:
            ranked, controls = self.beside_untreated(ranked, obs, others)
        questions = self.questions(ranked, ranked.known(self.columns), controls)
        rows, labels, every = [], self.labels if self.vocabulary.lists(self.kind) else (), list[Any]()
        for opinion in self.answers(questions, len(ranked), source, kept):
            own = self.shares(opinion)
            rows.append(self._row(opinion, own))
            every.append(_row_of(own, labels) if labels else own)
        if not labels:
            labels = tuple(sorted(set().union(*every)))
            every = [_row_of(own, labels) for own in every]
        shares = np.array(every)
        asked, index = pandas.DataFrame(rows, index=ranked.obs.index), obs.index.astype(str)
        table = asked.reindex(index)
        table = table.fillna({"label": UNASSIGNED, "confidence": 0.0, "votes": 0.0, "reasoning": "", "set": ""})
        label = pandas.Categorical(table.pop("label"), categories=[*labels, UNASSIGNED]).remove_unused_categories()
        places = asked.index.get_indexer(index)
        probabilities = np.where(places[:, None] >= 0, shares[places], np.float32(0))
        provenance = {
            "model": str(self.checkpoint.model), "task": self.task.name, "labels": list(labels), **origin,
            "versions": versions(), **self.settings.model_dump(),
            "calibration_labels": self.calibration.labels if self.calibration else 0,
        }  # fmt: skip
        columns = {self.key: label, **{f"{self.key}_{each}": table[each].to_numpy() for each in table}}
        return Labels(asked, columns, {f"{self.key}_probability": probabilities}, {PROVENANCE: provenance})

    def write(self, found: Labels, source: Path, out: Path) -> None:
        """Write a copy of the file ``source`` with the labels."""
        write_copy(source, out, found.obs, found.obsm, found.uns)

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
        own = found.by_kind.get(self.kind)
        return found if own and {*self.labels} <= {*own.labels} else None

    async def ask(self, example: Example, players: Players) -> Opinion:
        """Return what the policy and its judge make of one question."""
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
    tasks = {each: task for each, task in checkpoint.config.load_tasks().items() if isinstance(task.answer, OneOf)}
    alone = [each for each, task in tasks.items() if "control" not in task.needs]
    of_types = [each for each in alone if kind_of(tasks[each]) == "cell_type"]
    chosen = name or next(iter(of_types or (alone if len(alone) == 1 else [])), "")
    if chosen in tasks:
        return tasks[chosen]
    what = f"no pair {name!r} that answers with a label"
    what = what if name else "several pairs answer with a label of one cell, or none does"
    hint = f"use one of: {', '.join(tasks) or '(there is none)'}"
    raise CellDualityError(what, code="no-label-task", where="--task", hint=hint)
