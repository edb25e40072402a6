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


def asked(tokenizer: Any, question: str) -> tuple[str, list[int]]:
    """Return a question as it is asked: in the chat template, and in tokens."""
    chat = [{"role": "user", "content": question}]
    prompt = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    return prompt, tokenizer(prompt, add_special_tokens=False)["input_ids"]


async def rewards_of(
    executor: Any, rollouts: list[dict[str, Any]], tokenizer: Any, max_len: int, llm: Any = None
) -> list[float]:
    """Return the rewards that an executor of OpenRLHF finds for the rollouts, all at once."""
    from vllm import SamplingParams

    params = SamplingParams(max_tokens=40)
    told = ((each["prompt"], each["label"], params, max_len, tokenizer, Engine(llm, each)) for each in rollouts)
    return [rollout["reward"] for rollout in await asyncio.gather(*(executor.execute(*each) for each in told))]


async def score(model: str, max_len: int, rollouts: list[dict[str, Any]], configs: list[str]) -> dict[str, list[float]]:
    """Return the rewards of the rollouts under each configuration."""
    import vllm
    from transformers import AutoTokenizer

    from cellduality_plugin.openrlhf_hooks.executor import DualityExecutor

    arguments = vllm.AsyncEngineArgs(model=model, max_model_len=max_len, dtype="bfloat16", enforce_eager=True, seed=1)
    llm, tokenizer = vllm.AsyncLLMEngine.from_engine_args(arguments), AutoTokenizer.from_pretrained(model)
    try:
        return {
            config: await rewards_of(DualityExecutor(config), rollouts, tokenizer, max_len, llm) for config in configs
        }
    finally:
        llm.shutdown()


if __name__ == "__main__":
    model, max_len, rollouts, out, *configs = sys.argv[1:]
    found = asyncio.run(score(model, int(max_len), json.loads(Path(rollouts).read_text()), configs))
    Path(out).write_text(json.dumps(found))
