"""A new dual pair is one short file of the user's own, trained by the recipes without a change to the package."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import pytest

from cellduality_plugin.tasks import TASKS

pytestmark = pytest.mark.stack

PAIR = Path(__file__).with_name("my_pair.py")
NAME = "dropout_recovery"


def test_the_file_is_short_and_not_part_of_the_package():
    assert len(PAIR.read_text().splitlines()) <= 40
    assert NAME not in TASKS


def test_its_rows_reach_sft_and_rl(stopped):
    data = stopped.run.folder / "data"
    rows = [json.loads(line) for line in (data / "sft.jsonl").read_text().splitlines()]
    assert {(row["datasource"], row["direction"]) for row in rows} == {(NAME, "primal"), (NAME, "dual")}
    labels = [json.loads(json.loads(line)["label"]) for line in (data / "rl.jsonl").read_text().splitlines()]
    assert {label["task"] for label in labels} == {NAME}
    assert all(label["gold"] is None for label in labels)


def test_the_cells_are_of_a_file_of_ones_own(stopped, own_cells):
    data = stopped.run.folder / "data"
    cells = [json.loads(line) for line in (data / "cells.jsonl").read_text().splitlines()]
    assert len(cells) == 300
    assert {cell["id"].partition("/")[0] for cell in cells} == {"my_kidney"}


def test_it_trains(stopped, resumed, scalars):
    _, grpo = resumed
    assert len(grpo.steps()) >= 2
    found = scalars(stopped.run.folder / "tensorboard" / "grpo")
    assert all(map(math.isfinite, found["reward"]))
    assert set(found[f"dual_share/{NAME}"]) == {1.0}
    assert found[f"dual_reward/{NAME}"] == found["dual_reward"]
    assert max(found["reward"]) > 0, "nothing was ever rewarded"


def test_the_recipe_reads_it_from_its_path(stopped):
    config = json.loads((stopped.run.folder / "data" / "cellduality.json").read_text())
    assert re.fullmatch(r".*/my_pair\.py:DropoutRecovery", config["tasks"][NAME]["pair"])
