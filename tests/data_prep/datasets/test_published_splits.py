"""What `data info` says of a set's split is what `data prepare` writes, for every set of the paper."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from cellduality_plugin.cli import app
from cellduality_plugin.files import read_jsonl
from cellduality_plugin.vocabulary import Vocabulary
from data_prep.datasets import DATASETS
from data_prep.manifests import read_manifest
from data_prep.splits import apportion
from tests.data_prep.conftest import toy_cells
from tests.data_prep.datasets.conftest import HUMAN
from tests.data_prep.datasets.test_h5ad_sets import bastidas_ponce_2019, human_immune, l1000, sciplex3  # noqa: F401
from tests.data_prep.datasets.test_text_sets import (  # noqa: F401
    gse110894,
    gse117872,
    gse149383,
    he_2020_liver,
    ma_2020,
    segerstolpe_2016,
    xin_2016,
)  # fmt: skip
from tests.refused import refused

ROOT = Path(__file__).parents[3]
PAPER = (
    "he_2020_liver", "segerstolpe_2016", "xin_2016", "human_immune", "ma_2020", "bastidas_ponce_2019", "gse149383",
    "gse117872", "gse110894", "l1000", "sciplex3",
)  # fmt: skip
WHOLE = {"ma_2020", "bastidas_ponce_2019", "gse110894"}
DRUGS = ["control"] * 12 + ["Dacinostat (LAQ824)"] * 8 + ["Trametinib"] * 8 + ["Belinostat"] * 10 + ["CUDC-101"] * 8


@pytest.fixture
def cache(tmp_path, monkeypatch, request):
    """Return a function that puts the files of sets, in the published shape, where downloads are kept."""
    monkeypatch.setenv("CELLDUALITY_CACHE", str(tmp_path / "cache"))

    def fill(names) -> None:
        for name in names:
            if (tmp_path / "cache" / name).exists():
                continue
            made = request.getfixturevalue(name)
            files = made if isinstance(made, dict) else made(drugs=DRUGS) if name == "sciplex3" else made()
            (tmp_path / "cache" / name).mkdir(parents=True)
            for file, path in files.items():
                shutil.copy(path, tmp_path / "cache" / name / file)

    return fill


@pytest.fixture
def run(cache, monkeypatch):
    """Return a function that runs a command on sets whose files are in the cache."""
    monkeypatch.setenv("COLUMNS", "1000")

    def ran(*words: object) -> str:
        cache({*map(str, words)} & {*PAPER})
        done = CliRunner().invoke(app, [str(word) for word in words])
        if done.exception and not isinstance(done.exception, SystemExit):
            raise done.exception
        return " ".join(done.output.replace("│", " ").split())  # what a table wraps stays one text

    return ran


@pytest.fixture
def trainer(tmp_path) -> list[object]:
    """Words that add human cells of one's own, which train where all of another set is held out."""
    counts = np.random.default_rng(7).integers(0, 40, size=(40, len(HUMAN))).astype(np.float32)
    labels, answers = ["naive B cell", "Basal"] * 20, ["Sensitive", "Resistant"] * 20
    path = toy_cells(tmp_path / "own.h5ad", counts, genes=HUMAN, labels=labels, agent="cisplatin", answer=answers)
    return [path, "--label-column", "kind", "--drug-column", "agent", "--sensitivity-column", "answer"]


def prepared(run, folder: Path, name: str, *words: object) -> tuple[str, list[dict[str, Any]]]:
    """Return (what was printed, the set's cells in the order of the file)."""
    few = ["--labelled", 4, "--rl-rows", 6, "--min-genes", 2, "--top-genes", 12, "--small-classes", "drop"]
    printed = run("data", "prepare", name, "--out", folder, *few, *words)
    return printed, [row for row in read_jsonl(folder / "cells.jsonl") if row["id"].startswith(f"{name}/")]


def kind_of(name: str) -> str:
    return next(column for column in ("cell_type", "sensitivity", "perturbation") if column in DATASETS[name].columns)


def told(shown: str, cells: list[dict[str, Any]], kind: str) -> Counter[str]:
    """Return how many cells the words of `data info` say are in each split, by class where it says so."""
    total = len(cells)
    if "the whole set is held out" in shown:
        return Counter({"ood": total})
    if "80 / 10 / 10 at random, by InstructCell's rule" in shown:
        train, validation = int(0.8 * total), int(total * (1 - 0.8)) // 2
        return Counter({"train": train, "validation": validation, "test": total - train - validation})
    held = re.search(r"held out: (\w+) (.*?); the others", shown)
    words = held[2].split(", ") if held else []
    out = [cell for cell in cells if held and cell[held[1]].split(" ")[0] in words]
    assert {cell["id"] for cell in out} == {cell["id"] for cell in cells if cell["split"] == "ood"}
    assert "60 / 20 / 20 by class, seeded" in shown
    counts = Counter({"ood": len(out)} if out else {})
    for size in Counter(cell[kind] for cell in cells if cell not in out).values():
        counts.update(dict(zip(("train", "validation", "test"), apportion(size, (0.6, 0.2, 0.2), 1), strict=True)))
    return counts


@pytest.mark.parametrize("name", PAPER)
def test_the_split_that_is_shown_is_the_split_that_is_written(run, trainer, tmp_path, name):
    shown = run("data", "info", name)
    printed, cells = prepared(run, tmp_path / "out", name, *(trainer if name in WHOLE else ()))
    assert Counter(cell["split"] for cell in cells) == told(shown, cells, kind_of(name))
    text = read_manifest(tmp_path / "out" / "cells.jsonl")["splits"][name]
    assert text in printed
    assert text in shown
    assert "Not as published" in text
    asked = Counter(row["id"].partition("/")[0] for row in read_jsonl(tmp_path / "out" / "sft.jsonl"))
    assert (name in asked) == (name not in WHOLE)


@pytest.mark.parametrize("name", ["gse117872", "ma_2020", "sciplex3"])
def test_fractions_override(run, tmp_path, name):
    _, cells = prepared(run, tmp_path / "out", name, "--split", "fractions", "--labelled", 10)
    assert Counter(cell["split"] for cell in cells) == told("60 / 20 / 20 by class, seeded", cells, kind_of(name))
    with refused("wrong-settings"):
        prepared(run, tmp_path / "out", name, "--split", "instructcell")


def test_the_rule_is_applied_to_the_whole_set_whatever_is_taken_of_it(run, tmp_path):
    _, every = prepared(run, tmp_path / "out", "xin_2016")
    _, some = prepared(run, tmp_path / "out", "xin_2016", "--seed", 3, "--max-cells", 30)
    splits = {cell["id"]: cell["split"] for cell in every}
    assert len(some) == 30
    assert all(splits[cell["id"]] == cell["split"] for cell in some)
    donors = ["--held-out", "donor=Donor_2"]
    _, held = prepared(run, tmp_path / "out", "xin_2016", *donors)
    inside = {cell["id"]: cell["split"] for cell in held if cell["donor"] == "Donor_1"}
    assert inside.items() <= splits.items()
    assert {cell["split"] for cell in held if cell["donor"] == "Donor_2"} == {"ood"}


def test_a_set_that_no_cell_trains_of_speaks_the_words_of_those_that_do(run, trainer, tmp_path):
    prepared(run, tmp_path / "out", "ma_2020", *trainer[:3], "--task", "cell_type_annotation")
    vocabulary = Vocabulary.load(tmp_path / "out" / "vocabulary.json")
    assert vocabulary.labels["cell_type"] == ("Basal", "Mix", "naive B cell")
    cells = [row for row in read_jsonl(tmp_path / "out" / "cells.jsonl") if row["split"] == "ood"]
    genes = {gene for cell in cells for gene in cell["genes"]}
    assert genes <= {*vocabulary.genes}
    assert len(genes) > 100
    assert {row["id"] for row in read_jsonl(tmp_path / "out" / "eval_ood.jsonl")} == {cell["id"] for cell in cells}
    with refused("nothing-trains") as error:
        prepared(run, tmp_path / "alone", "ma_2020")
    assert "--split fractions" in error.value.hint


def test_held_out_drugs_are_asked_about_beside_the_controls_of_the_test_cells(run, tmp_path):
    printed, cells = prepared(run, tmp_path / "out", "sciplex3")
    by_id = {cell["id"]: cell for cell in cells}
    asked = [by_id[row["id"]] for row in read_jsonl(tmp_path / "out" / "eval_ood.jsonl")]
    assert {cell["drug"] for cell in asked} <= {"Dacinostat (LAQ824)", "Trametinib", "CUDC-101"}
    assert len(asked) > 4
    for cell in asked:
        control = by_id[cell["control"]]
        assert (control["perturbation"], control["split"]) == ("control", "test")
        assert control["cell_line"] == cell["cell_line"]
    assert "value to hold out that no cell has (drug Hesperadin)" in printed


# As little training as leaves a model that answers in form.
SMALL = """
    PROFILE=cpu SET_UP=0 SEEDS=42 ARMS=duality REWARDS= GPUS=1 LAYERS=2 PRETRAIN=0 CANDIDATES=2 N_GENES=0 N_LABELLED=12
    N_RL=16 TOP_GENES=16 MAX_LEN=160 MAX_NEW_TOKENS=48 SFT_PROCESSES=1 SFT_VIEWS=1 SFT_LABEL_VIEWS=1 SFT_EPOCHS=12
    SFT_BATCH=8 SFT_MICRO_BATCH=8 ROLLOUT_BATCH=8 GROUP_SIZE=4 TRAIN_BATCH=16 MICRO_BATCH=8 MAX_CELLS= SAMPLES=1
    DECODE=headline
"""


@pytest.mark.stack
@pytest.mark.long
def test_eleven_sets_go_from_their_files_to_the_papers_tables_by_one_command(cache, tmp_path):
    cache(PAPER)
    small = dict(setting.split("=", 1) for setting in SMALL.split())
    variables = {**os.environ, "VENV": sys.prefix, **small, "RUNS_DIR": str(tmp_path / "runs"), "COLUMNS": "240"}
    done = subprocess.run(
        ["bash", str(ROOT / "recipes" / "reproduce_paper.sh")],
        env=variables, capture_output=True, text=True, timeout=3000,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    for theme, sets in (("identity", PAPER[:6]), ("dynamics", PAPER[6:])):
        asked = read_jsonl(tmp_path / "runs" / theme / "42" / "data" / "cells.jsonl")
        assert {row["id"].partition("/")[0] for row in asked} == {*sets}
    lines = [line.split("│") for line in done.stdout.splitlines()]
    rows = [[cell.strip() for cell in line[2:-1]] for line in lines if len(line) > 3 and line[1].strip() == "duality"]
    assert [len(row) for row in rows] == [10, 6, 3, 5]  # Tables 2 to 5
    assert all(re.match(r"\d", cell) for row in rows[:2] for cell in row), done.stdout
    assert all(any(re.match(r"\d", cell) for cell in row) for row in rows), done.stdout
    assert "only 9 real cells" in " ".join(done.stdout.split()), "why there is a dash"
