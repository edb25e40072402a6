"""What a reward is: a judge of one parsed answer; and the registry of those that can be named."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from cellduality_plugin.duals import Dual
from cellduality_plugin.errors import CellDualityError
from cellduality_plugin.examples import Example, Value
from cellduality_plugin.parsing import Field, OneOf
from cellduality_plugin.tasks import DualTask
from cellduality_plugin.vocabulary import Vocabulary

REWARDS: dict[str, Reward] = {}  # the kinds of reward, by the name a configuration gives them


@dataclass(frozen=True)
class Verdict:
    """How well the hidden part is accounted for."""

    similarity: float  # in [0, 1]; best value 1
    failure: str = ""  # why there is no verdict at all; empty if any part of it could be had. What failed earns nothing
    failed: float = 0.0  # the share of it that could not be had, in [0, 1]

    @classmethod
    def none(cls, cause: str) -> Verdict:
        """Return the verdict of a dual that gave none, for the reason ``cause``."""
        return cls(0.0, cause, 1.0)

    @classmethod
    def mean(cls, verdicts: Sequence[Verdict], weights: Sequence[float]) -> Verdict:
        """Return the weighted mean, to which a part that failed gives 0. It fails only where every part did."""
        total = math.fsum(weights)
        pairs = list(zip(verdicts, weights, strict=True))
        similarity = math.fsum(verdict.similarity * weight for verdict, weight in pairs) / total
        failed = math.fsum(verdict.failed * weight for verdict, weight in pairs) / total
        failure = verdicts[0].failure if all(verdict.failure for verdict in verdicts) else ""
        return cls(min(1.0, similarity), failure, min(1.0, failed))


class Reward(ABC):
    """Judges one parsed answer. A reward of one's own is a subclass that needs no arguments, with a ``judge``."""

    audited: bool = False
    """Whether an audit tries it by default; others are one of these under another name, or need rows made for them."""
    needs_gold: bool = False  # whether the rows must hold the true answer
    needs_profiles: bool = False  # whether it reads the class profiles that the configuration names
    asks_dual: bool = True  # whether the dual question is asked: else it is of no matter how much of the cell is hidden
    asks_every_label: bool = False
    """Whether every label of a closed set is put to the policy, be it the hidden one or not."""
    asks_again: bool = False  # whether the policy is asked the task's own question again, about the whole cell
    asks_log_probs: bool = False
    """Whether the policy has to tell how likely a given response is, which chat endpoints cannot."""

    def check(self, task: DualTask) -> None:  # noqa: B027 (a reward that judges anything has nothing to check)
        """Raise a CellDualityError if ``task`` cannot be judged so, before a run starts."""

    def check_row(self, task: DualTask, example: Example, vocabulary: Vocabulary) -> None:  # noqa: B027
        """Raise a CellDualityError if the row cannot be judged so, before it is rolled out."""

    @abstractmethod
    async def judge(self, answer: Value, dual: Dual) -> Verdict:
        """Return the verdict on ``answer``, in [0, 1], best value 1; a PolicyError if the policy could not be asked."""


R = TypeVar("R", bound=Reward)


def reward(name: str) -> Callable[[type[R]], type[R]]:
    """Register a class of rewards under ``name``, as an instance that needs no arguments."""

    def register(kind: type[R]) -> type[R]:
        REWARDS[name] = kind()
        return kind

    return register


def refusal(what: str, task: DualTask, code: str, hint: str) -> CellDualityError:
    """Return the error of a reward that cannot judge ``task``."""
    return CellDualityError(what, code=code, where=f"tasks.{task.name}.reward", hint=hint)


class LabelScores(Reward):
    """Compares the labels of a closed set; the reward is the probability of one of them."""

    def check(self, task: DualTask) -> None:
        if not task.kinds:
            what = f"{type(self).__name__} needs a closed set of labels, and {task.name} has none on either side"
            raise refusal(what, task, "needs-labels", "use duality or likelihood")

    @abstractmethod
    async def log_scores(self, answer: Value, dual: Dual) -> tuple[dict[str, float], str]:
        """Return ({label: natural log-score, up to a number that the labels share}, the label that is rewarded)."""

    async def judge(self, answer: Value, dual: Dual) -> Verdict:
        scores, label = await self.log_scores(answer, dual)
        return Verdict(softmax(scores)[label])


def scored_kind(task: DualTask) -> str:
    """Return the label set whose members are compared: of what is hidden, or else of the answer."""
    for field in (task.unknown, task.answer):
        if isinstance(field, OneOf):
            return field.kind
    raise TypeError(f"{task.name} has no closed set of labels")  # check() refuses it before a run


def check_comparison(comparison: str | None, field: Field, task: DualTask) -> None:
    if comparison not in (None, "exact") and isinstance(field, OneOf):
        what = f"{comparison} compares ranked lists, and what {task.name} would have compared is a {field.kind}"
        raise refusal(what, task, "needs-lists", "use exact, or leave the comparison out")


def softmax(scores: Mapping[str, float]) -> dict[str, float]:
    """Return {label: exp(score) / sum of all}."""
    best = max(scores.values())
    odds = {label: math.exp(score - best) for label, score in scores.items()}
    total = math.fsum(odds.values())
    return {label: value / total for label, value in odds.items()}
