"""Scores rollouts as the agent does in training: OpenRLHF's executor, vLLM's engine in the process, the same weights.

cellduality-cpu python score_in_engine.py MODEL MAX_LEN ROLLOUTS CONFIGURATION... > rewards.json
"""

from __future__ import annotations

import asyncio
import json
import sys
from copy import deepcopy
from pathlib import Path
from types import SimpleNamespace
from typing import Any


class Engine:
    """Says again what was said to the question, and asks vLLM everything else as OpenRLHF's rollout actor does."""

    def __init__(self, llm: Any, rollout: dict[str, Any]) -> None:
        self.llm, self.rollout = llm, rollout

    async def generate(self, tokens: list[int], params: Any, multi_modal_data: Any = None) -> Any:
        if tokens == self.rollout["question"]:
            said = SimpleNamespace(token_ids=self.rollout["answer"], logprobs=None, finish_reason="stop")
            return SimpleNamespace(outputs=[said])
        import vllm
        from vllm.utils import random_uuid

        found = None
        prompt = vllm.TokensPrompt(prompt_token_ids=tokens)
        async for output in self.llm.generate(prompt, deepcopy(params), request_id=random_uuid()):
            found = output
        return found


async def score(model: str, max_len: int, rollouts: list[dict[str, Any]], configs: list[str]) -> dict[str, list[float]]:
    """Return the rewards of the rollouts under each configuration."""
    import vllm
    from transformers import AutoTokenizer

    from cellduality_plugin.openrlhf_hooks.executor import DualityExecutor

    arguments = vllm.AsyncEngineArgs(model=model, max_model_len=max_len, dtype="bfloat16", enforce_eager=True, seed=1)
    llm, tokenizer = vllm.AsyncLLMEngine.from_engine_args(arguments), AutoTokenizer.from_pretrained(model)
    rewards = {}
    try:
        for config in configs:
            executor = DualityExecutor(config)
            params = vllm.SamplingParams(max_tokens=40)
            done = await asyncio.gather(
                *(
                    executor.execute(each["prompt"], each["label"], params, max_len, tokenizer, Engine(llm, each))
                    for each in rollouts
                )
            )
            rewards[config] = [rollout["reward"] for rollout in done]
    finally:
        llm.shutdown()
    return rewards


if __name__ == "__main__":
    model, max_len, rollouts, out, *configs = sys.argv[1:]
    found = asyncio.run(score(model, int(max_len), json.loads(Path(rollouts).read_text()), configs))
    Path(out).write_text(json.dumps(found))
