"""The dual questions of one row: what a reward may ask, and how often the policy is really asked."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

import numpy as np

from cellduality_plugin.examples import Example, Value
from cellduality_plugin.parsing import Answer, OneOf, read_trace
from cellduality_plugin.policies.base import Asked, Memo, Policy, PolicyError, Question
from cellduality_plugin.profiles import Profiles
from cellduality_plugin.seeds import request_seed
from cellduality_plugin.tasks import DualTask
from cellduality_plugin.tasks.base import LabelTask
from cellduality_plugin.vocabulary import Vocabulary

NEGATIVES = 15  # labels that one is compared with where no question lists the set, unless the task says otherwise


def held_against(vocabulary: Vocabulary, kind: str, negatives: int | None) -> int | None:
    """Return with how many others a label of ``kind`` is compared, ``negatives`` being the setting; None: with all."""
    return NEGATIVES if negatives is None and not vocabulary.lists(kind) else negatives


@dataclass(frozen=True)
class Reasoning:
    """The traces that what is hidden is scored after."""

    count: int = 0  # how many are drawn; 0 scores after the empty one
    # ``"log"``: the mean of the log-likelihoods; ``"probability"``: the log of the mean likelihood.
    mean: Literal["log", "probability"] = "log"
    # How they are drawn; the seed of each follows from ``seed``, the prompt and its number.
    temperature: float = 1.0
    seed: int = 0

    def over(self, log_likelihoods: Sequence[float]) -> float:
        if self.mean == "log":
            return math.fsum(log_likelihoods) / len(log_likelihoods)
        return _log_sum_exp(log_likelihoods) - math.log(len(log_likelihoods))


@dataclass(eq=False)
class Dual:
    """The row under judgement and the model that answers its dual. Only typed values go in: a parsed answer, and what
    to rebuild. Every question raises a :class:`PolicyError` if the policy could not be asked, or gave no finite number.
    """

    task: DualTask
    example: Example
    vocabulary: Vocabulary
    policy: Policy
    samples: int = 1  # how many reconstructions are drawn for an answer
    timeout: float | None = None  # seconds after which a call counts as failed
    # The calls of the group so far, and those of all groups in flight: one that was made is not made again.
    asked: Asked = field(default_factory=dict)
    memo: Memo = field(default_factory=Memo)
    reasoning: Reasoning = Reasoning()
    # With how many other labels an answered label is compared; None: as :func:`held_against` has it.
    negatives: int | None = None
    answered: Collection[Value | None] = ()  # by the group: rivals as well where no question lists the set
    profiles: Profiles | None = None  # the class profiles, for rewards that read them
    requests: int = 0  # how many calls really went to the policy through this object
    # What the parser read in the reconstructions that were asked for, whatever the reward made of them.
    reads: list[Answer] = field(default_factory=list)

    async def rebuilt(self, answer: Value) -> list[Answer]:
        """Return what the policy rebuilds from ``answer`` in each of the draws, as read by the parser."""
        prompt = self._prompt(answer)
        draws = (self._once(Question(prompt, draw=draw)) for draw in range(self.samples))
        found = [self.task.parse_rebuilt(text, self.vocabulary) for text in await asyncio.gather(*draws)]
        self.reads += found
        return found

    def rivals(self, answer: Value) -> tuple[str, ...]:
        """Return the labels that the answered label is compared with, and that label, in the order of their set.

        All of the set, or ``negatives`` others: the first in an order that depends on the row alone, so that the
        answers of a group share their rivals.
        """
        assert isinstance(self.task.answer, OneOf)
        return self._rivals(self.task.answer.kind, answer)

    def choices(self, kind: str, label: Value) -> tuple[str, ...]:
        """Return all labels of ``kind`` in their order, or of a set that no question lists ``label`` and its rivals."""
        return self.vocabulary.labels[kind] if self.vocabulary.lists(kind) else self._rivals(kind, label)

    def _rivals(self, kind: str, label: Value) -> tuple[str, ...]:
        labels, count = self.vocabulary.labels[kind], held_against(self.vocabulary, kind, self.negatives)
        if count is None:
            return labels
        rng = np.random.default_rng(request_seed("negatives", self.example.id))
        own, order = labels.index(str(label)), rng.permutation(len(labels))[: count + 1].tolist()
        chosen = {own, *[place for place in order if place != own][:count]}
        if not self.vocabulary.lists(kind):
            chosen |= {labels.index(other) for other in self.answered if isinstance(other, str)}
        return tuple(labels[place] for place in sorted(chosen))

    async def log_probs(self, answer: Value, unknown: Value, trace: str | None = None) -> list[float]:
        """Return the natural log-probability of each token of the response that rebuilds ``unknown`` from ``answer``.

        With a ``trace`` only of what follows that reasoning; None for the whole of a response without any.
        """
        prompt, response = self._prompt(answer), self.task.rebuilt_response(unknown, trace or "")
        if trace is None:
            return _finite(await self._once(Question(prompt, response)))
        start = response.index("<answer>")
        return _finite(await self._once(Question(prompt, response[start:], response[:start])))

    async def log_likelihood(self, answer: Value, unknown: Value) -> tuple[float, float]:
        """Return the mean over the traces of (log-likelihood, number of tokens) of the response that rebuilds
        ``unknown``."""
        traces = await self.traces(answer)
        found = await asyncio.gather(*(self.log_probs(answer, unknown, trace) for trace in traces))
        return self.reasoning.over(list(map(math.fsum, found))), math.fsum(map(len, found)) / len(found)

    async def choice_log_probs(self, answer: Value, choices: Sequence[Value]) -> list[float]:
        """Return how likely it is that each of ``choices`` is rebuilt from ``answer``, relative to the others.

        Natural log-probabilities, in the order of ``choices``, up to a number that they share: of the tokens at which
        their responses branch, the mean over the traces. One call for each trace.
        """
        prompt, traces = self._prompt(answer), await self.traces(answer)
        responses = [tuple(self.task.rebuilt_response(choice, trace or "") for choice in choices) for trace in traces]
        calls = (self._once(Question(prompt, choices=each)) for each in responses)
        found = [_finite(each) for each in await asyncio.gather(*calls)]
        if traces == [None]:
            return found[0]
        # What the choices share differs from trace to trace: it has to go before their probabilities are averaged.
        even = [[value - _log_sum_exp(values) for value in values] for values in found]
        return [self.reasoning.over(values) for values in zip(*even, strict=True)]

    async def answer_log_probs(self, choices: Sequence[Value]) -> list[float]:
        """Return how likely each of ``choices`` is as the answer about the whole cell, relative to the others.

        As :meth:`choice_log_probs`, after no reasoning; for tasks that name a label of a cell.
        """
        assert isinstance(self.task, LabelTask)
        inputs = {**self.example.inputs, "cell": self.task.whole(self.example)}
        prompt = self.task.primal_prompt(inputs, self.vocabulary)
        return _finite(await self._once(Question(prompt, choices=tuple(map(self.task.answer_response, choices)))))

    async def traces(self, answer: Value) -> list[str | None]:
        """Return the reasoning of the policy over the dual of ``answer``, of each draw; [None] if none is drawn."""
        how, prompt = self.reasoning, self._prompt(answer)
        if not how.count:
            return [None]
        seeds = (request_seed(how.seed, prompt, number) for number in range(how.count))
        draws = (self._once(Question(prompt, seed=seed, temperature=how.temperature)) for seed in seeds)
        return list(map(read_trace, await asyncio.gather(*draws)))

    def _prompt(self, answer: Value) -> str:
        return self.task.dual_prompt(self.example.known, answer, self.vocabulary)

    async def _once(self, question: Question) -> Any:
        if question not in self.asked:
            self.asked[question], new = self.memo.once(question, partial(self._bounded, question))
            self.requests += new
        # Another answer may wait for the same call: to give up on it is not to cancel it.
        return await asyncio.shield(self.asked[question])

    async def _bounded(self, question: Question) -> Any:
        try:
            return await asyncio.wait_for(question.put_to(self.policy), self.timeout)
        except asyncio.TimeoutError:
            raise PolicyError("timeout") from None


def _log_sum_exp(values: Sequence[float]) -> float:
    best = max(values)
    return best + math.log(math.fsum(math.exp(value - best) for value in values))


def _finite(found: list[float]) -> list[float]:
    if not found or not all(map(math.isfinite, found)):
        raise PolicyError("not_finite")
    return found
