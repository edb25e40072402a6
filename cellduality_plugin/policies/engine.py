"""A policy over a vLLM engine, for the agent's executor and the audit."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Any

from cellduality_plugin.chat import decode, render, response_ids
from cellduality_plugin.policies.base import PolicyError
from cellduality_plugin.policies.branching import branches_of, log_prob_at
from cellduality_plugin.policies.settings import DualSettings

_LOG = logging.getLogger(__name__)
_LOGGED: set[type[Exception]] = set()
_MOST_TOKENS = 128  # of one request for log-probabilities (vllm.sampling_params.MAX_LOGPROB_TOKEN_IDS)


class EnginePolicy:
    """A :class:`~cellduality_plugin.policies.base.Policy` over a vLLM engine.

    Its errors are ``"prompt_too_long"`` if prompt and response do not fit, and ``"engine_error"``. ``engine`` is
    OpenRLHF's rollout actor, or anything with its ``generate(token ids, sampling parameters)``; ``max_length`` its
    context in tokens (``--data.max_len``). The chat template of ``tokenizer`` frames the dual prompt as it framed the
    primal one.
    """

    def __init__(self, engine: Any, tokenizer: Any, max_length: int, settings: DualSettings) -> None:
        self._engine, self._tokenizer, self._max_length, self._settings = engine, tokenizer, max_length, settings

    async def generate(self, prompt: str, *, seed: int | None = None, temperature: float | None = None) -> str:
        """Return the response to ``prompt``; at the temperature of the settings, unless another is given."""
        tokens = render(self._tokenizer, prompt)
        room = self._max_length - len(tokens)
        if room < 1:
            raise PolicyError("prompt_too_long")
        params = self._sampling(prompt, min(room, self._settings.max_new_tokens or room), seed, temperature)
        output = await self._ask(tokens, params)
        return decode(self._tokenizer, output.outputs[0].token_ids)

    async def log_probs(self, prompt: str, response: str, *, given: str = "") -> list[float]:
        """Return the log-probability of each token of ``response``, which follows ``given``."""
        from vllm import SamplingParams

        tokens, [target] = self._fitting(prompt, [given + response])
        # vLLM always decodes at least one token; the prompt's own log-probs come with the prefill.
        output = await self._ask(tokens + target, SamplingParams(temperature=0.0, max_tokens=1, prompt_logprobs=0))
        found = [at[token].logprob for token, at in zip(target, output.prompt_logprobs[len(tokens) :], strict=True)]
        return found[len(response_ids(self._tokenizer, given)) :]

    async def choice_log_probs(self, prompt: str, responses: Sequence[str]) -> list[float]:
        """Return for each of ``responses`` the log-probability of its tokens where responses branch.

        That is a request for each such place; it reads the engine's prefix cache, as :meth:`log_probs` does not.
        """
        tokens, targets = self._fitting(prompt, responses)
        branches = branches_of(targets)
        found = await asyncio.gather(*(self._next(tokens + list(at), branches[at]) for at in branches))
        log_probs = dict(zip(branches, found, strict=True))
        return [log_prob_at(log_probs, target) for target in targets]

    async def _next(self, tokens: list[int], following: Sequence[int]) -> dict[int, float]:
        """Return the log-probability of each of ``following`` as the token after ``tokens``."""
        from vllm import SamplingParams

        found: dict[int, float] = {}
        for first in range(0, len(following), _MOST_TOKENS):
            wanted = list(following[first : first + _MOST_TOKENS])
            output = await self._ask(tokens, SamplingParams(temperature=0.0, max_tokens=1, logprob_token_ids=wanted))
            [at] = output.outputs[0].logprobs
            found |= {token: at[token].logprob for token in wanted}
        return found

    def _fitting(self, prompt: str, responses: Sequence[str]) -> tuple[list[int], list[list[int]]]:
        """Return the tokens of the prompt and of each response, if there is room for both and one more."""
        tokens = render(self._tokenizer, prompt)
        targets = [response_ids(self._tokenizer, response) for response in responses]
        if len(tokens) + max(map(len, targets)) >= self._max_length:
            raise PolicyError("prompt_too_long")
        return tokens, targets

    async def _ask(self, tokens: list[int], params: Any) -> Any:
        from vllm.exceptions import VLLMError
        from vllm.v1.engine.exceptions import EngineDeadError

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

    def _sampling(self, prompt: str, limit: int, seed: int | None = None, temperature: float | None = None) -> Any:
        from vllm import SamplingParams

        at = self._settings.temperature if temperature is None else temperature
        return SamplingParams(temperature=at, max_tokens=limit, skip_special_tokens=False, seed=seed)
