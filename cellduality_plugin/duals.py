"""The dual questions of one row: what a reward may ask, and how often the policy is really asked."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeAlias, TypeVar

from cellduality_plugin.examples import Example, Value
from cellduality_plugin.parsing import Answer
from cellduality_plugin.policy import Policy, PolicyError
from cellduality_plugin.tasks import DualTask
from cellduality_plugin.vocabulary import Vocabulary

Result = TypeVar("Result")

Question: TypeAlias = tuple[str, "str | int | tuple[str, ...]"]
"""A prompt, and a response, the number of a draw, or the responses to choose among."""
Asked: TypeAlias = dict[Question, "asyncio.Future[Any]"]
"""What was asked already, with the answers that came or will come."""


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
    ) -> None:
        self.task, self.example, self.vocabulary = task, example, vocabulary
        self.requests = 0
        self.reads: list[Answer] = []
        self._policy, self._samples, self._timeout = policy, samples, timeout
        self._asked: Asked = {} if asked is None else asked

    async def rebuilt(self, answer: Value) -> list[Answer]:
        """Return what the policy rebuilds from ``answer`` in each of the draws, as read by the parser.

        Raises
        ------
        PolicyError
            If the policy could not be asked.
        """
        prompt = self.task.dual_prompt(self.example.known, answer, self.vocabulary)
        draws = (self._once((prompt, draw), lambda: self._policy.generate(prompt)) for draw in range(self._samples))
        found = [self.task.parse_rebuilt(text, self.vocabulary) for text in await asyncio.gather(*draws)]
        self.reads += found
        return found

    async def log_probs(self, answer: Value, unknown: Value) -> list[float]:
        """Return the natural log-probability of each token of the response that rebuilds ``unknown`` from ``answer``.

        Raises
        ------
        PolicyError
            If the policy could not be asked, or said what is no number.
        """
        prompt = self.task.dual_prompt(self.example.known, answer, self.vocabulary)
        response = self.task.rebuilt_response(unknown)
        return _numbers(await self._once((prompt, response), lambda: self._policy.log_probs(prompt, response)))

    async def choice_log_probs(self, answer: Value, choices: Sequence[Value]) -> list[float]:
        """Return how likely it is that each of ``choices`` is rebuilt from ``answer``, relative to the others.

        Natural log-probabilities, in the order of ``choices``, up to a number that they share: of the tokens at which
        their responses part. One call.

        Raises
        ------
        PolicyError
            If the policy could not be asked, or said what is no number.
        """
        prompt = self.task.dual_prompt(self.example.known, answer, self.vocabulary)
        responses = tuple(map(self.task.rebuilt_response, choices))
        asked = self._once((prompt, responses), lambda: self._policy.choice_log_probs(prompt, responses))
        return _numbers(await asked)

    async def _once(self, question: Question, ask: Callable[[], Awaitable[Result]]) -> Result:
        if question not in self._asked:
            self.requests += 1
            call = asyncio.ensure_future(self._bounded(ask()))
            call.add_done_callback(_look)
            self._asked[question] = call
        # Another answer of the group may wait for the same call: to give up on it is not to cancel it.
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
