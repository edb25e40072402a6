"""A decoder and an engine that say which cards they have; processes import them by their names alone."""

from __future__ import annotations

import contextlib
import os
from types import SimpleNamespace

from cellduality_plugin.errors import CellDualityError


class Params:
    """Forgets what is set: to read vLLM's names, a process would import vLLM."""

    def __setattr__(self, name, value):
        pass


class Named:
    """A decoder, and an engine that finishes the request that came last first, one a step.

    The one dies of the title "die", the other of token 9; token 0 is refused.
    """

    def __init__(self):
        self.waiting = []

    def generate(self, requests, title):
        if title == "die":
            os._exit(9)
        return [f"{os.environ['CUDA_VISIBLE_DEVICES']}: {request.prompt}" for request in requests]

    def add_request(self, name, prompt, params):
        if prompt["prompt_token_ids"] == [0]:
            raise ValueError("no such token")
        self.waiting.append((name, prompt["prompt_token_ids"]))

    def has_unfinished_requests(self):
        return bool(self.waiting)

    def step(self):
        name, tokens = self.waiting.pop()
        if tokens == [9]:
            os._exit(9)
        others = [SimpleNamespace(request_id=other, finished=False) for other, _ in self.waiting]
        cards = os.environ["CUDA_VISIBLE_DEVICES"]
        return [SimpleNamespace(request_id=name, finished=True, tokens=tokens, cards=cards), *others]


@contextlib.contextmanager
def opened(fails=False):
    if fails:
        raise CellDualityError("no room", code="not-servable", where="here", hint="buy one")
    yield Named()


@contextlib.contextmanager
def opened_engine(fails=False):
    with opened(fails) as named:
        yield SimpleNamespace(llm=SimpleNamespace(llm_engine=named))
