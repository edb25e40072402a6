"""A teacher behind an OpenAI-compatible chat endpoint: GPT-4o, Gemini, a vLLM server."""

from __future__ import annotations

import hashlib
import json
import os
from functools import partial
from typing import Any
from urllib.parse import urlsplit

from cellduality_plugin.errors import CellDualityError
from cellduality_plugin.parsing import MAX_CHARACTERS
from cellduality_plugin.policies.addresses import (
    LONGEST_WAIT,
    Addresses,
    RequestFailed,
    checked_url,
    error_message,
    read_key,
)
from cellduality_plugin.policies.base import PolicyError
from cellduality_plugin.policies.endpoint import read_object
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
    """Any model behind ``POST {base_url}/chat/completions``.

    Cut connections, timeouts, malformed bodies and the statuses 408, 409, 425, 429 and 5xx are asked again after an
    exponential back-off with jitter, or after as long as the endpoint asks for, which then holds for all requests.

    Candidate number n is asked for with ``seed + n``. A CellDualityError is raised if the address is none, or OpenAI is
    asked without a key.
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
        self._url = checked_url(base_url or os.environ.get("OPENAI_BASE_URL") or OPENAI, "base URL")
        self._model, self._temperature, self._max_tokens, self._seed = model, temperature, max_tokens, seed
        self._timeout, self._retries, self._key_variable = timeout, retries, api_key_env
        host = urlsplit(self._url).hostname
        self._of_openai = host == urlsplit(OPENAI).hostname
        self.name = f"{model}@{host}"
        decisive = json.dumps([INSTRUCTIONS, self._settings(0)], sort_keys=True)
        self.version = hashlib.sha256(decisive.encode()).hexdigest()[:12]
        self._key()

    def most(self, question: Question) -> Tokens:
        """Return the most tokens that one answer can take: no token is shorter than a byte."""
        return Tokens(len(INSTRUCTIONS.encode()) + len(question.prompt.encode()) + 64, self._max_tokens)

    def open(self, in_flight: int) -> None:
        """Have at most so many requests in flight; others are built meanwhile, and wait for their turn."""
        settings = EndpointSettings(
            urls=(self._url,),
            model=self._model,
            concurrency=in_flight,
            retries=self._retries,
            timeout_seconds=self._timeout,
        )
        self._addresses = Addresses(settings, self._key())
        self.retried = self._addresses.retried

    async def answer(self, question: Question, candidate: int) -> Reply:
        """Return candidate number ``candidate``, from 0.

        A RequestFailed is raised if the endpoint does not answer this question however often it is asked, a
        CellDualityError if it would answer none: key, address or model are wrong, or the credit is used up.
        """
        messages = [{"role": "system", "content": INSTRUCTIONS}, {"role": "user", "content": question.prompt}]
        body, length = {**self._settings(candidate), "messages": messages}, len(INSTRUCTIONS + question.prompt)
        try:
            read = partial(read_reply, prompt_characters=length, secret=self._key())
            return await self._addresses.post("/chat/completions", body, read)
        except RequestFailed as failure:
            failure.detail = _without(self._key().encode(), failure.detail.encode()).decode()
            raise self._fatal(failure) or failure from None

    async def close(self) -> None:
        """Close the connections."""
        await self._addresses.close()

    def _settings(self, candidate: int) -> dict[str, Any]:
        # OpenAI's newer models refuse the old name, and not every other server knows the new one.
        limit = "max_completion_tokens" if self._of_openai else "max_tokens"
        settings = {"model": self._model, limit: self._max_tokens, "seed": self._seed + candidate}
        return settings if self._temperature is None else {**settings, "temperature": self._temperature}

    def _fatal(self, failure: RequestFailed) -> CellDualityError | None:
        """Return the error if it is one for every question."""
        refused = "key-refused", "the key was refused", f"set {self._key_variable} to a key that may use this model"
        code, what, hint = {
            "http_401": refused,
            "http_403": refused,
            "http_404": ("no-model", f"no model {self._model!r} or no such address", "correct one or the other"),
            "http_402": ("no-credit", "no credit left", "top it up, or use another key; then go on"),
        }.get(failure.cause, ("", "", ""))
        if failure.wait > LONGEST_WAIT:
            what, hint = f"the endpoint asks to wait {failure.wait / 60:.0f} minutes", "run the same command then"
            code = "long-wait"
        if not code:
            return None
        what = f"{what} ({failure.cause}) {failure.detail}"
        return CellDualityError(what, code=code, where=f"teacher {self.name}", hint=hint)

    def _key(self) -> str:
        return read_key(self._key_variable, f"teacher {self.name}", needed=self._of_openai)


def read_reply(body: bytes, prompt_characters: int, secret: str = "") -> Reply:
    """Return the reply in the body of a chat completion.

    No choice, or one without text, is a reply without text: it was paid for, and the filters reject it. A text of more
    than MAX_CHARACTERS characters is cut one character behind them, so that its reader sees that it is too long. The
    reasoning that some servers set apart is put back in front of it.

    Where the body has no count of tokens, they are estimated from the characters. A ``secret`` that an endpoint quotes
    is blotted out. What is no chat completion raises a RequestFailed, ``"malformed"``.

    Examples
    --------
    >>> body = b'{"choices": [{"message": {"content": "<answer>B</answer>"}, "finish_reason": "stop"}]}'
    >>> read_reply(body, 30)
    Reply(text='<answer>B</answer>', prompt_tokens=10, completion_tokens=6, finish='stop')
    """
    body = _without(secret.encode(), body)
    try:
        content = read_object(body)
    except PolicyError:
        raise RequestFailed("malformed", "not a JSON object") from None
    if not isinstance(choices := content.get("choices"), list):
        raise RequestFailed("malformed", error_message(body) or "no choices")
    choice = choices[0] if choices and isinstance(choices[0], dict) else {}
    text, finish = _text(choice.get("message")), choice.get("finish_reason")
    usage = content["usage"] if isinstance(content.get("usage"), dict) else {}
    return Reply(
        text=text[: MAX_CHARACTERS + 1],
        prompt_tokens=_count(usage.get("prompt_tokens"), prompt_characters),
        completion_tokens=_count(usage.get("completion_tokens"), len(text)),
        finish=finish[:40] if isinstance(finish, str) else "",
    )


def _text(message: Any) -> str:
    message = message if isinstance(message, dict) else {}
    content = message.get("content")
    if isinstance(content, list):
        content = "".join(str(part.get("text") or "") for part in content if isinstance(part, dict))
    text = content if isinstance(content, str) else ""
    reasoning = message.get("reasoning_content") or message.get("reasoning")
    if isinstance(reasoning, str) and text and "<think>" not in text:
        return f"<think>{reasoning}</think>{text}"
    return text


def _count(value: Any, characters: int) -> int:
    whole = isinstance(value, int) and not isinstance(value, bool)
    return value if whole and 0 <= value < 10**9 else characters // CHARACTERS_A_TOKEN


def _without(secret: bytes, text: bytes) -> bytes:
    return text.replace(secret, b"***") if len(secret) >= 8 else text
