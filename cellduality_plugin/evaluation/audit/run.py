"""One audit: a checkpoint, labelled cells, several rewards and ways to pay by them; the content of audit.json."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from tqdm import tqdm

from cellduality_plugin.config import Config
from cellduality_plugin.errors import CellDualityError
from cellduality_plugin.evaluation.audit import answers
from cellduality_plugin.evaluation.audit.answers import AuditSettings, Case, Contender, RewardName
from cellduality_plugin.evaluation.audit.engine import Account, Players, Remembering
from cellduality_plugin.evaluation.audit.findings import Counting, Judged, finding
from cellduality_plugin.evaluation.audit.verdicts import verdict
from cellduality_plugin.examples import Example
from cellduality_plugin.files import read_jsonl, read_versioned
from cellduality_plugin.parsing import OneOf
from cellduality_plugin.policies.base import Memo, Policy, PolicyError
from cellduality_plugin.reward_names import shortened
from cellduality_plugin.rewards import REWARDS, get_reward
from cellduality_plugin.scoring import Score, Scorer
from cellduality_plugin.tasks import DualTask
from cellduality_plugin.vocabulary import Vocabulary

FORMAT, VERSION = "cellduality-audit", 2
CONFIGURED = "configured"
"""Stands for the reward that the configuration gives a task."""

Result = TypeVar("Result")


def audit(
    data: Path, config: Config, opened: Callable[[], AbstractContextManager[Players]], settings: AuditSettings
) -> dict[str, Any]:
    """Return the content of audit.json: the findings on every task and contender, each with its verdict.

    ``labels_used`` counts, by data set, the cells whose labels were read. ``data`` is the prepared folder, ``config``
    that of the run to come. A CellDualityError, before the players are opened, if no row of a configured task is there
    or a reward can judge no task.
    """
    begun, vocabulary, findings = time.monotonic(), config.load_vocabulary(), list[dict[str, Any]]()
    tasks = config.load_tasks()
    wanted = {
        tasks[name]: (rows, contenders_for(tasks[name], rows[0], config, settings))
        for name, rows in answers.read_audit_rows(data, tasks).items()
    }
    _refuse_unfit(wanted, config, settings.rewards)

    async def all_tasks(players: Players) -> None:
        memory = Remembering(players, timeout=config.dual.timeout_seconds)
        for task, (rows, contenders) in wanted.items():
            rng = np.random.default_rng([settings.seed, *task.name.encode()])
            cases = answers.make_cases(task, rows, vocabulary, settings, rng)
            real = None if cases[0].names_a_label else answers.NearestCells(rows)
            asking = (ask_policy(case, real, players, settings.samples, vocabulary) for case in cases)
            cases = await _gathered(f"{task.name} answers", asking)
            spread = config.tasks[task.name].minimum_spread
            how = Counting(settings.seed, settings.resamples, settings.masks_of_a_rollout, spread)
            for contender in contenders:
                scorer = scorer_of(config, task.name, **asdict(contender))
                # Another split of the cell takes the place of all that the row holds.
                under = [each if contender.hidden is None else replace(each, splits=each.splits[:1]) for each in cases]
                judged = await _gathered(f"{task.name} judged", (judge(scorer, case, memory) for case in under))
                found = finding(contender, judged, how)
                findings.append({**found, "verdict": dict(zip(("grade", "words"), verdict(found), strict=True))})

    with opened() as players:
        asyncio.run(all_tasks(players))
    read = set[str]()  # the cells that were audited, and all that may be near a written one
    for task, (rows, _) in wanted.items():
        read |= {row.id for row in (rows[: settings.cells] if isinstance(task.answer, OneOf) else rows)}
    return {
        "format": FORMAT,
        "version": VERSION,
        "findings": findings,
        "seconds": time.monotonic() - begun,
        "labels_used": dict(Counter(sorted(name.partition("/")[0] for name in read))),
        "settings": {**asdict(settings), "rewards": [shortened(reward, ":") for reward in settings.rewards]},
    }


def contenders_for(task: DualTask, row: Example, config: Config, asked: AuditSettings) -> list[Contender]:
    """Return every combination of the rewards, hidden shares and traces ``asked`` for that makes sense, each once.

    By default of :data:`CONFIGURED` and the ``audited`` kinds, the ground truth last, and of the configured share and
    traces. Shares are for tasks that hide genes, as any ``row`` shows, traces for rewards that read log-probabilities.
    Rewards that cannot judge the task are left out; an unknown one is a CellDualityError.
    """
    settings, found = config.tasks[task.name], list[Contender]()
    hides = any(task.hide(row, share) != row for share in (0.5, 1.0))
    audited = (kind for kind, each in REWARDS.items() if each.audited)
    for each in asked.rewards or (CONFIGURED, *sorted(audited, key=lambda kind: REWARDS[kind].needs_gold)):
        name = settings.reward if each == CONFIGURED else each
        reward = get_reward(name, config.folder)
        if _unfit(name, task, config):
            continue
        shares: Sequence[float | None] = (asked.hidden if hides and reward.asks_dual else ()) or [settings.hidden]
        counts = (asked.traces if reward.asks_dual and reward.asks_log_probs else ()) or [settings.traces]
        found += [Contender(name, share, count) for share, count in itertools.product(shares, counts)]
    return [each for place, each in enumerate(found) if each not in found[:place]]


def _unfit(reward: RewardName, task: DualTask, config: Config) -> CellDualityError | None:
    """Return why ``reward`` cannot judge ``task``, None if it can."""
    try:
        config.with_tasks({task.name: {"reward": reward}}).load_rewards({task.name: task})
    except CellDualityError as error:
        return error
    return None


def _refuse_unfit(
    wanted: Mapping[DualTask, tuple[Any, Sequence[Contender]]], config: Config, rewards: Sequence[RewardName]
) -> None:
    """Raise for the first of ``rewards`` that is among the contenders of no task, and say why."""
    fit = [CONFIGURED, *(contender.reward for _, contenders in wanted.values() for contender in contenders)]
    for reward in (each for each in rewards if each not in fit):
        error = _unfit(reward, next(iter(wanted)), config)
        assert error is not None
        what = f"{shortened(reward, ':')} can judge none of {', '.join(task.name for task in wanted)}: {error.what}"
        raise CellDualityError(what, code="unfit-reward", where="--rewards", hint=error.hint)


def scorer_of(config: Config, task: str, **changed: Any) -> Scorer:
    """Return the scorer of a run of ``task`` with some of its settings ``changed``, such as those of a Contender."""
    settings = config.tasks[task].model_copy(update=changed)
    # A queue of calls is an audit's own doing: each of them is bounded where it is made.
    dual = config.dual.model_copy(update={"timeout_seconds": 86_400.0})
    return Scorer(config.model_copy(update={"tasks": {task: settings}, "dual": dual}))


async def judge(scorer: Scorer, case: Case, memory: Remembering) -> Judged:
    """Return what ``scorer`` pays for the candidates of ``case`` and for the policy's own answers."""
    texts = [case.task.answer_response(value) for _, value in case.candidates]

    async def under(split: Example) -> tuple[list[Score], list[Score], Any]:
        group = scorer.group(split.to_label())
        group.memo = Memo()  # charged for all it asks, whatever other groups have asked
        account = Account(memory)
        sampled = await scorer.score_all(case.samples, group, account)
        # Candidates are no group: each is scored on its own.
        known = await asyncio.gather(*(scorer.score(text, group, Account(memory)) for text in texts))
        return sampled, known, account.costs

    sampled, known, costs = zip(*await asyncio.gather(*map(under, case.splits)), strict=True)
    of_candidates, of_samples = (np.array([[s.reward for s in own] for own in each]).T for each in (known, sampled))
    failed = np.array([[score.logs["dual_failed"] for score in own] for own in sampled]).mean(axis=1)
    return Judged(case, of_candidates, of_samples, np.sum(costs, axis=0), float(np.mean(failed)))


async def response(policy: Policy, prompt: str, seed: int | None = None) -> str:
    """Return the response to ``prompt``, or an empty one, in which nothing can be read, where there is none."""
    try:
        return await policy.generate(prompt, seed=seed)
    except PolicyError:
        return ""


async def ask_policy(
    case: Case, real: answers.NearestCells | None, players: Players, samples: int, vocabulary: Vocabulary
) -> Case:
    """Return ``case`` with the policy's own answers to its question; the likeliest one of a label alone."""
    prompt = case.task.primal_prompt(case.example.inputs, vocabulary)
    first = int(case.names_a_label)
    asked = [*[players.greedy] * first, *[players.sampler] * samples]
    texts = await asyncio.gather(*(response(policy, prompt) for policy in asked))
    values = [case.task.parse_answer(text, vocabulary).value for text in texts]
    greedy, drawn = values[0] if first else None, values[first:]
    return replace(case, greedy=greedy, samples=texts[first:], values=drawn, truths=answers.truths(case, drawn, real))


async def _gathered(title: str, work: Iterable[Awaitable[Result]]) -> list[Result]:
    """Return the results of ``work``, all under way at once, in their order, with a progress bar."""
    waiting = list(work)  # tqdm's own gather would begin them in any order, and draws count in theirs
    # The supervisor of a recipe shows what stands behind a name in brackets.
    with tqdm(total=len(waiting), desc=f"[audit] {title}", leave=False) as bar:

        async def counted(each: Awaitable[Result]) -> Result:
            result = await each
            bar.update()
            return result

        return list(await asyncio.gather(*map(counted, waiting)))


def masks_in_training(path: Path, rows: int = 256) -> int:
    """Return the most masks that any of the first rows of an RL file holds; 1 without a file."""
    if not path.is_file():
        return 1
    first = itertools.islice(read_jsonl(path), rows)
    return max((len(Example.from_label(row["label"]).splits()) for row in first), default=1)


def read_audit(path: Path) -> dict[str, Any]:
    """Return the content of an audit file, or raise as :func:`cellduality_plugin.files.read_versioned`."""
    return read_versioned(path, FORMAT, VERSION, what="audit", hint="audit again (cellduality audit)")
