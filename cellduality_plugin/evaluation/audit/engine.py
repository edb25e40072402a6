"""A checkpoint as the players of an audit, in this process: over one vLLM engine, or by transformers."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from cellduality_plugin.chat import render, token_count
from cellduality_plugin.evaluation.audit.judging import CountTokens
from cellduality_plugin.policies.base import Policy
from cellduality_plugin.policies.engine import EnginePolicy
from cellduality_plugin.policies.local import LocalModel, LocalPolicy
from cellduality_plugin.policies.offline import EngineSettings, Served, served_model
from cellduality_plugin.policies.settings import DualSettings
from cellduality_plugin.seeds import request_seed


@dataclass(frozen=True)
class Players:
    """The policies of an audit over one checkpoint, and its tokenizer."""

    dual: Policy  # plays the dual as in training
    greedy: Policy  # gives the likeliest answer
    sampler: Policy  # draws one at the temperature of a rollout
    prompt_tokens: CountTokens  # of a prompt, with the chat template
    response_tokens: CountTokens

    @classmethod
    def over(cls, tokenizer: Any, policies: Iterable[Policy]) -> Players:
        """Return the players dual, greedy and sampler, whose tokens are counted by ``tokenizer``."""
        dual, greedy, sampler = policies
        return cls(dual, greedy, sampler, lambda text: len(render(tokenizer, text)), partial(token_count, tokenizer))


@contextlib.contextmanager
def checkpoint_players(
    model: Path, settings: EngineSettings, dual: DualSettings, *, temperature: float, seed: int, backend: str = "vllm"
) -> Iterator[Players]:
    """Open the players over the checkpoint in ``model``; raises as :func:`.offline.served_model`.

    Answers are sampled at ``temperature``. Every draw has a seed of its own that follows from ``seed``. ``backend`` is
    ``"vllm"`` or ``"transformers"``, with nothing to start.
    """
    if backend == "transformers":
        local = LocalModel.load(model, max_model_len=settings.max_model_len, max_new_tokens=settings.max_new_tokens)
        at = dual.temperature, 0.0, temperature
        yield Players.over(local.tokenizer, (LocalPolicy(local, temperature=each, seed=seed) for each in at))
        return
    with served_model(model, settings, seed=seed) as served:
        engine = Stepped(served)
        tokens = settings.max_new_tokens
        others = (DualSettings(temperature=at, max_new_tokens=tokens) for at in (0.0, temperature))
        yield Players.over(served.tokenizer, (SeededPolicy(engine, served, how, seed) for how in (dual, *others)))


class SeededPolicy(EnginePolicy):
    """The policy of training, whose draws depend on nothing but the seed, the prompt and their number."""

    def __init__(self, engine: Stepped, served: Served, settings: DualSettings, seed: int) -> None:
        super().__init__(engine, served.tokenizer, served.limit, settings)
        self._seed = seed
        self._draws: Counter[int] = Counter()  # by a hash: a million prompts are gigabytes

    def _sampling(self, prompt: str, limit: int, seed: int | None = None, temperature: float | None = None) -> Any:
        params = super()._sampling(prompt, limit, seed, temperature)
        if params.temperature and seed is None:
            params.seed = request_seed(self._seed, prompt, self._draws[hash(prompt)])
            self._draws[hash(prompt)] += 1
        return params


class Stepped:
    """A vLLM engine with OpenRLHF's asynchronous ``generate``, stepped by the event loop itself.

    vLLM's own asynchronous engine runs in another process: it starts seconds later, and which requests share a batch,
    and with it the last digits of their numbers, depends on timing. Here everyone who is ready has asked before a step.
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
