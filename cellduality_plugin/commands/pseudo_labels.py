"""From cells without a label and a policy's opinions on them to SFT rows: what `cellduality pseudo-label` writes."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from cellduality_plugin.config import Config
from cellduality_plugin.errors import CellDualityError
from cellduality_plugin.evaluation.audit.engine import Players
from cellduality_plugin.evaluation.audit.run import masks_in_training
from cellduality_plugin.evaluation.predictions import file_hash, versions
from cellduality_plugin.evaluation.rounds.labelling import Decision, Opinion, Panel, answered, chosen, decide, luck
from cellduality_plugin.evaluation.rounds.summary import Cell, sentence, summary
from cellduality_plugin.examples import Example
from cellduality_plugin.files import write_jsonl
from cellduality_plugin.policies.cache import AnswerCache
from cellduality_plugin.seeds import request_seed
from cellduality_plugin.settings import Settings
from data_prep import pseudo
from data_prep.traces.rule.teacher import RuleTeacher

MOST_CELLS = 20_000
"""That the rule teacher learns from: more of them add memory and hardly a marker."""
LOCKED_IN = "Rounds may lock in on their own errors: keep an earlier one, lower --weight, or label more cells"


class PseudoSettings(Settings):
    """How cells without a label get one, and how their rows are mixed with the labelled ones: the flags of the command.

    Without ``votes`` the judge alone chooses among all labels, as it does for the tasks of ``alone``. Then the rule
    teacher writes the ``reasoning``.
    """

    votes: int = 8
    temperature: float = 1.0
    judge: str | dict[str, float] = "configured"
    alone: tuple[str, ...] = ()
    reasoning: Literal["policy", "rule"] = "policy"
    choice: Literal["drawn", "best"] = "drawn"
    cells: int | None = None
    weight: float = 1.0
    labelled_share: float = 0.5
    keep_above: float = 0.0
    batch: int = 64
    seed: int = 42


class Work:
    """One set of pseudo-labels, from the cells of a preparation to rows. Mistakes are found before a model loads.

    ``labelled`` are the SFT rows of labelled cells, ``previous`` those of an earlier round. With ``tell_truth`` the
    true labels are counted; nothing else ever reads them. A CellDualityError if no configured task can be asked, no
    cell is without a label, or the judge cannot judge a task.
    """

    def __init__(
        self,
        data: Path,
        config: Config,
        settings: PseudoSettings,
        labelled: Path,
        previous: Path | None = None,
        tell_truth: bool = False,
    ) -> None:
        self._config, self._settings, self._labelled = config, settings, labelled
        self._vocabulary, self._cells = config.load_vocabulary(), data / pseudo.CELLS
        tasks = pseudo.label_tasks(config.load_tasks())
        self._asked, self._rows = pseudo.served(pseudo.read_sft(labelled), tasks)
        asked = {name for names in self._asked.values() for name in names}
        self._tasks = {name: task for name, task in tasks.items() if name in asked}
        self._hidden, self._masks = pseudo.hidden_share(data), masks_in_training(data / "rl.jsonl")
        votes = {name: 0 if name in settings.alone else settings.votes for name in self._tasks}
        how: dict[str, Any] = {"judge": settings.judge, "seed": settings.seed}
        self._panels = {name: Panel(config, name, votes=each, **how) for name, each in votes.items()}
        self.asks_policy = any(panel.asks_policy for panel in self._panels.values())
        self._rule_reasons = settings.reasoning == "rule" or not settings.votes
        every = ((task, row["id"]) for task, row, _ in self._training(labelled=False))
        self._chosen = chosen(every, weight=settings.weight, limit=settings.cells, seed=settings.seed)
        if not self._chosen:
            what = "no training cell without a label, or no row of a task that answers with one"
            hint = "prepare with fewer labelled cells, and with a task such as cell_type_annotation"
            where = f"{self._cells}, {labelled}"
            raise CellDualityError(what, code="nothing-to-label", where=where, hint=hint, exit_code=3)
        self._before = pseudo.previous_labels(previous) if previous else {}
        known = self._training(labelled=False) if tell_truth else ()
        self._truths = {(task, row["id"]): label for task, row, label in known}

    def _training(self, *, labelled: bool) -> Iterator[tuple[str, dict[str, Any], str]]:
        """Yield (task, cell, its label) of training cells that show their label, or that do not."""
        for task, row in pseudo.training_cells(self._cells, self._asked, labelled=labelled):
            yield task, row, str(row[pseudo.kind_of(self._tasks[task])])

    def write(
        self,
        out: Path,
        opened: Callable[[], AbstractContextManager[Players | None]],
        origin: Mapping[str, Any],
        name: str = "",
    ) -> dict[str, Any]:
        """Write the rows whole or not at all, print what they are like, and return that as JSON holds it.

        ``opened`` opens the policy; None will do unless ``asks_policy``. ``origin`` and ``name`` say which policy it
        is: for the file of answers, and for the progress bar.
        """
        how = self._settings
        asking = how.model_dump(mode="json", include={"votes", "temperature", "judge", "alone", "seed"})
        made_from = {
            **origin, "format": "cellduality-opinions", "cells": file_hash(self._cells), "asking": asking,
            "config": self._config.model_dump(mode="json", exclude={"records"}), "hidden": self._hidden,
            "masks": self._masks, "versions": versions(),
        }  # fmt: skip
        with AnswerCache(out.with_suffix(".answers"), made_from) as kept, opened() as players:
            decisions = self._decisions(players, kept, name)
        count, share = 2 * sum(bool(each.label) for each in decisions.values()), how.labelled_share
        rows = {"pseudo": count, "labelled": self._rows}
        rows["times"] = max(1, math.ceil(share / (1 - share) * count / self._rows))
        labelled = (pseudo.read_sft(self._labelled) for _ in range(rows["times"]))
        write_jsonl(out, itertools.chain(self._pseudo_rows(decisions), *labelled))
        shown = Counter((task, label) for task, _, label in self._training(labelled=True))
        found = {task: self._summary(task, decisions, shown) for task in self._tasks}
        for task, own in found.items():
            print(sentence(task, own))
            for alarm in own["alarms"]:
                print(f"alarm: {task}: {alarm}. {LOCKED_IN}")
        print(f"{count} rows of pseudo-labels and {rows['times']} x {self._rows} of labelled cells: {out}")
        return {"tasks": found, "rows": rows, "settings": how.model_dump(), **origin}

    def _questions(self) -> Iterator[Example]:
        for name, row, label in self._training(labelled=False):
            if (name, row["id"]) in self._chosen:
                rng = np.random.default_rng(request_seed(self._settings.seed, "question", name, row["id"]))
                asked = pseudo.question(self._tasks[name], row, hidden=self._hidden, masks=self._masks, rng=rng)
                yield replace(asked, gold=label) if self._panels[name].needs_gold else asked

    def _decisions(self, players: Players | None, kept: AnswerCache, name: str) -> dict[Cell, Decision]:
        how, decisions = self._settings, dict[Cell, Decision]()

        async def ask(example: Example) -> Opinion:
            return await self._panels[example.task].opinion(example, players)

        asking: dict[str, Any] = {"batch": how.batch, "total": len(self._chosen), "name": name}
        for example, opinion in answered(ask, self._questions(), kept, Opinion, **asking):
            chance = luck(how.seed, "label", example.task, example.id)
            decision = decide(opinion, how.choice, how.keep_above, chance)
            decisions[example.task, example.id] = replace(decision, trace="") if self._rule_reasons else decision
        return decisions

    def _summary(
        self, task: str, decisions: Mapping[Cell, Decision], shown: Counter[tuple[str, str]]
    ) -> dict[str, Any]:
        own = {cell: decision for cell, decision in decisions.items() if cell[0] == task}
        labelled = Counter({label: count for (name, label), count in shown.items() if name == task})
        classes = len(self._vocabulary.labels[pseudo.kind_of(self._tasks[task])])
        return summary(own, labelled, classes, self._before, self._truths)

    def _pseudo_rows(self, decisions: Mapping[Cell, Decision]) -> Iterator[dict[str, str]]:
        how = self._settings
        teacher = self._teacher(decisions) if self._rule_reasons else None
        for example in self._questions():
            decision, task = decisions[example.task, example.id], self._tasks[example.task]
            trace, hidden = teacher or decision.trace, self._config.tasks[task.name].hidden or self._hidden
            rng = np.random.default_rng(request_seed(how.seed, "row", task.name, example.id))
            if label := decision.label:
                yield from pseudo.sft_pair(task, example, label, self._vocabulary, trace=trace, hidden=hidden, rng=rng)

    def _teacher(self, decisions: Mapping[Cell, Decision]) -> RuleTeacher:
        """Return the rule teacher, who has learned from labelled cells and from those that were given a label."""
        cells: dict[str, dict[str, Any]] = {}
        known: dict[str, set[str]] = {}
        for labelled in (True, False):
            for task, row, true in self._training(labelled=labelled):
                label = true if labelled else decisions.get((task, row["id"]), Decision("")).label
                if label and (row["id"] in cells or len(cells) < MOST_CELLS):
                    kind = pseudo.kind_of(self._tasks[task])
                    cells.setdefault(row["id"], dict(row))[kind] = label
                    known.setdefault(row["id"], {*self._tasks[task].needs}).add(kind)
        learnt = [pseudo.cell_of(row, sorted(known[cell])) for cell, row in cells.items()]
        return RuleTeacher(learnt, self._vocabulary, self._settings.seed, faults=0.0)
