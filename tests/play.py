"""Groups of rollouts, scored as the executor scores them, with a policy that says what a test asks for."""

from __future__ import annotations

import asyncio

import numpy as np

from cellduality_plugin.cell_sentences import Cell
from cellduality_plugin.examples import Example
from cellduality_plugin.rewards import Reward, Verdict
from cellduality_plugin.tasks import TASKS


class Saying:
    """Plays the dual with one text and one log-probability, or what functions make of a question; or fails, or hangs.

    ``text`` may be a function of (prompt, seed), ``log_prob`` one of (prompt, response, what is given before it) that
    gives the number of every token, or a list. What was asked is kept: ``drawn`` (prompt, seed, temperature), and
    ``scored`` (prompt, what is given, response or responses).
    """

    def __init__(self, text="", *, log_prob=-1.0, fails=None, delay=0.0):
        self.text, self.log_prob, self.fails, self.delay = text, log_prob, fails, delay
        self.drawn, self.scored = [], []

    @property
    def prompts(self):
        return [question[0] for question in (*self.drawn, *self.scored)]

    async def generate(self, prompt, *, seed=None, temperature=None):
        await self._keep(self.drawn, (prompt, seed, temperature))
        return self.text(prompt, seed) if callable(self.text) else self.text

    async def log_probs(self, prompt, response, *, given=""):
        await self._keep(self.scored, (prompt, given, response))
        return self._likely(prompt, response, given)

    async def choice_log_probs(self, prompt, responses):
        await self._keep(self.scored, (prompt, "", tuple(responses)))
        return [sum(self._likely(prompt, response, "")) for response in responses]

    def _likely(self, *question):
        found = self.log_prob(*question) if callable(self.log_prob) else self.log_prob
        return found if isinstance(found, list) else [found] * 3

    async def _keep(self, kept, question):
        kept.append(question)
        await asyncio.sleep(self.delay)
        if self.fails:
            raise self.fails


class Constant(Reward):
    """Says one verdict of every answer."""

    def __init__(self, verdict: Verdict):
        self.verdict = verdict

    async def judge(self, answer, dual):
        return self.verdict


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


def row(name: str, cell: Cell, *, labelled: bool = True, hidden: float = 0.25) -> Example:
    return TASKS[name].example(cell, hidden=hidden, labelled=labelled, rng=np.random.default_rng(0))
