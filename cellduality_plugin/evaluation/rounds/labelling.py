"""What a policy answers about cells without a label, weighed by a reward: a distribution over labels for each."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import json
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Literal, TypeAlias

from tqdm import tqdm

from cellduality_plugin.config import Config
from cellduality_plugin.errors import CellDualityError
from cellduality_plugin.evaluation.audit.contenders import Contender
from cellduality_plugin.evaluation.audit.engine import Players
from cellduality_plugin.evaluation.audit.judging import scorer_of
from cellduality_plugin.examples import Example
from cellduality_plugin.parsing import OneOf
from cellduality_plugin.policies.base import PolicyError
from cellduality_plugin.policies.cache import AnswerCache
from cellduality_plugin.policies.recorded import RecordedPolicy
from cellduality_plugin.rewards import get_reward
from cellduality_plugin.scoring import Scorer
from cellduality_plugin.seeds import request_seed

CONFIGURED = "configured"
"""The judge that the configuration gives a task."""
NOBODY = "none"
"""No judge: the votes alone count, which is plain self-training."""

Choice: TypeAlias = Literal["drawn", "best"]
Reason: TypeAlias = Literal["", "no_answer", "no_evidence", "unsure"]


@dataclass(frozen=True)
class Opinion:
    """What a policy and its judge make of one cell.

    Parameters
    ----------
    votes
        How many of the drawn answers were which label; unreadable ones do not vote. Empty if nobody was asked.
    rewards
        What the judge says of each label that was answered, or of every one if nobody was asked, in [0, 1]; 1 without
        a judge.
    traces
        The reasoning of the first answer that was each label.
    """

    votes: Mapping[str, int]
    rewards: Mapping[str, float]
    traces: Mapping[str, str]

    def shares(self) -> dict[str, float]:
        r"""Return the distribution over the judged labels, in alphabetical order; empty where nothing speaks for any.

        .. math:: q(y) = n(y) s(y) / \sum_{y'} n(y') s(y')

        with n the votes (1 if nobody was asked) and s the rewards: the posterior under the policy's own votes where s
        is a likelihood.

        Examples
        --------
        >>> Opinion({"T": 3, "B": 1}, {"T": 0.25, "B": 0.75}, {}).shares()
        {'B': 0.5, 'T': 0.5}
        """
        votes = self.votes or dict.fromkeys(self.rewards, 1)
        worth = {label: votes[label] * self.rewards[label] for label in sorted(votes)}
        total = math.fsum(worth.values())
        return {label: each / total for label, each in worth.items()} if total > 0 else {}


@dataclass(frozen=True)
class Decision:
    """The label that stands in for a cell's, or why there is none.

    Parameters
    ----------
    label
        Empty if ``reason`` says why.
    share
        Of the likeliest label, in [0, 1].
    trace
        The reasoning that goes with the label.
    """

    label: str
    share: float = 0.0
    trace: str = ""
    reason: Reason = ""


def decide(opinion: Opinion, choice: Choice, keep_above: float, luck: float) -> Decision:
    """Return the label for a cell.

    Parameters
    ----------
    choice
        ``"best"``: the likeliest label, of equally likely ones that with more votes, then the first by name;
        ``"drawn"``: one drawn from the distribution.
    keep_above
        The least share that the likeliest label must have.
    luck
        In [0, 1): what decides a draw. The same in every round, so that a label changes only if the distribution does.
    """
    shares = opinion.shares()
    if not shares:
        return Decision("", reason="no_evidence" if opinion.rewards else "no_answer")
    best = min(shares, key=lambda label: (-shares[label], -opinion.votes.get(label, 0), label))
    if shares[best] < keep_above:
        return Decision("", shares[best], reason="unsure")
    label = best if choice == "best" else drawn(shares, luck)
    return Decision(label, shares[best], opinion.traces.get(label, ""))


def drawn(shares: Mapping[str, float], luck: float) -> str:
    """Return the label on whose part of the unit interval ``luck`` falls.

    Examples
    --------
    >>> drawn({"B": 0.25, "T": 0.75}, 0.2), drawn({"B": 0.25, "T": 0.75}, 0.25)
    ('B', 'T')
    """
    ends = itertools.accumulate(shares.values())
    able = [(label, end) for label, end in zip(shares, ends, strict=True) if shares[label]]
    return next((label for label, end in able if luck < end), able[-1][0])


def luck(*parts: object) -> float:
    """Return a number in [0, 1) that hangs on ``parts`` alone."""
    return request_seed(*parts) / 2**31


class Selection:
    """Which cells of each task are asked: those of least luck, so that more of them hold all that fewer did.

    Parameters
    ----------
    cells
        (task, cell id) of all cells without a label.
    weight
        Each cell is in with this probability, in (0, 1].
    limit
        Cells of a task, at most; None for all.
    """

    def __init__(self, cells: Iterable[tuple[str, str]], *, weight: float, limit: int | None, seed: int) -> None:
        self._seed = seed
        heaps: dict[str, list[float]] = {}
        for task, cell in cells:
            heap, place = heaps.setdefault(task, []), luck(seed, "chosen", cell)
            if place < weight:
                (heapq.heappush if limit is None or len(heap) < limit else heapq.heappushpop)(heap, -place)
        self._most = {task: -heap[0] for task, heap in heaps.items() if heap}
        self.count = sum(map(len, heaps.values()))

    def __contains__(self, cell: tuple[str, str]) -> bool:
        return luck(self._seed, "chosen", cell[1]) <= self._most.get(cell[0], -1.0)


class Panel:
    """A policy that answers several times and the reward that judges each different answer once.

    Parameters
    ----------
    config
        The pairs, and how duals are asked.
    players
        The policy: ``sampler`` answers, ``dual`` plays the dual; None where nobody is asked.
    votes
        Answers to a question; 0: nobody answers, and the judge is asked about every label of the set.
    judge
        :data:`CONFIGURED`, :data:`NOBODY`, or a reward as the configuration writes it.
    tasks
        The names of the tasks that will be asked.

    Raises
    ------
    CellDualityError
        If there is no such reward, or it cannot judge a task or needs its truth.
    """

    def __init__(
        self,
        config: Config,
        players: Players | None,
        *,
        votes: int,
        judge: str | dict[str, float],
        tasks: Iterable[str],
    ) -> None:
        self._tasks, self._vocabulary = config.load_tasks(), config.load_vocabulary()
        nobody = RecordedPolicy([])
        self._sampler, self._dual = (players.sampler, players.dual) if players else (nobody, nobody)
        self._votes = votes
        self._scorers = judges(config, judge, tasks)

    async def opinion(self, example: Example) -> Opinion:
        """Return the opinion on one cell."""
        task = self._tasks[example.task]
        if not self._votes:
            assert isinstance(task.answer, OneOf)
            labels = sorted(self._vocabulary.labels[task.answer.kind])
            rewards = await self._judged(example, [task.answer_response(label) for label in labels])
            return Opinion({}, dict(zip(labels, rewards, strict=True)), {})
        prompt = task.primal_prompt(example.inputs, self._vocabulary)
        texts = await asyncio.gather(*(self._answer(prompt) for _ in range(self._votes)))
        read = [(task.parse_answer(text, self._vocabulary), text) for text in texts]
        votes: Counter[str] = Counter(answer.value for answer, _ in read if isinstance(answer.value, str))
        first = {answer.value: (answer.trace, text) for answer, text in reversed(read) if isinstance(answer.value, str)}
        labels = sorted(first)
        rewards = await self._judged(example, [first[label][1] for label in labels])
        traces = {label: first[label][0] for label in labels}
        return Opinion(dict(sorted(votes.items())), dict(zip(labels, rewards, strict=True)), traces)

    async def _answer(self, prompt: str) -> str:
        try:
            return await self._sampler.generate(prompt)
        except PolicyError:
            return ""

    async def _judged(self, example: Example, texts: Sequence[str]) -> list[float]:
        if not (scorer := self._scorers.get(example.task)):
            return [1.0] * len(texts)
        group = scorer.group(example.to_label())
        scores = await asyncio.gather(*(scorer.score(text, group, self._dual) for text in texts))
        return [score.similarity for score in scores]


def judges(config: Config, judge: str | dict[str, float], tasks: Iterable[str]) -> dict[str, Scorer]:
    """Return the scorer of each task, none without a judge; raises as :class:`Panel` does."""
    if judge == NOBODY:
        return {}
    wanted = {name: config.tasks[name].reward if judge == CONFIGURED else judge for name in tasks}
    for name, reward in wanted.items():
        if get_reward(reward, config.folder).needs_gold:
            raise CellDualityError(
                f"the reward of {name} needs the truth, which these cells do not have",
                where="--judge",
                mend="name another judge, or none",
            )
    own = config.tasks
    return {
        name: scorer_of(config, name, Contender(reward, own[name].hidden, own[name].traces))
        for name, reward in wanted.items()
    }


def opinions(
    panel: Panel, examples: Iterable[Example], kept: AnswerCache, *, batch: int, total: int, name: str = ""
) -> Iterator[tuple[Example, Opinion]]:
    """Yield each example with the opinion on it, in their order; a batch of cells is asked together, and then kept.

    Parameters
    ----------
    kept
        What was asked already, by task and cell, and where the rest is kept.
    batch
        Cells that are asked together.
    total
        How many there are, for the progress bar.
    name
        What the bar shows; empty for no bar.
    """
    stream = iter(examples)
    with tqdm(total=total, desc=f"[{name}] cells", disable=not name) as bar:
        while together := list(itertools.islice(stream, batch)):
            missing = [example for example in together if _key(example) not in kept]
            if missing:
                found = asyncio.run(_all(panel, missing))
                kept.add({_key(e): json.dumps(asdict(o)) for e, o in zip(missing, found, strict=True)})
            bar.update(len(together))
            for example in together:
                yield example, Opinion(**json.loads(kept[_key(example)] or ""))


async def _all(panel: Panel, examples: Sequence[Example]) -> list[Opinion]:
    return list(await asyncio.gather(*map(panel.opinion, examples)))


def _key(example: Example) -> str:
    return f"{example.task}/{example.id}"
