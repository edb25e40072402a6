"""What can be asked of a model, whoever plays it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias


class PolicyError(Exception):
    """A call that gave no answer: data, not a crash.

    Its ``cause`` is a short word for counters, such as ``"prompt_too_long"``, ``"timeout"`` or ``"refused"``.
    """

    def __init__(self, cause: str) -> None:
        super().__init__(cause)
        self.cause = cause


class Policy(Protocol):
    """A language model that answers user prompts: the moving policy, a frozen checkpoint, an endpoint, records.

    Every call raises a :class:`PolicyError` if the model gives no answer.
    """

    async def generate(self, prompt: str, *, seed: int | None = None, temperature: float | None = None) -> str:
        """Return the response to ``prompt``; the model chooses a seed, and its settings the temperature, if None."""
        ...

    async def log_probs(self, prompt: str, response: str, *, given: str = "") -> list[float]:
        """Return the natural log-probability of each token of ``response`` after ``prompt`` (one prefill).

        ``given`` is the beginning of the model's turn: it is read and not scored, and ``response`` follows it.
        """
        ...

    async def choice_log_probs(self, prompt: str, responses: Sequence[str]) -> list[float]:
        """Return for each of ``responses`` the natural log-probability of its tokens where responses branch.

        That is how likely each is among them, up to a number that they share.
        """
        ...


@dataclass(frozen=True)
class Trace:
    """A draw of a reasoning trace, by its seed."""

    seed: int


@dataclass(frozen=True)
class After:
    """A response whose beginning is given and only the rest of it scored."""

    given: str
    response: str


Question: TypeAlias = tuple[str, "str | int | tuple[str, ...] | Trace | After"]
"""A prompt, and a response, the number of a draw, the responses to choose among, a trace, or a response after one."""
