"""The smoke test of a machine, on a CPU: each stage passes, and what was measured is in one file."""

from __future__ import annotations

import json

import pytest

from tests.stack.conftest import ROOT

pytestmark = [pytest.mark.stack, pytest.mark.long]


def test_every_stage_passes_and_the_numbers_are_kept(start, tmp_path):
    smoke = start(tmp_path / "smoke", "bash", str(ROOT / "recipes" / "smoke_gpu.sh"), SET_UP="0")
    assert smoke.end(1200) == 0, smoke.printed
    found = json.loads((tmp_path / "smoke" / "smoke" / "smoke.json").read_text())
    assert found["passed"]
    ran = ["card", "prepare", "traces", "sft", "probe", "grpo", "weights", "evaluate"]
    assert [stage["stage"] for stage in found["stages"]] == ran
    assert found["probe"]["prefill"]["mean"] < found["probe"]["tolerance"]
    assert len(found["weights"]["reward"]) == 2
