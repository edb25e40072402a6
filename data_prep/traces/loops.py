"""An event loop for thousands of requests a second."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Coroutine
from typing import Any, TypeVar

Result = TypeVar("Result")


def run(main: Coroutine[Any, Any, Result]) -> Result:
    """Return what ``main`` returns: asyncio.run, on uvloop where that is installed, as it is beside vLLM.

    The garbage collector leaves alone what is there already, such as a million questions or the types of an API, and
    looks less often at the rest: it takes a seventh of the time of a request otherwise. Both end with the run.
    """
    before = gc.get_threshold()
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)
    try:
        try:
            import uvloop
        except ImportError:
            return asyncio.run(main)
        return uvloop.run(main)
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()
