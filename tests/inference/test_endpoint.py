"""A trained model behind a server: the labels are those of this process, and a server that cannot give them is said."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from cellduality_plugin.inference import Model
from cellduality_plugin.policies.local import LocalModel
from tests.inference.conftest import KEY, cells_of
from tests.refused import refused
from tests.scripted_server import Said, ScriptedServer


class ModelServer(ScriptedServer):
    """Speaks as vLLM does, of real weights."""

    def __init__(self, model: LocalModel) -> None:
        super().__init__()
        self._model, self._turn = model, threading.Lock()

    def usual(self, path: str, body: dict[str, Any]) -> Said:
        if path.endswith("/models"):
            return said({"data": [{"id": "sft", "max_model_len": 256}]})
        tokens = body["prompt"]
        with self._turn:
            if "prompt_logprobs" in body:
                scores = asyncio.run(self._model.ask(tokens[:1], target=tokens[1:]))
                found = [{str(token): {"logprob": score}} for token, score in zip(tokens[1:], scores, strict=True)]
                return said({"choices": [{"text": "", "token_ids": [], "prompt_logprobs": [None, *found]}]})
            how = {"limit": body["max_tokens"], "temperature": body["temperature"], "seed": body.get("seed", 0)}
            return said({"choices": [{"text": "", "token_ids": asyncio.run(self._model.ask(tokens, **how))}]})


def said(content: dict[str, Any]) -> Said:
    return Said(body=json.dumps(content).encode())


@pytest.fixture
def server(trained) -> Iterator[ModelServer]:
    """A running server that has the packed model, called ``sft``."""
    server = ModelServer(LocalModel.load(trained, max_model_len=256, max_new_tokens=24))
    server.start()
    yield server
    server.stop()


@pytest.mark.parametrize("verify", [0, 2])
def test_labels_are_those_of_this_process(trained, server, verify):
    adata = cells_of(["B", "T", "NK"])
    here, there = (
        Model.load(trained, backend=backend).annotate(adata, verify=verify, batch=2, copy=True, progress=False)
        for backend in ("transformers", f"{server.url}#sft")
    )
    columns = [KEY, f"{KEY}_votes", f"{KEY}_reasoning"]
    assert here.obs[columns].equals(there.obs[columns])
    assert there.obsm[f"{KEY}_probability"] == pytest.approx(here.obsm[f"{KEY}_probability"], abs=1e-4)


def test_a_model_that_the_server_lacks_is_refused_before_a_cell_is_asked(trained, server):
    with refused("endpoint-failed"):
        Model.load(trained, backend=server.url).annotate(cells_of(["B"]), progress=False)


@pytest.mark.parametrize("end", [Said(400), Said(401), Said(body=b"no JSON")])
def test_a_server_that_gives_no_more_answers_ends_the_command(trained, server, end):
    server.script = [server.usual("/models", {}), *[end] * 1000]
    with refused("endpoint-failed"):
        Model.load(trained, backend=f"{server.url}#sft").annotate(cells_of(["B", "T"]), progress=False)
