"""The one way to ask a model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol


class PolicyError(Exception):
    """A call that gave no answer (the prompt does not fit, the engine refused it): data, not a crash.

    Parameters
    ----------
    cause
        A short word for counters: ``"prompt_too_long"`` or ``"timeout"`` or ``"refused"``.
    """

    def __init__(self, cause: str) -> None:
        super().__init__(cause)
        self.cause = cause


class Policy(Protocol):
    """A language model that answers user prompts; the moving policy, a frozen checkpoint or an endpoint."""

    async def generate(self, prompt: str, *, seed: int | None = None, temperature: float | None = None) -> str:
        """Return the response to ``prompt``.

        Parameters
        ----------
        seed
            Of the draw; None leaves it to the model.
        temperature
            None for that of the settings.

        Raises
        ------
        PolicyError
            If the model gave none.
        """
        ...

    async def choice_log_probs(self, prompt: str, responses: Sequence[str]) -> list[float]:
        """Return for each of ``responses`` the natural log-probability of the tokens at which they part.

        Up to a number that they share, and up to what is certain once a response is told from the others, that is how
        likely each is; it takes a prefill for each place where some of them part, of which labels have one or a few.

        Raises
        ------
        PolicyError
            If the model gave none.
        """
        ...

    async def log_probs(self, prompt: str, response: str, *, given: str = "") -> list[float]:
        """Return the natural log-probability of each token of ``response`` after ``prompt`` (one prefill).

        Parameters
        ----------
        given
            The beginning of the model's turn, which is read and not scored; ``response`` follows it.

        Raises
        ------
        PolicyError
            If the model gave none.
        """
        ...
