"""The dual questions of one row: what a reward may ask, and how often the policy is really asked."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import numpy as np

from cellduality_plugin.examples import Example, Value
from cellduality_plugin.parsing import Answer, OneOf, read_trace
from cellduality_plugin.policies.base import After, Policy, PolicyError, Question, Trace
from cellduality_plugin.policies.memo import Asked, Memo
from cellduality_plugin.profiles import Profiles
from cellduality_plugin.seeds import request_seed
from cellduality_plugin.tasks import DualTask
from cellduality_plugin.tasks.base import LabelTask
from cellduality_plugin.vocabulary import Vocabulary

Result = TypeVar("Result")


@dataclass(frozen=True)
class Reasoning:
    """The traces that what is hidden is scored after.

    Parameters
    ----------
    count
        How many are drawn; 0 scores after the empty one.
    mean
        ``"log"``: the mean of the log-likelihoods; ``"probability"``: the log of the mean likelihood.
    temperature, seed
        How they are drawn; the seed of each follows from ``seed``, the prompt and its number.
    """

    count: int = 0
    mean: Literal["log", "probability"] = "log"
    temperature: float = 1.0
    seed: int = 0

    def over(self, log_likelihoods: Sequence[float]) -> float:
        """Return the mean over the traces.

        Examples
        --------
        >>> Reasoning(2).over([-1.0, -3.0]), round(Reasoning(2, "probability").over([-1.0, -3.0]), 3)
        (-2.0, -1.566)
        """
        if self.mean == "log":
            return math.fsum(log_likelihoods) / len(log_likelihoods)
        return log_sum_exp(log_likelihoods) - math.log(len(log_likelihoods))


def log_sum_exp(values: Sequence[float]) -> float:
    """Return ln(sum of exp(value)), whatever their size.

    Examples
    --------
    >>> round(log_sum_exp([-1000.0, -1000.0]), 4)
    -999.3069
    """
    best = max(values)
    return best + math.log(math.fsum(math.exp(value - best) for value in values))


class Dual:
    """The row under judgement and who plays its dual. Only typed values go in: a parsed answer, and what to rebuild.

    Parameters
    ----------
    task, example, vocabulary
        The dual pair, the row, and the closed world both speak of.
    policy
        Who is asked.
    samples
        How many reconstructions are drawn for an answer.
    timeout
        Seconds after which a call counts as failed.
    asked
        The calls of the group so far: one that was made is not made again.
    memo
        Those of all groups in flight, for the same reason.
    reasoning
        The traces after which what is hidden is scored.
    negatives
        How many other labels an answered label is held against; None: all.
    profiles
        The class profiles, for rewards that read them.

    Attributes
    ----------
    requests : int
        The calls that really went to the policy through this object.
    reads : list of Answer
        What the parser read in the reconstructions that were asked for, whatever the reward made of them.
    """

    def __init__(
        self,
        task: DualTask,
        example: Example,
        vocabulary: Vocabulary,
        policy: Policy,
        *,
        samples: int = 1,
        timeout: float | None = None,
        asked: Asked | None = None,
        memo: Memo | None = None,
        reasoning: Reasoning = Reasoning(),
        negatives: int | None = None,
        profiles: Profiles | None = None,
    ) -> None:
        self.task, self.example, self.vocabulary = task, example, vocabulary
        self.requests = 0
        self.reads: list[Answer] = []
        self._policy, self._samples, self._timeout = policy, samples, timeout
        self._asked: Asked = {} if asked is None else asked
        self._memo = Memo() if memo is None else memo
        self._reasoning, self._negatives, self.profiles = reasoning, negatives, profiles

    async def rebuilt(self, answer: Value) -> list[Answer]:
        """Return what the policy rebuilds from ``answer`` in each of the draws, as read by the parser.

        Raises
        ------
        PolicyError
            If the policy could not be asked.
        """
        prompt = self._prompt(answer)
        draws = (self._once((prompt, draw), lambda: self._policy.generate(prompt)) for draw in range(self._samples))
        found = [self.task.parse_rebuilt(text, self.vocabulary) for text in await asyncio.gather(*draws)]
        self.reads += found
        return found

    def rivals(self, answer: Value) -> tuple[str, ...]:
        """Return the labels that the answered label is held against, and that label, in the order of their set.

        All of the set, or so many others as the settings say: the first in an order that hangs on the row alone, so
        that the answers of a group share their rivals.
        """
        assert isinstance(self.task.answer, OneOf)
        labels = self.vocabulary.labels[self.task.answer.kind]
        if self._negatives is None:
            return labels
        rng = np.random.default_rng(request_seed("negatives", self.example.id))
        order = [labels[place] for place in rng.permutation(len(labels))]
        others = [label for label in order if label != answer][: self._negatives]
        return tuple(label for label in labels if label == answer or label in others)

    async def log_probs(self, answer: Value, unknown: Value, trace: str | None = None) -> list[float]:
        """Return the natural log-probability of each token of the response that rebuilds ``unknown`` from ``answer``.

        Parameters
        ----------
        trace
            Of what follows this reasoning alone; None for the whole of a response without any.

        Raises
        ------
        PolicyError
            If the policy could not be asked, or said what is no number.
        """
        prompt, response = self._prompt(answer), self.task.rebuilt_response(unknown, trace or "")
        if trace is None:
            return _numbers(await self._once((prompt, response), lambda: self._policy.log_probs(prompt, response)))
        given = response[: response.index("<answer>")]
        rest = response[len(given) :]
        asked = self._once((prompt, After(given, rest)), lambda: self._policy.log_probs(prompt, rest, given=given))
        return _numbers(await asked)

    async def log_likelihood(self, answer: Value, unknown: Value) -> tuple[float, float]:
        """Return (the log-likelihood of the response that rebuilds ``unknown``, its tokens), the mean over the traces.

        Raises
        ------
        PolicyError
            If the policy could not be asked, or said what is no number.
        """
        traces = await self.traces(answer)
        found = await asyncio.gather(*(self.log_probs(answer, unknown, trace) for trace in traces))
        return self._reasoning.over(list(map(math.fsum, found))), math.fsum(map(len, found)) / len(found)

    async def choice_log_probs(self, answer: Value, choices: Sequence[Value]) -> list[float]:
        """Return how likely it is that each of ``choices`` is rebuilt from ``answer``, relative to the others.

        Natural log-probabilities, in the order of ``choices``, up to a number that they share: of the tokens at which
        their responses part, the mean over the traces. One call for each of these.

        Raises
        ------
        PolicyError
            If the policy could not be asked, or said what is no number.
        """
        prompt, traces = self._prompt(answer), await self.traces(answer)
        asked = (
            self._choice(prompt, tuple(self.task.rebuilt_response(choice, trace or "") for choice in choices))
            for trace in traces
        )
        found = await asyncio.gather(*asked)
        if traces == [None]:
            return found[0]
        # What the choices share differs from trace to trace: it has to go before their probabilities are averaged.
        even = [[value - log_sum_exp(values) for value in values] for values in found]
        return [self._reasoning.over(values) for values in zip(*even, strict=True)]

    async def answer_log_probs(self, choices: Sequence[Value]) -> list[float]:
        """Return how likely each of ``choices`` is as the answer about the whole cell, relative to the others.

        As :meth:`choice_log_probs`, after no reasoning; for tasks that name a label of a cell.

        Raises
        ------
        PolicyError
            If the policy could not be asked, or said what is no number.
        """
        assert isinstance(self.task, LabelTask)
        inputs = {**self.example.inputs, "cell": self.task.whole(self.example)}
        prompt = self.task.primal_prompt(inputs, self.vocabulary)
        return await self._choice(prompt, tuple(map(self.task.answer_response, choices)))

    async def traces(self, answer: Value) -> list[str | None]:
        """Return the reasoning of the policy over the dual of ``answer``, one for each draw; [None] if none is drawn.

        Raises
        ------
        PolicyError
            If the policy could not be asked.
        """
        how, prompt = self._reasoning, self._prompt(answer)
        if not how.count:
            return [None]

        def drawn(seed: int) -> Awaitable[str]:
            return self._once(
                (prompt, Trace(seed)), lambda: self._policy.generate(prompt, seed=seed, temperature=how.temperature)
            )

        seeds = (request_seed(how.seed, prompt, number) for number in range(how.count))
        return list(map(read_trace, await asyncio.gather(*map(drawn, seeds))))

    def _prompt(self, answer: Value) -> str:
        return self.task.dual_prompt(self.example.known, answer, self.vocabulary)

    async def _choice(self, prompt: str, responses: tuple[str, ...]) -> list[float]:
        asked = self._once((prompt, responses), lambda: self._policy.choice_log_probs(prompt, responses))
        return _numbers(await asked)

    async def _once(self, question: Question, ask: Callable[[], Awaitable[Result]]) -> Result:
        if question not in self._asked:
            call = self._memo.get(question)
            if call is None:
                self.requests += 1
                call = asyncio.ensure_future(self._bounded(ask()))
                call.add_done_callback(_look)
                self._memo.keep(question, call)
            self._asked[question] = call
        # Another answer may wait for the same call: to give up on it is not to cancel it.
        result: Result = await asyncio.shield(self._asked[question])
        return result

    async def _bounded(self, call: Awaitable[Result]) -> Result:
        try:
            return await asyncio.wait_for(call, self._timeout)
        except asyncio.TimeoutError:
            raise PolicyError("timeout") from None


def _numbers(found: list[float]) -> list[float]:
    if not found or not all(map(math.isfinite, found)):
        raise PolicyError("not_finite")
    return found


def _look(call: asyncio.Future[Any]) -> None:
    """Take note of how a call ended: asyncio complains of a failure that nobody was left to hear of."""
    if not call.cancelled():
        call.exception()
