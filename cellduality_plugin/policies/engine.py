"""A policy over a vLLM engine, for the agent's executor and the audit."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from typing import Any

from cellduality_plugin.chat import decode
from cellduality_plugin.policies.base import PolicyError
from cellduality_plugin.policies.settings import DualSettings
from cellduality_plugin.policies.tokens import Prefix, TokenPolicy, Tokens, room_after

_LOG = logging.getLogger(__name__)
_LOGGED: set[type[Exception]] = set()
_MOST_TOKENS = 128  # of one request for log-probabilities (vllm.sampling_params.MAX_LOGPROB_TOKEN_IDS)


class EnginePolicy(TokenPolicy):
    """A policy over OpenRLHF's rollout actor, or anything with its ``generate(token ids, sampling parameters)``.

    Its errors are ``"prompt_too_long"`` and ``"engine_error"``; ``max_length`` is its context in tokens
    (``--data.max_len``). The chat template of ``tokenizer`` frames the dual prompt as it framed the primal one.
    """

    def __init__(
        self, engine: Any, tokenizer: Any, max_length: int, settings: DualSettings, seed: int | None = None
    ) -> None:
        super().__init__(tokenizer, settings.temperature, seed)
        self._engine, self._max_length, self._limit = engine, max_length, settings.max_new_tokens

    async def _room(self, used: int) -> int:
        return room_after(used, self._max_length, self._limit)

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
