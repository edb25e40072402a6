"""The stages of recipes/smoke_gpu.sh that are no recipe: what card there is, and whether engine and trainer agree.

Each prints one JSON object and ends with 1 where the machine does not do what it should.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import platform
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cellduality_plugin.evaluation.predictions import versions

TOLERANCE = 0.05
"""Of the mean difference of a token's log-probability; bfloat16 rounds a logit of 8 to 0.03."""


def card(backend: str) -> dict[str, Any]:
    """Tell what torch computes on."""
    import torch

    found: dict[str, Any] = {"backend": backend, "platform": platform.platform(), "versions": versions()}
    found["cuda"], found["cards"] = torch.version.cuda, torch.cuda.device_count()
    if found["cards"]:
        properties = torch.cuda.get_device_properties(0)
        found["card"], found["gib"] = properties.name, round(properties.total_memory / 2**30, 1)
        found["capability"] = f"{properties.major}.{properties.minor}"
    if backend == "gpu" and not found["cards"]:
        found["failure"] = "torch sees no card: the driver (nvidia-smi), or another torch than that of gpu.lock"
    return found


def probe(model: str, data: str) -> dict[str, Any]:
    """Compare vLLM with transformers: log-probabilities read in the prefill, and of choices; and greedy answers."""
    from cellduality_plugin.evaluation.audit.engine import checkpoint_players
    from cellduality_plugin.files import read_jsonl
    from cellduality_plugin.policies.local import LocalModel, LocalPolicy
    from cellduality_plugin.policies.offline import EngineSettings
    from cellduality_plugin.policies.settings import DualSettings
    from cellduality_plugin.tasks import TASKS
    from cellduality_plugin.vocabulary import Vocabulary

    rows = list(read_jsonl(Path(data, "sft.jsonl")))[:24]
    labels = Vocabulary.load(Path(data, "vocabulary.json")).labels["cell_type"]
    answers = [TASKS["cell_type_annotation"].answer_response(label) for label in labels]
    local = LocalPolicy(LocalModel.load(Path(model), max_model_len=256, max_new_tokens=32), temperature=0.0, seed=42)

    async def told(policy: Any) -> list[list[float]]:
        read = [policy.log_probs(row["input"], row["output"]) for row in rows]
        chosen = [policy.choice_log_probs(row["input"], answers) for row in rows[:4]]
        return [list(found) for found in await asyncio.gather(*read, *chosen)]

    with checkpoint_players(Path(model), EngineSettings(256, 32), DualSettings(), temperature=1.0, seed=42) as players:
        engine = asyncio.run(told(players.dual))
    ours = asyncio.run(told(local))
    found: dict[str, Any] = {"tolerance": TOLERANCE}
    for name, part in (("prefill", slice(len(rows))), ("choice", slice(len(rows), None))):
        pairs = zip(engine[part], ours[part], strict=True)
        apart = [abs(a - b) for each, other in pairs for a, b in zip(each, other, strict=True)]
        found[name] = {"numbers": len(apart), "mean": sum(apart) / len(apart), "most": max(apart)}
        if not found[name]["mean"] < TOLERANCE:  # NaN is none either
            found["failure"] = f"{name} log-probabilities of vLLM and transformers differ by {found[name]['mean']:.3g}"
    return found


def weights(log: str) -> dict[str, Any]:
    """Compare what the engine and the trainer make of the same answers, after the engine got the trainer's weights."""
    from cellduality_plugin.evaluation.curves import read_curves

    curves, names = read_curves(Path(log)), ("vllm_kl", "policy_loss", "reward", "dual_validity", "dual_success")
    found: dict[str, Any] = {name: curves.get(name, []) for name in names}
    steps = found["vllm_kl"]
    if len(steps) < 2 or not all(abs(value) < TOLERANCE for _, value in steps):
        found["failure"] = f"log-probabilities of engine and trainer by step: {steps}"
    return found


def summary(folder: str) -> dict[str, Any]:
    """Gather what the stages wrote."""
    stages = [json.loads(line) for line in Path(folder, "stages.jsonl").read_text(encoding="utf-8").splitlines()]
    found: dict[str, Any] = {"passed": all(stage["passed"] for stage in stages), "stages": stages}
    for path in (Path(folder, f"{name}.out") for name in ("card", "probe", "weights")):
        for line in path.read_text("utf-8").splitlines() if path.exists() else ():
            if line.startswith('{"'):
                found[path.stem] = json.loads(line)
    Path(folder, "smoke.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return {"passed": found["passed"]}


def main() -> int:
    """Run one stage."""
    stages: dict[str, Callable[..., dict[str, Any]]]
    stages = {"card": card, "probe": probe, "weights": weights, "summary": summary}
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("stage", choices=stages)
    parser.add_argument("of", nargs="+")
    asked = parser.parse_args()
    found = stages[asked.stage](*asked.of)
    print(json.dumps(found), flush=True)
    if "failure" in found:
        print(found["failure"], file=sys.stderr)
    return int("failure" in found or found.get("passed") is False)


if __name__ == "__main__":
    sys.exit(main())
