"""An engine that OpenRLHF's executors can ask."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from vllm import SamplingParams
from vllm.logprobs import Logprob
from vllm.outputs import CompletionOutput, RequestOutput


class FixedEngine:
    """An engine with one answer, in vLLM's own output classes, that keeps what it was asked."""

    def __init__(self, tokens: Sequence[int] = (5,), finish_reason: str = "stop") -> None:
        self.tokens, self.finish_reason = list(tokens), finish_reason
        self.asked: list[list[int]] = []

    async def generate(self, tokens: list[int], params: SamplingParams, multi_modal_data: Any = None) -> RequestOutput:
        self.asked.append(list(tokens))
        logprobs = [{token: Logprob(-0.5)} for token in self.tokens] if params.logprobs is not None else None
        answer = CompletionOutput(0, "", list(self.tokens), None, logprobs, finish_reason=self.finish_reason)
        return RequestOutput("1", None, list(tokens), None, [answer], True)
