"""The executor, a scripted engine and one question of a task."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from vllm import SamplingParams
from vllm.outputs import RequestOutput

from cellduality_plugin.examples import Example
from cellduality_plugin.openrlhf_hooks.executor import DualityExecutor
from cellduality_plugin.tasks import TASKS, DualTask
from tests.contract.engine import reply
from tests.stack.score_in_engine import asked

TYPE = "cell_type_annotation"


@dataclass
class ScriptedEngine:
    """Answers one question from a list and every other, the dual, by one text."""

    tokenizer: Any
    question: list[int]
    answers: Sequence[str]
    rebuilt: str = ""
    dual_fails: Exception | None = None
    log_prob: Callable[[int], float] = lambda place: -float(place)
    rollouts: list[list[int]] = field(default_factory=list)
    duals: list[tuple[list[int], SamplingParams]] = field(default_factory=list)

    async def generate(self, tokens: list[int], params: SamplingParams, multi_modal_data: Any = None) -> RequestOutput:
        if tokens == self.question:
            text = self.answers[len(self.rollouts) % len(self.answers)]
            self.rollouts.append(list(tokens))
        else:
            text = self.rebuilt
            self.duals.append((list(tokens), params))
            if self.dual_fails is not None:
                raise self.dual_fails
        await asyncio.sleep(0)
        end = self.tokenizer.eos_token_id
        answer = [*self.tokenizer(text, add_special_tokens=False)["input_ids"], end][: params.max_tokens]
        return reply(tokens, params, answer, "stop" if answer[-1] == end else "length", self.log_prob, self.log_prob)


@dataclass
class Scene:
    """One RL row in the policy's own tokens, the engine that answers it, and the executor that judges the answers."""

    task: DualTask
    example: Example
    prompt: str
    tokens: list[int]
    label: str | None
    engine: ScriptedEngine
    executor: Any

    def roll(self, samples: int = 1, params: Any = None, length: int = 256) -> list[dict[str, Any]]:
        """Return the rollouts of one group, made at the same time with the same sampling parameters."""
        given = (self.prompt, self.label, params or SamplingParams(max_tokens=64), length, self.engine.tokenizer)

        async def group() -> list[dict[str, Any]]:
            rollouts = await asyncio.gather(*(self.executor.execute(*given, self.engine) for _ in range(samples)))
            if getattr(self.executor, "_frozen", None) is not None:
                await self.executor._frozen.close()
            return rollouts

        return asyncio.run(group())

    def rewards(self, samples: int = 1, **how: Any) -> list[float]:
        return [rollout["reward"] for rollout in self.roll(samples, **how)]


@pytest.fixture
def tokenizer(small_world):
    return small_world.tokenizer


@pytest.fixture
def scene(cell, vocabulary, tokenizer, make_config, tmp_path) -> Callable[..., Scene]:
    """Return a function that makes a scene: answers are right unless others are given, then texts as they are.

    So is the dual. Of the settings of a run, those of the one task are ``task``.
    """

    def make(name=TYPE, *answers, texts=(), rebuilt=None, engine=None, task=None, **settings) -> Scene:
        pair = TASKS[name]
        gold = pair.example(cell, hidden=0.25, labelled=True, rng=np.random.default_rng(0)).gold
        example = pair.example(cell, hidden=0.25, labelled=False, rng=np.random.default_rng(0))
        prompt, tokens = asked(tokenizer, pair.primal_prompt(example.inputs, vocabulary))
        if task is not None:
            settings["tasks"] = {name: {"pair": name, **task}}
        make_config(**settings)
        said = [*map(pair.answer_response, answers or ([] if texts else [gold])), *texts]
        dual = pair.rebuilt_response(example.unknown) if rebuilt is None else rebuilt
        scripted = ScriptedEngine(tokenizer, tokens, said, dual, **(engine or {}))
        executor = DualityExecutor(tmp_path / "cellduality.json")
        return Scene(pair, example, prompt, tokens, example.to_label(), scripted, executor)

    return make
