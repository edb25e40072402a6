"""The one way to ask a model."""

from __future__ import annotations

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

    async def generate(self, prompt: str) -> str:
        """Return the response to ``prompt``.

        Raises
        ------
        PolicyError
            If the model gave none.
        """
        ...

    async def log_probs(self, prompt: str, response: str) -> list[float]:
        """Return the natural log-probability of each token of ``response`` after ``prompt`` (one prefill).

        Raises
        ------
        PolicyError
            If the model gave none.
        """
        ...
