"""Ctrl-C in the middle of GRPO, a second run in the same folder, and going on from the last checkpoint."""

from __future__ import annotations

import hashlib
import re

import pytest

pytestmark = pytest.mark.stack


def test_ctrl_c_ends_the_run_soon_and_says_so(stopped):
    assert stopped.code == 130
    assert stopped.seconds < 30
    assert "stopped, nothing is left running" in stopped.run.printed
    assert "[6/6]" not in stopped.run.printed


def test_no_process_outlives_it(stopped):
    assert stopped.left == []


def test_earlier_outputs_stay(stopped):
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


def test_resume_goes_on_from_the_last_checkpoint(stopped, resumed, living):
    _, grpo = resumed
    assert 1 <= stopped.checkpoint < 6
    assert grpo.steps() == list(range(stopped.checkpoint + 1, 7))
    assert (grpo.folder / "grpo" / "config.json").is_file()
    assert living(grpo.folder) == []
