"""The fault injectors of test_faults.py: the agent of the package between a policy and an engine that misbehave, and
rewards of a user's own that fail, by import path.

Every rollout is really made, and its tokens are trained on; what is replaced is the text that is read in them, what the
engine says when the dual is asked, and what a reward says. FAULTS is a file of {row: {fault, texts of the members}}.
"""

import asyncio
import copy
import json
import math
import os
from collections import Counter
from pathlib import Path

from cellduality_plugin.openrlhf_hooks.executor import DualityExecutor
from cellduality_plugin.policies.base import PolicyError
from cellduality_plugin.rewards import Verdict
from cellduality_plugin.rewards.duality import DualityReward
from cellduality_plugin.rewards.likelihood import LikelihoodReward


def planned():
    return json.loads(Path(os.environ["FAULTS"]).read_text())


class Tokenizer:
    """Decodes the first tokens it is given, those of the rollout, to ``text``."""

    def __init__(self, tokenizer, text):
        self._tokenizer, self._text = tokenizer, text

    def __getattr__(self, name):
        return getattr(self._tokenizer, name)

    def __call__(self, *args, **kwargs):
        return self._tokenizer(*args, **kwargs)

    def decode(self, tokens, **kwargs):
        text, self._text = self._text, None
        return self._tokenizer.decode(tokens, **kwargs) if text is None else text


class Engine:
    """Makes the rollout, which is the first it is asked for, and spoils the duals, which are all others."""

    def __init__(self, engine, fault, max_length, endless):
        self._engine, self._fault, self._max_length, self._endless, self._asked = engine, fault, max_length, endless, 0

    async def generate(self, tokens, params, multi_modal_data=None):
        fault, self._asked = self._fault if self._asked else None, self._asked + 1
        if fault == "engine_sleeps":
            await asyncio.sleep(3600)
        if fault == "engine_raises":
            from vllm.v1.engine.exceptions import EngineGenerateError

            raise EngineGenerateError("injected")
        if fault == "engine_refuses":  # what it says is its own
            tokens = (tokens * self._max_length)[: 2 * self._max_length]
        output = await self._engine.generate(tokens, params, multi_modal_data)
        if fault == "log_probs_are_nan":
            output = copy.deepcopy(output)
            for found in (found for at in output.prompt_logprobs[1:] for found in at.values()):
                found.logprob = math.nan
        if fault == "dual_is_endless":
            output.outputs[0].token_ids = self._endless
        return output


class AgentExecutor(DualityExecutor):
    """Does what is planned of the row, and scores every other as it is."""

    def __init__(self):
        super().__init__()
        self._faults, self._members = planned(), Counter()

    async def execute(self, prompt, label, sampling_params, max_length, hf_tokenizer, llm_engine, images=None):
        row = json.loads(label)["id"]
        if row in self._faults:
            endless = hf_tokenizer(f"<answer>{'x ' * 50_000}</answer>", add_special_tokens=False)["input_ids"]
            hf_tokenizer = Tokenizer(hf_tokenizer, self._faults[row]["texts"][self._members[row]])
            llm_engine = Engine(llm_engine, self._faults[row]["fault"], max_length, endless)
            self._members[row] += 1
        return await super().execute(prompt, label, sampling_params, max_length, hf_tokenizer, llm_engine, images)


class Faulty:
    """Does what is planned of the row, and judges every other."""

    async def judge(self, answer, dual):
        fault = planned().get(dual.example.id, {}).get("fault")
        if fault == "reward_sleeps":
            await asyncio.sleep(3600)
        if fault == "reward_raises":
            raise PolicyError("a word of its own")
        if fault == "reward_is_nan":
            return Verdict(math.nan)
        return await super().judge(answer, dual)


class FaultyLikelihood(Faulty, LikelihoodReward):
    """The likelihood, with faults."""


class FaultyDuality(Faulty, DualityReward):
    """The paper's reward, with faults."""
