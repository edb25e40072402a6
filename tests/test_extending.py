"""What a user adds is one file: a kind of reward, a data set, a dual pair, a metric; and where it is found."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import numpy as np
from rich.console import Console

import cellduality_plugin
from cellduality_plugin.config import Config
from cellduality_plugin.evaluation.evaluate import evaluate
from cellduality_plugin.evaluation.predictions import PredictionSettings
from cellduality_plugin.evaluation.sections import EvaluationSettings
from cellduality_plugin.evaluation.tables import table
from cellduality_plugin.files import read_jsonl
from tests.commands.conftest import invoke
from tests.data_prep.conftest import toy_cells

PACKAGES = Path(cellduality_plugin.__file__).parents[1]
TYPE, CELL = "cell_type_annotation", "conditional_cell_generation"

REWARD = """
from cellduality_plugin.rewards import Reward, Verdict, reward

@reward("half")
class Half(Reward):
    audited = True

    async def judge(self, answer, dual):
        return Verdict(0.5)
"""
DATA_SET = """
from data_prep.loading.dataset import Dataset, UserFile
from data_prep.loading.draft import read_cells

def read(files, variant):
    return read_cells(files["mine.h5ad"], {"cell_type": "kind"}, "counts")

DATASET = Dataset(
    name="mine_2026", title="Mine", species="human", tissue="blood", modality="10x 3', counts",
    sources=(UserFile("mine.h5ad", "my own laboratory"),), licence="CC0", citation="none", read=read,
    columns=("cell_type",),
)
"""
PAIR = """
from cellduality_plugin.tasks.base import built_in
from cellduality_plugin.tasks.cell_type_annotation import CellTypeAnnotation

@built_in
class Mine(CellTypeAnnotation):
    name = "mine"
    family = "identity"

    def primal_prompt(self, inputs, vocabulary):
        return "Look closely. " + super().primal_prompt(inputs, vocabulary)
"""
METRIC = """
from cellduality_plugin.evaluation.metrics import metric

@metric("length", "genes a cell", "like real cells", bounds=(0, None))
def length(cells):
    return sum(map(len, cells.genes)) / len(cells)
"""
LOOK = f"""
import json
from cellduality_plugin.cell_sentences import Cell
from cellduality_plugin.config import Config
from cellduality_plugin.evaluation.audit.answers import AuditSettings
from cellduality_plugin.evaluation.audit.run import contenders_for
from cellduality_plugin.evaluation.curves import panels
from cellduality_plugin.evaluation.metrics import METRICS
from cellduality_plugin.rewards import REWARDS
from cellduality_plugin.tasks import TASKS
from data_prep.datasets import find_dataset

task = TASKS["{CELL}"]
config = Config.read({{"tasks": {{task.name: {{"pair": task.name}}, "mine": {{"pair": "mine", "reward": "half"}}}}}})
row = task.example(Cell("a/b", ("A", "B"), {{"cell_type": "B"}}), hidden=0.5, labelled=False, rng=None)
print(json.dumps({{
    "kinds": list(REWARDS),
    "configured": type(config.load_rewards(config.load_tasks())["mine"]).__name__,
    "family": [panel.family for panel in panels([{{"dual_reward/mine": [(1, 0.5)], "dual_share/mine": [(1, 1.0)]}}])],
    "metrics": [each.title for each in METRICS.values()],
    "audited": [contender.title for contender in contenders_for(task, row, config, AuditSettings())],
    "audited by name": [contender.title for contender in contenders_for(task, row, config, AuditSettings(("half^2",)))],
    "data set": find_dataset("mine_2026").title,
}}))
"""


def test_a_reward_a_pair_a_metric_and_a_data_set_are_a_file_in_their_folder(tmp_path):
    for package in ("cellduality_plugin", "data_prep"):  # those that are installed, and a file more in some folders
        shutil.copytree(PACKAGES / package, tmp_path / package, copy_function=os.symlink)
    (tmp_path / "cellduality_plugin" / "rewards" / "half.py").write_text(REWARD)
    (tmp_path / "cellduality_plugin" / "tasks" / "mine.py").write_text(PAIR)
    (tmp_path / "cellduality_plugin" / "evaluation" / "metrics" / "length.py").write_text(METRIC)
    (tmp_path / "data_prep" / "datasets" / "mine_2026.py").write_text(DATA_SET)

    def run(code: str) -> str:
        variables = {**os.environ, "PYTHONPATH": str(tmp_path), "COLUMNS": "200"}
        return subprocess.run(
            [sys.executable, "-c", code], cwd=tmp_path, env=variables, check=True, capture_output=True, text=True
        ).stdout

    found = json.loads(run(LOOK))
    assert "half" in {*found.pop("kinds")} & {*found.pop("audited")}
    assert "genes a cell" in found.pop("metrics")
    told = {"configured": "Half", "family": ["identity"], "audited by name": ["half^2"], "data set": "Mine"}
    assert found == told
    listing = "import sys; sys.argv = ['', 'data', 'list']; from cellduality_plugin.cli import main; main()"
    assert "mine_2026" in run(listing)


def test_a_pair_and_a_metric_are_a_file_anywhere(tmp_path, monkeypatch):
    for name, text in {"pair": PAIR.replace("@built_in\n", ""), "half": REWARD, "length": METRIC}.items():
        (tmp_path / f"{name}.py").write_text(text)
    counts = np.random.default_rng(0).integers(1, 60, size=(90, 12)).astype(np.float32)
    source, data = toy_cells(tmp_path / "cells.h5ad", counts, labels=["B", "T", "NK"] * 30), tmp_path / "data"
    tasks = ["--task", "pair.py:Mine", "--task", CELL, "--rewards", f"mine={tmp_path / 'half.py'}:Half"]
    words = ["data", "prepare", source, "--out", data, "--label-column", "kind", "--labelled", 9, "--rl-rows", 8]
    monkeypatch.chdir(tmp_path)
    invoke(*words, *tasks)
    rows = [row["input"] for row in read_jsonl(data / "rl.jsonl")]
    assert any(prompt.startswith("Look closely. Name the type of a cell") for prompt in rows)
    config = Config.load(data / "cellduality.json")
    assert type(config.load_rewards(config.load_tasks())["mine"]).__name__ == "Half"
    assert config.tasks["mine"].pair == f"{tmp_path / 'pair.py'}:Mine", "found from everywhere"

    class Decoder:
        def generate(self, requests, title):
            return [f"<answer>G{n % 12} G{(n + 1) % 12} G{(n + 2) % 12}</answer>" for n, _ in enumerate(requests)]

    (model := tmp_path / "model").mkdir()
    (model / "config.json").write_text('{"hidden_size": 8}')
    (model / "model.safetensors").write_bytes(b"weights")
    asking = PredictionSettings(samples=1)
    settings = EvaluationSettings(asking, neighbours=(2,), components=2, resamples=5, metrics=("length.py:length",))
    found = evaluate(
        {"SFT": model}, data, "test", tmp_path / "out", settings,
        tasks=config.load_tasks(), opener=lambda _: nullcontext(Decoder()),
    )  # fmt: skip
    assert found["columns"]["SFT"]["metrics"][f"{CELL}/length"]["value"] == 3
    console = Console(width=150, record=True, file=io.StringIO())
    console.print(table(found))
    invoke("report", "--evaluation", tmp_path / "out", "--data", data, "--out", tmp_path / "report.html")
    for shown in (console.export_text(), (tmp_path / "report.html").read_text(encoding="utf-8")):
        assert "genes a cell" in shown
