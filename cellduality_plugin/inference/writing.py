"""Cells that a model writes: of a type, of what an untreated cell becomes, or of whatever a pair asks for."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial

from pydantic import Field

from cellduality_plugin.errors import CellDualityError
from cellduality_plugin.evaluation.audit.contenders import Contender, scorer_of
from cellduality_plugin.evaluation.audit.engine import Players
from cellduality_plugin.evaluation.rounds.labelling import answered
from cellduality_plugin.examples import Example
from cellduality_plugin.inference.asking import Asker, AskSettings
from cellduality_plugin.inference.checkpoint import Checkpoint
from cellduality_plugin.policies.base import Policy, PolicyError
from cellduality_plugin.policies.cache import AnswerCache
from cellduality_plugin.seeds import request_seed
from cellduality_plugin.tasks import DualTask


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


class Writer(Asker):
    """One pair of a checkpoint that answers with genes; a CellDualityError as for :class:`.asking.Asker`."""

    def __init__(self, checkpoint: Checkpoint, task: DualTask, settings: WriteSettings) -> None:
        super().__init__(checkpoint, task, settings)
        self.settings, self._scorer = settings, None
        if settings.verify:
            how = Contender(self.pay.reward, self.pay.hidden, self.pay.traces)
            self._scorer = scorer_of(checkpoint.config, task.name, how)

    def named(self, column: str, value: str) -> str:
        """Return ``value`` as the vocabulary spells it if ``column`` is a label set of the pair; else as it is.

        A CellDualityError if there is no such label.
        """
        if column not in self.task.kinds:
            return value
        if found := self.vocabulary.label(column, value):
            return found
        what, hint = f"the model knows no {column} {value!r}", f"use one of: {self.vocabulary.written(column)}"
        raise CellDualityError(what, code="unknown-label", where=column, hint=hint)

    def write(
        self, examples: Iterable[Example], total: int, players: Players, kept: AnswerCache, name: str = ""
    ) -> list[Written]:
        """Return a written cell for each example; what is in ``kept`` is not asked again."""
        ask, batch = partial(self._written, players=players), self.settings.batch
        asked = answered(ask, examples, kept, Written, batch=batch, total=total, name=name)
        return [found for _, found in asked]

    async def _written(self, example: Example, players: Players) -> Written:
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
