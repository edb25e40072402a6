"""A report as runs make it: long names, every kind of failure, curves with ground truth, an audit."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cellduality_plugin.cell_sentences import Cell
from cellduality_plugin.evaluation.evaluate import evaluate
from cellduality_plugin.evaluation.predictions import PredictionSettings
from cellduality_plugin.evaluation.report import write_report
from cellduality_plugin.evaluation.sections import EvaluationSettings
from cellduality_plugin.parsing import join_response
from cellduality_plugin.policies.sharded import Request
from cellduality_plugin.tasks import TASKS
from cellduality_plugin.vocabulary import Vocabulary
from tests.evaluation.conftest import write_folder, write_model

TYPES = tuple(f"CD{number}+/CD45RA+/CD25- Naive Cytotoxic" for number in range(8))
STATES = ("control", "cytokine IFN-beta")
OWN = tuple(f"MARKER-{number}" for number in range(48))
SHARED = ("ISG15", "IFI6", "MX1")
FLAGS = (
    "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
)
CHROMIUM = os.environ.get("CHROMIUM", "/usr/bin/chromium")


def written(kind: int, state: str, rng: np.random.Generator) -> tuple[str, ...]:
    """A cell: five of the six genes of its type, in random order, and before them those of the perturbation, if any."""
    genes = tuple(OWN[6 * kind + place] for place in rng.permutation(6)[:5])
    return (*SHARED, *genes) if state != STATES[0] else genes


def cells(rng: np.random.Generator) -> Iterator[tuple[str, Cell]]:
    for split, count in (("train", 12), ("validation", 4), ("test", 8)):
        for kind, name in enumerate(TYPES):
            for number in range(count):
                state = STATES[number % 2]
                obs = {"cell_type": name, "exposure": "not exposed" if state == STATES[0] else "exposed"}
                condition = {"perturbation": state, "drug": "IFN-beta"}
                control = written(kind, STATES[0], rng)
                yield split, Cell(f"set/{split}-{kind}-{number}", written(kind, state, rng), obs, condition, control)


class Player:
    """Answers mostly right; now and then wrong, unreadable, or with markup in it."""

    def __init__(self, skill: float) -> None:
        self.skill = skill

    def generate(self, requests: Sequence[Request], title: str) -> list[str | None]:
        return [self.answer(request.prompt, np.random.default_rng(request.seed)) for request in requests]

    def answer(self, prompt: str, rng: np.random.Generator) -> str:
        luck = rng.random()
        if luck < 0.04:
            return "<script>document.title = 'taken over'</script> no tags"
        if luck < 0.08:
            return "<think>so</think> <answer>" + " ".join(OWN[:5])
        found = next((OWN.index(word) // 6 for word in reversed(prompt.split()) if word in OWN), 0)
        kind = found if rng.random() < self.skill else int(rng.integers(len(TYPES)))
        return join_response(self.text(prompt, kind, rng), "It is a cell. " * 20)

    def text(self, prompt: str, kind: int, rng: np.random.Generator) -> str:
        perturbed = any(gene in prompt.rsplit(": ", 1)[1] for gene in SHARED)
        if prompt.startswith("Name the type"):
            return TYPES[kind]
        if prompt.startswith("Name the perturbation"):
            return STATES[perturbed]
        if prompt.startswith("Tell whether"):
            return "exposed" if perturbed else "not exposed"
        if prompt.startswith("Write a cell"):
            named = next(place for place, name in enumerate(TYPES) if name in prompt.rsplit("\n", 1)[1])
            return " ".join(written(named if rng.random() < self.skill else kind, STATES[0], rng))
        state = STATES[f"Perturbation: {STATES[1]}" in prompt]
        return " ".join(written(kind, state, rng))


def training_log(path: Path) -> Path:
    rng, lines = np.random.default_rng(2), []
    for step in range(1, 41):
        logged: dict[str, float] = {"reward": 0.3 + step / 200, "kl": step / 1e4, "dual_truncated": 0.5}
        for task in TASKS:
            logged |= {f"dual_reward/{task}": 0.1 + step / 500 + float(rng.normal()) / 50, f"dual_share/{task}": 0.25}
            logged |= {f"dual_truth/{task}": 0.12 + step / 900, f"dual_truth_share/{task}": 0.25}
        lines.append(f"Global step {step}: {logged}")
    path.write_text("\n".join(lines))
    return path


def audited(path: Path, **more: Any) -> Path:
    """An audit in which every number is 0.8, of three rewards for two tasks."""
    whose, of = ("choice", "policy", "majority", "product"), ("accuracy", "macro_f1")
    names = [f"{who}_{what}" for who in whose for what in of] + [f"{what}_of_group" for what in ("best", "mean")]
    names += ["auc", "auc_all_masks", "group_agreement", "zero_variance"]
    names += [f"{what}_reward" for what in ("true", "shuffled", "observed_only")]
    words = "tells the true answer from others <& more>, and follows it in a group"
    every = {
        **{"n": 8, "samples": 8, "masks": 4, "masks_of_a_rollout": 1, "signal_to_noise": 0.2},
        "cost": {"requests": 0.5, "prefilled": 30.0, "decoded": 4.0, "seconds": 0.01},
        "verdict": {"grade": "agrees", "words": words},
        **{name: {"value": 0.8, "n": 8, "interval": [0.6, 0.9]} for name in names},
    }
    pairs = product(("cell_type_annotation", "conditional_cell_generation"), ("duality", "likelihood", "posterior"))
    findings = [{"task": task, "reward": reward, **every} for task, reward in pairs]
    content = {"format": "cellduality-audit", "version": 2, "labels_used": {"s": 4}, "seconds": 9, "settings": {}}
    path.write_text(json.dumps({**content, "findings": findings, **more}))
    return path


@pytest.fixture(scope="session")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page."""
    folder = tmp_path_factory.mktemp("report")
    labels = {"cell_type": TYPES, "exposure": ("exposed", "not exposed"), "perturbation": STATES}
    entries = [(split, True, cell) for split, cell in cells(np.random.default_rng(0))]
    data = write_folder(folder / "data", Vocabulary((*OWN, *SHARED), labels), entries)
    skills = {"base": 0.1, "SFT": 0.6, "GRPO": 0.85}
    models = {name: write_model(folder / name) for name in skills}
    settings = EvaluationSettings(PredictionSettings(samples=2), neighbours=(3, 5), components=10, resamples=50)
    command = ["cellduality", "evaluate", "--data", f"/a/{'long/' * 30}folder"]

    def opener(model: Path) -> Any:
        return nullcontext(Player(skills[model.name]))

    evaluate(models, data, "test", folder / "run", settings, opener=opener, command=command)
    curves = {"GRPO": training_log(folder / "train.log"), "SFT": folder / "gone.log"}
    audit = audited(folder / "audit.json")
    return write_report(folder / "run", folder / "report.html", curves, "A run", audit, data)


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Chromium."""
    if not shutil.which(CHROMIUM):
        pytest.fail(f"no Chromium at {CHROMIUM}: apt-get install chromium, or name it in CHROMIUM", pytrace=False)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS.split())
        yield chromium
        chromium.close()
