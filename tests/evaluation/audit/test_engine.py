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


def stepped(engine: ScriptedEngine) -> Stepped:
    return Stepped(Served(SimpleNamespace(llm_engine=engine), None, 64))


def test_everyone_gets_their_own_answer_who_gave_up_is_not_waited_for_and_a_failure_reaches_all_who_wait():
    async def run():
        engine = stepped(ScriptedEngine())
        found = await asyncio.gather(*(engine.generate([number], SamplingParams()) for number in range(20)))
        assert [output.tokens for output in found] == [[number] for number in range(20)]
        first, second = (asyncio.ensure_future(engine.generate([number], SamplingParams())) for number in (1, 2))
        await asyncio.sleep(0)
        first.cancel()
        assert (await second).tokens == [2]
        assert (await engine.generate([3], SamplingParams())).tokens == [3]  # after it had come to rest
        engine = stepped(ScriptedEngine(lives=1))
        waiting = [engine.generate([number], SamplingParams()) for number in range(4)]
        found = await asyncio.gather(*waiting, return_exceptions=True)
        assert [str(each) for each in found if isinstance(each, RuntimeError)] == ["the engine died"] * 3
        assert found[3].tokens == [3]

    asyncio.run(run())


class Counted:
    """Answers with a number that grows, after a while, or fails."""

    def __init__(self, delay: float = 0.0, fails: Exception | None = None) -> None:
        self.delay, self.fails = delay, fails
        self.calls, self.at_once, self.most = 0, 0, 0

    async def generate(self, prompt, *, seed=None, temperature=None):
        self.calls += 1
        self.at_once += 1
        self.most = max(self.most, self.at_once)
        number = self.calls
        await asyncio.sleep(self.delay)
        self.at_once -= 1
        if self.fails:
            raise self.fails
        return f"{prompt} {number}"

    async def log_probs(self, prompt, response, *, given=""):
        await self.generate(prompt)
        return [-1.0] * len(response.split())

    async def choice_log_probs(self, prompt, responses):
        return [sum(await self.log_probs(prompt, response)) for response in responses]


def accounts(policy, count=2, at_once=64, **settings):
    """Accounts over one memory of ``policy``; words are its tokens."""
    memory = Remembering(Players(Words(), policy, policy, policy, at_once=at_once), **settings)
    return [Account(memory) for _ in range(count)]


def test_everyone_is_charged_for_what_is_asked_once():
    async def run():
        policy = Counted()
        first, second = both = accounts(policy)
        for account in both:
            assert await account.log_probs("one two", "three four five") == [-1.0] * 3
            assert await account.generate("one two") == "one two 2"
            assert await account.generate("one two") == "one two 3"  # the second draw of each is the same, too
            assert tuple(account.costs[:3]) == (3, 2 + 3 + 2 + 2, 1 + 4 + 4)
        assert await first.choice_log_probs("one two", ("a b", "c d e")) == [-2.0, -3.0]
        # A choice costs the reading of its question, whatever there is to choose among.
        assert tuple(first.costs[:3]) == (4, 9 + 2, 9 + 1)
        asked = policy.calls
        for account in both:  # a draw with a seed is the same for everyone, and no other draw
            found = [await account.generate("one", seed=seed, temperature=1.0) for seed in (5, 6)]
            assert found == [f"one {asked + 1}", f"one {asked + 2}"]
        assert await first.generate("one") == f"one {asked + 3}"
        await first.log_probs("one", "two", given="so")
        await second.log_probs("one", "two")
        assert policy.calls == asked + 5

    asyncio.run(run())


def test_failures_are_remembered_and_cost_a_request_and_shares_of_time_add_up_to_what_went_by():
    async def run():
        policy = Counted(fails=PolicyError("refused"))
        for account in accounts(policy):
            with pytest.raises(PolicyError, match="refused"):
                await account.generate("one")
            assert tuple(account.costs[:3]) == (1, 0, 0)
        assert policy.calls == 1
        with pytest.raises(ZeroDivisionError):
            await accounts(Counted(fails=ZeroDivisionError()))[0].generate("one")
        with pytest.raises(PolicyError, match="timeout"):
            await accounts(Counted(delay=30.0), timeout=0.05)[0].generate("one")
        policy = Counted(delay=0.05)
        begun, several = time.monotonic(), accounts(policy, 12, at_once=2, timeout=0.2)
        await asyncio.gather(*(account.generate(str(place)) for place, account in enumerate(several)))
        went_by, shares = time.monotonic() - begun, [account.costs[3] for account in several]
        assert policy.most == 2  # to wait for others is no fault
        assert sum(shares) <= went_by
        assert sum(shares) == pytest.approx(went_by, rel=0.5)
        assert max(shares) < went_by / 2

    asyncio.run(run())
