"""Scores for the rollouts of a group: each distinct answer is judged once, in bounded time."""

from __future__ import annotations

import asyncio
import itertools
import math
import time
from collections.abc import Sequence
from dataclasses import replace

from cellduality_plugin.config import Config, TaskSettings
from cellduality_plugin.duals import Dual, Reasoning
from cellduality_plugin.errors import CellDualityError
from cellduality_plugin.examples import Example, Value
from cellduality_plugin.groups import Group, Score, votes_for
from cellduality_plugin.monitors import Rollout, group_logs, reward_logs, rollout_logs
from cellduality_plugin.parsing import Answer, OneOf
from cellduality_plugin.policies.base import Memo, Policy, PolicyError
from cellduality_plugin.rewards import Verdict

QUANTUM = 2**-10
"""Rewards are multiples of this: equal rewards then cancel exactly in a group's mean, and the normalised advantage
of a group without spread is zero instead of amplified rounding error."""


def quantise(reward: float) -> float:
    """Return the nearest multiple of 2^-10."""
    return round(reward / QUANTUM) * QUANTUM


def shaped(similarity: float, validity: float, settings: TaskSettings) -> float:
    """Return the reward of a judged answer, in [0, 1]: validity ** power x ((1 - share) similarity + share)."""
    share = settings.validity_share
    return quantise(validity**settings.validity_power * ((1 - share) * similarity + share))


class Scorer:
    """Turns the text of a rollout into a :class:`Score`: parse, judge by the dual, compare with the group, log.

    A rollout of a run is a member of its group, which is open while the rollout is made::

        group = scorer.group(label)
        with group.member():
            text = ...
            score = await scorer.score_member(text, group, policy)
    """

    def __init__(self, config: Config) -> None:
        self._config = config
        self._vocabulary = config.load_vocabulary()
        self._tasks = config.load_tasks()
        self._rewards = config.load_rewards(self._tasks)
        reads = any(reward.needs_profiles for reward in self._rewards.values())
        self._profiles = config.load_profiles() if reads else None
        self._numbers = itertools.count()
        self._memo = Memo()

    @property
    def asks_policy(self) -> bool:
        """Whether any of its rewards asks the policy something."""
        return any(reward.asks_dual or reward.asks_again for reward in self._rewards.values())

    def group(self, label: str) -> Group:
        """Return a new group for the question in ``label``; a CellDualityError if it is none of this run's."""
        example = Example.from_label(label)
        if example.task not in self._tasks:
            what = f"row {example.id!r} asks for the task {example.task!r}"
            hint = f"the configuration has {', '.join(self._tasks)}; add it there or prepare the data again"
            raise CellDualityError(what, code="unknown-task", hint=hint)
        task = self._tasks[example.task]
        example = self._config.split(task, example)
        self._rewards[task.name].check_row(task, example, self._vocabulary)
        return Group(example, label, next(self._numbers), memo=self._memo)

    async def score(self, text: str, group: Group, policy: Policy) -> Score:
        """Return the score of one response on its own; 0 if it cannot be judged. A ``group`` judges an answer once."""
        answer = self._tasks[group.example.task].parse_answer(text, self._vocabulary)
        if answer.value is None:
            return self._scored(group, text, answer, Verdict(0.0))
        started, first = time.monotonic(), answer.value not in group.verdicts
        if first:
            duals = [self._dual(group, policy, split) for split in group.example.splits()]
            group.duals[answer.value] = duals
            group.verdicts[answer.value] = asyncio.ensure_future(self._judge(answer.value, duals))
        with group.memo:
            verdict = await asyncio.shield(group.verdicts[answer.value])
        requests = sum(dual.requests for dual in group.duals[answer.value]) if first else 0
        return self._scored(group, text, answer, verdict, requests, time.monotonic() - started)

    async def score_member(
        self, text: str, group: Group, policy: Policy, *, truncated: bool = False, began: float | None = None
    ) -> Score:
        """Return the score of a member among those of its group, with all that is logged of both.

        With ``votes`` the answers of a group share its evidence (:func:`votes_for`); where rewards then lie nearer
        together than ``minimum_spread`` all get their mean. Both wait for the other members, as does a label of a set
        that no question lists, of which the other answers are rivals; the last to come logs what the group was. The
        response may be ``truncated`` at its length; it ``began`` at that monotonic time, by default now.
        """
        began = time.monotonic() if began is None else began
        task = self._tasks[group.example.task]
        if isinstance(task.answer, OneOf) and not self._vocabulary.lists(task.answer.kind):
            await group.all_of(group.answers, task.parse_answer(text, self._vocabulary).value)
        score = await self._among_group(await self.score(text, group, policy), group)
        group.finished.append((score.answer.value, score.reward))
        finished = group.finished if group.over else []
        seconds = time.monotonic() - began
        logs = group_logs(finished, task, self._vocabulary, truncated=truncated, seconds=seconds)
        return replace(score, logs={**score.logs, **logs})

    async def score_all(self, texts: Sequence[str], group: Group, policy: Policy) -> list[Score]:
        """Return the scores of the responses that are all of ``group``, in their order, as a run gives them."""

        async def member(text: str) -> Score:
            with group.member():
                await asyncio.sleep(0)  # so that all members have begun before the first of them ends
                return await self.score_member(text, group, policy)

        return list(await asyncio.gather(*map(member, texts)))

    def _dual(self, group: Group, policy: Policy, example: Example) -> Dual:
        dual, task, settings = self._config.dual, self._tasks[example.task], self._config.tasks[example.task]
        return Dual(
            task,
            example,
            self._vocabulary,
            policy,
            samples=dual.samples,
            timeout=dual.timeout_seconds,
            asked=group.asked,
            memo=group.memo,
            reasoning=Reasoning(settings.traces, settings.trace_mean, dual.trace_temperature, dual.seed),
            negatives=settings.negatives,
            answered=group.answers,
            profiles=self._profiles,
        )

    async def _judge(self, answer: Value, duals: Sequence[Dual]) -> Verdict:
        """Return the mean verdict over the masks of a row; one that failed counts 0."""

        async def under(dual: Dual) -> Verdict:
            judging = self._rewards[dual.example.task].judge(answer, dual)
            try:
                verdict = await asyncio.wait_for(judging, self._config.dual.timeout_seconds)
            except asyncio.TimeoutError:
                return Verdict.none("timeout")
            except PolicyError as error:
                return Verdict.none(error.cause)
            # A pair or a reward of the user's own may be wrong here; NaN would spoil the step of every other task.
            in_range = 0.0 <= verdict.similarity <= 1.0 and 0.0 <= verdict.failed <= 1.0
            return verdict if in_range else Verdict.none("out_of_range")

        return Verdict.mean(await asyncio.gather(*map(under, duals)), [1.0] * len(duals))

    def _scored(
        self, group: Group, text: str, answer: Answer, verdict: Verdict, requests: int = 0, seconds: float = 0.0
    ) -> Score:
        task, settings = self._tasks[group.example.task], self._config.tasks[group.example.task]
        validity = 0.0 if answer.value is None else task.validity(group.example, answer)
        if not 0.0 <= validity <= 1.0:
            validity, verdict = 0.0, Verdict.none("out_of_range")
        # What could not be read or asked earns nothing, whatever its form.
        judged = answer.value is not None and not verdict.failure
        similarity = verdict.similarity if judged else 0.0
        reward = shaped(similarity, validity, settings) if judged else 0.0
        duals = [] if answer.value is None else group.duals[answer.value]
        rebuilt = [(dual.example.known, read) for dual in duals for read in dual.reads]
        rollout = Rollout(task, group.example, text, answer, verdict, rebuilt, validity, reward, requests, seconds)
        logs = rollout_logs(rollout, self._tasks, self._vocabulary)
        return Score(reward, logs, answer.failure or verdict.failure, answer, similarity, validity)

    async def _among_group(self, score: Score, group: Group) -> Score:
        settings = self._config.tasks[group.example.task]
        if not settings.votes and not settings.minimum_spread:
            return score
        scores = await group.all_of(group.scores, score)

        def voted(each: Score) -> float:
            if not settings.votes or each.failure:
                return each.reward
            return shaped(votes_for(each, scores), each.validity, settings)

        rewards, reward = [voted(each) for each in scores], voted(score)
        levelled = settings.minimum_spread > 0 and max(rewards) - min(rewards) < settings.minimum_spread
        if levelled:
            reward = quantise(math.fsum(rewards) / len(rewards))
        logs = {**score.logs, **reward_logs(self._tasks, group.example.task, reward)}
        return replace(score, reward=reward, logs={**logs, "dual_levelled": float(levelled)})
