"""A policy asked nothing twice, and the account kept of it."""

from __future__ import annotations

import asyncio
import time

import pytest

from cellduality_plugin.evaluation.audit.asking import Remembering
from cellduality_plugin.policies.base import PolicyError
from tests.play import Choosing


class Counted(Choosing):
    """Answers with a number that grows, after a while, or fails as told."""

    def __init__(self, delay: float = 0.0, fails: Exception | None = None) -> None:
        self.delay, self.fails = delay, fails
        self.calls, self.at_once, self.most = 0, 0, 0

    async def generate(self, prompt: str, *, seed: int | None = None, temperature: float | None = None) -> str:
        self.calls += 1
        self.at_once += 1
        self.most = max(self.most, self.at_once)
        number = self.calls
        await asyncio.sleep(self.delay)
        self.at_once -= 1
        if self.fails:
            raise self.fails
        return f"{prompt} {number}"

    async def log_probs(self, prompt: str, response: str, *, given: str = "") -> list[float]:
        await self.generate(prompt)
        return [-1.0] * len(response.split())


def words(text: str) -> int:
    return len(text.split())


def remembering(policy, **settings) -> Remembering:
    return Remembering(policy, words, words, **settings)


def test_a_choice_costs_the_reading_of_its_question_whatever_there_is_to_choose_among():
    async def run():
        account = remembering(Counted()).account()
        assert await account.choice_log_probs("one two", ("a b", "c d e")) == [-2.0, -3.0]
        return account.cost

    cost = asyncio.run(run())
    assert (cost.requests, cost.prefilled, cost.decoded) == (1, 2, 1)


def test_everyone_is_charged_for_what_is_asked_once():
    async def run():
        policy = Counted()
        memory = remembering(policy)
        first, second = memory.account(), memory.account()
        for account in (first, second):
            assert await account.log_probs("one two", "three four five") == [-1.0] * 3
            assert await account.generate("one two") == "one two 2"
            assert await account.generate("one two") == "one two 3"  # the second draw of each is the same, too
        assert policy.calls == 3
        assert first.cost == second.cost
        return first.cost

    cost = asyncio.run(run())
    assert (cost.requests, cost.prefilled, cost.decoded) == (3, 2 + 3 + 2 + 2, 1 + 4 + 4)


def test_a_draw_with_a_seed_is_the_same_for_everyone_and_no_other_draw():
    async def run():
        policy = Counted()
        memory = remembering(policy)
        accounts = [memory.account() for _ in range(2)]
        found = [[await account.generate("one", seed=seed, temperature=1.0) for seed in (5, 6)] for account in accounts]
        assert found == [["one 1", "one 2"]] * 2
        assert await accounts[0].generate("one") == "one 3"
        assert await accounts[0].log_probs("one", "two", given="so") == [-1.0]
        assert await accounts[1].log_probs("one", "two") == [-1.0]
        assert policy.calls == 5

    asyncio.run(run())


def test_a_failure_is_remembered_and_costs_a_request():
    async def run():
        policy = Counted(fails=PolicyError("refused"))
        memory = remembering(policy)
        for _ in range(2):
            account = memory.account()
            with pytest.raises(PolicyError, match="refused"):
                await account.generate("one")
            assert (account.cost.requests, account.cost.prefilled) == (1, 0)
        assert policy.calls == 1

    asyncio.run(run())


def test_a_call_that_takes_too_long_has_failed_and_waiting_for_others_is_no_fault():
    async def run():
        with pytest.raises(PolicyError, match="timeout"):
            await remembering(Counted(delay=30.0), timeout=0.05).account().generate("one")
        policy = Counted(delay=0.05)
        account = remembering(policy, at_once=2, timeout=0.2).account()
        await asyncio.gather(*(account.generate(str(number)) for number in range(12)))
        assert policy.most == 2

    asyncio.run(run())


def test_a_fault_that_is_no_policy_s_is_not_hidden():
    with pytest.raises(ZeroDivisionError):
        asyncio.run(remembering(Counted(fails=ZeroDivisionError())).account().generate("one"))


def test_shares_of_time_add_up_to_the_time_that_went_by():
    async def run():
        memory = remembering(Counted(delay=0.05))
        accounts = [memory.account() for _ in range(4)]
        begun = time.monotonic()
        await asyncio.gather(*(account.generate(str(place)) for place, account in enumerate(accounts)))
        went_by = time.monotonic() - begun
        shares = [account.cost.seconds for account in accounts]
        assert sum(shares) <= went_by
        assert sum(shares) == pytest.approx(went_by, rel=0.5)
        assert max(shares) < went_by / 2

    asyncio.run(run())
