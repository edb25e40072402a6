"""What a policy answers about cells without a label, weighed by a reward: a distribution over labels for each."""

from __future__ import annotations

import asyncio
import itertools
import json
import math
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any, Literal, TypeVar

from tqdm import tqdm

from cellduality_plugin.config import Config
from cellduality_plugin.errors import CellDualityError
from cellduality_plugin.evaluation.audit.engine import Players
from cellduality_plugin.evaluation.audit.run import CONFIGURED, response, scorer_of
from cellduality_plugin.examples import Example
from cellduality_plugin.parsing import OneOf
from cellduality_plugin.policies.cache import AnswerCache
from cellduality_plugin.records import RecordedPolicy
from cellduality_plugin.rewards import get_reward
from cellduality_plugin.seeds import request_seed
from cellduality_plugin.tasks import DualTask
from cellduality_plugin.vocabulary import Vocabulary

Found = TypeVar("Found", bound=Any)
"""A dataclass of what JSON can hold."""

NOBODY = "none"
"""No judge: the votes alone count, which is plain self-training."""


@dataclass(frozen=True)
class Opinion:
    """What a policy and its judge make of one cell, by label."""

    votes: Mapping[str, int]  # answers that could be read; empty if no votes were asked for
    rewards: Mapping[str, float]  # of each answered label, or of every one without votes, in [0, 1]; 1 without a judge
    traces: Mapping[str, str]  # the reasoning of the first such answer
    profiles: Mapping[str, float] = field(default_factory=dict)  # how likely each label is by class profiles, if asked

    def shares(self) -> dict[str, float]:
        r"""Return the distribution over the judged labels, in alphabetical order; empty where nothing speaks for any.

        .. math:: q(y) = n(y) s(y) / \sum_{y'} n(y') s(y')

        with n the votes (1 without any) and s the rewards: the posterior under the policy's own votes where s
        is a likelihood.
        """
        votes = self.votes or dict.fromkeys(self.rewards, 1)
        worth = {label: votes[label] * self.rewards[label] for label in sorted(votes)}
        total = math.fsum(worth.values())
        return {label: each / total for label, each in worth.items()} if total > 0 else {}


@dataclass(frozen=True)
class Decision:
    """The label of a cell."""

    label: str
    share: float = 0.0  # of the likeliest label, in [0, 1]
    trace: str = ""  # the reasoning for it
    reason: Literal["", "no_answer", "no_evidence", "unsure"] = ""  # why there is no label
    answers: int = 0  # that could be read,
    voted: str = ""  # and the label that most of them named


def likeliest(shares: Mapping[str, float], votes: Mapping[str, int]) -> str:
    """Return the label of the largest share, then that with more votes, then the first by name; empty without any."""
    return min(shares, key=lambda label: (-shares[label], -votes.get(label, 0), label), default="")


def decide(opinion: Opinion, choice: Literal["drawn", "best"], keep_above: float, luck: float) -> Decision:
    """Return the :func:`likeliest` label of a cell, or one that ``luck`` in [0, 1) draws, if one is likely enough."""
    shares, votes = opinion.shares(), opinion.votes
    decision = partial(Decision, answers=sum(votes.values()), voted=max(votes, key=votes.__getitem__, default=""))
    if not shares:
        return decision("", reason="no_evidence" if opinion.rewards else "no_answer")
    best = likeliest(shares, votes)
    if shares[best] < keep_above:
        return decision("", shares[best], reason="unsure")
    label = best if choice == "best" else drawn(shares, luck)
    return decision(label, shares[best], opinion.traces.get(label, ""))


def drawn(shares: Mapping[str, float], luck: float) -> str:
    """Return the label on whose part of the unit interval ``luck`` falls."""
    ends = itertools.accumulate(shares.values())
    able = [(label, end) for label, end in zip(shares, ends, strict=True) if shares[label]]
    return next((label for label, end in able if luck < end), able[-1][0])


def luck(*parts: object) -> float:
    """Return a number in [0, 1) that depends on ``parts`` alone."""
    return request_seed(*parts) / 2**31


def chosen(cells: Iterable[tuple[str, str]], *, weight: float, limit: int | None, seed: int) -> set[tuple[str, str]]:
    """Return which of ``cells``, (task, cell id), are asked: those of least luck, so that more hold all that fewer did.

    Each is in with probability ``weight``, in (0, 1], and ``limit`` of a task at most.
    """
    places: dict[str, list[tuple[float, str]]] = {}
    for task, cell in cells:
        if (place := luck(seed, "chosen", cell)) < weight:
            places.setdefault(task, []).append((place, cell))
    return {(task, cell) for task, own in places.items() for _, cell in sorted(own)[:limit]}


class Panel:
    """A policy that answers a pair several times, and the reward that judges each different answer once.

    Without ``votes`` nobody answers, and the judge is asked about every label of the set, as with ``every``. ``judge``
    is :data:`CONFIGURED`, :data:`NOBODY`, or a reward as the configuration writes it, which must fit ``task``. Draws
    depend on ``seed`` and the question alone.
    """

    def __init__(
        self,
        config: Config,
        task: str,
        *,
        votes: int,
        judge: str | dict[str, float],
        every: bool = False,
        seed: int = 0,
    ) -> None:
        self._votes, self._every, self._seed = votes, every or not votes, seed
        self._task, self._vocabulary = config.load_tasks()[task], config.load_vocabulary()
        self._scorer, self.needs_gold = None, False
        if judge != NOBODY:
            if self._every:
                refuse_every(self._task, self._vocabulary)
            reward = config.tasks[task].reward if judge == CONFIGURED else judge
            self.needs_gold = get_reward(reward, config.folder).needs_gold
            self._scorer = scorer_of(config, task, reward=reward)
        self.asks_policy = bool(votes or (self._scorer and self._scorer.asks_policy))

    async def opinion(self, example: Example, players: Players | None) -> Opinion:
        """Return the opinion on one cell; no players will do unless ``asks_policy``."""
        task, votes = self._task, Counter[str]()
        found, traces = dict[str, str](), dict[str, str]()
        if self._votes:
            assert players is not None
            prompt = task.primal_prompt(example.inputs, self._vocabulary)
            seeds = [request_seed(self._seed, prompt, draw) for draw in range(self._votes)]
            for text in await asyncio.gather(*(response(players.sampler, prompt, seed) for seed in seeds)):
                answer = task.parse_answer(text, self._vocabulary)
                if isinstance(answer.value, str):
                    votes[answer.value] += 1
                    found.setdefault(answer.value, text)
                    traces.setdefault(answer.value, answer.trace)
        if self._every:
            assert isinstance(task.answer, OneOf)
            found = {label: task.answer_response(label) for label in self._vocabulary.labels[task.answer.kind]} | found
        rewards = dict.fromkeys(sorted(found), 1.0)
        if scorer := self._scorer:
            dual, group = players.dual if players else RecordedPolicy([]), scorer.group(example.to_label())
            group.answers += votes
            scores = await asyncio.gather(*(scorer.score(found[label], group, dual) for label in rewards))
            rewards = {label: score.similarity for label, score in zip(rewards, scores, strict=True)}
        return Opinion(dict(sorted(votes.items())), rewards, dict(sorted(traces.items())))


def refuse_every(task: DualTask, vocabulary: Vocabulary) -> None:
    """Raise if every label cannot be judged for every cell: there are more than a question lists."""
    if isinstance(task.answer, OneOf) and not vocabulary.lists(task.answer.kind):
        what = f"each of {len(vocabulary.labels[task.answer.kind])} labels would be judged for every cell"
        hint = "let drawn answers be judged (pseudo-label --votes 8, annotate --verify 8), without a calibration"
        raise CellDualityError(what, code="too-many-labels", where=f"tasks.{task.name}", hint=hint)


def answered(
    ask: Callable[[Example], Awaitable[Found]],
    examples: Iterable[Example],
    kept: AnswerCache,
    found: type[Found],
    *,
    batch: int,
    total: int,
    name: str = "",
) -> Iterator[tuple[Example, Found]]:
    """Yield each example with what was ``found`` of it; a batch is asked at once, and ``kept``. No ``name``, no bar."""

    async def together(missing: Sequence[Example]) -> list[str]:
        return [json.dumps(asdict(each)) for each in await asyncio.gather(*map(ask, missing))]

    def key(example: Example) -> str:
        return f"{example.task}/{example.id}"

    stream = iter(examples)
    with tqdm(total=total, desc=f"[{name}] cells", disable=not name) as bar:
        while cells := list(itertools.islice(stream, batch)):
            if missing := [example for example in cells if key(example) not in kept]:
                kept.add(dict(zip(map(key, missing), _run(together(missing)), strict=True)))
            bar.update(len(cells))
            answers = {each: kept.take(each) or "" for each in set(map(key, cells))}
            for example in cells:
                yield example, found(**json.loads(answers[key(example)]))


def _run(work: Coroutine[Any, Any, list[str]]) -> list[str]:
    """Return the result of ``work``; where a loop runs already, as in a notebook, from a thread of its own."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(work)
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, work).result()
