"""A policy over a vLLM engine, for whoever holds one: the agent's executor, the audit."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Any

from cellduality_plugin.dual_settings import DualSettings
from cellduality_plugin.forks import forks_of, log_prob_at_forks
from cellduality_plugin.framing import render, token_count
from cellduality_plugin.policy import PolicyError

_LOG = logging.getLogger(__name__)
_TOLD: set[type[Exception]] = set()
_MOST_TOKENS = 128
"""Of so many tokens vLLM tells the log-probability in one request (``vllm.sampling_params.MAX_LOGPROB_TOKEN_IDS``)."""


class EnginePolicy:
    """A policy asked through a vLLM engine: in training the engine that made the rollout, in an audit a checkpoint's.

    Parameters
    ----------
    engine
        OpenRLHF's rollout actor, or anything with its ``generate(token ids, sampling parameters)``.
    tokenizer
        The policy's tokenizer; its chat template frames the dual prompt as it framed the primal one.
    max_length
        The engine's context, in tokens (``--data.max_len``).
    settings
        Temperature and length of the dual.
    """

    def __init__(self, engine: Any, tokenizer: Any, max_length: int, settings: DualSettings) -> None:
        self._engine, self._tokenizer, self._max_length, self._settings = engine, tokenizer, max_length, settings

    async def generate(self, prompt: str, *, seed: int | None = None, temperature: float | None = None) -> str:
        """Return the response to ``prompt``; at the temperature of the settings, unless another is given.

        Raises
        ------
        PolicyError
            If the prompt leaves no room for one (``"prompt_too_long"``), or the engine gave none (``"engine_error"``).
        """
        tokens = self._tokens(prompt)
        room = self._max_length - len(tokens)
        if room < 1:
            raise PolicyError("prompt_too_long")
        limit = min(room, self._settings.max_new_tokens or room)
        params = self._sampling(prompt, limit, seed, temperature)
        output = await self._ask(tokens, params)
        return str(self._tokenizer.decode(output.outputs[0].token_ids, skip_special_tokens=True))

    async def log_probs(self, prompt: str, response: str, *, given: str = "") -> list[float]:
        """Return the log-probability of each token of ``response``, which follows ``given``.

        Raises
        ------
        PolicyError
            If both do not fit (``"prompt_too_long"``), or the engine told none (``"engine_error"``).
        """
        from vllm import SamplingParams

        tokens, [target] = self._fitting(prompt, [given + response])
        # vLLM always decodes at least one token; the prompt's own log-probs come with the prefill.
        params = SamplingParams(temperature=0.0, max_tokens=1, prompt_logprobs=0)
        output = await self._ask(tokens + target, params)
        found = [at[token].logprob for token, at in zip(target, output.prompt_logprobs[len(tokens) :], strict=True)]
        return found[token_count(self._tokenizer, given) :]

    async def choice_log_probs(self, prompt: str, responses: Sequence[str]) -> list[float]:
        """Return for each of ``responses`` the log-probability of the tokens at which they part.

        A request for each place where they do, which reads the engine's prefix cache, as :meth:`log_probs` does not.

        Raises
        ------
        PolicyError
            If the longest does not fit (``"prompt_too_long"``), or the engine told none (``"engine_error"``).
        """
        tokens, targets = self._fitting(prompt, responses)
        forks = forks_of(targets)
        found = await asyncio.gather(*(self._next(tokens + list(begun), forks[begun]) for begun in forks))
        at = dict(zip(forks, found, strict=True))
        return [log_prob_at_forks(target, at) for target in targets]

    async def _next(self, tokens: list[int], following: Sequence[int]) -> dict[int, float]:
        """Return the log-probability of each of ``following`` as the token after ``tokens``."""
        from vllm import SamplingParams

        found: dict[int, float] = {}
        for first in range(0, len(following), _MOST_TOKENS):
            wanted = list(following[first : first + _MOST_TOKENS])
            params = SamplingParams(temperature=0.0, max_tokens=1, logprob_token_ids=wanted)
            output = await self._ask(tokens, params)
            [told] = output.outputs[0].logprobs
            found |= {token: told[token].logprob for token in wanted}
        return found

    def _fitting(self, prompt: str, responses: Sequence[str]) -> tuple[list[int], list[list[int]]]:
        """Return the tokens of the prompt and of each response, if there is room for both and one more."""
        tokens = self._tokens(prompt)
        targets = [list(self._tokenizer(response, add_special_tokens=False)["input_ids"]) for response in responses]
        if len(tokens) + max(map(len, targets)) >= self._max_length:
            raise PolicyError("prompt_too_long")
        return tokens, targets

    async def _ask(self, tokens: list[int], params: Any) -> Any:
        from vllm.exceptions import VLLMError
        from vllm.v1.engine.exceptions import EngineDeadError

        try:
            return await self._engine.generate(tokens, params)
        except EngineDeadError:  # no rollout will be made any more: the run has to end, and say so
            raise
        except (VLLMError, ValueError) as error:
            # Of this request alone. The counters say how often; what it was is said once a kind.
            if type(error) not in _TOLD:
                _TOLD.add(type(error))
                _LOG.warning("the engine refused a dual: %s: %.300s", type(error).__name__, error)
            raise PolicyError("engine_error") from error

    def _sampling(self, prompt: str, limit: int, seed: int | None = None, temperature: float | None = None) -> Any:
        from vllm import SamplingParams

        at = self._settings.temperature if temperature is None else temperature
        return SamplingParams(temperature=at, max_tokens=limit, skip_special_tokens=False, seed=seed)

    def _tokens(self, prompt: str) -> list[int]:
        return render(self._tokenizer, prompt)
