"""What was asked of a policy already: a question that is in flight or answered is not asked again."""

from __future__ import annotations

import asyncio
from typing import Any, TypeAlias

from cellduality_plugin.policies.base import Question

Asked: TypeAlias = dict[Question, "asyncio.Future[Any]"]
"""What was asked already, with the answers that came or will come."""


class Memo:
    """What the groups in flight at one time have asked: what one of them asked no other asks again.

    A group in flight is inside (``with memo``). When the last one leaves, all is forgotten, so that no answer outlives
    the weights that gave it: an engine's weights change while nothing is in flight. A call that failed is forgotten at
    once, and the oldest where there are more than ``limit``. One event loop at a time.
    """

    def __init__(self, limit: int = 16_384) -> None:
        self._limit, self._inside = limit, 0
        self._calls: Asked = {}

    def __len__(self) -> int:
        return len(self._calls)

    def __enter__(self) -> None:
        self._inside += 1

    def __exit__(self, *error: object) -> None:
        self._inside -= 1
        if not self._inside:
            self._calls.clear()

    def get(self, question: Question) -> asyncio.Future[Any] | None:
        """Return the call that asks ``question``, if one was made."""
        return self._calls.get(question)

    def keep(self, question: Question, call: asyncio.Future[Any]) -> None:
        """Remember a call, as long as anybody is inside and it does not fail."""

        def drop_failed(done: asyncio.Future[Any]) -> None:
            if (done.cancelled() or done.exception()) and self._calls.get(question) is done:
                del self._calls[question]

        if self._inside:
            self._calls[question] = call
            call.add_done_callback(drop_failed)
        if len(self._calls) > self._limit:
            del self._calls[next(iter(self._calls))]
