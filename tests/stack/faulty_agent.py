"""The agent of the package between a policy and an engine that misbehave: the fault injector of test_faults.py.

Every rollout is really made, and its tokens are trained on; what is replaced is the text that is read in them, and what
the engine says when the dual is asked.
"""

import asyncio
import copy
import json
import math
import os
from collections import Counter
from pathlib import Path

from cellduality_plugin.openrlhf_hooks.executor import DualityExecutor


class Said(list):
    """Tokens that are decoded to a text of our own."""

    text = ""


class Tokenizer:
    """Decodes the first tokens it is given, those of the rollout, to ``text``."""

    def __init__(self, tokenizer, text):
        self._tokenizer, self._text = tokenizer, text

    def __getattr__(self, name):
        return getattr(self._tokenizer, name)

    def __call__(self, *args, **kwargs):
        return self._tokenizer(*args, **kwargs)

    def decode(self, tokens, **kwargs):
        if isinstance(tokens, Said):
            return tokens.text
        text, self._text = self._text, None
        return self._tokenizer.decode(tokens, **kwargs) if text is None else text


class Engine:
    """Makes the rollout, which is the first it is asked for, and spoils the duals, which are all others."""

    def __init__(self, engine, fault, max_length):
        self._engine, self._fault, self._max_length, self._asked = engine, fault, max_length, 0

    async def generate(self, tokens, params, multi_modal_data=None):
        self._asked += 1
        if self._asked > 1:
            if self._fault == "engine_sleeps":
                await asyncio.sleep(3600)
            if self._fault == "engine_raises":
                from vllm.v1.engine.exceptions import EngineGenerateError

                raise EngineGenerateError("injected")
            if self._fault == "engine_refuses":  # what it says is its own
                tokens = (tokens * self._max_length)[: 2 * self._max_length]
        output = await self._engine.generate(tokens, params, multi_modal_data)
        if self._asked > 1 and self._fault == "log_probs_are_nan":
            output = copy.deepcopy(output)
            for at in output.prompt_logprobs[1:]:
                for found in at.values():
                    found.logprob = math.nan
        if self._asked > 1 and self._fault == "dual_is_endless":
            output.outputs[0].token_ids = Said(output.outputs[0].token_ids)
            output.outputs[0].token_ids.text = f"<answer>{'x' * 100_000}</answer>"
        return output


class AgentExecutor(DualityExecutor):
    """What is to happen is told by ``FAULTS``, a file of {row: {fault, texts of the members}}."""

    def __init__(self):
        super().__init__()
        self._faults = json.loads(Path(os.environ["FAULTS"]).read_text())
        self._members = Counter()

    async def execute(self, prompt, label, sampling_params, max_length, hf_tokenizer, llm_engine, images=None):
        row = json.loads(label)["id"]
        if row in self._faults:
            hf_tokenizer = Tokenizer(hf_tokenizer, self._faults[row]["texts"][self._members[row]])
            llm_engine = Engine(llm_engine, self._faults[row]["fault"], max_length)
            self._members[row] += 1
        return await super().execute(prompt, label, sampling_params, max_length, hf_tokenizer, llm_engine, images)
