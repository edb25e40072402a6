"""The layout of a machine with several cards, on a CPU: two engines in processes of their own, beside one in this.

cellduality-cpu python several_engines.py MODEL PROMPTS ANSWER > found.json
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from cellduality_plugin.evaluation.audit.engine import Stepped
from cellduality_plugin.hub import read_tokenizer
from cellduality_plugin.policies.offline import EngineSettings, VllmDecoder, served_model
from cellduality_plugin.policies.settings import DualSettings
from cellduality_plugin.policies.sharded import Decoder, Request, sharded_decoder, sharded_engine
from cellduality_plugin.policies.tokens import EnginePolicy

SETTINGS = EngineSettings(max_model_len=128, max_new_tokens=40, dtype="float32")


@contextlib.contextmanager
def decoder(model: Path) -> Iterator[Decoder]:
    with served_model(model, SETTINGS) as served:
        yield VllmDecoder(served, 40)


def told(engine: Any, model: Path, prompts: list[str], answer: str) -> dict[str, Any]:
    """Return what an audit and pseudo-labels ask: texts, and log-probabilities of an answer."""
    policy = EnginePolicy(engine, read_tokenizer(str(model)), 128, DualSettings(max_new_tokens=40))

    async def all_of_them() -> dict[str, Any]:
        texts = await asyncio.gather(*(policy.generate(prompt) for prompt in prompts))
        return {"texts": texts, "log_probs": await asyncio.gather(*(policy.log_probs(p, answer) for p in prompts))}

    return asyncio.run(all_of_them())


def main(model: Path, prompts: list[str], answer: str) -> dict[str, Any]:
    """Return what several engines say and what one says."""
    found = {}
    requests = [Request(prompt, 0.0, 0) for prompt in prompts]
    with sharded_engine(partial(served_model, model, SETTINGS), ["", ""]) as engine:
        found["several"] = told(engine, model, prompts, answer)
    with sharded_decoder(partial(decoder, model), ["", ""]) as several:
        found["several"]["decoded"] = several.generate(requests, "")
    with served_model(model, SETTINGS) as served:
        found["one"] = told(Stepped(served), model, prompts, answer)
        found["one"]["decoded"] = VllmDecoder(served, 40).generate(requests, "")
    return found


if __name__ == "__main__":
    model, prompts, answer = sys.argv[1:]
    print(json.dumps(main(Path(model), json.loads(Path(prompts).read_text()), answer)))
