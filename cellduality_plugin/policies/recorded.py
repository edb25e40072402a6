"""A policy that repeats the recorded answers of another one: the dual of a rollout that was kept."""

from __future__ import annotations

import contextlib
import hashlib
import math
from collections.abc import Iterable, Mapping
from typing import Any

from cellduality_plugin.policies.base import After, PolicyError, Question, QuestionPolicy, Trace, What


def prompt_key(prompt: str) -> str:
    """Return the first 16 hex digits of a prompt's SHA-256: its name in the records of a group."""
    return hashlib.sha256(prompt.encode("utf-8", "surrogatepass")).hexdigest()[:16]


class RecordedPolicy(QuestionPolicy):
    """Plays the dual from ``rows``, the records of one group: repeats what the policy answered then, and nothing else.

    ``missing`` counts what was asked and not recorded; the answer is ``PolicyError("not_recorded")``.
    """

    def __init__(self, rows: Iterable[Mapping[str, Any]]) -> None:
        super().__init__()
        self._answers: dict[Question, Mapping[str, Any]] = {}
        self.missing = 0
        for row in rows:
            for call in row["calls"]:
                with contextlib.suppress(KeyError, TypeError):  # a malformed call is one that was not recorded
                    self._answers[str(call["prompt"]), _asked_in(call)] = call

    async def answer(self, question: Question) -> Any:
        """Return the recorded text, or log-probabilities."""
        prompt, what = question
        call = self._answers.get((prompt_key(prompt), what), {})
        if isinstance(call.get("error"), str):
            raise PolicyError(call["error"])
        drawn = isinstance(what, int | Trace)
        found = call.get("response" if drawn else "log_probs")
        if drawn and isinstance(found, str):
            return found
        numbers = isinstance(found, list) and all(value is None or isinstance(value, float | int) for value in found)
        if found is not None and numbers and not drawn:
            return [math.nan if value is None else float(value) for value in found]
        self.missing += 1
        raise PolicyError("not_recorded")


def _asked_in(call: Mapping[str, Any]) -> What:
    """Return what was asked beside the prompt; a generated response stands beside its draw."""
    if "trace" in call:
        return Trace(call["trace"])
    if "given" in call:
        return After(call["given"], call["response"])
    if "responses" in call:
        return tuple(call["responses"])
    return call["draw"] if "draw" in call else call["response"]  # type: ignore[no-any-return]
