"""A decoder over several cards: a process with an engine on each, and every batch dealt out among them."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from multiprocessing.connection import Connection
from typing import Any

from cellduality_plugin.errors import CellDualityError
from cellduality_plugin.policies.offline import Decoder, Request

_CARDS = "CUDA_VISIBLE_DEVICES"
Opener = Callable[[], AbstractContextManager[Decoder]]


def card_groups(each: int) -> list[str]:
    """Return the cards of each engine, ``each`` of them, as CUDA_VISIBLE_DEVICES names them; none without a GPU.

    What is left over stays idle.
    """
    from vllm.platforms import current_platform

    if not current_platform.is_cuda_alike():
        return []
    count = current_platform.device_count()
    cards = [card for card in os.environ.get(_CARDS, "").split(",") if card] or [str(card) for card in range(count)]
    return [",".join(cards[first : first + each]) for first in range(0, len(cards) - each + 1, each)]


@contextlib.contextmanager
def sharded_decoder(opener: Opener, groups: Sequence[str]) -> Iterator[Decoder]:
    """Open what ``opener``, which can be pickled, opens, once on each of ``groups``, and end all of it afterwards.

    Raises
    ------
    CellDualityError
        If one of them cannot be opened, or ends before it has answered.
    """
    context = multiprocessing.get_context("spawn")
    workers = []
    try:
        for cards in groups:
            ours, theirs = context.Pipe()
            workers.append((context.Process(target=_serve, args=(theirs, opener, cards), daemon=False), ours))
            workers[-1][0].start()
            theirs.close()
        pipes = [pipe for _, pipe in workers]
        for pipe in pipes:
            _answer(pipe)
        yield _Dealt(pipes)
    finally:
        for _, pipe in workers:
            with contextlib.suppress(OSError):
                pipe.send(None)
        for process, _ in workers:
            process.join(30)
            process.terminate()


class _Dealt:
    """A :class:`~cellduality_plugin.policies.offline.Decoder` that asks all at once, in turns."""

    def __init__(self, pipes: Sequence[Connection]) -> None:
        self._pipes = pipes

    def generate(self, requests: Sequence[Request], title: str) -> list[str | None]:
        found: list[str | None] = [None] * len(requests)
        for place, pipe in enumerate(self._pipes):
            with contextlib.suppress(OSError):  # it has ended, and is found so below
                pipe.send((requests[place :: len(self._pipes)], title))
        for place, pipe in enumerate(self._pipes):
            found[place :: len(self._pipes)] = _answer(pipe)
        return found


def _answer(pipe: Connection) -> Any:
    try:
        answer = pipe.recv()
    except (EOFError, OSError) as error:
        what, hint = "an engine ended without a word", "read its log above; the kernel ends what takes too much memory"
        raise CellDualityError(what, code="engine-died", hint=hint) from error
    if isinstance(answer, BaseException):
        raise answer
    return answer


def _serve(pipe: Connection, opener: Opener, cards: str) -> None:
    """Answer until None comes; what goes wrong is sent, too."""
    os.environ[_CARDS] = cards
    try:
        with opener() as decoder:
            pipe.send(True)
            while (asked := pipe.recv()) is not None:
                pipe.send(decoder.generate(*asked))
    except CellDualityError as error:
        pipe.send(error)
