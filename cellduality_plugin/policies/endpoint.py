"""A policy behind an OpenAI-compatible endpoint: a checkpoint on vLLM servers, or any chat model."""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from cellduality_plugin.chat import decode
from cellduality_plugin.errors import CellDualityError
from cellduality_plugin.hub import read_tokenizer
from cellduality_plugin.policies.addresses import Addresses, LoopThread, part_of, read_json
from cellduality_plugin.policies.base import Policy, PolicyError, Question, QuestionPolicy
from cellduality_plugin.policies.offline import EngineSettings
from cellduality_plugin.policies.settings import DualSettings, EndpointSettings
from cellduality_plugin.policies.tokens import TokenPolicy, Tokens

Read = TypeVar("Read")

KEY = "CELLDUALITY_ENDPOINT_KEY"
"""The environment variable with the key of endpoints that want one."""
_OF_ONE_PROMPT = ("prompt_too_long", "not_a_number")  # all other failures would be those of every prompt
CLAMPED = -9999.0  # what vLLM's server writes for minus infinity, which JSON has no word for
# Always sent, because a server takes what is not sent from the checkpoint's generation_config.json.
_PLAIN = {"top_p": 1.0, "top_k": 0, "min_p": 0.0, "repetition_penalty": 1.0, "skip_special_tokens": False}


class EndpointPolicy(TokenPolicy):
    """Asks a vLLM server, or for responses alone any chat endpoint (see the ``kind`` of its settings).

    Causes of failure are those of :class:`~cellduality_plugin.policies.addresses.RequestFailed`, ``"malformed"``,
    ``"no_log_probs"``, ``"not_a_number"``, ``"no_such_model"``, ``"prompt_too_long"`` and ``"context_unknown"``. A
    CellDualityError is raised if an address is none, or the key's variable is not set.
    """

    def __init__(self, tokenizer: Any, settings: EndpointSettings, dual: DualSettings, seed: int | None = None) -> None:
        super().__init__(tokenizer, dual.temperature, seed, context=settings.max_length, limit=dual.max_new_tokens)
        self.addresses, self._settings = Addresses(settings), settings
        self._model: asyncio.Task[int | None] | None = None  # looks for the context of the model

    async def generate(self, prompt: str, *, seed: int | None = None, temperature: float | None = None) -> str:
        if self._settings.kind == "vllm":
            return await super().generate(prompt, seed=seed, temperature=temperature)
        at = self._temperature if temperature is None else temperature
        how = {"temperature": at, "seed": seed, "max_tokens": self._limit}
        return await self._ask("/chat/completions", read_chat, messages=[{"role": "user", "content": prompt}], **how)

    async def check(self) -> None:
        """Return nothing if an address answers now and has the model, or raise a PolicyError."""
        await self.addresses.once("/models", partial(read_context, model=self._settings.model))

    async def close(self) -> None:
        if self._model is not None and not self._model.done():
            self._model.cancel()
        await self.addresses.close()

    async def _write(self, tokens: Tokens, room: int, temperature: float, seed: int | None) -> str:
        how = {"max_tokens": room, "temperature": temperature, "seed": seed, "return_token_ids": True}
        text, answered = await self._ask("/completions", read_text, prompt=tokens, **_PLAIN, **how)
        return text if answered is None else decode(self._tokenizer, answered)

    async def _score(self, tokens: Tokens, target: Tokens) -> list[float]:
        whole, how = tokens + target, {"max_tokens": 1, "temperature": 0.0, "prompt_logprobs": 0}
        read = partial(read_log_probs, tokens=whole, start=len(tokens))
        return await self._ask("/completions", read, prompt=whole, **_PLAIN, **how)

    async def _fitting(self, prompt: str, responses: Sequence[str]) -> tuple[Tokens, list[Tokens]]:
        if self._settings.kind == "chat":
            raise PolicyError("no_log_probs")
        return await super()._fitting(prompt, responses)

    async def _ask(self, path: str, read: Callable[[bytes], Read], **body: Any) -> Read:
        """Return what ``read`` makes of the reply to a body, of which nothing is sent that is None."""
        sent = {name: value for name, value in body.items() if value is not None}
        return await self.addresses.ask(path, read, {"model": self._settings.model, **sent})

    async def _room(self, used: int) -> int:
        if self._context is None:
            # Asked once, however many wait for it, and again if that failed.
            if self._model is None or (self._model.done() and (self._model.cancelled() or self._model.exception())):
                read = partial(read_context, model=self._settings.model)
                self._model = asyncio.ensure_future(self.addresses.ask("/models", read))
            self._context = await asyncio.shield(self._model)
        return await super()._room(used)


@contextlib.contextmanager
def served_policies(
    backend: str, model: Path, settings: EngineSettings, duals: list[DualSettings], seed: int
) -> Iterator[tuple[Any, list[Policy]]]:
    """Open a tokenizer, and a policy for each of ``duals`` over vLLM servers that have the checkpoint in ``model``.

    ``backend`` is ``http://HOST:PORT/v1[,...][#NAME]``; without the model's NAME there it is the path of ``model``, as
    vLLM calls it. A CellDualityError is raised if a server does not answer, now or later, lacks the model, or is no
    vLLM server.
    """
    urls, _, name = backend.partition("#")
    endpoint = EndpointSettings(
        urls=tuple(urls.split(",")),
        model=name or str(model),
        key_variable=KEY if os.environ.get(KEY) else None,
        max_length=settings.max_model_len,
    )
    tokenizer = read_tokenizer(str(model), settings.chat_template)
    policies = [EndpointPolicy(tokenizer, endpoint, dual, seed) for dual in duals]
    loop = LoopThread("cellduality endpoint")
    try:
        try:
            loop.submit(policies[0].check()).result()
        except PolicyError as failure:
            raise _failed(endpoint, failure) from None
        yield tokenizer, [_Elsewhere(policy, endpoint, loop) for policy in policies]
    finally:
        loop.close(*(policy.close for policy in policies))


class _Elsewhere(QuestionPolicy):
    """A policy whose connections belong to another loop than that of its callers."""

    def __init__(self, policy: EndpointPolicy, endpoint: EndpointSettings, loop: LoopThread) -> None:
        super().__init__()
        self._policy, self._endpoint, self._loop = policy, endpoint, loop

    async def answer(self, question: Question) -> Any:
        """Return the endpoint's answer; a CellDualityError if no prompt would get one."""
        try:
            return await asyncio.wrap_future(self._loop.submit(question.put_to(self._policy)))
        except PolicyError as failure:
            if failure.cause in _OF_ONE_PROMPT:
                raise
            raise _failed(self._endpoint, failure) from None


def _failed(endpoint: EndpointSettings, failure: PolicyError) -> CellDualityError:
    what = f"the endpoint gave no answer: {failure.cause}"
    hint = "is the server up? What was answered is kept: give the command again"
    if failure.cause == "no_such_model":
        what = f"the endpoint has no model {endpoint.model!r}"
        hint = "add its name there to the address: http://HOST:8000/v1#NAME"
    elif failure.cause in ("no_log_probs", "malformed", "http_400", "http_404", "http_422"):
        hint = "a vLLM server is needed, which takes token ids and gives log-probabilities of a prompt"
    elif failure.cause in ("http_401", "http_403"):
        hint = f"set {KEY} to its key"
    return CellDualityError(what, code="endpoint-failed", where=", ".join(endpoint.urls), hint=hint)


# From the body of a reply to what was asked for: whatever it says, nothing but a PolicyError is raised.


def read_text(body: bytes) -> tuple[str, Tokens | None]:
    """Return the text of the first choice of a completion, and its tokens if the endpoint sends them."""
    choice = part_of(read_json(body), "choices", 0)
    text, tokens = part_of(choice, "text"), part_of(choice, "token_ids")
    whole = tokens is None or (isinstance(tokens, list) and all(map(_whole, tokens)))
    if not isinstance(text, str) or not whole:
        raise PolicyError("malformed")
    return text, tokens


def read_chat(body: bytes) -> str:
    """Return the text of the first choice of a chat completion, without the reasoning that some servers set apart."""
    text = part_of(read_json(body), "choices", 0, "message", "content")
    if not isinstance(text, str):
        raise PolicyError("malformed")
    return text


def read_log_probs(body: bytes, tokens: Tokens, start: int) -> list[float]:
    """Return the natural log-probability of each of the ``tokens`` that were sent, from number ``start`` on."""
    choice = part_of(read_json(body), "choices", 0)
    found = part_of(choice, "prompt_logprobs")
    if isinstance(choice, dict) and found is None:
        raise PolicyError("no_log_probs")
    if not isinstance(found, list) or len(found) != len(tokens):
        raise PolicyError("malformed")
    return [
        _log_prob(part_of(at, str(token), "logprob")) for at, token in zip(found[start:], tokens[start:], strict=True)
    ]


def read_context(body: bytes, model: str) -> int | None:
    """Return the context length of ``model`` in tokens, as the list of models has it; None if it does not."""
    models = part_of(read_json(body), "data")
    if not isinstance(models, list):
        raise PolicyError("malformed")
    for entry in models:
        if part_of(entry, "id") == model:
            length = part_of(entry, "max_model_len")
            return int(length) if _whole(length) and length else None
    raise PolicyError("no_such_model")


def _log_prob(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise PolicyError("malformed")
    # NaN fails the comparison as well. Minus infinity is returned as the engine itself returns it.
    if not -1e308 <= value <= 1e-3:
        raise PolicyError("not_a_number")
    return float(value) if value > CLAMPED else -math.inf


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**31
