"""Decoders that need no engine, and small prepared folders of one source and of two."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cellduality_plugin.cell_sentences import Cell
from cellduality_plugin.evaluation.evaluate import evaluate
from cellduality_plugin.evaluation.predictions import Prediction, PredictionSettings, predict
from cellduality_plugin.evaluation.sections import EvaluationSettings, Section, read_sections
from cellduality_plugin.files import write_jsonl
from cellduality_plugin.parsing import join_response
from cellduality_plugin.policies.sharded import Decoder, Request
from cellduality_plugin.tasks import TASKS
from cellduality_plugin.vocabulary import Vocabulary
from data_prep.rows import RowMaker

TYPES = ("B", "NK", "T")
KANG_TYPES = ("B cell", "NK cell", "T cell")
HELD_OUT = KANG_TYPES[0]
GENES = tuple(f"G{number}" for number in range(36))
SHARED = ("R0", "R1", "R2")
"""Genes that lead every cell after the perturbation."""
OWN = tuple(f"S{number}" for number in range(6))
"""Genes that follow them: two for each type."""
CONTROL, PERTURBED = "control", "cytokine IFN-beta"
OF_ONE = EvaluationSettings(PredictionSettings(samples=2), neighbours=(5, 3, 100), components=5, resamples=50)
OF_TWO = replace(OF_ONE, neighbours=(5, 3), resamples=20, anndata=True, real_cells=True)
"""How the expert is measured on one source and on both."""
PAIRS = {
    "made": ("cell_type_annotation", "conditional_cell_generation"),
    "kang": ("drug_exposure_prediction", "perturbation_response_generation"),
    "set": [name for name in TASKS if name != "drug_sensitivity_prediction"],
}


def drawn(block: int, rng: np.random.Generator) -> tuple[str, ...]:
    """Eight of the twelve genes of a type, in random order."""
    return tuple(GENES[12 * block + place] for place in rng.permutation(12)[:8])


def perturbed(genes: Sequence[str]) -> tuple[str, ...]:
    """What the perturbation makes of a cell: the part that all types share, the type's own, and what is left."""
    block = int(genes[-1][1:]) // 12
    return (*SHARED, *OWN[2 * block : 2 * block + 2], *genes[:3])


class RuleDecoder:
    """Answers by ``rule`` (prompt -> answer text) and remembers what it was asked."""

    def __init__(self, rule: Callable[[Request], str | None]) -> None:
        self.rule = rule
        self.asked: list[Request] = []

    def generate(self, requests: Sequence[Request], title: str) -> list[str | None]:
        self.asked += requests
        answers = [self.rule(request) for request in requests]
        return [None if answer is None else join_response(answer) for answer in answers]


def expert(request: Request) -> str:
    """Knows the rules by which the cells below are made."""
    prompt, rng = request.prompt, np.random.default_rng(request.seed)
    last = prompt.rsplit(": ", 1)[1].split()
    block = int(last[-1][1:]) // 12 if last[-1][1:].isdecimal() else -1  # the type whose genes the cell is made of
    if prompt.startswith("Name the type"):
        return TYPES[block]
    if prompt.startswith("Name the perturbation"):
        return PERTURBED if SHARED[0] in last else CONTROL
    if prompt.startswith("Tell whether"):
        return "exposed" if SHARED[0] in last else "not exposed"
    if prompt.startswith("Write a cell"):
        return " ".join(drawn(TYPES.index(last[-1]), rng))
    if prompt.startswith("Write the cell"):
        return " ".join(perturbed(last) if f"Perturbation: {PERTURBED}" in prompt else drawn(block, rng))
    return " ".join(gene for gene in GENES[12 * block : 12 * block + 12] if gene not in last)


@pytest.fixture
def expert_decoder() -> RuleDecoder:
    return RuleDecoder(expert)


def open_expert(model: Path) -> AbstractContextManager[Decoder]:
    """Open an expert of its own for every model."""
    return nullcontext(RuleDecoder(expert))


@pytest.fixture
def opened(expert_decoder: RuleDecoder) -> Callable[[Path], AbstractContextManager[Decoder]]:
    """Opens the same expert for every model."""
    return lambda model: nullcontext(expert_decoder)


@pytest.fixture(scope="session")
def vocabulary() -> Vocabulary:
    labels = {"cell_type": TYPES, "exposure": ("exposed", "not exposed"), "perturbation": (CONTROL, PERTURBED)}
    return Vocabulary((*GENES, *SHARED, *OWN), labels)


Entry = tuple[str, bool, Cell]
"""The split of a cell, whether it shows its label, and the cell."""


def made_cells(rng: np.random.Generator) -> list[Entry]:
    """Cells of a type hold eight of that type's own twelve genes, in random order."""
    cells = [Cell(f"made/{n}", drawn(n % 3, rng), {"cell_type": TYPES[n % 3]}) for n in range(150)]
    splits = ["train"] * 90 + ["validation"] * 30 + ["test"] * 30
    return [(split, number < 45, cell) for number, (split, cell) in enumerate(zip(splits, cells, strict=True))]


def kang_cells(rng: np.random.Generator) -> list[Entry]:
    """Cells of three types with and without the perturbation, each beside an untreated one; one type is held out."""
    found = []
    for block, kind in enumerate(KANG_TYPES):
        places = {"ood": 16} if kind == HELD_OUT else {"train": 16, "validation": 12, "test": 12}
        for split, count in places.items():
            untreated = [drawn(block, rng) for _ in range(count)]
            treated = [perturbed(drawn(block, rng)) for _ in range(count)]
            for state, exposure, group in ((CONTROL, "not exposed", untreated), (PERTURBED, "exposed", treated)):
                obs, condition = {"cell_type": kind, "exposure": exposure}, {"perturbation": state, "drug": "IFN-beta"}
                for number, genes in enumerate(group):
                    name = f"kang/{block}-{split}-{exposure[:3]}-{number:02}"
                    cell = Cell(name, genes, obs, condition, control=untreated[number - 1])
                    found.append((split, split == "train" and number < 8, cell))
    return found


def write_folder(folder: Path, vocabulary: Vocabulary, entries: Sequence[Entry]) -> Path:
    """Write what evaluation reads of a prepared folder."""
    vocabulary.save(folder / "vocabulary.json")
    rng = np.random.default_rng(1)
    fields = [{"id": c.id, "split": split, "labelled": shown, "genes": list(c.genes)} for split, shown, c in entries]
    cells = [{**row, **c.obs, **c.condition} for row, (_, _, c) in zip(fields, entries, strict=True)]
    write_jsonl(folder / "cells.jsonl", cells)
    for wanted in sorted({split for split, _, _ in entries} - {"train"}):
        rows = []
        for cell in (cell for split, _, cell in entries if split == wanted):
            tasks = [TASKS[name] for name in PAIRS[cell.id.partition("/")[0]]]
            rows += RowMaker(tasks, vocabulary).evaluation([cell], rng)
        write_jsonl(folder / f"eval_{wanted}.jsonl", rows)
    return folder


@pytest.fixture(scope="session")
def one_source(tmp_path_factory: pytest.TempPathFactory, vocabulary: Vocabulary) -> Path:
    """A prepared folder of one source. Not to be changed."""
    return write_folder(tmp_path_factory.mktemp("one") / "data", vocabulary, made_cells(np.random.default_rng(0)))


@pytest.fixture
def data(one_source: Path, tmp_path: Path) -> Path:
    """A prepared folder of one source."""
    return Path(shutil.copytree(one_source, tmp_path / "data"))


@pytest.fixture(scope="session")
def two_sources(tmp_path_factory: pytest.TempPathFactory, vocabulary: Vocabulary) -> Path:
    """A prepared folder of two sources, the second with perturbed cells and a held-out type. Not to be changed."""
    rng = np.random.default_rng(0)
    return write_folder(tmp_path_factory.mktemp("two") / "data", vocabulary, [*made_cells(rng), *kang_cells(rng)])


@pytest.fixture(scope="session")
def sections(two_sources: Path, vocabulary: Vocabulary) -> dict[str, Section]:
    """The sections of the test split of both sources, by key."""
    settings = EvaluationSettings(components=5, neighbours=(5, 3), resamples=20)
    found = read_sections(two_sources, "test", TASKS, vocabulary, settings)
    return {section.key: section for section in found}


@pytest.fixture(scope="session")
def answered(sections: dict[str, Section], vocabulary: Vocabulary) -> list[Prediction]:
    """What the expert answers to all sections."""
    rows = {key: example for section in sections.values() for key, example in section.rows.items()}
    return predict(RuleDecoder(expert), rows, vocabulary, PredictionSettings(samples=2))


def write_model(folder: Path) -> Path:
    """Write what looks like a checkpoint as far as hashing goes."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"hidden_size": 8}))
    (folder / "model.safetensors").write_bytes(b"weights")
    return folder


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_model(tmp_path / "model")


@pytest.fixture(scope="session")
def run_of_one(one_source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What an evaluation of the expert under two names writes. Not to be changed."""
    folder, command = tmp_path_factory.mktemp("run of one"), ["evaluate", "--twice"]
    models = dict.fromkeys(("SFT", "GRPO"), write_model(folder / "model"))
    found = evaluate(models, one_source, "test", folder / "out", OF_ONE, opener=open_expert, command=command)
    assert json.loads((folder / "out" / "metrics.json").read_text()) == json.loads(json.dumps(found))
    return folder / "out"


@pytest.fixture(scope="session")
def run_of_two(two_sources: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What an evaluation of the expert on both sources writes. Not to be changed."""
    folder = tmp_path_factory.mktemp("run of two")
    models = {"GRPO": write_model(folder / "model")}
    evaluate(models, two_sources, "test", folder / "out", OF_TWO, opener=open_expert)
    return folder / "out"
