"""What was asked of a policy already: a question that is in flight or answered is not asked again."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
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

    def once(self, question: Question, ask: Callable[[], Awaitable[Any]]) -> tuple[asyncio.Future[Any], bool]:
        """Return the call that asks ``question``, and whether it was made now, by ``ask``; not to be cancelled."""
        if question in self._calls:
            return self._calls[question], False
        call = asyncio.ensure_future(ask())
        call.add_done_callback(partial(self._done, question))
        if self._inside:
            self._calls[question] = call
        if len(self._calls) > self._limit:
            del self._calls[next(iter(self._calls))]
        return call, True

    def _done(self, question: Question, call: asyncio.Future[Any]) -> None:
        # The exception is looked at, too, because asyncio warns of one that nothing waits for any more.
        if (call.cancelled() or call.exception()) and self._calls.get(question) is call:
            del self._calls[question]
