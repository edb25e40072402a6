"""An event loop in a thread of its own: connections that callers in any thread, or in any loop, share."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from typing import Any, TypeVar

Result = TypeVar("Result")


class LoopThread:
    """Runs coroutines in its loop. Its thread starts with the first one: the process may fork until then."""

    def __init__(self, name: str) -> None:
        self._loop, self._starting = asyncio.new_event_loop(), threading.Lock()
        self._thread = threading.Thread(target=self._loop.run_forever, name=name, daemon=True)

    def submit(self, work: Coroutine[Any, Any, Result]) -> Future[Result]:
        """Begin ``work``, and return its result to come."""
        with self._starting:
            if not self._thread.is_alive():
                self._thread.start()
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def close(self, *ends: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """End the loop, after what closes its connections."""
        if self._thread.is_alive():
            for end in ends:
                self.submit(end()).result()
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
        self._loop.close()
