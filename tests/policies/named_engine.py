"""A decoder and an engine that say which cards they have; processes import them by their names alone."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from types import SimpleNamespace
from typing import Any

from cellduality_plugin.errors import CellDualityError
from cellduality_plugin.policies.sharded import Decoder, Request


class Named:
    def generate(self, requests: Sequence[Request], title: str) -> list[str | None]:
        if title == "die":
            os._exit(9)
        return [f"{os.environ['CUDA_VISIBLE_DEVICES']}: {request.prompt}" for request in requests]


@contextlib.contextmanager
def opened(fails: bool = False) -> Iterator[Decoder]:
    if fails:
        raise CellDualityError("no room", code="not-servable", where="here", hint="buy one")
    yield Named()


class NamedEngine:
    """Finishes the request that came last first, one a step; refuses token 0, and dies of token 9."""

    def __init__(self) -> None:
        self.waiting: list[tuple[str, list[int]]] = []

    def add_request(self, name: str, prompt: Any, params: Any) -> None:
        tokens = prompt["prompt_token_ids"]
        if tokens == [0]:
            raise ValueError("no such token")
        self.waiting.append((name, tokens))

    def has_unfinished_requests(self) -> bool:
        return bool(self.waiting)

    def step(self) -> list[SimpleNamespace]:
        name, tokens = self.waiting.pop()
        if tokens == [9]:
            os._exit(9)
        others = [SimpleNamespace(request_id=other, finished=False) for other, _ in self.waiting]
        cards = os.environ["CUDA_VISIBLE_DEVICES"]
        return [SimpleNamespace(request_id=name, finished=True, tokens=tokens, cards=cards), *others]


@contextlib.contextmanager
def opened_engine(fails: bool = False) -> Iterator[SimpleNamespace]:
    with opened(fails):
        yield SimpleNamespace(llm=SimpleNamespace(llm_engine=NamedEngine()))
