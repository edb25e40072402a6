"""A new dual pair is one short file of the user's own, trained by the recipes without a change to the package; the run
is interrupted by Ctrl-C in the middle of GRPO, a second one in its folder is refused, and it goes on where it was."""

from __future__ import annotations

import hashlib
import json
import math
import re
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from cellduality_plugin.files import read_jsonl
from cellduality_plugin.tasks import TASKS
from data_prep.datasets import DATASETS
from data_prep.download.fetching import fetch
from tests.stack.conftest import Run, processes_of, scalars

pytestmark = pytest.mark.stack

PAIR = Path(__file__).with_name("my_pair.py")
NAME = "dropout_recovery"


def hashes(folder: Path) -> dict[str, str]:
    files = [path for part in ("data", "base", "sft") for path in sorted((folder / part).rglob("*")) if path.is_file()]
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture(scope="module")
def own_cells(tmp_path_factory) -> Path:
    """An .h5ad of another tissue, at a path of the user's own: immune cells of the kidney, labels in `celltype`."""
    folder = tmp_path_factory.mktemp("own")
    fetched = fetch(DATASETS["kidney_immune"], folder / "cache")
    return fetched["kidneyimmune.h5ad"].rename(folder / "my kidney.h5ad")


@pytest.fixture(scope="module")
def pair_settings(own_cells) -> dict[str, str]:
    """The recipe's settings that train the dual pair of my_pair.py on a file of one's own, for six steps."""
    small = """
        LABEL_COLUMN=celltype N_LABELLED=60 MAX_CELLS=300 N_GENES=400 N_RL=48 SFT_EPOCHS=8 PRETRAIN=0 AUDIT=0 ROUNDS=1
    """
    settings = dict(setting.split("=") for setting in small.split())
    return {"TASKS": f"{PAIR}:DropoutRecovery", "DATASET": str(own_cells), **settings}


@pytest.fixture(scope="module")
def stopped(tmp_path_factory, recipe, pair_settings) -> SimpleNamespace:
    """The whole recipe with a user's own pair, interrupted as soon as a step is logged and its checkpoint saved.

    ``code`` came after ``seconds``, ``left`` are processes that outlived it; ``second`` are exit code, seconds and
    words of another command in the same folder meanwhile.
    """
    folder = tmp_path_factory.mktemp("stopped") / "run"
    latest = folder / "checkpoints" / "grpo" / "_actor" / "latest"
    run = recipe(folder, "grpo_duality.sh", **pair_settings)
    run.until(lambda: "[5/6] grpo]" in run.printed, timeout=900)
    began = time.monotonic()
    second = recipe(folder, "grpo.sh", **pair_settings)
    refused = second.end(60), time.monotonic() - began, second.printed
    run.until(lambda: bool(run.steps()) and latest.exists(), timeout=600)
    files, began = hashes(folder), time.monotonic()
    run.send()
    code, seconds = run.end(120), time.monotonic() - began
    return SimpleNamespace(
        run=run, code=code, seconds=seconds, left=processes_of(folder), files_before=files, files_after=hashes(folder),
        checkpoint=int(latest.read_text().removeprefix("global_step")), second=refused,
    )  # fmt: skip


@pytest.fixture(scope="module")
def resumed(stopped, recipe, pair_settings) -> list[Run]:
    """The stages of the interrupted run once more, with RESUME=1: SFT, which was finished, and GRPO."""
    how = {"RESUME": "1", **pair_settings}
    return [recipe(stopped.run.folder, name, **how).ends_well() for name in ("sft.sh", "grpo.sh")]


def test_the_file_is_short_and_not_part_of_the_package():
    assert len(PAIR.read_text().splitlines()) <= 40
    assert NAME not in TASKS


def test_its_rows_reach_sft_and_rl(stopped):
    data = stopped.run.folder / "data"
    taught = {(row["datasource"], row["direction"]) for row in read_jsonl(data / "sft.jsonl")}
    assert taught == {(NAME, "primal"), (NAME, "dual")}
    labels = [json.loads(row["label"]) for row in read_jsonl(data / "rl.jsonl")]
    assert {label["task"] for label in labels} == {NAME}
    assert all(label["gold"] is None for label in labels)
    config = json.loads((data / "cellduality.json").read_text())
    assert re.fullmatch(r".*/my_pair\.py:DropoutRecovery", config["tasks"][NAME]["pair"])


def test_the_cells_are_of_a_file_of_ones_own(stopped):
    cells = list(read_jsonl(stopped.run.folder / "data" / "cells.jsonl"))
    assert len(cells) == 300
    assert {cell["id"].partition("/")[0] for cell in cells} == {"my_kidney"}


def test_it_trains(stopped, resumed):
    _, grpo = resumed
    assert len(grpo.steps()) >= 2
    found = scalars(stopped.run.folder / "tensorboard" / "grpo")
    assert all(map(math.isfinite, found["reward"]))
    assert set(found[f"dual_share/{NAME}"]) == {1.0}
    assert found[f"dual_reward/{NAME}"] == found["dual_reward"]
    assert max(found["reward"]) > 0, "nothing was ever rewarded"


def test_ctrl_c_ends_the_run_soon_and_says_so(stopped):
    assert stopped.code == 130
    assert stopped.seconds < 30
    assert "stopped, nothing is left running" in stopped.run.printed
    assert "[6/6]" not in stopped.run.printed


def test_no_process_outlives_it_and_earlier_outputs_stay(stopped):
    assert stopped.left == []
    assert {name.split("/")[0] for name in stopped.files_before} == {"data", "base", "sft"}
    assert stopped.files_after == stopped.files_before


def test_a_second_run_in_the_folder_ends_at_once_with_one_line(stopped):
    code, seconds, printed = stopped.second
    assert code not in (0, None)
    assert seconds < 10
    assert re.fullmatch(r"error: another run is going in .*\n", printed), printed


def test_finished_sft_is_not_repeated(stopped, resumed):
    sft, _ = resumed
    assert sft.log("sft") == ""
    weights = (stopped.run.folder / "sft" / "model.safetensors").read_bytes()
    assert stopped.files_before["sft/model.safetensors"] == hashlib.sha256(weights).hexdigest()


def test_resume_goes_on_from_the_last_checkpoint(stopped, resumed):
    _, grpo = resumed
    assert 1 <= stopped.checkpoint < 6
    assert grpo.steps() == list(range(stopped.checkpoint + 1, 7))
    assert (grpo.folder / "grpo" / "config.json").is_file()
    assert processes_of(grpo.folder) == []
