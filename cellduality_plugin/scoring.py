"""Scores for the rollouts of a group: each distinct answer is judged once, in bounded time."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field

from cellduality_plugin.config import Config
from cellduality_plugin.errors import CellDualityError
from cellduality_plugin.examples import Example, Value
from cellduality_plugin.parsing import Answer
from cellduality_plugin.policy import Policy, PolicyError
from cellduality_plugin.rewards import REWARDS, Verdict

QUANTUM = 2**-10
"""Rewards are multiples of this: equal rewards then cancel exactly in a group's mean, and the normalised advantage
of a group without spread is zero instead of amplified rounding error."""


@dataclass(frozen=True)
class Score:
    """The reward of one rollout, in [0, 1], and what it is made of, under the same keys for every rollout."""

    reward: float
    logs: dict[str, float]


@dataclass
class Group:
    """What the rollouts of one prompt share: the question, read once, and the verdicts on the answers so far."""

    example: Example
    verdicts: dict[Value, asyncio.Task[Verdict]] = field(default_factory=dict)


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

    def group(self, label: str) -> Group:
        """Return a new group for the question in ``label``.

        Raises
        ------
        CellDualityError
            If the row is malformed or names a task that the configuration does not have.
        """
        example = Example.from_label(label)
        if example.task not in self._tasks:
            raise CellDualityError(
                f"row {example.id!r} asks for the task {example.task!r}",
                mend=f"the configuration has {', '.join(self._tasks)}; add it there or prepare the data again",
            )
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
            return self._report(group, answer, Verdict(0.0), validity=0.0, asked=False, seconds=0.0)
        started = time.monotonic()
        judging = group.verdicts.get(answer.value)
        asked = judging is None
        if judging is None:
            judging = asyncio.ensure_future(self._judge(group.example, answer.value, policy))
            group.verdicts[answer.value] = judging
        verdict = await asyncio.shield(judging)
        seconds = time.monotonic() - started
        validity = task.validity(group.example, answer)
        return self._report(group, answer, verdict, validity=validity, asked=asked, seconds=seconds)

    async def _judge(self, example: Example, answer: Value, policy: Policy) -> Verdict:
        settings = self._config.tasks[example.task]
        judging = REWARDS[settings.reward].judge(self._tasks[example.task], example, answer, policy, self._vocabulary)
        try:
            return await asyncio.wait_for(judging, self._config.dual.timeout_seconds)
        except asyncio.TimeoutError:
            return Verdict(0.0, "timeout")
        except PolicyError as error:
            return Verdict(0.0, error.cause)

    def _report(
        self, group: Group, answer: Answer, verdict: Verdict, *, validity: float, asked: bool, seconds: float
    ) -> Score:
        settings = self._config.tasks[group.example.task]
        # What could not be read or asked earns nothing, whatever its form.
        judged = answer.value is not None and not verdict.failure
        share = settings.validity_share if judged else 0.0
        reward = quantise(validity**settings.validity_power * ((1 - share) * verdict.similarity + share))
        listed = max(answer.listed, 1)
        logs = {
            "dual_reward": reward,
            "dual_similarity": verdict.similarity,
            "dual_validity": validity,
            "dual_answer_parsed": float(answer.value is not None),
            "dual_repeated_genes": answer.repeated / listed,
            "dual_unknown_genes": answer.unknown / listed,
            "dual_failed": float(bool(verdict.failure)),
            "dual_timeout": float(verdict.failure == "timeout"),
            "dual_requests": float(asked),
            "dual_seconds": seconds,
        }
        # OpenRLHF averages a key over all rollouts of a step and needs the same keys from each. A task's own mean
        # reward is therefore logged as two sums: dual_reward/TASK divided by dual_share/TASK.
        for name in self._tasks:
            mine = float(name == group.example.task)
            logs[f"dual_share/{name}"] = mine
            logs[f"dual_reward/{name}"] = mine * reward
        return Score(reward, logs)
