"""Ctrl-C in the middle of GRPO, a second run in the same folder, and going on from the last checkpoint."""

from __future__ import annotations

import re

import pytest

pytestmark = pytest.mark.stack


def test_ctrl_c_ends_the_run_soon_and_says_so(stopped_run):
    assert stopped_run.code == 130
    assert stopped_run.stopped_in < 30
    assert "stopped, nothing is left running" in stopped_run.printed


def test_no_process_is_left(stopped_run):
    assert stopped_run.left == []


def test_earlier_outputs_stay(stopped_run):
    assert stopped_run.files_before
    assert stopped_run.files_after == stopped_run.files_before
    assert not (stopped_run.folder / "grpo").exists(), "a half-trained model must not look like a finished one"


def test_a_second_run_in_the_folder_ends_at_once_with_one_line(stopped_run):
    code, seconds, printed = stopped_run.second
    assert code not in (0, None)
    assert seconds < 10
    assert re.fullmatch(r"error: another run is going in .*\n", printed), printed


def test_resume_goes_on_from_the_last_checkpoint(stopped_run, resumed_run):
    assert stopped_run.checkpoint >= 1
    assert resumed_run.steps()[0] == stopped_run.checkpoint + 1
    assert resumed_run.steps()[-1] == stopped_run.last_step
    assert "sft]" not in resumed_run.printed, "SFT was repeated"
    assert (resumed_run.folder / "grpo" / "config.json").is_file()
