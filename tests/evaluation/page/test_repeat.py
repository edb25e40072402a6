from __future__ import annotations

import json
import os
import shutil

import pytest

from cellduality_plugin.errors import CellDualityError
from cellduality_plugin.evaluation.page.repeat import needed_to_repeat, questions_of
from cellduality_plugin.tasks import TASKS


@pytest.fixture
def metrics(run_of_two):
    return json.loads((run_of_two / "metrics.json").read_text())


def test_the_questions_are_those_of_the_folder_that_was_evaluated(metrics, two_sources, tmp_path):
    assert list(questions_of(metrics, two_sources, TASKS)) == list(metrics["spaces"])
    other = shutil.copytree(two_sources, tmp_path / "other")
    with (other / "cells.jsonl").open("a") as stream:
        stream.write("\n")
    with pytest.raises(CellDualityError, match="not what was evaluated"):
        questions_of(metrics, other, TASKS)
    (other / "cells.jsonl").unlink()
    with pytest.raises(CellDualityError, match="no such file"):
        questions_of(metrics, other, TASKS)


def test_commands_come_in_the_order_of_the_stages_or_are_the_evaluation_s_own(metrics, tmp_path):
    metrics["provenance"]["command"] = ["cellduality", "evaluate", "--data", "my data"]
    assert needed_to_repeat(metrics, None, None)["commands"] == {"evaluate": "cellduality evaluate --data 'my data'"}
    for age, stage in enumerate(("grpo", "sft", "prepare")):
        path = tmp_path / f"{stage}.command"
        path.write_text(f"run {stage} --seed 1 \n")
        os.utime(path, (1000 - age, 1000 - age))
    (tmp_path / "grpo.log").write_text("noise")
    found = needed_to_repeat(metrics, None, tmp_path)["commands"]
    assert list(found.items()) == [(stage, f"run {stage} --seed 1") for stage in ("prepare", "sft", "grpo")]


def test_seeds_rewards_and_hashes_are_told(metrics, tmp_path):
    manifest = {"seed": 7, "source": "mine", "source_sha256": "ab"}
    (tmp_path / "cells.jsonl.manifest.json").write_text(json.dumps(manifest))
    (tmp_path / "cellduality.json").write_text(json.dumps({"tasks": {"a": {"reward": "likelihood"}}}))
    found = needed_to_repeat(metrics, tmp_path, None)
    assert 7 in found["seeds"].values()
    assert found["sources"] == ["mine", "ab"]
    assert found["rewards"] == {"a": "likelihood"}
    assert (found["files"], found["models"]) == (metrics["provenance"]["data"], metrics["provenance"]["models"])
    (tmp_path / "cellduality.json").write_text("{")
    with pytest.raises(CellDualityError, match="not JSON"):
        needed_to_repeat(metrics, tmp_path, None)
