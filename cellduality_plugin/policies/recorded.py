"""A policy that says what another one said: the dual of a rollout that was kept."""

from __future__ import annotations

import contextlib
import hashlib
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias

from cellduality_plugin.policies.base import After, PolicyError, Question, Trace

_What: TypeAlias = "str | int | tuple[str, ...] | Trace | After"


def prompt_key(prompt: str) -> str:
    """Return the first 16 hex digits of a prompt's SHA-256: its name in the records of a group."""
    return hashlib.sha256(prompt.encode("utf-8", "surrogatepass")).hexdigest()[:16]


class RecordedPolicy:
    """Plays the dual from ``rows``, the records of one group: says what the policy said then, and nothing else.

    Attributes
    ----------
    missing : int
        How often something was asked that was not recorded; the answer is ``PolicyError("not_recorded")``.
    """

    def __init__(self, rows: Iterable[Mapping[str, Any]]) -> None:
        self._answers: dict[Question, Mapping[str, Any]] = {}
        self._draws: Counter[str] = Counter()
        self.missing = 0
        for row in rows:
            for call in row["calls"]:
                with contextlib.suppress(KeyError, TypeError):  # a malformed call is one that was not recorded
                    self._answers[str(call["prompt"]), _asked_in(call)] = call

    async def generate(self, prompt: str, *, seed: int | None = None, temperature: float | None = None) -> str:
        """Return the recorded draw: that of the seed, or the first time that of the first draw, and so on."""
        draw = self._draws[prompt]
        self._draws[prompt] += seed is None
        found = self._recall(prompt, draw if seed is None else Trace(seed), "response")
        return found if isinstance(found, str) else self._miss()

    async def log_probs(self, prompt: str, response: str, *, given: str = "") -> list[float]:
        """Return the recorded log-probability of each token of ``response``, which follows ``given``."""
        return self._numbers(prompt, After(given, response) if given else response)

    async def choice_log_probs(self, prompt: str, responses: Sequence[str]) -> list[float]:
        """Return the recorded log-probability of each of ``responses`` among them."""
        return self._numbers(prompt, tuple(responses))

    def _numbers(self, prompt: str, what: _What) -> list[float]:
        found = self._recall(prompt, what, "log_probs")
        if not isinstance(found, list) or not all(value is None or isinstance(value, float | int) for value in found):
            self._miss()
        return [math.nan if value is None else float(value) for value in found]

    def _recall(self, prompt: str, what: _What, kind: str) -> Any:
        call = self._answers.get((prompt_key(prompt), what))
        if call is not None and isinstance(call.get("error"), str):
            raise PolicyError(call["error"])
        return self._miss() if call is None else call.get(kind)

    def _miss(self) -> Any:
        self.missing += 1
        raise PolicyError("not_recorded")


def _asked_in(call: Mapping[str, Any]) -> _What:
    """Return what was asked beside the prompt; a generated response stands beside its draw."""
    if "trace" in call:
        return Trace(call["trace"])
    if "given" in call:
        return After(call["given"], call["response"])
    if "responses" in call:
        return tuple(call["responses"])
    return call["draw"] if "draw" in call else call["response"]  # type: ignore[no-any-return]
