"""Cells that a model writes: of a type, of what an untreated cell becomes, or of whatever a pair asks for."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial

import numpy as np
from pydantic import Field

from cellduality_plugin.cell_sentences import Cell
from cellduality_plugin.errors import CellDualityError
from cellduality_plugin.evaluation.audit.contenders import Contender
from cellduality_plugin.evaluation.audit.engine import Players
from cellduality_plugin.evaluation.audit.judging import scorer_of
from cellduality_plugin.evaluation.rounds.labelling import answered
from cellduality_plugin.examples import Example
from cellduality_plugin.inference.checkpoint import Checkpoint
from cellduality_plugin.policies.base import Policy, PolicyError
from cellduality_plugin.policies.cache import AnswerCache
from cellduality_plugin.rewards import get_reward
from cellduality_plugin.seeds import request_seed
from cellduality_plugin.settings import Settings
from cellduality_plugin.tasks import DualTask
from data_prep.views import known_by


class WriteSettings(Settings):
    """How cells are written.

    Parameters
    ----------
    verify
        Cells drawn for each question, each judged by the reward of training: the best paid one is kept, the first of
        equals. 0: one drawn cell, which nobody judges.
    temperature, batch, seed
        Of the draws; questions that are asked together, and then kept; and of every draw.
    """

    verify: int = Field(4, ge=0)
    temperature: float = Field(1.0, gt=0)
    batch: int = Field(64, ge=1)
    seed: int = 42


@dataclass(frozen=True)
class Written:
    """A written cell.

    ``genes`` are in descending order of expression, unique, and none if nothing could be read, for which ``failure`` is
    the reason. ``validity`` and ``reward`` are in [0, 1]; the reward is None if nobody judged.
    """

    genes: tuple[str, ...]
    validity: float
    reward: float | None
    failure: str
    reasoning: str


class Writer:
    """One pair of a checkpoint that answers with genes, ready to be asked.

    Raises
    ------
    CellDualityError
        If the model was not trained on the pair, or cells shall be verified by a reward that reads the true one.
    """

    def __init__(self, checkpoint: Checkpoint, settings: WriteSettings, task: DualTask) -> None:
        self.task, self.settings, self.genes = task, settings, checkpoint.genes_of(task.name)
        self.vocabulary = checkpoint.config.load_vocabulary()
        self.columns = tuple(column for column in task.needs if column != "control")
        own = checkpoint.config.tasks[task.name]
        self._hidden = own.hidden or checkpoint.notes["hidden"]
        self._scorer = None
        if settings.verify:
            if get_reward(own.reward, checkpoint.config.folder).needs_gold:
                raise CellDualityError(
                    "the reward of this task reads the true cell, which is not known here",
                    code="reward-needs-gold",
                    where=f"tasks.{task.name}.reward",
                    hint="pack the model with another configuration, or write with --verify 0",
                )
            self._scorer = scorer_of(checkpoint.config, task.name, Contender(own.reward, own.hidden, own.traces))

    def named(self, column: str, value: str) -> str:
        """Return ``value`` as the vocabulary spells it, if ``column`` is a label set that the pair uses.

        Raises
        ------
        CellDualityError
            If there is no such label.
        """
        if column not in self.task.kinds:
            return value
        if found := self.vocabulary.label(column, value):
            return found
        raise CellDualityError(
            f"the model knows no {column} {value!r}",
            code="unknown-label",
            where=column,
            hint=f"use one of: {self.vocabulary.written(column)}",
        )

    def questions(self, cells: Iterable[Cell], known: Mapping[str, Mapping[str, str]]) -> Iterator[Example]:
        """Yield the question about each cell, of which ``known`` is shown by its id; it is its own untreated cell."""
        for cell in cells:
            rng = np.random.default_rng(request_seed(self.settings.seed, "question", cell.id))
            shown = known_by(replace(cell, obs={}, condition={}), known[cell.id])
            if "control" in self.task.needs:
                shown = replace(shown, control=cell.genes)
            yield self.task.example(shown, hidden=self._hidden, labelled=False, rng=rng)

    def write(
        self, examples: Iterable[Example], total: int, players: Players, kept: AnswerCache, name: str = ""
    ) -> list[Written]:
        """Return a written cell for each example; what is in ``kept`` is not asked again."""
        ask = partial(self._written, players=players)
        asked = answered(ask, examples, kept, batch=self.settings.batch, total=total, name=name)
        found = (json.loads(text) for _, text in asked)
        return [Written(**{**one, "genes": tuple(one["genes"])}) for one in found]

    async def _written(self, example: Example, players: Players) -> str:
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
        return json.dumps(asdict(Written(tuple(answer.value or ()), valid, rewards[best], failure, answer.trace)))

    async def _draw(self, policy: Policy, prompt: str, example: Example, draw: int) -> tuple[str, str]:
        """Return (a response, "") or ("", why there is none); its seed is its own, however often it is asked."""
        try:
            return await policy.generate(prompt, seed=request_seed(self.settings.seed, example.id, draw)), ""
        except PolicyError as error:
            return "", error.cause
