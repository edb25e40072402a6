"""A policy that says what another one said: the dual of a rollout that was kept."""

from __future__ import annotations

import contextlib
import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from cellduality_plugin.policies.base import After, PolicyError, Question, Trace


def prompt_key(prompt: str) -> str:
    """Return the first 16 hex digits of a prompt's SHA-256: its name in the records of a group."""
    return hashlib.sha256(prompt.encode("utf-8", "surrogatepass")).hexdigest()[:16]


class RecordedPolicy:
    """Plays the dual from records: says what the policy said then, and nothing else.

    Parameters
    ----------
    rows
        The records of one group.

    Attributes
    ----------
    missing : int
        How often something was asked that was not recorded; the answer is ``PolicyError("not_recorded")``.
    """

    def __init__(self, rows: Iterable[Mapping[str, Any]]) -> None:
        self._answers: dict[Question, Mapping[str, Any]] = {}
        self._draws: dict[str, int] = {}
        self.missing = 0
        for row in rows:
            for call in row["calls"]:
                with contextlib.suppress(KeyError, TypeError):  # a malformed call is one that was not recorded
                    self._answers[str(call["prompt"]), _asked_in(call)] = call

    async def generate(self, prompt: str, *, seed: int | None = None, temperature: float | None = None) -> str:
        """Return the recorded draw: that of the seed, or the first time that of the first draw, and so on."""
        key = prompt_key(prompt)
        if seed is None:
            self._draws[key] = self._draws.get(key, -1) + 1
        found = self._recall(key, self._draws[key] if seed is None else Trace(seed), "response")
        return found if isinstance(found, str) else self._miss()

    async def log_probs(self, prompt: str, response: str, *, given: str = "") -> list[float]:
        """Return the recorded log-probability of each token of ``response``, which follows ``given``."""
        return self._numbers(prompt, After(given, response) if given else response)

    async def choice_log_probs(self, prompt: str, responses: Sequence[str]) -> list[float]:
        """Return the recorded log-probability of each of ``responses`` among them."""
        return self._numbers(prompt, tuple(responses))

    def _numbers(self, prompt: str, what: str | tuple[str, ...] | After) -> list[float]:
        found = self._recall(prompt_key(prompt), what, "log_probs")
        if not isinstance(found, list) or not all(value is None or isinstance(value, float | int) for value in found):
            self._miss()
        return [math.nan if value is None else float(value) for value in found]

    def _recall(self, key: str, what: str | int | tuple[str, ...] | Trace | After, kind: str) -> Any:
        call = self._answers.get((key, what))
        if call is not None and isinstance(call.get("error"), str):
            raise PolicyError(call["error"])
        return self._miss() if call is None else call.get(kind)

    def _miss(self) -> Any:
        self.missing += 1
        raise PolicyError("not_recorded")


def _asked_in(call: Mapping[str, Any]) -> str | int | tuple[str, ...] | Trace | After:
    """Return what was asked beside the prompt; a generated response stands beside its draw."""
    if "trace" in call:
        return Trace(call["trace"])
    if "given" in call:
        return After(call["given"], call["response"])
    if "responses" in call:
        return tuple(call["responses"])
    return call["draw"] if "draw" in call else call["response"]  # type: ignore[no-any-return]
