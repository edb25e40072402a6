"""A teacher behind an OpenAI-compatible chat endpoint: GPT-4o, Gemini, a vLLM server."""

from __future__ import annotations

import hashlib
import json
import os
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from cellduality_plugin.errors import CellDualityError
from cellduality_plugin.parsing import MAX_CHARACTERS
from cellduality_plugin.policies import addresses
from cellduality_plugin.policies.addresses import Addresses, RequestFailed, part_of
from cellduality_plugin.policies.base import PolicyError
from cellduality_plugin.policies.settings import EndpointSettings
from data_prep.traces.candidates import Reply, Teacher, Tokens
from data_prep.traces.questions import Question

OPENAI = "https://api.openai.com/v1"

INSTRUCTIONS = """\
You are an expert in single-cell biology who shows how a question is reasoned out.
First reason inside <think></think>, in at most 120 words: name the genes of the question that mark a cell type, state
or response, say whether they rank high, low or are missing, and what follows from that; rule out the nearest
alternative. Use only the question and what is known of the genes, and never write as if the answer had been given.
Then write the answer, in exactly the form the question asks for, inside <answer></answer>.
Write each tag once and nothing outside the tags."""

CHARACTERS_A_TOKEN = 3  # for endpoints that keep no count of tokens


class EndpointTeacher(Teacher):
    """Any model behind ``POST {base_url}/chat/completions``; candidate number n is asked for with ``seed + n``.

    What may pass is asked again, see :class:`~cellduality_plugin.policies.addresses.Addresses`, and so is a malformed
    body. A CellDualityError is raised if the address is none, or OpenAI is asked without a key.
    """

    def __init__(
        self,
        model: str,
        base_url: str | None = None,  # ends on /v1 as a rule; None: OPENAI_BASE_URL, or OpenAI's own
        *,
        temperature: float | None = 1.0,  # None leaves it to the endpoint
        max_tokens: int = 1024,  # of one answer, reasoning and all
        seed: int = 0,
        timeout: float = 120.0,  # seconds for one request
        retries: int = 6,  # how often a question is asked again before it is given up
        api_key_env: str = "OPENAI_API_KEY",  # an endpoint that is not OpenAI's may need none
    ) -> None:
        url = addresses.checked_url(base_url or os.environ.get("OPENAI_BASE_URL") or OPENAI, "base URL")
        host = urlsplit(url).hostname
        of_openai = host == urlsplit(OPENAI).hostname
        self.name = f"{model}@{host}"
        variable = api_key_env if of_openai or os.environ.get(api_key_env) else None
        addresses.read_key(variable, f"teacher {self.name}")
        self._settings = EndpointSettings(
            urls=(url,), model=model, key_variable=variable, retries=retries, timeout_seconds=timeout
        )
        # OpenAI's newer models refuse the old name, and not every other server knows the new one.
        limit = "max_completion_tokens" if of_openai else "max_tokens"
        warmth = {} if temperature is None else {"temperature": temperature}
        self._asked = {"model": model, limit: max_tokens, "seed": seed, **warmth}
        self._max_tokens, self._seed, self._variable = max_tokens, seed, api_key_env
        decisive = json.dumps([INSTRUCTIONS, self._asked], sort_keys=True)
        self.version = hashlib.sha256(decisive.encode()).hexdigest()[:12]

    def most(self, question: Question) -> Tokens:
        """Return the most tokens that one answer can take: no token is shorter than a byte."""
        return np.array([len((INSTRUCTIONS + question.prompt).encode()) + 64, self._max_tokens])

    def open(self, in_flight: int) -> None:
        self._addresses = Addresses(self._settings.model_copy(update={"concurrency": in_flight}))

    async def answer(self, question: Question, candidate: int) -> Reply:
        """Return candidate number ``candidate``.

        A RequestFailed is raised if there is no answer to this question, a CellDualityError if there is none to any.
        """
        messages = [{"role": "system", "content": INSTRUCTIONS}, {"role": "user", "content": question.prompt}]
        body = {**self._asked, "seed": self._seed + candidate, "messages": messages}
        read = partial(read_reply, prompt_characters=len(INSTRUCTIONS + question.prompt))
        try:
            return await self._addresses.ask("/chat/completions", read, body)
        except RequestFailed as failure:
            raise self._fatal(failure) or failure from None

    async def close(self) -> None:
        await self._addresses.close()

    def _fatal(self, failure: RequestFailed) -> CellDualityError | None:
        """Return the error if it is one for every question."""
        if failure.wait > addresses.LONGEST_WAIT:
            what, hint = f"the endpoint asks to wait {failure.wait / 60:.0f} minutes", "run the same command then"
            code = "long-wait"
        elif failure.cause in ("http_401", "http_403"):
            what, hint = "the key was refused", f"set {self._variable} to a key that may use this model"
            code = "key-refused"
        elif failure.cause == "http_404":
            what, hint = f"no model {self._settings.model!r} or no such address", "correct one or the other"
            code = "no-model"
        elif failure.cause == "http_402":
            what, hint, code = "no credit left", "top it up, or use another key; then go on", "no-credit"
        else:
            return None
        what = f"{what} ({failure.cause}) {failure.detail}"
        return CellDualityError(what, code=code, where=f"teacher {self.name}", hint=hint)


def read_reply(body: bytes, prompt_characters: int) -> Reply:
    """Return the reply in the body of a chat completion.

    No choice, or one without text, is a reply without text: it was paid for, and the filters reject it. A text of more
    than MAX_CHARACTERS characters is cut one character behind them, so that its reader sees that it is too long. The
    reasoning that some servers set apart is put back in front of it. Where the body has no count of tokens, they are
    estimated from the characters. What is no chat completion raises a RequestFailed, ``"malformed"``.
    """
    try:
        content = addresses.read_json(body)
    except PolicyError:
        raise RequestFailed("malformed", "not a JSON object") from None
    if not isinstance(content.get("choices"), list):
        raise RequestFailed("malformed", addresses.error_message(body) or "no choices")
    choice = part_of(content, "choices", 0)
    text, finish = _text(part_of(choice, "message")), part_of(choice, "finish_reason")
    return Reply(
        text=text[: MAX_CHARACTERS + 1],
        prompt_tokens=_count(part_of(content, "usage", "prompt_tokens"), prompt_characters),
        completion_tokens=_count(part_of(content, "usage", "completion_tokens"), len(text)),
        finish=finish[:40] if isinstance(finish, str) else "",
    )


def _text(message: Any) -> str:
    content = part_of(message, "content")
    if isinstance(content, list):
        content = "".join(str(part_of(part, "text") or "") for part in content)
    text = content if isinstance(content, str) else ""
    reasoning = part_of(message, "reasoning_content") or part_of(message, "reasoning")
    if isinstance(reasoning, str) and text and "<think>" not in text:
        return f"<think>{reasoning}</think>{text}"
    return text


def _count(value: Any, characters: int) -> int:
    whole = isinstance(value, int) and not isinstance(value, bool)
    return value if whole and 0 <= value < 10**9 else characters // CHARACTERS_A_TOKEN
