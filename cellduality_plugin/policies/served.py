"""A checkpoint behind endpoints that are asked from any event loop, or from several one after the other."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cellduality_plugin.errors import CellDualityError
from cellduality_plugin.hub import read_tokenizer
from cellduality_plugin.policies.addresses import LoopThread
from cellduality_plugin.policies.base import Policy, PolicyError, Question, QuestionPolicy
from cellduality_plugin.policies.endpoint import EndpointPolicy
from cellduality_plugin.policies.offline import EngineSettings
from cellduality_plugin.policies.settings import DualSettings, EndpointSettings

KEY = "CELLDUALITY_ENDPOINT_KEY"
"""The environment variable with the key of endpoints that want one."""
_OF_ONE_PROMPT = ("prompt_too_long", "not_a_number")  # all other failures would be those of every prompt


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
