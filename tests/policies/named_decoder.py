"""A decoder that says which cards it has; processes import it by its name alone."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence

from cellduality_plugin.errors import CellDualityError
from cellduality_plugin.policies.offline import Decoder, Request


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
