"""How well the policy, asked back, accounts for the hidden part: the reward of one answer, in several kinds."""

from __future__ import annotations

import asyncio
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cellduality_plugin.duals import Dual
from cellduality_plugin.errors import CellDualityError
from cellduality_plugin.examples import Example, Value
from cellduality_plugin.import_paths import FORMS, load_class
from cellduality_plugin.parsing import Field, Genes, OneOf
from cellduality_plugin.reward_names import read_reward
from cellduality_plugin.seeds import request_seed
from cellduality_plugin.similarity import COMPARISONS
from cellduality_plugin.tasks import DualTask
from cellduality_plugin.tasks.base import LabelTask
from cellduality_plugin.vocabulary import Vocabulary


@dataclass(frozen=True)
class Verdict:
    """How well the hidden part is accounted for.

    Parameters
    ----------
    similarity
        In [0, 1]; best value 1.
    failure
        Why there is no verdict at all; empty if any part of it could be had. What failed earns nothing.
    failed
        The share of it that could not be had, in [0, 1].
    """

    similarity: float
    failure: str = ""
    failed: float = 0.0

    @classmethod
    def none(cls, cause: str) -> Verdict:
        """Return the verdict of a dual that gave none, for the reason ``cause``."""
        return cls(0.0, cause, 1.0)

    @classmethod
    def mean(cls, verdicts: Sequence[Verdict], weights: Sequence[float]) -> Verdict:
        """Return the weighted mean, to which a part that failed gives 0. It fails only where every part did.

        Examples
        --------
        >>> Verdict.mean([Verdict(1.0), Verdict.none("unclosed")], [3, 1])
        Verdict(similarity=0.75, failure='', failed=0.25)
        """
        total = math.fsum(weights)
        pairs = list(zip(verdicts, weights, strict=True))
        similarity = math.fsum(verdict.similarity * weight for verdict, weight in pairs) / total
        failed = math.fsum(verdict.failed * weight for verdict, weight in pairs) / total
        failure = verdicts[0].failure if all(verdict.failure for verdict in verdicts) else ""
        return cls(min(1.0, similarity), failure, min(1.0, failed))


class Reward(ABC):
    """Judges one parsed answer. A reward of one's own is a subclass that needs no arguments, with a ``judge``."""

    needs_gold: bool = False
    """Whether the rows must hold the true answer."""
    needs_profiles: bool = False
    """Whether it reads the class profiles that the configuration names."""
    asks_dual: bool = True
    """Whether the dual question is asked: else it is of no matter how much of the cell is hidden."""
    asks_every_label: bool = False
    """Whether every label of a closed set is put to the policy, be it the hidden one or not."""
    asks_again: bool = False
    """Whether the policy is asked the task's own question again, about the whole cell."""
    asks_log_probs: bool = False
    """Whether the policy has to tell how likely a given response is, which chat endpoints cannot."""

    def check(self, task: DualTask) -> None:  # noqa: B027 (a reward that judges anything has nothing to check)
        """Return nothing if ``task`` can be judged so; a CellDualityError says why not, before a run starts."""

    def check_row(self, task: DualTask, example: Example, vocabulary: Vocabulary) -> None:  # noqa: B027
        """Return nothing if the row can be judged so; a CellDualityError says why not, before it is rolled out."""

    @abstractmethod
    async def judge(self, answer: Value, dual: Dual) -> Verdict:
        """Return the verdict on ``answer``, in [0, 1]; best value 1.

        Raises
        ------
        PolicyError
            If the policy could not be asked.
        """


@dataclass(frozen=True)
class DualityReward(Reward):
    """Generate the reconstruction, parse it, compare it: r = similarity(x_u, x_u_hat), section 3.4.1.

    The mean over the draws, if the configuration has more than one.

    Parameters
    ----------
    comparison
        A name in :data:`cellduality_plugin.similarity.COMPARISONS`; None for the pair's own similarity.
    """

    comparison: str | None = None

    def check(self, task: DualTask) -> None:
        _check_comparison(self.comparison, task.unknown, task)

    async def judge(self, answer: Value, dual: Dual) -> Verdict:
        """Return the similarity of the generated reconstruction to x_u; 0 if it cannot be read."""
        compare = COMPARISONS[self.comparison] if self.comparison else dual.task.similarity
        draws = [
            Verdict(compare(dual.example.unknown, read.value)) if read.value is not None else Verdict.none(read.failure)
            for read in await dual.rebuilt(answer)
        ]
        return Verdict.mean(draws, [1.0] * len(draws))


class LikelihoodReward(Reward):
    r"""Teacher-forced likelihood of x_u: one prefill, nothing is decoded.

    .. math:: r = \max\bigl(0,\; 1 + \frac{1}{n \ln |V|} \sum_{i=1}^{n} \ln \pi(x_{u,i} \mid y, x_k, x_{u,<i})\bigr)

    It is 1 for certainty and 0 for a policy that does no better than drawing each token evenly from a vocabulary
    of |V| genes. With ``traces`` a prefill after each of them. Not in the paper.
    """

    asks_log_probs = True

    async def judge(self, answer: Value, dual: Dual) -> Verdict:
        """Return the normalised mean log-probability of the true x_u."""
        total, tokens = await dual.log_likelihood(answer, dual.example.unknown)
        return Verdict(min(1.0, max(0.0, 1.0 + total / tokens / math.log(max(2, len(dual.vocabulary.genes))))))


class LabelScores(Reward):
    """Holds the labels of a closed set against each other; the reward is the probability of one of them."""

    def check(self, task: DualTask) -> None:
        if not task.kinds:
            raise CellDualityError(
                f"{type(self).__name__} needs a closed set of labels, and {task.name} has none on either side",
                where=f"tasks.{task.name}.reward",
                mend="use duality or likelihood",
            )

    @abstractmethod
    async def log_scores(self, answer: Value, dual: Dual) -> tuple[dict[str, float], str]:
        """Return ({label: natural log-score, up to a number that the labels share}, the label that is rewarded).

        Raises
        ------
        PolicyError
            If the policy could not be asked.
        """

    async def judge(self, answer: Value, dual: Dual) -> Verdict:
        """Return the probability of the label that is rewarded."""
        scores, label = await self.log_scores(answer, dual)
        return Verdict(_softmax(scores)[label])


class PosteriorReward(LabelScores):
    r"""How sure the policy is of the true member of a closed set of labels C, all of which it is asked about.

    Where x_u is a label, that label among all that could be hidden, given the answer:

    .. math:: r = \pi(x_u \mid y, x_k) \Big/ \sum_{c \in C} \pi(c \mid y, x_k)

    so that 1[rebuilt = x_u] becomes graded. Where the answer y is a label and x_u is not, the answer among all that
    could be given (or some of them: ``negatives`` of a task), by Bayes' rule with an even prior:

    .. math:: r = \pi(x_u \mid y, x_k) \Big/ \sum_{c \in C} \pi(x_u \mid c, x_k)

    Of the first form the probabilities are those of the tokens at which the labels part: one prefill an answer for
    each place where they do. Of the second they are of the whole response, teacher-forced: one prefill a label, once a
    group, whatever its answers; being products over every hidden gene they are sharp. Not in the paper.
    """

    asks_every_label = True
    asks_log_probs = True

    def check_row(self, task: DualTask, example: Example, vocabulary: Vocabulary) -> None:
        if isinstance(task.unknown, OneOf) and example.unknown not in vocabulary.labels[task.unknown.kind]:
            raise CellDualityError(
                f"the hidden {task.unknown.kind} {example.unknown!r:.60} is not in the vocabulary",
                where=f"row {example.id}",
                mend="prepare the data again, rows and vocabulary together",
            )

    async def log_scores(self, answer: Value, dual: Dual) -> tuple[dict[str, float], str]:
        hidden, unknown = dual.task.unknown, dual.example.unknown
        if isinstance(hidden, OneOf):
            labels, true = dual.vocabulary.labels[hidden.kind], str(unknown)
            sums = await dual.choice_log_probs(answer, labels)
        else:
            labels, true = dual.rivals(answer), str(answer)
            told = await asyncio.gather(*(dual.log_likelihood(label, unknown) for label in labels))
            sums = [total for total, _ in told]
        return dict(zip(labels, sums, strict=True)), true


class ProfileReward(LabelScores):
    """Asks no model: how likely a cell is under the class profile of each label (:mod:`.profiles`).

    Of a task that names a label of a cell it is the whole cell, and the label is the answer; of one that writes a cell
    it is the answer, and the label is the condition. A dual that does not move with the policy. Not in the paper.
    """

    needs_profiles = True
    asks_dual = False

    def check(self, task: DualTask) -> None:
        super().check(task)
        if not isinstance(task, LabelTask) and not isinstance(task.answer, Genes):
            raise CellDualityError(
                f"a profile tells how likely a cell is, and {task.name} is about none",
                where=f"tasks.{task.name}.reward",
                mend="use it for tasks that name a label of a cell, or write a cell",
            )

    async def log_scores(self, answer: Value, dual: Dual) -> tuple[dict[str, float], str]:
        task, example = dual.task, dual.example
        assert dual.profiles is not None  # Config.load_rewards() refuses it before a run
        kind, control = scored_kind(task), example.known.get("control", ())
        if isinstance(task, LabelTask):
            cell, label, labels = task.whole(example), str(answer), dual.rivals(answer)
        else:
            cell, label, labels = tuple(answer), str(example.unknown), dual.vocabulary.labels[kind]
        found = dual.profiles.log_scores(kind, cell, control)
        return {name: found[name] for name in labels}, label


class ConsistencyReward(LabelScores):
    """How sure the policy is of its answer when it is asked the same question about the whole cell.

    For rows whose question shows a cell that lost genes (``data prepare --thin``). Not in the paper.
    """

    asks_dual = False
    asks_again = True
    asks_log_probs = True

    def check(self, task: DualTask) -> None:
        if not isinstance(task, LabelTask):
            raise CellDualityError(
                f"consistency asks for the label of a whole cell, and {task.name} names none",
                where=f"tasks.{task.name}.reward",
                mend="use it for tasks that are answered by a label",
            )

    async def log_scores(self, answer: Value, dual: Dual) -> tuple[dict[str, float], str]:
        labels = dual.vocabulary.labels[scored_kind(dual.task)]
        found = dict(zip(labels, await dual.answer_log_probs(labels), strict=True))
        return {label: found[label] for label in dual.rivals(answer)}, str(answer)


def scored_kind(task: DualTask) -> str:
    """Return the label set whose members are held against each other: of what is hidden, or else of the answer."""
    for field in (task.unknown, task.answer):
        if isinstance(field, OneOf):
            return field.kind
    raise TypeError(f"{task.name} has no closed set of labels")  # check() refuses it before a run


@dataclass(frozen=True)
class OracleReward(Reward):
    """The ground truth: r = similarity(y*, y). Asks nobody; for comparison, as in the paper's Table 6.

    Parameters
    ----------
    comparison
        A name in :data:`cellduality_plugin.similarity.COMPARISONS`; None compares labels exactly and lists by RWJS.
    """

    comparison: str | None = None
    needs_gold = True
    asks_dual = False

    def check(self, task: DualTask) -> None:
        _check_comparison(self.comparison, task.answer, task)

    def check_row(self, task: DualTask, example: Example, vocabulary: Vocabulary) -> None:
        if example.gold is None:
            raise CellDualityError(
                "the oracle needs the true answer, and the row holds none",
                where=f"row {example.id} of {task.name}",
                mend=f"prepare the data for it (--rewards {task.name}=oracle), or use another reward",
            )

    async def judge(self, answer: Value, dual: Dual) -> Verdict:
        """Return the similarity of the answer to the true one."""
        compare = COMPARISONS[self.comparison] if self.comparison else dual.task.truth
        assert dual.example.gold is not None  # check_row() refuses such a row before it is rolled out
        return Verdict(compare(dual.example.gold, answer))


class RandomReward(Reward):
    """A number that says nothing: even in [0, 1), by a hash of the row and the answer. For comparison: what training
    gains by it, it does not gain by judging."""

    asks_dual = False

    async def judge(self, answer: Value, dual: Dual) -> Verdict:
        """Return the same number for the same answer to the same row, on every machine."""
        return Verdict(request_seed("random", dual.example.id, answer) / 2**31)


class Combined(Reward):
    """Several rewards of one answer, each with a number. What two of them ask is asked once.

    Parameters
    ----------
    parts
        Rewards and their weights or powers, each above 0.
    """

    def __init__(self, parts: Sequence[tuple[Reward, float]]) -> None:
        self.parts, self.numbers = zip(*parts, strict=True)
        self.needs_gold = any(part.needs_gold for part in self.parts)
        self.needs_profiles = any(part.needs_profiles for part in self.parts)
        self.asks_dual = any(part.asks_dual for part in self.parts)
        self.asks_every_label = any(part.asks_every_label for part in self.parts)
        self.asks_again = any(part.asks_again for part in self.parts)
        self.asks_log_probs = any(part.asks_log_probs for part in self.parts)

    def check(self, task: DualTask) -> None:
        for part in self.parts:
            part.check(task)

    def check_row(self, task: DualTask, example: Example, vocabulary: Vocabulary) -> None:
        for part in self.parts:
            part.check_row(task, example, vocabulary)


class WeightedSum(Combined):
    """The mean of rewards, each by its share: the numbers are divided by their sum."""

    async def judge(self, answer: Value, dual: Dual) -> Verdict:
        """Return the weighted mean of the verdicts; a policy that cannot be asked by one of them fails them all."""
        return Verdict.mean(await asyncio.gather(*(part.judge(answer, dual) for part in self.parts)), self.numbers)


class Product(Combined):
    """The product of rewards, each to its power."""

    async def judge(self, answer: Value, dual: Dual) -> Verdict:
        """Return the product of the verdicts; a part that failed leaves nothing of it."""
        verdicts = await asyncio.gather(*(part.judge(answer, dual) for part in self.parts))
        similarity = math.prod(v.similarity**power for v, power in zip(verdicts, self.numbers, strict=True))
        failure = next((verdict.failure for verdict in verdicts if verdict.failure), "")
        return Verdict(similarity, failure, max(verdict.failed for verdict in verdicts))


class LabelProduct(Combined, LabelScores):
    r"""The product of label probabilities, each to its power, normalised once: a product of experts.

    .. math:: r = \prod_i p_i(y)^{w_i} \Big/ \sum_{c \in C} \prod_i p_i(c)^{w_i}
    """

    parts: tuple[LabelScores, ...]

    async def log_scores(self, answer: Value, dual: Dual) -> tuple[dict[str, float], str]:
        found = await asyncio.gather(*(part.log_scores(answer, dual) for part in self.parts))
        (first, label), powers = found[0], self.numbers
        return {
            name: math.fsum(power * scores[name] for power, (scores, _) in zip(powers, found, strict=True))
            for name in first
        }, label


REWARDS: dict[str, Reward] = {
    "duality": DualityReward(),
    "likelihood": LikelihoodReward(),
    "posterior": PosteriorReward(),
    "profile": ProfileReward(),
    "consistency": ConsistencyReward(),
    "oracle": OracleReward(),
    "random": RandomReward(),
    **{f"duality-{name}": DualityReward(name) for name in COMPARISONS},
    **{f"oracle-{name}": OracleReward(name) for name in COMPARISONS},
}
"""The kinds of reward, by the name a configuration gives them."""


def get_reward(name: str | Mapping[str, float], folder: Path | None = None) -> Reward:
    """Return the reward that ``name`` writes.

    Parameters
    ----------
    name
        Keys of :data:`REWARDS`, ``"package.module:Class"`` or ``"path/to/file.py:Class"``, combined as
        :mod:`.reward_names` reads them; or {a reward: its weight in a sum}.
    folder
        What a relative file path is relative to; the working directory by default.

    Raises
    ------
    CellDualityError
        If there is no such reward; the message lists those there are.

    Examples
    --------
    >>> get_reward({"posterior": 1, "oracle": 3}).needs_gold, get_reward("posterior*profile^0.3").needs_profiles
    (True, True)
    """
    if not isinstance(name, str):
        return WeightedSum([(get_reward(part, folder), weight) for part, weight in name.items()])
    terms = [
        (_product([(_kind(factor.kind, folder), factor.power) for factor in term.factors]), term.weight)
        for term in read_reward(name)
    ]
    if len(terms) == 1 and terms[0][1] is None:
        return terms[0][0]
    return WeightedSum([(product, 1.0 if weight is None else weight) for product, weight in terms])


def _product(factors: Sequence[tuple[Reward, float]]) -> Reward:
    if len(factors) == 1 and factors[0][1] == 1:
        return factors[0][0]
    return (LabelProduct if all(isinstance(reward, LabelScores) for reward, _ in factors) else Product)(factors)


def _kind(name: str, folder: Path | None) -> Reward:
    if name in REWARDS:
        return REWARDS[name]
    if ":" not in name:
        raise CellDualityError(
            f"no reward {name!r}", where="reward", mend=f"use one of {', '.join(REWARDS)}, or {FORMS}"
        )
    return load_class(name, Reward, folder, what="reward", where="reward")()  # type: ignore[type-abstract]


def _check_comparison(comparison: str | None, field: Field, task: DualTask) -> None:
    if comparison not in (None, "exact") and isinstance(field, OneOf):
        raise CellDualityError(
            f"{comparison} compares ranked lists, and what {task.name} would have compared is a {field.kind}",
            where=f"tasks.{task.name}.reward",
            mend="use exact, or leave the comparison out",
        )


def _softmax(scores: Mapping[str, float]) -> dict[str, float]:
    """Return {label: exp(score) / sum of all}.

    Examples
    --------
    >>> _softmax({"B": -1000.0, "T": -1000.0})
    {'B': 0.5, 'T': 0.5}
    """
    best = max(scores.values())
    odds = {label: math.exp(score - best) for label, score in scores.items()}
    total = math.fsum(odds.values())
    return {label: value / total for label, value in odds.items()}
