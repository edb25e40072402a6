"""Cells that a model writes, as AnnData: of a type, what untreated cells become, or what any pair asks for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas
from anndata import AnnData
from numpy.typing import NDArray
from pydantic import Field

from cellduality_plugin.cell_sentences import Cell
from cellduality_plugin.errors import CellDualityError
from cellduality_plugin.evaluation.audit.engine import Players
from cellduality_plugin.evaluation.audit.run import scorer_of
from cellduality_plugin.evaluation.embedding import profile_name, rank_profile
from cellduality_plugin.evaluation.generated import RANK, RANK_IS, as_anndata, write_anndata
from cellduality_plugin.evaluation.predictions import model_hash, versions
from cellduality_plugin.examples import Example
from cellduality_plugin.inference.asking import PROVENANCE, Asker, AskSettings, Cells, refuse_taken_keys
from cellduality_plugin.inference.checkpoint import Checkpoint
from cellduality_plugin.parsing import Genes
from cellduality_plugin.perturbations import CONTROL
from cellduality_plugin.policies.base import Policy, PolicyError
from cellduality_plugin.policies.cache import AnswerCache
from cellduality_plugin.seeds import request_seed
from cellduality_plugin.tasks import DualTask
from data_prep.cells import RankedCells

KEY = "cellduality"
"""The first part of the columns of ``obs`` that say of each written cell what was asked and how it was answered."""
_FOUND = ("validity", "reward", "failure", "reasoning")


class WriteSettings(AskSettings):
    """How cells are written: of ``verify`` draws the one that the reward of training pays best, the first of equals."""

    verify: int = Field(4, ge=0)


@dataclass(frozen=True)
class Written:
    """A written cell: unique genes in descending order of expression; none if nothing could be read."""

    genes: Sequence[str]
    validity: float  # in [0, 1]
    reward: float | None  # in [0, 1]; None if nobody judged
    failure: str  # why nothing could be read
    reasoning: str


def cell_pair(checkpoint: Checkpoint, name: str, *, from_control: bool = False) -> DualTask:
    """Return the pair called ``name``, or else the first one that writes cells, from an untreated one or from nothing.

    A CellDualityError if there is no such pair, or it does not answer with genes.
    """
    tasks = [checkpoint.task(name)] if name else list(checkpoint.config.load_tasks().values())
    fit = [task for task in tasks if isinstance(task.answer, Genes)]
    if not name:
        fit = [task for task in fit if task.needs and ("control" in task.needs) == from_control]
    if fit:
        return fit[0]
    what = f"{name!r} answers with a label" if name else "the model was trained on no such pair"
    hint = "name one that writes cells with --task; `cellduality predict` asks any"
    raise CellDualityError(what, code="no-cell-task", where=str(checkpoint.model), hint=hint)


class Writer(Asker[AnnData]):
    """One pair of a checkpoint that answers with genes; a CellDualityError as for :class:`.asking.Asker`.

    Untreated cells are those with ``control``, (column, value) of ``obs``; None: all are, or, where the perturbation is
    given and there is a column ``perturbation``, those that are called ``"control"`` in it. Names of new columns begin
    with ``key``.
    """

    settings: WriteSettings
    answer = Written

    def __init__(self, checkpoint: Checkpoint, task: DualTask, settings: Mapping[str, Any], **how: Any) -> None:
        super().__init__(checkpoint, task, WriteSettings.read(settings, where="write"), **how)
        self.key = self.key or KEY
        if self.control is not None and not isinstance(self.control, tuple):
            what, hint = f"{task.name} writes cells from untreated ones of the input itself", "give them as the input"
            raise CellDualityError(what, code="no-control", where="--control", hint=hint)
        self._scorer = scorer_of(checkpoint.config, task.name) if self.settings.verify else None

    def of_nothing(self, rows: Sequence[Mapping[str, str]], length: int) -> AnnData:
        """Return a written cell of ``length`` genes for each of ``rows``, of which each says what is asked for.

        A CellDualityError if the pair asks about a cell, something that it shows is missing, or there are not so many
        genes.
        """
        if not rows:
            raise CellDualityError("no cell was asked for", code="wrong-count", where="-n", hint="ask for one at least")
        if missing := sorted(set(self.columns) - set(rows[0])):
            hint = f"give it: --{missing[0].replace('_', '-')} or --set {missing[0]}=VALUE"
            raise CellDualityError(f"no {missing[0]!r}, which the question shows", code="missing-value", hint=hint)
        self.refuse_unshown(rows[0])
        rows = [{column: self._named(column, row[column]) for column in self.columns} for row in rows]
        genes = sorted(self.genes)
        if not 1 <= length <= len(genes):
            hint = f"choose from 1 to {len(genes)}, the genes that the model knows"
            raise CellDualityError(f"cells of {length} genes", code="wrong-length", where="--length", hint=hint)
        names = [f"{' '.join(row.values())} {number}" for number, row in enumerate(rows, start=1)]
        known = {f"{KEY}/{name}": row for name, row in zip(names, rows, strict=True)}
        # Its genes stand for their number alone: a question that shows any of them is about a cell.
        first, tops = next(iter(known)), (genes[:length], genes[::-1][:length])
        one, other = (next(self.questions([Cell(first, tuple(top))], known)) for top in tops)
        if "control" in self.task.needs or (one.inputs, one.known) != (other.inputs, other.known):
            what, hint = f"{self.task.name} asks about a cell", f"cellduality predict {self.task.name} CELLS.h5ad"
            raise CellDualityError(what, code="needs-cells", where="--task", hint=hint)
        cells = (Cell(name, tuple(genes[:length])) for name in known)
        found = [*self.answers(self.questions(cells, known), len(known), self.task.name)]
        asked = {column: [row[column] for row in rows] for column in self.columns}
        return self._as_anndata(found, pandas.DataFrame(index=names), {**asked, "length": [length] * len(rows)})

    def of_cells(self, cells: Cells, source: str, kept: AnswerCache | None, others: Cells | None) -> AnnData:
        obs = cells[1]
        if not obs.index.is_unique:
            hint = "call adata.obs_names_make_unique()"
            raise CellDualityError("two cells share a name", code="duplicate-names", where=source, hint=hint)
        refuse_taken_keys(obs, [f"{self.key}_{name}" for name in (*_FOUND, *self.columns)])
        for column, value in self.given.items():
            self._named(column, value)
        ranked, origin = self.readable(cells[0], source)
        if "control" in self.task.needs:
            ranked = self._untreated(ranked, obs)
        known = ranked.known(self.columns)
        for column in self.columns:  # each value once: an atlas has few
            spelled = {value: self._named(column, value) for value in {each[column] for each in known.values()}}
            for each in known.values():
                each[column] = spelled[each[column]]
        found = [*self.answers(self.questions(ranked, known), len(ranked), source, kept)]
        asked = {column: [each[column] for each in known.values()] for column in self.columns}
        rows = obs.set_axis(obs.index.astype(str)).loc[ranked.obs.index.astype(str)]
        return self._as_anndata(found, rows, asked, **origin)

    def write(self, found: AnnData, source: Path, out: Path) -> None:
        """Write the cells, with all that is known of those of the file ``source``."""
        write_anndata(out, found)

    def _named(self, column: str, value: str) -> str:
        """Return ``value`` as the vocabulary spells it if ``column`` is a label set of the pair; else as it is."""
        if column not in self.task.kinds:
            return value
        if found := self.vocabulary.label(column, value):
            return found
        what, hint = f"the model knows no {column} {value!r}", f"use one of: {self.vocabulary.written(column)}"
        raise CellDualityError(what, code="unknown-label", where=column, hint=hint)

    def _untreated(self, ranked: RankedCells, obs: pandas.DataFrame) -> RankedCells:
        if self.control is None and not ("perturbation" in self.given and "perturbation" in obs):
            return ranked
        column, value = self.control if isinstance(self.control, tuple) else ("perturbation", CONTROL)
        if column not in obs:
            hint = f"there is {', '.join(map(str, obs.columns)) or 'none'}"
            raise CellDualityError(f"no column {column!r} in obs", code="unknown-column", where="--control", hint=hint)
        values = obs[column].astype(str).set_axis(obs.index.astype(str))
        chosen = (values.loc[ranked.obs.index.astype(str)] == value).to_numpy()
        if not chosen.any():
            there = ", ".join(sorted(set(values))[:5])
            hint = f"say which cells are untreated with --control COLUMN=VALUE; obs[{column!r}] holds {there}"
            raise CellDualityError(f"no cell has {column} {value!r}", code="no-control", where=ranked.source, hint=hint)
        return replace(ranked, top=ranked.top[chosen], obs=ranked.obs[chosen])

    async def ask(self, example: Example, players: Players) -> Written:
        """Return the best of several draws."""
        prompt = self.task.primal_prompt(example.inputs, self.vocabulary)
        draws = range(self.settings.verify or 1)
        texts = await asyncio.gather(*(self._draw(players.sampler, prompt, example, draw) for draw in draws))
        rewards: list[float | None] = [None] * len(texts)
        if self._scorer:
            group, scorer = self._scorer.group(example.to_label()), self._scorer
            scores = await asyncio.gather(*(scorer.score(text, group, players.dual) for text, _ in texts))
            rewards = [score.reward for score in scores]
        answers = [self.task.parse_answer(text, self.vocabulary) for text, _ in texts]
        best = max(draws, key=lambda draw: (answers[draw].value is not None, rewards[draw] or 0.0))
        answer = answers[best]
        valid = 0.0 if answer.value is None else self.task.validity(example, answer)
        failure = texts[best][1] or answer.failure
        return Written(answer.value or (), valid, rewards[best], failure, answer.trace)

    async def _draw(self, policy: Policy, prompt: str, example: Example, draw: int) -> tuple[str, str]:
        """Return (a response, "") or ("", why there is none); its seed is its own, however often it is asked."""
        try:
            return await policy.generate(prompt, seed=request_seed(self.settings.seed, example.id, draw)), ""
        except PolicyError as error:
            return "", error.cause

    def _as_anndata(
        self, found: Sequence[Written], obs: pandas.DataFrame, asked: Mapping[str, Sequence[Any]], **origin: Any
    ) -> AnnData:
        """Return the written cells over the genes of the vocabulary; one that could not be read has none."""
        notes, model = self.checkpoint.notes, self.checkpoint.model
        top = max([notes["top_genes"], *(len(one.genes) for one in found)])
        line = notes.get("line", {}).get(self.task.name)
        expression, what = expression_by(line, top)
        own: dict[str, Any] = {**asked, **{name: [getattr(one, name) for one in found] for name in _FOUND}}
        own["reward"] = np.array(own["reward"], dtype=float)  # NaN where nobody judged
        obs = obs.assign(**{f"{self.key}_{name}": values for name, values in own.items()})
        result = as_anndata([one.genes for one in found], self.vocabulary.genes, top, obs, expression)
        result.uns[PROVENANCE] = {
            "model": str(model), "weights": model_hash(model), "packed": self.checkpoint.hash,
            "task": self.task.name, **self.settings.model_dump(), **origin, "X": what, RANK: RANK_IS,
            "given": self.given, "control": "=".join(self.control) if isinstance(self.control, tuple) else "",
            "versions": versions(),
        }  # fmt: skip
        if line:
            result.uns["log1p"] = {}  # what scanpy goes by
        return result


def expression_by(
    line: Mapping[str, Any] | None, top: int
) -> tuple[Callable[[NDArray[np.int32]], NDArray[np.float64]], str]:
    """Return (expression at ranks, which count from 1, at least 0; what that is, in words).

    Without a line it is what evaluation measures with, and is not fitted.

    Examples
    --------
    >>> line = {"intercept": 3.0, "slope": -1.0, "r2": 0.9, "cells": 7, "sets": ["a"], "unit": "log1p"}
    >>> expression, what = expression_by(line, 64)
    >>> expression(np.array([1, 2, 99])).round(3).tolist()
    [3.0, 2.307, 0.0]
    >>> what
    '3 - 1*log(rank), at least 0: the line fitted to log1p of 7 training cells (a), R2 of the means 0.90; ...'
    """
    if line is None:
        what = f"{profile_name(top)}, a proxy of expression that is not fitted; 0 for genes that are not listed"
        return lambda ranks: np.append(rank_profile(top), 0.0)[np.minimum(ranks - 1, top)], what
    return lambda ranks: np.maximum(0.0, line["intercept"] + line["slope"] * np.log(ranks)), (
        f"{line['intercept']:.4g} - {-line['slope']:.4g}*log(rank), at least 0: the line fitted to {line['unit']} of "
        f"{line['cells']} training cells ({', '.join(line['sets'])}), R2 of the means {line['r2']:.2f}; "
        "0 for genes that are not listed"
    )
