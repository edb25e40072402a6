"""Two ranks and two engines in the cluster that the launcher makes; and a cluster that is too small for them."""

from __future__ import annotations

import math
import time

import pytest

pytestmark = pytest.mark.stack


def test_they_share_the_work_to_its_end(prepared, recipe, scalars, dual_keys):
    run = recipe(prepared, "grpo.sh", GPUS="2")
    assert run.end(600) == 0, run.printed
    assert run.steps() == [1, 2, 3]
    found = scalars(prepared / "tensorboard" / "grpo")
    for name in {"reward", *dual_keys}:
        assert len(found[name]) == 3, name
        assert all(map(math.isfinite, found[name])), name
    assert (prepared / "grpo" / "config.json").is_file()


def test_fewer_slots_than_they_need_are_refused_before_the_start(prepared, recipe):
    began = time.monotonic()
    run = recipe(prepared, "grpo.sh", GPUS="2", CELLDUALITY_CPU_SLOTS="1")
    assert run.end(120) != 0
    print(f"refused after {time.monotonic() - began:.1f} s")
    assert "the run asks for 2 slots, and CELLDUALITY_CPU_SLOTS is 1" in run.log("check-grpo")
    assert run.log("grpo") == ""
