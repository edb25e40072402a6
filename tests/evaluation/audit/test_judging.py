"""A policy that is asked nothing twice, and what each account is charged for it."""

from __future__ import annotations

import asyncio
import time

import pytest

from cellduality_plugin.evaluation.audit.judging import Account, Remembering
from cellduality_plugin.policies.base import PolicyError
from tests.play import Choosing


class Counted(Choosing):
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


def accounts(policy, count=2, **settings):
    memory = Remembering(policy, *[lambda text: len(text.split())] * 2, **settings)
    return [Account(memory) for _ in range(count)]


def spent(account):
    return tuple(account.costs[:3])


def test_everyone_is_charged_for_what_is_asked_once():
    async def run():
        policy = Counted()
        both = accounts(policy)
        for account in both:
            assert await account.log_probs("one two", "three four five") == [-1.0] * 3
            assert await account.generate("one two") == "one two 2"
            assert await account.generate("one two") == "one two 3"  # the second draw of each is the same, too
        assert policy.calls == 3
        assert [spent(account) for account in both] == [(3, 2 + 3 + 2 + 2, 1 + 4 + 4)] * 2
        assert await both[0].choice_log_probs("one two", ("a b", "c d e")) == [-2.0, -3.0]
        # A choice costs the reading of its question, whatever there is to choose among.
        assert spent(both[0]) == (4, 9 + 2, 9 + 1)

    asyncio.run(run())


def test_a_draw_with_a_seed_is_the_same_for_everyone_and_no_other_draw():
    async def run():
        policy = Counted()
        first, second = both = accounts(policy)
        found = [[await account.generate("one", seed=seed, temperature=1.0) for seed in (5, 6)] for account in both]
        assert found == [["one 1", "one 2"]] * 2
        assert await first.generate("one") == "one 3"
        assert await first.log_probs("one", "two", given="so") == [-1.0]
        assert await second.log_probs("one", "two") == [-1.0]
        assert policy.calls == 5

    asyncio.run(run())


def test_a_failure_is_remembered_and_costs_a_request_and_other_faults_are_not_hidden():
    async def run():
        policy = Counted(fails=PolicyError("refused"))
        for account in accounts(policy):
            with pytest.raises(PolicyError, match="refused"):
                await account.generate("one")
            assert spent(account) == (1, 0, 0)
        assert policy.calls == 1
        with pytest.raises(ZeroDivisionError):
            await accounts(Counted(fails=ZeroDivisionError()))[0].generate("one")

    asyncio.run(run())


def test_a_call_that_takes_too_long_has_failed_and_waiting_for_others_is_no_fault():
    async def run():
        with pytest.raises(PolicyError, match="timeout"):
            await accounts(Counted(delay=30.0), timeout=0.05)[0].generate("one")
        policy = Counted(delay=0.05)
        [account] = accounts(policy, 1, at_once=2, timeout=0.2)
        await asyncio.gather(*(account.generate(str(number)) for number in range(12)))
        assert policy.most == 2

    asyncio.run(run())


def test_shares_of_time_add_up_to_the_time_that_went_by():
    async def run():
        begun, several = time.monotonic(), accounts(Counted(delay=0.05), 4)
        await asyncio.gather(*(account.generate(str(place)) for place, account in enumerate(several)))
        went_by, shares = time.monotonic() - begun, [account.costs[3] for account in several]
        assert sum(shares) <= went_by
        assert sum(shares) == pytest.approx(went_by, rel=0.5)
        assert max(shares) < went_by / 2

    asyncio.run(run())
