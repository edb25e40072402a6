"""A cluster that is too small for the ranks and engines of a run."""

from __future__ import annotations

import time

import pytest

pytestmark = pytest.mark.stack


def test_fewer_slots_than_they_need_are_refused_before_the_start(prepared, recipe):
    began = time.monotonic()
    run = recipe(prepared, "grpo.sh", GPUS="2", CELLDUALITY_CPU_SLOTS="1")
    assert run.end(120) != 0
    print(f"refused after {time.monotonic() - began:.1f} s")
    assert "the run asks for 2 slots, and CELLDUALITY_CPU_SLOTS is 1" in run.log("check-grpo")
    assert run.log("grpo") == ""
