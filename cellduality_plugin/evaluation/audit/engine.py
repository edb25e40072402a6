"""A checkpoint as the players of an audit, in this process, each question asked once: by vLLM, or by transformers."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellduality_plugin.chat import render, token_count
from cellduality_plugin.hub import read_tokenizer
from cellduality_plugin.policies.base import Policy, PolicyError, Question, QuestionPolicy
from cellduality_plugin.policies.endpoint import served_policies
from cellduality_plugin.policies.local import LocalModel, LocalPolicy
from cellduality_plugin.policies.offline import EngineSettings, Served, context_length, served_model, several_cards
from cellduality_plugin.policies.settings import DualSettings, is_address
from cellduality_plugin.policies.sharded import sharded_engine
from cellduality_plugin.policies.tokens import EnginePolicy

COSTS = ("requests", "prefilled", "decoded", "seconds")
"""Calls; tokens read (prompts, and responses whose probability was asked for); tokens written; seconds of the policy's
time, of which each of n calls under way is charged an n-th."""


@dataclass(frozen=True)
class Players:
    """The policies of an audit over one checkpoint, and its tokenizer."""

    tokenizer: Any  # a Hugging Face one, by which costs are counted
    dual: Policy  # plays the dual as in training
    greedy: Policy  # gives the likeliest answer
    sampler: Policy  # draws one at the temperature of a rollout
    at_once: int = field(default=64, kw_only=True)  # calls that keep them busy


@contextlib.contextmanager
def checkpoint_players(
    model: Path, settings: EngineSettings, dual: DualSettings, *, temperature: float, seed: int, backend: str = "vllm"
) -> Iterator[Players]:
    """Open the players over the checkpoint in ``model``; raises as :func:`.offline.served_model`.

    ``temperature`` is that of the sampler, whose draws have seeds that follow from ``seed``. ``backend`` is ``"vllm"``,
    ``"transformers"``, or the address of vLLM servers (:func:`served_policies`).
    """
    others = [DualSettings(temperature=at, max_new_tokens=settings.max_new_tokens) for at in (0.0, temperature)]
    asked = [dual, *others]  # by dual, greedy and sampler

    def over(engine: Any, tokenizer: Any, limit: int, engines: int = 1) -> Players:
        policies = (EnginePolicy(engine, tokenizer, limit, how, seed) for how in asked)
        return Players(tokenizer, *policies, at_once=64 * engines)

    if is_address(backend):
        with served_policies(backend, model, settings, asked, seed) as (tokenizer, policies):
            yield Players(tokenizer, *policies)
        return
    if backend == "transformers":
        local = LocalModel.load(model, max_model_len=settings.max_model_len, max_new_tokens=settings.max_new_tokens)
        yield Players(local.tokenizer, *(LocalPolicy(local, temperature=how.temperature, seed=seed) for how in asked))
        return
    opener = partial(served_model, model, settings, seed=seed)
    if groups := several_cards(settings):
        with sharded_engine(opener, groups) as engine:
            tokenizer, limit = read_tokenizer(str(model), settings.chat_template), context_length(model, settings)
            yield over(engine, tokenizer, limit, len(groups))
        return
    with opener() as served:
        yield over(Stepped(served), served.tokenizer, served.limit)


class Stepped:
    """A vLLM engine with OpenRLHF's asynchronous ``generate``, stepped by the event loop itself.

    Everyone who is ready has asked before a step, so that batches, and with them last digits, depend on no timing.
    """

    def __init__(self, served: Served) -> None:
        self._served = served
        self._waiting: dict[str, asyncio.Future[Any]] = {}
        self._numbers = itertools.count(1)
        self._running: asyncio.Task[None] | None = None

    async def generate(self, tokens: list[int], params: Any) -> Any:
        """Return vLLM's output for the prompt ``tokens``."""
        from vllm import TokensPrompt
        from vllm.sampling_params import RequestOutputKind

        params.output_kind = RequestOutputKind.FINAL_ONLY
        name = str(next(self._numbers))
        self._served.llm.llm_engine.add_request(name, TokensPrompt(prompt_token_ids=tokens), params)
        self._waiting[name] = asyncio.get_running_loop().create_future()
        if self._running is None or self._running.done():
            self._running = asyncio.ensure_future(self._run())
        return await self._waiting[name]

    async def _run(self) -> None:
        try:
            while self._waiting:
                await asyncio.sleep(0)
                for output in self._served.llm.llm_engine.step():
                    if output.finished:
                        waiting = self._waiting.pop(output.request_id)
                        if not waiting.done():  # the caller may have given up
                            waiting.set_result(output)
                await asyncio.sleep(0)
        except Exception as error:  # the engine's failure is that of all who wait for it
            for waiting in self._waiting.values():
                if not waiting.done():
                    waiting.set_exception(error)
            self._waiting.clear()


class Remembering:
    """Asks the dual of ``players`` each question once, however many accounts put it: ``at_once`` of them at a time.

    A call fails after ``timeout`` seconds; waiting for others to finish does not count.
    """

    def __init__(self, players: Players, *, timeout: float | None = None) -> None:
        self._players, self._timeout, self._room = players, timeout, asyncio.Semaphore(players.at_once)
        self.calls: dict[Question, asyncio.Future[tuple[Any, NDArray[np.float64]]]] = {}
        self._under_way, self._clock, self._shared = 0, 0.0, 0.0

    async def call(self, question: Question) -> tuple[Any, NDArray[np.float64]]:
        """Return the result of ``question``, which may be a PolicyError, and its costs."""
        result: Any
        async with self._room:
            begun = self._tick(+1)
            try:
                result = await asyncio.wait_for(question.put_to(self._players.dual), self._timeout)
            except (asyncio.TimeoutError, PolicyError) as failure:
                result = PolicyError(getattr(failure, "cause", "timeout"))
            finally:
                seconds = self._tick(-1) - begun
        if isinstance(result, PolicyError):
            return result, np.array([1.0, 0.0, 0.0, seconds])
        tokenizer, scored = self._players.tokenizer, question.given + (question.response or "")
        read = len(render(tokenizer, question.prompt)) + token_count(tokenizer, scored)
        written = token_count(tokenizer, result) + 1 if isinstance(result, str) else 1
        return result, np.array([1.0, read, written, seconds])

    def _tick(self, more: int) -> float:
        """Return the seconds that a call which was under way from the beginning is charged up to now."""
        now = time.monotonic()
        if self._under_way:
            self._shared += (now - self._clock) / self._under_way
        self._clock = now
        self._under_way += more
        return self._shared


class Account(QuestionPolicy):
    """A policy over :class:`Remembering`, charged (``costs``, by :data:`COSTS`) as if it had asked alone.

    A prompt's n-th draw is the same in every account.
    """

    def __init__(self, memory: Remembering) -> None:
        super().__init__()
        self.costs = np.zeros(len(COSTS))
        self._memory = memory

    async def answer(self, question: Question) -> Any:
        """Return the answer that is remembered, or asked for now."""
        calls = self._memory.calls
        if question not in calls:
            calls[question] = asyncio.ensure_future(self._memory.call(question))
        result, costs = await asyncio.shield(calls[question])
        self.costs = self.costs + costs
        if isinstance(result, PolicyError):
            raise PolicyError(result.cause)
        return result
