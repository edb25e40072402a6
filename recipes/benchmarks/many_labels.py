"""What a label set of any size costs: the length of a question, and what a rollout under the posterior asks and takes.

The policy is scripted, so that seconds are those of everything but the model; tokens are words. What is answered is
labels drawn at random, and genes in random order.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from pathlib import Path

import numpy as np

from cellduality_plugin.cell_sentences import Cell
from cellduality_plugin.config import Config
from cellduality_plugin.scoring import Scorer
from cellduality_plugin.tasks import TASKS
from cellduality_plugin.vocabulary import Vocabulary

DOSES = ("10 nM", "100 nM", "1000 nM", "10000 nM")
GROUPS, GROUP, TOP = 4, 8, 64
GENES = tuple(f"GENE{place}" for place in range(978))


class Scripted:
    """Finds every response equally likely, and counts what it read."""

    calls = words = 0

    async def log_probs(self, prompt: str, response: str, *, given: str = "") -> list[float]:
        self.calls, self.words = self.calls + 1, self.words + len(f"{prompt} {response}".split())
        return [-1.0]

    async def choice_log_probs(self, prompt: str, responses: tuple[str, ...]) -> list[float]:
        self.calls, self.words = self.calls + 1, self.words + len(prompt.split())
        return [-1.0] * len(responses)


def line(name: str, labels: tuple[str, ...], folder: Path) -> str:
    """Return a row of the table."""
    task, rng, policy = TASKS[name], np.random.default_rng(0), Scripted()
    vocabulary = Vocabulary(GENES, {"perturbation": tuple(sorted(labels))})
    vocabulary.save(folder / "vocabulary.json")
    Config.read({"tasks": {name: {"pair": name, "reward": "posterior"}}}).save(folder / "cellduality.json")
    scorer, began = Scorer(Config.load(folder / "cellduality.json")), time.perf_counter()
    for number in range(GROUPS):
        cell, control, *others = (
            tuple(GENES[place] for place in rng.permutation(len(GENES))[:TOP]) for _ in range(GROUP + 2)
        )
        condition = {"perturbation": labels[number]}
        row = Cell(f"made/{number}", cell, condition=condition, control=control)
        example = task.example(row, hidden=0.25, labelled=False, rng=rng)
        answers = [labels[place] for place in rng.integers(0, len(labels), GROUP)]
        texts = map(task.answer_response, answers if name == "perturbation_identification" else others)
        asyncio.run(scorer.score_all(list(texts), scorer.group(example.to_label()), policy))
    rollouts, words = GROUPS * GROUP, len(task.primal_prompt(example.inputs, vocabulary).split())
    seconds = (time.perf_counter() - began) / rollouts
    size = (folder / "vocabulary.json").stat().st_size / 1e6
    counts = f"{words} | {policy.calls / rollouts:.2f} | {policy.words / rollouts:.0f} | {seconds:.3f} | {size:.2f}"
    return f"| {len(labels):,} | {name} | {counts} |"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--labels", type=int, nargs="+", default=[90, 750, 30_000])
    print("| labels | pair | words of a question | calls a rollout | words read | seconds | vocabulary, MB |")
    print("|---|---|---|---|---|---|---|")
    for count in parser.parse_args().labels:
        drugs = [f"drug BRD-K{10_000_000 + 7919 * (place // 4)} {DOSES[place % 4]}" for place in range(count - 1)]
        for pair in ("perturbation_identification", "perturbation_response_generation"):
            with tempfile.TemporaryDirectory() as made:
                print(line(pair, ("control", *drugs), Path(made)), flush=True)
