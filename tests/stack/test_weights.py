"""The dual is answered by the very weights that made the rollout, and by new ones after every update."""

from __future__ import annotations

import itertools
import json
import statistics

import pytest

from cellduality_plugin.files import read_jsonl
from cellduality_plugin.hub import read_tokenizer
from tests.stack.conftest import processes_of

pytestmark = pytest.mark.stack

# An agent as the package's own, except that before every rollout, and before whatever a dual asks, the engine is asked
# for the log-probabilities of one fixed text.
AGENT = """
import json

from cellduality_plugin.openrlhf_hooks import executor
from vllm import SamplingParams

PROBE = {probe!r}


class Probed:
    def __init__(self, engine):
        self.engine, self.phase = engine, "primal"

    async def generate(self, *asked, **further):
        output = await self.engine.generate(PROBE, SamplingParams(temperature=0.0, max_tokens=1, prompt_logprobs=0))
        values = [at[token].logprob for token, at in zip(PROBE[1:], output.prompt_logprobs[1:])]
        with open({file!r}, "a") as file:
            file.write(json.dumps([self.phase, values]) + "\\n")
        self.phase = "dual"
        return await self.engine.generate(*asked, **further)


class AgentExecutor(executor.DualityExecutor):
    def __init__(self):
        super().__init__({config!r})

    async def execute(self, prompt, label, sampling_params, max_length, hf_tokenizer, llm_engine, images=None):
        engine = Probed(llm_engine)
        return await super().execute(prompt, label, sampling_params, max_length, hf_tokenizer, engine, images)
"""
ROLLOUTS_A_STEP = 32
STEPS = 3
# Mean absolute difference of a token's log-probability, in nats. Measured: 0 between two probes of one step, from 0.47
# up after an update. Between the engine and plain transformers it is the rounding of bf16 in another order, which grows
# with the logits: 0.006 after SFT, up to 0.025 after updates as large as these.
SAME = 0.02
ROUNDING = 0.05
OTHER = 0.1


def difference(one: list[float], other: list[float]) -> float:
    """Return the mean absolute difference, in nats a token."""
    return statistics.fmean(abs(a - b) for a, b in zip(one, other, strict=True))


def plain_log_probs(model_folder, tokens: list[int]) -> list[float]:
    """Return what plain transformers says of `tokens`, without trainer or engine."""
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(model_folder, dtype=torch.bfloat16)
    with torch.no_grad():
        log_probs = model(torch.tensor([tokens])).logits[0, :-1].float().log_softmax(-1)
    return log_probs.gather(1, torch.tensor(tokens[1:])[:, None])[:, 0].tolist()


def by_step(lines: list[str]) -> list[dict[str, list[list[float]]]]:
    """Return the probes of each step by phase: a step begins with the rollout after the last one of the step before."""
    steps: list[dict[str, list[list[float]]]] = []
    for phase, values in map(json.loads, lines):
        if phase == "primal" and (not steps or len(steps[-1]["primal"]) == ROLLOUTS_A_STEP):
            steps.append({"primal": [], "dual": []})
        steps[-1][phase].append(values)
    return steps


def last(step: dict[str, list[list[float]]]) -> list[float]:
    """Return the last probe of a step: a dual's, if one was asked."""
    return (step["dual"] or step["primal"])[-1]


def test_the_dual_uses_the_weights_of_its_rollout_and_they_move(prepared, recipe, tmp_path):
    probes, agent = tmp_path / "probes.jsonl", tmp_path / "probing_agent.py"
    row, config = next(read_jsonl(prepared / "data" / "sft_traces.jsonl")), prepared / "data" / "cellduality.json"
    tokens = read_tokenizer(str(prepared / "sft"))(row["output"], add_special_tokens=False)["input_ids"]
    agent.write_text(AGENT.format(probe=tokens, file=str(probes), config=str(config)))
    extra = ("--train.agent_func_path", str(agent), "--ckpt.save_hf")
    recipe(prepared, "grpo.sh", *extra, ACTOR_LR="1e-3", LR_WARMUP="0").ends_well()
    steps = by_step(probes.read_text().splitlines())

    assert [len(step["primal"]) for step in steps] == [ROLLOUTS_A_STEP] * STEPS
    # Steps this large may cost a small model the form of its answers, and then there is nothing to ask back.
    assert steps[0]["dual"], "no dual was asked before the first update"
    assert any(step["dual"] for step in steps[1:]), "no dual was asked after an update"
    for step in steps:
        first = step["primal"][0]
        assert max(difference(first, values) for phase in step.values() for values in phase) < SAME
    for earlier, later in itertools.pairwise(steps):
        assert difference(last(earlier), later["primal"][0]) > OTHER

    saved = prepared / "checkpoints" / "grpo"
    sft = plain_log_probs(prepared / "sft", tokens)
    assert difference(last(steps[0]), sft) < ROUNDING
    for number, step in enumerate(steps[1:], start=1):
        assert difference(last(step), plain_log_probs(saved / f"global_step{number}_hf", tokens)) < ROUNDING
        assert difference(last(step), sft) > OTHER
    assert processes_of(prepared) == []
