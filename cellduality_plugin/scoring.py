"""Scores for the rollouts of a group: each distinct answer is judged once, in bounded time."""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from cellduality_plugin.config import Config
from cellduality_plugin.duals import Asked, Dual
from cellduality_plugin.errors import CellDualityError
from cellduality_plugin.examples import Example, Value
from cellduality_plugin.parsing import Answer
from cellduality_plugin.policy import Policy, PolicyError
from cellduality_plugin.rewards import Verdict

QUANTUM = 2**-10
"""Rewards are multiples of this: equal rewards then cancel exactly in a group's mean, and the normalised advantage
of a group without spread is zero instead of amplified rounding error."""


@dataclass(frozen=True)
class Score:
    """The reward of one rollout, in [0, 1], and what it is made of, under the same keys for every rollout.

    ``failure`` is the word of the parser or of the policy for why nothing was earned; empty if something could be.
    """

    reward: float
    logs: dict[str, float]
    failure: str = ""


@dataclass
class Group:
    """What the rollouts of one prompt share: the question, read once, and what was asked and found so far."""

    example: Example
    verdicts: dict[Value, asyncio.Task[Verdict]] = field(default_factory=dict)
    asked: Asked = field(default_factory=dict)
    members: int = 0
    rewards: list[float] = field(default_factory=list)
    complete: asyncio.Event = field(default_factory=asyncio.Event)

    @contextlib.contextmanager
    def member(self) -> Iterator[None]:
        """Count a rollout in, before it is made: the members of a group all begin before the first of them ends."""
        self.members += 1
        self.complete.clear()
        try:
            yield
        except BaseException:  # it will have no reward to wait for
            self.members -= 1
            self._close()
            raise

    async def all_rewards(self, reward: float) -> list[float]:
        """Return the rewards of all members, of which this one has ``reward``, once the last is there."""
        self.rewards.append(reward)
        self._close()
        await self.complete.wait()
        return self.rewards

    def _close(self) -> None:
        if len(self.rewards) >= self.members:
            self.complete.set()


def quantise(reward: float) -> float:
    """Return the nearest multiple of 2^-10.

    Examples
    --------
    >>> quantise(1.0), quantise(0.1) * 1024
    (1.0, 102.0)
    """
    return round(reward / QUANTUM) * QUANTUM


class Scorer:
    """Turns the text of a rollout into a :class:`Score` by asking the dual of its task.

    Parameters
    ----------
    config
        The pairs, their rewards, and how long a dual may take.
    """

    def __init__(self, config: Config) -> None:
        self._config = config
        self._vocabulary = config.load_vocabulary()
        self._tasks = config.load_tasks()
        self._rewards = config.load_rewards(self._tasks)

    def group(self, label: str) -> Group:
        """Return a new group for the question in ``label``.

        Raises
        ------
        CellDualityError
            If the row is malformed, names a task that the configuration does not have, or lacks what its reward needs.
        """
        example = Example.from_label(label)
        if example.task not in self._tasks:
            raise CellDualityError(
                f"row {example.id!r} asks for the task {example.task!r}",
                mend=f"the configuration has {', '.join(self._tasks)}; add it there or prepare the data again",
            )
        self._rewards[example.task].check_row(self._tasks[example.task], example, self._vocabulary)
        return Group(example)

    async def score(self, text: str, group: Group, policy: Policy) -> Score:
        """Return the score of one response of ``group``. A response that cannot be judged scores 0.

        Parameters
        ----------
        text
            The response of the policy, special tokens removed.
        group
            The group the rollout belongs to; holds the verdicts on answers that were already judged.
        policy
            Who plays the dual.
        """
        task = self._tasks[group.example.task]
        answer = task.parse_answer(text, self._vocabulary)
        if answer.value is None:
            return self._report(group, answer, Verdict(0.0), validity=0.0, requests=0, seconds=0.0)
        started = time.monotonic()
        dual = self._dual(group, policy)
        judging = group.verdicts.get(answer.value)
        if judging is None:
            judging = asyncio.ensure_future(self._judge(answer.value, dual))
            group.verdicts[answer.value] = judging
        verdict = await asyncio.shield(judging)
        seconds = time.monotonic() - started
        validity = task.validity(group.example, answer)
        return self._report(group, answer, verdict, validity=validity, requests=dual.requests, seconds=seconds)

    async def level(self, score: Score, group: Group) -> Score:
        """Return ``score``, with the mean reward of its group if the group's rewards lie too near together to tell.

        Waits for the other members, so each of them has to come here; see :meth:`Group.member`.
        """
        bound = self._config.tasks[group.example.task].minimum_spread
        if not bound:
            return score
        rewards = await group.all_rewards(score.reward)
        if max(rewards) - min(rewards) >= bound:
            return score
        reward = quantise(math.fsum(rewards) / len(rewards))
        logs = {**score.logs, **self._rewards_by_task(group, reward), "dual_levelled": 1.0}
        return Score(reward, logs, score.failure)

    def _dual(self, group: Group, policy: Policy) -> Dual:
        dual, task = self._config.dual, self._tasks[group.example.task]
        return Dual(
            task,
            group.example,
            self._vocabulary,
            policy,
            samples=dual.samples,
            timeout=dual.timeout_seconds,
            asked=group.asked,
        )

    async def _judge(self, answer: Value, dual: Dual) -> Verdict:
        judging = self._rewards[dual.example.task].judge(answer, dual)
        try:
            verdict = await asyncio.wait_for(judging, self._config.dual.timeout_seconds)
        except asyncio.TimeoutError:
            return Verdict.none("timeout")
        except PolicyError as error:
            return Verdict.none(error.cause)
        # A pair or a reward of the user's own may be wrong here; NaN would spoil the step of every other task.
        return verdict if 0.0 <= verdict.similarity <= 1.0 else Verdict.none("out_of_range")

    def _report(
        self, group: Group, answer: Answer, verdict: Verdict, *, validity: float, requests: int, seconds: float
    ) -> Score:
        settings = self._config.tasks[group.example.task]
        # What could not be read or asked earns nothing, whatever its form.
        judged = answer.value is not None and not verdict.failure
        share = settings.validity_share if judged else 0.0
        reward = quantise(validity**settings.validity_power * ((1 - share) * verdict.similarity + share))
        listed = max(answer.listed, 1)
        logs = {
            "dual_similarity": verdict.similarity,
            "dual_validity": validity,
            "dual_answer_parsed": float(answer.value is not None),
            "dual_repeated_genes": answer.repeated / listed,
            "dual_unknown_genes": answer.unknown / listed,
            "dual_failed": verdict.failed,
            "dual_timeout": float(verdict.failure == "timeout"),
            "dual_requests": float(requests),
            "dual_seconds": seconds,
            "dual_levelled": 0.0,
        }
        return Score(reward, {**self._rewards_by_task(group, reward), **logs}, answer.failure or verdict.failure)

    def _rewards_by_task(self, group: Group, reward: float) -> dict[str, float]:
        """Return the logs that hold the reward.

        OpenRLHF averages a key over all rollouts of a step and needs the same keys from each. A task's own mean reward
        is therefore logged as two sums: dual_reward/TASK divided by dual_share/TASK.
        """
        logs = {"dual_reward": reward}
        for name in self._tasks:
            mine = float(name == group.example.task)
            logs[f"dual_share/{name}"] = mine
            logs[f"dual_reward/{name}"] = mine * reward
        return logs
