"""Policies that are asked in token ids: what an engine and an endpoint share, and the one over a vLLM engine."""

from __future__ import annotations

import asyncio
import logging
import math
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from cellduality_plugin.chat import decode, render, response_ids
from cellduality_plugin.policies.base import PolicyError
from cellduality_plugin.policies.settings import DualSettings
from cellduality_plugin.seeds import request_seed

Tokens: TypeAlias = list[int]
Prefix: TypeAlias = tuple[int, ...]

_LOG = logging.getLogger(__name__)
_LOGGED: set[type[Exception]] = set()
_MOST_TOKENS = 128  # of one request for log-probabilities (vllm.sampling_params.MAX_LOGPROB_TOKEN_IDS)


def branches_of(responses: Sequence[Sequence[int]]) -> dict[Prefix, list[int]]:
    """Return {prefix that some responses share: the different tokens that follow}, wherever these are two or more.

    ``responses`` are token ids; if one of them is the beginning of another, a ValueError is raised.
    """
    following: dict[Prefix, set[int]] = {}
    distinct = set(map(tuple, responses))
    for response in distinct:
        for place, token in enumerate(response):
            following.setdefault(response[:place], set()).add(token)
    if any(response in following for response in distinct):
        raise ValueError("a response is the beginning of another: how likely each is cannot be read")
    in_order = sorted(following, key=lambda prefix: (len(prefix), prefix))
    return {prefix: sorted(following[prefix]) for prefix in in_order if len(following[prefix]) > 1}


def log_prob_at(branches: Mapping[Prefix, Mapping[int, float]], response: Sequence[int]) -> float:
    """Return the sum of the log-probabilities of the tokens of ``response`` at which others branch off.

    ``branches`` has at each shared prefix the natural log-probability of each token that follows.
    """
    whole = tuple(response)
    return math.fsum(branches[whole[:place]][token] for place, token in enumerate(whole) if whole[:place] in branches)


class TokenPolicy(ABC):
    """A :class:`~cellduality_plugin.policies.base.Policy` over a model that reads and writes token ids.

    Prompts are rendered here as OpenRLHF renders a rollout's, so the same weights see the same tokens. What does not
    fit the context is ``PolicyError("prompt_too_long")``. With a ``seed`` draws depend on it, the prompt and their
    number alone; without one they are the model's own.
    """

    spare = 1  # tokens beside prompt and response that a request for log-probabilities takes: vLLM always decodes one

    def __init__(
        self, tokenizer: Any, temperature: float, seed: int | None = None, *, context: int | None, limit: int | None
    ) -> None:
        self._tokenizer, self._temperature, self._seed = tokenizer, temperature, seed
        self._context, self._limit = context, limit  # tokens of prompt and response, tokens of a response
        self._draws: Counter[int] = Counter()  # by a hash: a million prompts are gigabytes

    async def generate(self, prompt: str, *, seed: int | None = None, temperature: float | None = None) -> str:
        tokens = render(self._tokenizer, prompt)
        at, room = self._temperature if temperature is None else temperature, await self._room(len(tokens))
        if at and seed is None and self._seed is not None:
            seed = request_seed(self._seed, prompt, self._draws[hash(prompt)])
            self._draws[hash(prompt)] += 1
        return await self._write(tokens, room, at, seed)

    async def log_probs(self, prompt: str, response: str, *, given: str = "") -> list[float]:
        tokens, [target] = await self._fitting(prompt, [given + response])
        return (await self._score(tokens, target))[len(response_ids(self._tokenizer, given)) :]

    async def choice_log_probs(self, prompt: str, responses: Sequence[str]) -> list[float]:
        tokens, targets = await self._fitting(prompt, responses)
        branches = branches_of(targets)
        found = await self._choose(tokens, targets, branches) if branches else {}
        return [log_prob_at(found, target) for target in targets]

    async def _choose(
        self, tokens: Tokens, targets: list[Tokens], branches: Mapping[Prefix, Sequence[int]]
    ) -> dict[Prefix, dict[int, float]]:
        """Return the log-probability of each token that follows ``tokens`` and a shared prefix of ``targets``."""
        scores = await asyncio.gather(*(self._score(tokens, target) for target in targets))
        found: dict[Prefix, dict[int, float]] = {prefix: {} for prefix in branches}
        for target, log_probs in zip(targets, scores, strict=True):
            for place, (token, log_prob) in enumerate(zip(target, log_probs, strict=True)):
                if (prefix := tuple(target[:place])) in found:
                    found[prefix][token] = log_prob
        return found

    async def _fitting(self, prompt: str, responses: Sequence[str]) -> tuple[Tokens, list[Tokens]]:
        """Return the tokens of the prompt and of each response, if the longest fits."""
        tokens = render(self._tokenizer, prompt)
        targets = [response_ids(self._tokenizer, response) for response in responses]
        await self._room(len(tokens) + max(map(len, targets)) + self.spare - 1)
        return tokens, targets

    async def _room(self, used: int) -> int:
        """Return how many tokens fit after ``used``, or raise a PolicyError."""
        if self._context is None:
            if self._limit is None:
                raise PolicyError("context_unknown")
            return self._limit
        if used >= self._context:
            raise PolicyError("prompt_too_long")
        return min(self._context - used, self._limit or self._context)

    @abstractmethod
    async def _write(self, tokens: Tokens, room: int, temperature: float, seed: int | None) -> str:
        """Return a response of up to ``room`` tokens."""

    @abstractmethod
    async def _score(self, tokens: Tokens, target: Tokens) -> list[float]:
        """Return the log-probability of each token of ``target`` after ``tokens``."""


class EnginePolicy(TokenPolicy):
    """A policy over OpenRLHF's rollout actor, or anything with its ``generate(token ids, sampling parameters)``.

    Its errors are ``"prompt_too_long"`` and ``"engine_error"``; ``max_length`` is its context in tokens
    (``--data.max_len``). The chat template of ``tokenizer`` frames the dual prompt as it framed the primal one.
    """

    def __init__(
        self, engine: Any, tokenizer: Any, max_length: int, settings: DualSettings, seed: int | None = None
    ) -> None:
        super().__init__(tokenizer, settings.temperature, seed, context=max_length, limit=settings.max_new_tokens)
        self._engine = engine

    async def _write(self, tokens: Tokens, room: int, temperature: float, seed: int | None) -> str:
        sampling = {"temperature": temperature, "max_tokens": room, "skip_special_tokens": False, "seed": seed}
        return decode(self._tokenizer, (await self._ask(tokens, **sampling)).outputs[0].token_ids)

    async def _score(self, tokens: Tokens, target: Tokens) -> list[float]:
        # vLLM always decodes at least one token; the prompt's own log-probs come with the prefill.
        output = await self._ask(tokens + target, temperature=0.0, max_tokens=1, prompt_logprobs=0)
        return [at[token].logprob for token, at in zip(target, output.prompt_logprobs[len(tokens) :], strict=True)]

    async def _choose(
        self, tokens: Tokens, targets: list[Tokens], branches: Mapping[Prefix, Sequence[int]]
    ) -> dict[Prefix, dict[int, float]]:
        # A request for each shared prefix reads the engine's prefix cache, as one for a whole response does not.
        found = await asyncio.gather(*(self._next(tokens + list(at), branches[at]) for at in branches))
        return dict(zip(branches, found, strict=True))

    async def _next(self, tokens: Tokens, following: Sequence[int]) -> dict[int, float]:
        """Return the log-probability of each of ``following`` as the token after ``tokens``."""
        found: dict[int, float] = {}
        for first in range(0, len(following), _MOST_TOKENS):
            wanted = list(following[first : first + _MOST_TOKENS])
            output = await self._ask(tokens, temperature=0.0, max_tokens=1, logprob_token_ids=wanted)
            [at] = output.outputs[0].logprobs
            found |= {token: at[token].logprob for token in wanted}
        return found

    async def _ask(self, tokens: Tokens, **sampling: Any) -> Any:
        from vllm import SamplingParams
        from vllm.exceptions import VLLMError
        from vllm.v1.engine.exceptions import EngineDeadError

        params = SamplingParams(**sampling)
        try:
            return await self._engine.generate(tokens, params)
        except EngineDeadError:  # no further rollout can be made: the run has to end with this error
            raise
        except (VLLMError, ValueError) as error:
            # Of this request alone. The counters say how often; what it was is logged once a kind.
            if type(error) not in _LOGGED:
                _LOGGED.add(type(error))
                _LOG.warning("the engine refused a dual: %s: %.300s", type(error).__name__, error)
            raise PolicyError("engine_error") from error
