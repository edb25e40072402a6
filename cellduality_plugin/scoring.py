"""The rollouts of one prompt and their scores: each distinct answer is judged once, in bounded time."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

from cellduality_plugin.config import Config, TaskSettings
from cellduality_plugin.duals import Dual, Reasoning
from cellduality_plugin.errors import CellDualityError
from cellduality_plugin.examples import Example, Value
from cellduality_plugin.monitors import Rollout, group_logs, rollout_logs
from cellduality_plugin.parsing import Answer, OneOf
from cellduality_plugin.policies.base import Asked, Memo, Policy, PolicyError
from cellduality_plugin.rewards import Verdict
from cellduality_plugin.tasks import DualTask

T = TypeVar("T")

QUANTUM = 2**-10
"""Rewards are multiples of this: equal rewards then cancel exactly in a group's mean, and the normalised advantage
of a group without spread is zero instead of amplified rounding error."""


@dataclass(frozen=True)
class Score:
    """The reward of one rollout, in [0, 1], and what it is made of."""

    reward: float
    # What the trainer logs, under the same keys in the same order for every rollout; see :mod:`.monitors`.
    logs: dict[str, float]
    # Why nothing was earned, in the word of the parser, the policy or the reward; empty if something could be.
    failure: str = ""
    answer: Answer = field(default_factory=lambda: Answer(None))
    # The verdict on the ``answer`` and its form, in [0, 1]; both 0 where nothing could be earned.
    similarity: float = 0.0
    validity: float = 0.0


@dataclass
class Group:
    """What the rollouts of one prompt share: the question, and what was asked and found so far."""

    label: str  # the row as it came; ``example`` is what it says, split as the configuration asks for
    example: Example
    task: DualTask
    pay: TaskSettings
    number: int
    memo: Memo  # the calls of all groups in flight
    asked: Asked = field(default_factory=dict)  # those of this group
    # By answer: its duals, one for each mask of the row, and the judging of it.
    judged: dict[Value, tuple[list[Dual], asyncio.Task[Verdict]]] = field(default_factory=dict)
    members: int = 0  # how many rollouts began
    answers: list[Value | None] = field(default_factory=list)  # of those that were read
    answered: asyncio.Event = field(default_factory=asyncio.Event)  # whether all were
    scores: list[Score] = field(default_factory=list)  # of those that were judged
    complete: asyncio.Event = field(default_factory=asyncio.Event)
    finished: list[tuple[Value | None, float]] = field(default_factory=list)  # (answer, final reward), at their end

    @contextlib.contextmanager
    def member(self) -> Iterator[None]:
        """Count a rollout in, before it is made: the members of a group all begin before the first of them ends.

        The last to end logs the group; should that one crash, nobody does. As long as one is in flight, what it asked
        is asked by no other group.
        """
        self.members += 1
        self.answered.clear()
        self.complete.clear()
        try:
            with self.memo:
                yield
        except BaseException:  # it will have no reward to wait for
            self.members -= 1
            self._close()
            raise

    @property
    def over(self) -> bool:
        """Whether every member has come to its end."""
        return len(self.finished) >= self.members

    async def all_of(self, found: list[T], own: T, event: asyncio.Event) -> list[T]:
        """Return ``found``, the scores or the answers, with this member's ``own``, once that of the last is there."""
        found.append(own)
        self._close()
        try:
            await event.wait()
        except BaseException:  # it leaves, and what it found with it
            found.remove(own)
            raise
        return found

    def _close(self) -> None:
        if len(self.answers) >= self.members:
            self.answered.set()
        if len(self.scores) >= self.members:
            self.complete.set()


def votes_for(score: Score, scores: Sequence[Score]) -> float:
    r"""Return the share of the evidence of a group, ``scores``, for the answer of one member; in [0, 1], best value 1.

    .. math:: r_i = n(y_i) s(y_i) / \sum_j s(y_j)

    with n(y) the number of the group's answers that are y and s(y) its similarity. Where s is the posterior under an
    even prior, r is the posterior under the group's own votes. Not in the paper.
    """
    total = math.fsum(each.similarity for each in scores)
    alike = sum(each.answer.value == score.answer.value for each in scores)
    return min(1.0, alike * score.similarity / total) if total else 0.0


def quantise(reward: float) -> float:
    """Return the nearest multiple of 2^-10."""
    return round(reward / QUANTUM) * QUANTUM


def shaped(similarity: float, validity: float, settings: TaskSettings) -> float:
    """Return the reward of a judged answer, in [0, 1]: validity ** power x ((1 - share) similarity + share)."""
    share = settings.validity_share
    return quantise(validity**settings.validity_power * ((1 - share) * similarity + share))


class Scorer:
    """Turns the text of a rollout into a :class:`Score`: parse, judge by the dual, compare with the group, log.

    A rollout of a run is scored inside ``with group.member()``, which is open while it is made.
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
        task, pay = self._tasks[example.task], self._config.tasks[example.task]
        example = self._config.split(task, example)
        self._rewards[task.name].check_row(task, example, self._vocabulary)
        return Group(label, example, task, pay, next(self._numbers), self._memo)

    async def score(self, text: str, group: Group, policy: Policy) -> Score:
        """Return the score of one response on its own; 0 if it cannot be judged. A ``group`` judges an answer once."""
        task, verdict, validity = group.task, Verdict(0.0), 0.0
        answer = task.parse_answer(text, self._vocabulary)
        duals, requests, seconds, started = list[Dual](), 0, 0.0, time.monotonic()
        if answer.value is not None:
            if first := answer.value not in group.judged:
                duals = [self._dual(group, policy, split) for split in group.example.splits()]
                group.judged[answer.value] = duals, asyncio.ensure_future(self._judge(answer.value, duals))
            duals, judging = group.judged[answer.value]
            with group.memo:
                verdict = await asyncio.shield(judging)
            requests, seconds = sum(dual.requests for dual in duals) if first else 0, time.monotonic() - started
            validity = task.validity(group.example, answer)
        if not 0.0 <= validity <= 1.0:
            validity, verdict = 0.0, Verdict.none("out_of_range")
        # What could not be read or asked earns nothing, whatever its form.
        earns = answer.value is not None and not verdict.failure
        similarity = verdict.similarity if earns else 0.0
        reward = shaped(similarity, validity, group.pay) if earns else 0.0
        rebuilt = [(dual.example.known, read) for dual in duals for read in dual.reads]
        rollout = Rollout(task, group.example, text, answer, verdict, rebuilt, validity, reward, requests, seconds)
        logs = rollout_logs(rollout, self._tasks, self._vocabulary)
        return Score(reward, logs, answer.failure or verdict.failure, answer, similarity, validity)

    async def score_member(
        self, text: str, group: Group, policy: Policy, *, truncated: bool = False, began: float | None = None
    ) -> Score:
        """Return the score of a member among those of its group, with all that is logged of both.

        With ``votes`` the answers of a group share its evidence (:func:`votes_for`); where rewards then lie nearer
        together than ``minimum_spread`` all get their mean. Both wait for the other members, as does a label of a set
        that no question lists, of which the other answers are rivals; the last to come logs what the group was. The
        response may be ``truncated`` at its length; it ``began`` at that monotonic time, by default now.
        """
        began, task = time.monotonic() if began is None else began, group.task
        if isinstance(task.answer, OneOf) and not self._vocabulary.lists(task.answer.kind):
            answer = task.parse_answer(text, self._vocabulary).value
            await group.all_of(group.answers, answer, group.answered)
        score = await self.score(text, group, policy)
        if group.pay.votes or group.pay.minimum_spread:
            score = _among(await group.all_of(group.scores, score, group.complete), score, group)
        group.finished.append((score.answer.value, score.reward))
        finished, seconds = group.finished if group.over else [], time.monotonic() - began
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
        dual, pay = self._config.dual, group.pay
        return Dual(
            group.task,
            example,
            self._vocabulary,
            policy,
            samples=dual.samples,
            timeout=dual.timeout_seconds,
            asked=group.asked,
            memo=group.memo,
            reasoning=Reasoning(pay.traces, pay.trace_mean, dual.trace_temperature, dual.seed),
            negatives=pay.negatives,
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


def _among(scores: Sequence[Score], score: Score, group: Group) -> Score:
    """Return the score of one member among those of all, ``scores``."""
    pay = group.pay

    def voted(each: Score) -> float:
        return shaped(votes_for(each, scores), each.validity, pay) if pay.votes and not each.failure else each.reward

    rewards, reward = [voted(each) for each in scores], voted(score)
    levelled = pay.minimum_spread > 0 and max(rewards) - min(rewards) < pay.minimum_spread
    if levelled:
        reward = quantise(math.fsum(rewards) / len(rewards))
    logs = {"dual_reward": reward, f"dual_reward/{group.task.name}": reward, "dual_levelled": float(levelled)}
    return replace(score, reward=reward, logs=score.logs | logs)
