"""Rewards of a user's own that fail at some rows: the fault injector of test_faults.py, used by import path."""

import asyncio
import json
import math
import os
from pathlib import Path

from cellduality_plugin.policies.base import PolicyError
from cellduality_plugin.rewards import Verdict
from cellduality_plugin.rewards.duality import DualityReward
from cellduality_plugin.rewards.likelihood import LikelihoodReward


class Faulty:
    """Does what ``FAULTS``, a file of {row: {fault, ...}}, says of the row, and judges every other."""

    async def judge(self, answer, dual):
        fault = json.loads(Path(os.environ["FAULTS"]).read_text()).get(dual.example.id, {}).get("fault")
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
