"""What a label set of any size costs: preparing it, the length of a question, and a rollout under the posterior.

The screens are made up (three cells a label, compounds in four doses), the policy is an untrained Llama of one layer,
and what it answers is scripted: labels drawn at random, and genes in random order.
"""

from __future__ import annotations

import argparse
import asyncio
import resource
import subprocess
import time
from pathlib import Path

import numpy as np

from cellduality_plugin.chat import render, token_count
from cellduality_plugin.config import Config
from cellduality_plugin.evaluation.audit.judging import Account, Remembering
from cellduality_plugin.examples import Example
from cellduality_plugin.files import read_jsonl
from cellduality_plugin.parsing import OneOf
from cellduality_plugin.policies.local import LocalModel, LocalPolicy
from cellduality_plugin.scoring import Scorer
from data_prep.h5ad.genes import human_symbols
from data_prep.models.small_llama import build_small_llama

DOSES = ("10 nM", "100 nM", "1000 nM", "10000 nM")
GENES, GROUPS, GROUP = 200, 4, 8


def screen(labels: int, path: Path) -> None:
    """Write a screen of so many labels, control among them."""
    import anndata
    import pandas
    from scipy.sparse import csr_matrix

    rng = np.random.default_rng(0)
    drugs = [f"drug BRD-K{10_000_000 + 7919 * (place // 4)} {DOSES[place % 4]}" for place in range(labels - 1)]
    obs = pandas.DataFrame({"perturbation": ["control"] * 100 + drugs * 3}).rename(index=lambda place: f"cell{place}")
    counts = csr_matrix(rng.poisson(rng.gamma(0.7, 1.5, size=GENES), size=(len(obs), GENES)).astype(np.float32))
    genes = pandas.DataFrame(index=sorted(human_symbols())[:GENES])
    anndata.AnnData(counts, obs=obs, var=genes).write_h5ad(path)


def measured(data: Path, model: Path) -> dict[str, str]:
    """Return what the RL rows of ``data`` cost, by pair."""
    config = Config.load(data / "cellduality.json").with_each("reward", {"*": "posterior"}, "--rewards")
    scorer, vocabulary, tasks = Scorer(config), config.load_vocabulary(), config.load_tasks()
    local, rng, found = LocalModel.load(model, max_model_len=4096, max_new_tokens=64), np.random.default_rng(0), {}
    for name, task in tasks.items():
        rows = [row for row in read_jsonl(data / "rl.jsonl") if row["datasource"] == name][:GROUPS]
        memory = Remembering(
            LocalPolicy(local, temperature=1.0, seed=0),
            lambda prompt: len(render(local.tokenizer, prompt)),
            lambda text: token_count(local.tokenizer, text),
        )
        account, began = Account(memory), time.monotonic()
        for row in rows:
            group, choices = scorer.group(row["label"]), vocabulary.genes
            if isinstance(task.answer, OneOf):
                choices = vocabulary.labels[task.answer.kind]
            drawn = [rng.permutation(len(choices)).tolist() for _ in range(GROUP)]
            one = isinstance(task.answer, OneOf)
            answers = [choices[order[0]] if one else tuple(choices[place] for place in order[:32]) for order in drawn]
            asyncio.run(scorer.score_all(list(map(task.answer_response, answers)), group, account))
        example, rollouts = Example.from_label(rows[0]["label"]), len(rows) * GROUP
        dual = task.dual_prompt(config.split(task, example).known, answers[0], vocabulary)
        tokens = [len(render(local.tokenizer, prompt)) for prompt in (rows[0]["input"], dual)]
        seconds = (time.monotonic() - began) / rollouts
        found[name] = f"{tokens[0]} | {tokens[1]} | {account.costs[1] / rollouts:.0f} | {seconds:.3f}"
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--labels", type=int, nargs="+", default=[90, 750, 30_000])
    wanted = parser.parse_args()
    print("| labels | prepare, s | peak, MB | pair | question, tokens | dual | read a rollout | s a rollout |")
    print("|---|---|---|---|---|---|---|---|", flush=True)
    for labels in sorted(wanted.labels):
        folder = wanted.out / str(labels)
        folder.mkdir(parents=True, exist_ok=True)
        screen(labels, folder / "screen.h5ad")
        flags = f"--top-genes 32 --rl-rows 64 --labelled {labels} --out {folder}/data".split()
        began = time.monotonic()
        subprocess.run(
            ["cellduality", "data", "prepare", f"{folder}/screen.h5ad", *flags], check=True, stdout=subprocess.DEVNULL
        )
        cost = f"{time.monotonic() - began:.1f} | {resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024:.0f}"
        build_small_llama(folder / "data", folder / "model", hidden_size=32, layers=1, heads=2, max_len=4096)
        for pair, line in measured(folder / "data", folder / "model").items():
            print(f"| {labels:,} | {cost} | {pair} | {line} |", flush=True)
