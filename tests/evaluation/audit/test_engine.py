"""The stepped engine, and what each account is charged for a question that is asked once."""

from __future__ import annotations

import asyncio
import time
from types import SimpleNamespace
from typing import Any

import pytest
from vllm import SamplingParams

from cellduality_plugin.evaluation.audit.engine import Account, Players, Remembering, Stepped
from cellduality_plugin.policies.base import PolicyError
from cellduality_plugin.policies.offline import Served
from tests.evaluation.audit.conftest import Words
from tests.play import Saying


class ScriptedEngine:
    """Finishes the request that was asked last first, one a step; may fail after so many steps."""

    def __init__(self, lives: int = 100) -> None:
        self.lives, self.waiting = lives, []

    def add_request(self, name: str, prompt: Any, params: SamplingParams) -> None:
        self.waiting.append((name, prompt["prompt_token_ids"]))

    def step(self) -> list[Any]:
        self.lives -= 1
        if self.lives < 0:
            raise RuntimeError("the engine died")
        name, tokens = self.waiting.pop()
        others = [SimpleNamespace(request_id=other, finished=False) for other, _ in self.waiting]
        return [SimpleNamespace(request_id=name, finished=True, tokens=tokens), *others]


def test_everyone_gets_their_own_answer_who_gave_up_is_not_waited_for_and_a_failure_reaches_all_who_wait():
    def asked(engine: Stepped, count: int) -> list[asyncio.Future[Any]]:
        return [asyncio.ensure_future(engine.generate([number], SamplingParams())) for number in range(count)]

    async def run():
        engine, dying = (Stepped(Served(SimpleNamespace(llm_engine=ScriptedEngine(n)), None, 64)) for n in (100, 1))
        waiting = asked(engine, 20)
        await asyncio.sleep(0)
        waiting[3].cancel()
        found = await asyncio.gather(*waiting, return_exceptions=True)
        assert [output.tokens for output in found[:3] + found[4:]] == [[n] for n in range(20) if n != 3]
        assert [(await again).tokens for again in asked(engine, 1)] == [[0]]  # after it had come to rest
        found = await asyncio.gather(*asked(dying, 4), return_exceptions=True)
        assert [str(each) for each in found[:3]] == ["the engine died"] * 3
        assert found[3].tokens == [3]

    asyncio.run(run())


class Counted(Saying):
    """Says the number of the draw, and counts how many wait at once."""

    def __init__(self, **how):
        super().__init__(lambda prompt, _: f"{prompt} {len(self.drawn)}", log_prob=lambda *_: [-1.0, -1.0], **how)
        self.under_way = self.most = 0

    async def _keep(self, *question):
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        await super()._keep(*question)
        self.under_way -= 1


def accounts(policy, count=2, at_once=64, **settings):
    """Accounts over one memory of ``policy``."""
    memory = Remembering(Players(Words(), policy, policy, policy, at_once=at_once), **settings)
    return [Account(memory) for _ in range(count)]


def test_everyone_is_charged_for_what_is_asked_once():
    async def run():
        policy = Counted()
        first, second = both = accounts(policy)
        for account in both:
            assert await account.log_probs("one two", "three four five") == [-1.0, -1.0]
            # The second draw of each is the same, too.
            assert [await account.generate("one two") for _ in range(2)] == ["one two 1", "one two 2"]
            assert tuple(account.costs[:3]) == (3, 2 + 3 + 2 + 2, 1 + 4 + 4)
        assert await first.choice_log_probs("one two", ("a b", "c d e")) == [-2.0, -2.0]
        # A choice costs the reading of its question, whatever there is to choose among.
        assert tuple(first.costs[:3]) == (4, 9 + 2, 9 + 1)
        for account in both:  # a draw with a seed is the same for everyone, and no other draw
            assert [await account.generate("one", seed=seed, temperature=1.0) for seed in (5, 6)] == ["one 3", "one 4"]
        assert await first.generate("one") == "one 5"
        await first.log_probs("one", "two", given="so")
        await second.log_probs("one", "two")
        assert (len(policy.drawn), len(policy.scored)) == (5, 4)

    asyncio.run(run())


def test_failures_are_remembered_and_cost_a_request_and_shares_of_time_add_up_to_what_went_by():
    async def run():
        policy = Counted(fails=PolicyError("refused"))
        for account in accounts(policy):
            with pytest.raises(PolicyError, match="refused"):
                await account.generate("one")
            assert tuple(account.costs[:3]) == (1, 0, 0)
        assert len(policy.drawn) == 1
        with pytest.raises(ZeroDivisionError):
            await accounts(Counted(fails=ZeroDivisionError()))[0].generate("one")
        with pytest.raises(PolicyError, match="timeout"):
            await accounts(Counted(delay=30.0), timeout=0.05)[0].generate("one")
        policy = Counted(delay=0.05)
        begun, several = time.monotonic(), accounts(policy, 12, at_once=2, timeout=0.2)
        await asyncio.gather(*(account.generate(str(place)) for place, account in enumerate(several)))
        went_by, shares = time.monotonic() - begun, [account.costs[3] for account in several]
        assert policy.most == 2  # to wait for others is no fault
        assert went_by / 2 <= sum(shares) <= went_by
        assert max(shares) < went_by / 2

    asyncio.run(run())
