"""Groups of rollouts, scored as the executor scores them, with a policy that says what a test asks for."""

from __future__ import annotations

import asyncio

import numpy as np

from cellduality_plugin.cell_sentences import Cell
from cellduality_plugin.examples import Example
from cellduality_plugin.tasks import TASKS


class Choosing:
    """Says of each of several responses what it says of that response alone."""

    async def choice_log_probs(self, prompt, responses):
        return [sum(await self.log_probs(prompt, response)) for response in responses]


class Saying(Choosing):
    """Plays the dual with one text and one log-probability; or fails, or hangs."""

    def __init__(self, text="", *, log_prob=-1.0, fails=None, delay=0.0):
        self.text, self.log_prob, self.fails, self.delay = text, log_prob, fails, delay

    async def generate(self, prompt, *, seed=None, temperature=None):
        await asyncio.sleep(self.delay)
        if self.fails:
            raise self.fails
        return self.text

    async def log_probs(self, prompt, response, *, given=""):
        await self.generate(prompt)
        return [self.log_prob] * 3


async def member(scorer, group, text, policy, *, truncated=False, delay=0.0, recorder=None):
    """Do what the executor does with one rollout."""
    with group.member():
        await asyncio.sleep(delay)
        score = await scorer.score_member(text, group, policy, truncated=truncated)
    if recorder is not None:
        recorder.write(group, text, score, last=group.over)
    return score


def roll(scorer, example, texts, policy=None, **settings):
    """Return the scores of a whole group."""

    async def whole():
        group = scorer.group(example.to_label())
        members = (member(scorer, group, text, policy or Saying(), **settings) for text in texts)
        return await asyncio.gather(*members)

    return asyncio.run(whole())


def row(name: str, cell: Cell, *, labelled: bool = True) -> Example:
    return TASKS[name].example(cell, hidden=0.25, labelled=labelled, rng=np.random.default_rng(0))
