"""The stepped engine: everyone gets their own answer, and an engine's failure reaches all who wait."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from vllm import SamplingParams

from cellduality_plugin.evaluation.audit.engine import Stepped
from cellduality_plugin.policies.offline import Served


def _output(name: str, finished: bool, tokens: list[int]) -> Any:
    return SimpleNamespace(request_id=name, finished=finished, tokens=tokens)


@dataclass
class ScriptedEngine:
    """Finishes the request that was asked last first, one a step; may fail at a step."""

    fails_at: int = -1
    steps: int = 0
    waiting: list[tuple[str, list[int]]] = field(default_factory=list)

    def add_request(self, name: str, prompt: Any, params: SamplingParams) -> None:
        self.waiting.append((name, prompt["prompt_token_ids"]))

    def step(self) -> list[Any]:
        self.steps += 1
        if self.steps == self.fails_at:
            raise RuntimeError("the engine died")
        name, tokens = self.waiting.pop()
        return [_output(name, True, tokens), *(_output(other, False, []) for other, _ in self.waiting)]


def stepped(engine: ScriptedEngine) -> Stepped:
    return Stepped(Served(SimpleNamespace(llm_engine=engine), None, 64))


def test_everyone_gets_their_own_answer():
    async def run():
        engine = stepped(ScriptedEngine())
        found = await asyncio.gather(*(engine.generate([number], SamplingParams()) for number in range(20)))
        assert [output.tokens for output in found] == [[number] for number in range(20)]
        assert (await engine.generate([99], SamplingParams())).tokens == [99]  # after it had come to rest

    asyncio.run(run())


def test_who_gave_up_is_not_waited_for_and_an_engine_s_failure_reaches_all_who_wait():
    async def run():
        engine = stepped(ScriptedEngine())
        first = asyncio.ensure_future(engine.generate([1], SamplingParams()))
        second = asyncio.ensure_future(engine.generate([2], SamplingParams()))
        await asyncio.sleep(0)
        first.cancel()
        assert (await second).tokens == [2]
        assert (await engine.generate([3], SamplingParams())).tokens == [3]
        engine = stepped(ScriptedEngine(fails_at=2))
        waiting = [engine.generate([number], SamplingParams()) for number in range(4)]
        found = await asyncio.gather(*waiting, return_exceptions=True)
        assert [str(each) for each in found if isinstance(each, RuntimeError)] == ["the engine died"] * 3
        assert found[3].tokens == [3]

    asyncio.run(run())
