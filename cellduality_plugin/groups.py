"""The rollouts of one prompt: what each of them earned, and what they share."""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from cellduality_plugin.duals import Dual
from cellduality_plugin.examples import Example, Value
from cellduality_plugin.parsing import Answer
from cellduality_plugin.policies.base import Asked, Memo
from cellduality_plugin.rewards import Verdict

T = TypeVar("T")


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

    example: Example
    label: str = ""  # the row as it came; ``example`` is what it says, split as the configuration asks for
    number: int = 0
    # By answer: its duals, one for each mask of the row, and the judging of it.
    duals: dict[Value, list[Dual]] = field(default_factory=dict)
    verdicts: dict[Value, asyncio.Task[Verdict]] = field(default_factory=dict)
    # The calls of this group, and those of all groups in flight.
    asked: Asked = field(default_factory=dict)
    memo: Memo = field(default_factory=Memo)
    members: int = 0  # how many rollouts began
    answers: list[Value | None] = field(default_factory=list)  # of those that were read
    answered: asyncio.Event = field(default_factory=asyncio.Event)
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
        self.complete.clear()
        self.answered.clear()
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

    async def all_of(self, found: list[T], own: T) -> list[T]:
        """Return ``found``, the scores or the answers, with this member's ``own``, once that of the last is there."""
        event = self.complete if found is self.scores else self.answered
        found.append(own)
        self._close()
        try:
            await event.wait()
        except BaseException:  # it leaves, and what it found with it
            found.remove(own)
            raise
        return found

    def _close(self) -> None:
        if len(self.scores) >= self.members:
            self.complete.set()
        if len(self.answers) >= self.members:
            self.answered.set()


def votes_for(score: Score, scores: Sequence[Score]) -> float:
    r"""Return the share of the evidence of a group, ``scores``, for the answer of one member; in [0, 1], best value 1.

    .. math:: r_i = n(y_i) s(y_i) / \sum_j s(y_j)

    with n(y) the number of the group's answers that are y and s(y) its similarity. Where s is the posterior under an
    even prior, r is the posterior under the group's own votes. Not in the paper.
    """
    total = math.fsum(each.similarity for each in scores)
    alike = sum(each.answer.value == score.answer.value for each in scores)
    return min(1.0, alike * score.similarity / total) if total else 0.0
