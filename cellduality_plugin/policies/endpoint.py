"""A policy behind an OpenAI-compatible endpoint: a frozen checkpoint on a vLLM server, or any chat model."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, TypeAlias

from cellduality_plugin.chat import decode, render, response_ids
from cellduality_plugin.policies.addresses import Addresses
from cellduality_plugin.policies.base import PolicyError
from cellduality_plugin.policies.branching import branches_of
from cellduality_plugin.policies.settings import DualSettings, EndpointSettings

Tokens: TypeAlias = list[int]

CLAMPED = -9999.0  # what vLLM's server writes for minus infinity, which JSON has no word for
# Always sent, because a server takes what is not sent from the checkpoint's generation_config.json.
_PLAIN = {"top_p": 1.0, "top_k": 0, "min_p": 0.0, "repetition_penalty": 1.0}


class EndpointPolicy:
    """Asks an endpoint what :class:`~cellduality_plugin.policies.engine.EnginePolicy` asks its engine.

    The endpoint is sent token ids, rendered here as OpenRLHF renders a rollout's, and answers in token ids, which are
    decoded here: so the same weights see the same tokens. That, and the log-probabilities of a prompt, take a vLLM
    server. Of a ``kind`` ``"chat"`` any chat endpoint will do; it cannot say how likely a given text is. Causes of
    failure are those of :class:`~cellduality_plugin.policies.addresses.RequestFailed`, ``"malformed"``,
    ``"no_log_probs"``, ``"not_a_number"``, ``"no_such_model"``, ``"prompt_too_long"`` and ``"context_unknown"``. A
    CellDualityError is raised if an address is none, or the key's variable is not set.
    """

    def __init__(self, tokenizer: Any, settings: EndpointSettings, dual: DualSettings) -> None:
        self.addresses = Addresses(settings)
        self._tokenizer, self._settings, self._dual = tokenizer, settings, dual
        self._context: asyncio.Task[int | None] | None = None

    async def generate(self, prompt: str, *, seed: int | None = None, temperature: float | None = None) -> str:
        """Return the response to ``prompt``; at the temperature of the settings, unless another is given."""
        drawn = {"temperature": self._dual.temperature if temperature is None else temperature}
        drawn |= {} if seed is None else {"seed": seed}
        if self._settings.kind == "chat":
            return await self._chat(prompt, drawn)
        tokens = render(self._tokenizer, prompt)
        body = {**self._request(tokens, await self._limit(len(tokens))), **drawn, "return_token_ids": True}
        text, answered = await self.addresses.post("/completions", body, read_text)
        return text if answered is None else decode(self._tokenizer, answered)

    async def log_probs(self, prompt: str, response: str, *, given: str = "") -> list[float]:
        """Return the natural log-probability of each token of ``response`` after ``prompt`` and ``given``."""
        [found] = await self._log_probs(prompt, [given + response])
        return found[len(response_ids(self._tokenizer, given)) :]

    async def choice_log_probs(self, prompt: str, responses: Sequence[str]) -> list[float]:
        """Return for each of ``responses`` the log-probability of its tokens where responses branch.

        A prefill for each response: a server's completions cannot be asked for the probability of chosen tokens.
        """
        found = await self._log_probs(prompt, responses)
        targets = list(map(self._tokens, responses))
        branches = branches_of(targets)
        return [
            math.fsum(log_prob for place, log_prob in enumerate(of) if tuple(target[:place]) in branches)
            for target, of in zip(targets, found, strict=True)
        ]

    async def check(self) -> None:
        """Return nothing if an address answers now and has the model, or raise a PolicyError."""
        await self.addresses.get("/models", partial(read_context, model=self._settings.model), patient=False)

    async def close(self) -> None:
        """Close the connections."""
        if self._context is not None and not self._context.done():
            self._context.cancel()
        await self.addresses.close()

    async def _log_probs(self, prompt: str, responses: Sequence[str]) -> list[list[float]]:
        """Return the log-probability of each token of each response after ``prompt``."""
        if self._settings.kind == "chat":
            raise PolicyError("no_log_probs")
        tokens = render(self._tokenizer, prompt)

        async def one(response: str) -> list[float]:
            target = self._tokens(response)
            await self._limit(len(tokens) + len(target))
            body = {**self._request(tokens + target, 1), "temperature": 0.0, "prompt_logprobs": 0}
            read = partial(read_log_probs, tokens=tokens + target, start=len(tokens))
            return await self.addresses.post("/completions", body, read)

        return await asyncio.gather(*map(one, responses))

    def _tokens(self, response: str) -> Tokens:
        return response_ids(self._tokenizer, response)

    def _request(self, tokens: Tokens, limit: int) -> dict[str, Any]:
        model = self._settings.model
        return {"model": model, "prompt": tokens, "max_tokens": limit, "skip_special_tokens": False, **_PLAIN}

    async def _chat(self, prompt: str, drawn: Mapping[str, float]) -> str:
        limit = self._dual.max_new_tokens
        body = {"model": self._settings.model, "messages": [{"role": "user", "content": prompt}], **drawn}
        body |= {} if limit is None else {"max_tokens": limit}
        return await self.addresses.post("/chat/completions", body, read_chat)

    async def _limit(self, used: int) -> int:
        """Return how many tokens the response may have after ``used`` tokens."""
        context, limit = await self._context_length(), self._dual.max_new_tokens
        if context is None:
            if limit is None:
                raise PolicyError("context_unknown")
            return limit
        if used >= context:
            raise PolicyError("prompt_too_long")
        return min(context - used, limit or context)

    async def _context_length(self) -> int | None:
        if self._settings.max_length is not None:
            return self._settings.max_length
        # Asked once, however many wait for it, and again if that failed.
        if self._context is None or (self._context.done() and (self._context.cancelled() or self._context.exception())):
            read = partial(read_context, model=self._settings.model)
            self._context = asyncio.ensure_future(self.addresses.get("/models", read))
        return await asyncio.shield(self._context)


# From the body of a reply to what was asked for: whatever it says, nothing but a PolicyError is raised.


def read_text(body: bytes) -> tuple[str, Tokens | None]:
    """Return the text of the first choice of a completion, and its tokens if the endpoint sends them.

    Examples
    --------
    >>> read_text(b'{"choices": [{"text": "B", "token_ids": [7]}]}')
    ('B', [7])
    """
    choice = _choice(body)
    tokens = choice.get("token_ids")
    if tokens is not None and not (isinstance(tokens, list) and all(map(_whole, tokens))):
        raise PolicyError("malformed")
    return _text(choice), tokens


def read_chat(body: bytes) -> str:
    """Return the text of the first choice of a chat completion, without the reasoning that some servers set apart."""
    message = _choice(body).get("message")
    return _text(message if isinstance(message, dict) else {}, "content")


def read_log_probs(body: bytes, tokens: Tokens, start: int) -> list[float]:
    """Return the natural log-probability of each token from number ``start`` on, as in vLLM's ``prompt_logprobs``.

    ``tokens`` are those that were sent: prompt, then response.

    Examples
    --------
    >>> body = b'{"choices": [{"text": "", "prompt_logprobs": [null, {"5": {"logprob": -0.5}}]}]}'
    >>> read_log_probs(body, [4, 5], 1)
    [-0.5]
    """
    found = _choice(body).get("prompt_logprobs")
    if found is None:
        raise PolicyError("no_log_probs")
    if not isinstance(found, list) or len(found) != len(tokens):
        raise PolicyError("malformed")
    return [_log_prob(at, token) for at, token in zip(found[start:], tokens[start:], strict=True)]


def read_context(body: bytes, model: str) -> int | None:
    """Return the context length of ``model`` in tokens, as the list of models has it; None if it does not.

    Examples
    --------
    >>> read_context(b'{"data": [{"id": "toy", "max_model_len": 256}]}', "toy")
    256
    """
    models = read_object(body).get("data")
    if not isinstance(models, list):
        raise PolicyError("malformed")
    for entry in models:
        if isinstance(entry, dict) and entry.get("id") == model:
            length = entry.get("max_model_len")
            return int(length) if _whole(length) and length else None
    raise PolicyError("no_such_model")


def read_object(body: bytes) -> dict[str, Any]:
    """Return the JSON object in a body."""
    try:
        content = json.loads(body)
    except (ValueError, RecursionError):  # not JSON, or not even text
        content = None
    if not isinstance(content, dict):
        raise PolicyError("malformed")
    return content


def _choice(body: bytes) -> dict[str, Any]:
    choices = read_object(body).get("choices")
    if not (isinstance(choices, list) and choices and isinstance(choices[0], dict)):
        raise PolicyError("malformed")
    return choices[0]


def _log_prob(at: Any, token: int) -> float:
    entry = at.get(str(token)) if isinstance(at, dict) else None
    value = entry.get("logprob") if isinstance(entry, dict) else None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise PolicyError("malformed")
    # NaN fails the comparison as well. Minus infinity is returned as the engine itself returns it.
    if not -1e308 <= value <= 1e-3:
        raise PolicyError("not_a_number")
    return float(value) if value > CLAMPED else float("-inf")


def _text(of: Mapping[str, Any], name: str = "text") -> str:
    value = of.get(name)
    if not isinstance(value, str):
        raise PolicyError("malformed")
    return value


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**31
