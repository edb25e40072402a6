"""Engines that OpenRLHF's executors can ask, in vLLM's own output classes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from vllm import SamplingParams
from vllm.logprobs import Logprob
from vllm.outputs import CompletionOutput, RequestOutput


def reply(
    tokens: Sequence[int],
    params: SamplingParams,
    answer: Sequence[int],
    reason: str,
    log_prob: Callable[[int], float] = lambda place: -0.5,
    likely: Callable[[int], float] = lambda token: -0.5,
) -> RequestOutput:
    """Return the ``answer`` to ``tokens``: a place of them is as likely as ``log_prob``, a next token as ``likely``."""
    following = None if params.logprobs is None else [{token: Logprob(-0.5)} for token in answer]
    if params.logprob_token_ids:  # beside those that are asked for vLLM lists the token it chose
        following = [{token: Logprob(likely(token)) for token in (*params.logprob_token_ids, answer[0])}]
    before: Any = None
    if params.prompt_logprobs is not None:  # beside the prompt's own token vLLM lists the likeliest one
        places = [{token + 1: Logprob(0.0), token: Logprob(log_prob(n))} for n, token in enumerate(tokens)]
        before = [None, *places[1:]]
    output = CompletionOutput(0, "", list(answer), None, following, finish_reason=reason)
    return RequestOutput("1", None, list(tokens), before, [output], True)


class FixedEngine:
    """An engine with one answer that keeps what it was asked."""

    def __init__(self, tokens: Sequence[int] = (5,), finish_reason: str = "stop") -> None:
        self.tokens, self.finish_reason = list(tokens), finish_reason
        self.asked: list[list[int]] = []

    async def generate(self, tokens: list[int], params: SamplingParams, multi_modal_data: Any = None) -> RequestOutput:
        self.asked.append(list(tokens))
        return reply(tokens, params, self.tokens, self.finish_reason)


@dataclass
class ScriptedEngine:
    """Answers one question from a list and every other, the dual, by one text."""

    tokenizer: Any
    question: list[int]
    answers: Sequence[str]
    rebuilt: str = ""
    dual_fails: Exception | None = None
    log_prob: Callable[[int], float] = lambda place: -float(place)
    likely: Callable[[int], float] | None = None  # a next token, by its id; None: as its place is
    rollouts: int = 0
    duals: list[tuple[list[int], SamplingParams]] = field(default_factory=list)

    async def generate(self, tokens: list[int], params: SamplingParams, multi_modal_data: Any = None) -> RequestOutput:
        if tokens == self.question:
            text = self.answers[self.rollouts % len(self.answers)]
            self.rollouts += 1
        else:
            text = self.rebuilt
            self.duals.append((list(tokens), params))
            if self.dual_fails is not None:
                raise self.dual_fails
        await asyncio.sleep(0)
        end = self.tokenizer.eos_token_id
        answer = [*self.tokenizer(text, add_special_tokens=False)["input_ids"], end][: params.max_tokens]
        likely = self.likely or (lambda _: self.log_prob(len(tokens)))
        return reply(tokens, params, answer, "stop" if answer[-1] == end else "length", self.log_prob, likely)


def strategy(**data: Any) -> SimpleNamespace:
    """Return what OpenRLHF's data sets ask for the names of columns; the chat template is applied."""
    named = SimpleNamespace(**{"input_key": "input", "apply_chat_template": True, **data})
    args = SimpleNamespace(data=named, use_ms=False)
    return SimpleNamespace(args=args, is_rank_0=lambda: False, print=lambda *_: None)
