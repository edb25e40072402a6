"""A teacher behind an OpenAI-compatible chat endpoint: GPT-4o, Gemini, a vLLM server."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import json
import os
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import numpy as np

from cellduality_plugin.errors import CellDualityError
from data_prep.traces.asking.budget import Tokens
from data_prep.traces.asking.completions import error_message, read_reply
from data_prep.traces.asking.faults import TeacherFault, retry_after, until_reset
from data_prep.traces.candidates import Reply
from data_prep.traces.questions import Question

if TYPE_CHECKING:
    import httpx2
    import openai

OPENAI = "https://api.openai.com/v1"

INSTRUCTIONS = """\
You are an expert in single-cell biology who shows how a question is reasoned out.
First reason inside <think></think>, in at most 120 words: name the genes of the question that mark a cell type, state
or response, say whether they rank high, low or are missing, and what follows from that; rule out the nearest
alternative. Use only the question and what is known of the genes, and never write as if the answer had been given.
Then write the answer, in exactly the form the question asks for, inside <answer></answer>.
Write each tag once and nothing outside the tags."""

LONGEST_PAUSE = 900.0
"""Seconds; an endpoint that asks to wait longer, as for tomorrow's allowance, ends the run."""

LONGEST_BACK_OFF = 30.0
UNBOUNDED = 1_000_000


class EndpointTeacher:
    """Any model behind ``POST {base_url}/chat/completions``.

    Implements :class:`~data_prep.traces.asking.budget.PaidTeacher`.

    Cut connections, timeouts, malformed bodies and the statuses 408, 409, 429 and 5xx are asked again after an
    exponential back-off with jitter, or after as long as the endpoint says. An allowance that its headers call used up
    (``x-ratelimit-remaining-*: 0``) pauses all requests until it is there again, as ``Retry-After`` does.

    Parameters
    ----------
    model
        The model's name at the endpoint.
    base_url
        Ends on ``/v1`` as a rule; by default OPENAI_BASE_URL, or OpenAI's own.
    temperature
        None leaves it to the endpoint.
    max_tokens
        Of one answer, reasoning and all.
    seed
        Candidate number n is asked for with ``seed + n``.
    timeout
        Seconds for one request.
    retries
        How often a question is asked again before it is given up.
    backoff
        Seconds before the first of these; doubled each time.
    api_key_env
        The environment variable that holds the key. It is read when the first question is asked and kept nowhere else;
        an endpoint that is not OpenAI's may need none.
    instructions
        The system message.

    Attributes
    ----------
    retried
        How often a question was asked again, by fault.

    Raises
    ------
    CellDualityError
        If the address is none, or OpenAI is asked without a key.
    """

    def __init__(
        self,
        model: str,
        base_url: str | None = None,
        *,
        temperature: float | None = 1.0,
        max_tokens: int = 1024,
        seed: int = 0,
        timeout: float = 120.0,
        retries: int = 6,
        backoff: float = 0.5,
        api_key_env: str = "OPENAI_API_KEY",
        instructions: str = INSTRUCTIONS,
    ) -> None:
        self.model, self.temperature, self.max_tokens, self.seed = model, temperature, max_tokens, seed
        self.timeout, self.retries, self.backoff = timeout, retries, backoff
        self.api_key_env, self.instructions = api_key_env, instructions
        self.base_url = base_url or os.environ.get("OPENAI_BASE_URL") or OPENAI
        self.host = _host(self.base_url)
        self.retried: Counter[str] = Counter()
        self._client: openai.AsyncOpenAI | None = None
        self._resume = 0.0
        self._refused: CellDualityError | None = None
        self._turns = asyncio.Semaphore(UNBOUNDED)
        self._rng = np.random.default_rng()  # of waiting times alone
        self._key()

    @property
    def name(self) -> str:
        """The model and its endpoint's host."""
        return f"{self.model}@{self.host}"

    @property
    def version(self) -> str:
        """12 hex digits of what decides the answer besides the question."""
        text = json.dumps([self.instructions, self._settings(0)], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def most(self, question: Question) -> Tokens:
        """Return the most tokens that one answer can take: no token is shorter than a byte."""
        return Tokens(len(self.instructions.encode()) + len(question.prompt.encode()) + 64, self.max_tokens)

    async def answer(self, question: Question, candidate: int) -> Reply:
        """Return candidate number ``candidate``, from 0.

        Raises
        ------
        TeacherFault
            If the endpoint fails however often it is asked, or does not take this question.
        CellDualityError
            If it would take no question: the key, the address or the model is wrong, or the credit is used up.
        """
        # Neither the client's own retries nor tenacity: the first count nothing and pause nobody else, and either costs
        # a good part of the processor time of a request that does not fail.
        for attempt in itertools.count():
            try:
                return await self._ask(question.prompt, candidate)
            except TeacherFault as fault:
                if not fault.passing or attempt == self.retries:
                    raise
                self.retried[fault.reason] += 1
                # If the endpoint said how long to wait, the pause of all requests is waited for.
                await asyncio.sleep(0 if fault.wait else self._back_off(attempt))
            except CellDualityError as error:
                self._refused = error  # no other request would fare better, those that are built and wait included
                raise
        raise AssertionError("never reached")

    def limit(self, in_flight: int) -> None:
        """Have at most so many requests in flight; others are built meanwhile, and wait for their turn."""
        self._turns, self._refused = asyncio.Semaphore(in_flight), None

    async def close(self) -> None:
        """Close the connections; the next question opens new ones."""
        if self._client is not None:
            client, self._client = self._client, None
            await client.close()

    def _settings(self, candidate: int) -> dict[str, Any]:
        # OpenAI's newer models refuse the old name, and not every other server knows the new one.
        limit = "max_completion_tokens" if self.host == _host(OPENAI) else "max_tokens"
        settings = {"model": self.model, limit: self.max_tokens, "seed": self.seed + candidate}
        return settings if self.temperature is None else {**settings, "temperature": self.temperature}

    async def _ask(self, prompt: str, candidate: int) -> Reply:
        messages = [
            {"role": "system", "content": self.instructions},
            {"role": "user", "content": prompt},
        ]
        response = await self._post({**self._settings(candidate), "messages": messages})
        return read_reply(self._without_key(response.content), len(self.instructions) + len(prompt))

    @asynccontextmanager
    async def _turn(self) -> AsyncIterator[Callable[[Mapping[str, str]], None]]:
        """Begin when there is room for one more request, and no pause on; yield who is to be told the headers."""
        async with self._turns:
            await self._resumed()
            if self._refused:
                raise self._refused
            yield self._hear

    async def _resumed(self) -> None:
        """Return when no pause is on."""
        while (wait := self._resume - time.monotonic()) > 0:
            if wait > LONGEST_PAUSE:
                raise self._error(f"the endpoint asks to wait {wait / 60:.0f} minutes", "run the same command then")
            await asyncio.sleep(wait * (1 + 0.05 * self._rng.random()))  # not all at the same moment

    def _hear(self, headers: Mapping[str, str]) -> None:
        self._pause(until_reset(headers))

    def _pause(self, seconds: float) -> None:
        if seconds:
            self._resume = max(self._resume, time.monotonic() + seconds)

    async def _post(self, body: Mapping[str, Any]) -> httpx2.Response:
        """Return the endpoint's answer to one request, or raise what is wrong with it."""
        import aiohttp
        import httpx2
        import openai

        from data_prep.traces.asking.http import LEFT_OUT, OneAddressClient

        if self._client is None:
            self._client = openai.AsyncOpenAI(
                api_key=self._key() or "none",
                base_url=self.base_url,
                max_retries=0,
                http_client=OneAddressClient(self.timeout, self._turn),
            )
        # The raw response is asked for because its headers tell of rate limits, and because typed models of a reply
        # would double the work; a whole address, because it is not put together anew each time.
        address = f"{self.base_url.rstrip('/')}/chat/completions"
        try:
            return await self._client.post(address, body=body, cast_to=httpx2.Response, options={"headers": LEFT_OUT})
        except openai.APIStatusError as error:
            raise self._refusal(error) from None
        except asyncio.TimeoutError:
            raise TeacherFault("timeout") from None
        except (openai.APIConnectionError, aiohttp.ClientError) as error:
            raise TeacherFault("connection", type(error).__name__) from None

    def _refusal(self, error: openai.APIStatusError) -> CellDualityError | TeacherFault:
        """Return what a status other than success means."""
        status, said = error.status_code, self._without_key(error_message(error.body).encode()).decode()
        if status in (401, 403):
            mend = f"set {self.api_key_env} to a key that may use this model"
            return self._error(f"the key was refused ({status}): {said}", mend)
        if status == 404:
            return self._error(f"no model {self.model!r} or no such address (404): {said}", "correct one or the other")
        if status == 402 or error.code == "insufficient_quota":
            return self._error(f"no credit left ({status}): {said}", "top it up, or use another key; then go on")
        wait = retry_after(error.response.headers)
        self._pause(wait or 0.0)
        passing = status in (408, 409, 429) or status >= 500
        return TeacherFault(str(status), said, wait=wait, passing=passing)

    def _back_off(self, attempt: int) -> float:
        return min(self.backoff * 2.0**attempt, LONGEST_BACK_OFF) * self._rng.uniform(0.5, 1.0)

    def _key(self) -> str:
        key = os.environ.get(self.api_key_env, "").strip()
        if not key and self.host == _host(OPENAI):
            raise self._error("no key", f"set {self.api_key_env}, or the address of an endpoint of your own")
        if not key.isascii() or not key.isprintable():
            raise self._error(f"{self.api_key_env} holds what no key holds", "set it to the key alone")
        return key

    def _without_key(self, said: bytes) -> bytes:
        """Return what an endpoint said, which may have quoted the request, without the key."""
        key = self._key().encode()
        return said.replace(key, b"***") if len(key) >= 8 else said

    def _error(self, what: str, mend: str) -> CellDualityError:
        return CellDualityError(what, where=f"teacher {self.name}", mend=mend)


def _host(url: str) -> str:
    """Return the host of an address."""
    try:
        parts = urlsplit(url)
        if parts.scheme in ("http", "https") and parts.hostname and (parts.port or 1) > 0:
            return parts.hostname
    except ValueError:
        pass
    raise CellDualityError("not an http address", where="base URL", mend="write it as https://host/v1")
