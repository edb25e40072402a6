"""Every check finds what it is for: tables of commands, files and configurations, and what is found on them."""

from __future__ import annotations

import json
import os
import re

import pytest

from cellduality_plugin.agent_file import REWARD_FILE, bound_reward_file
from cellduality_plugin.openrlhf_hooks.doctor.checks import CHECKS, examine
from cellduality_plugin.openrlhf_hooks.doctor.flags import RL, SFT
from cellduality_plugin.openrlhf_hooks.doctor.show import checks_as_markdown
from tests.openrlhf_hooks.doctor import table
from tests.openrlhf_hooks.doctor.table import ANNOTATION, EIGHT, GENERATION, JOB, ON_GPU, PACKAGED


@pytest.mark.parametrize(("found", "trainer", "words", "where"), table.RUNS)
def test_every_check_finds_what_it_is_for(found, trainer, words, where, world):
    assert world.found(trainer, words, **where) == found


def test_every_check_is_in_a_table_and_says_what_it_finds():
    found = " ".join(row[0] for row in table.RUNS)
    assert {check.name for check in CHECKS} == set(re.findall(r"\w+", found)) - {"error", "warning", "note"}
    stages: dict[str, set[str]] = {}
    for check in CHECKS:
        stages.setdefault(check.name, set()).update(check.trainers)
    rows = dict(re.findall(r"^\| `(\w+)` \| (\w+) \| \S", checks_as_markdown(), re.MULTILINE))
    assert rows == {name: "both" if len(of) > 1 else "SFT" if SFT in of else "RL" for name, of in stages.items()}


def test_a_finding_says_where_and_how_to_mend_it_and_errors_come_first(world):
    words = "--train.micro_batch_size 3 --eval.steps 5 --unknown 1 ~ckpt.save_steps"
    found = examine(world.run(RL, words))
    assert [finding.severity for finding in found] == ["error", "error", "warning", "note"]
    assert all(finding.what and finding.where and finding.hint for finding in found)


def test_calls_of_duals_that_reason_are_counted(world):
    for name, settings, what in (
        (ANNOTATION, {"traces": 3, "hidden": 1}, "24 times: 4 labels x 3 traces, .*, the traces once a step"),
        (ANNOTATION, {"traces": 1, "negatives": 1, "hidden": 0.25}, "6 times: 3 labels x 1 traces"),
        (ANNOTATION, {"traces": 1, "reward": "likelihood"}, "4 times: 2 answers x 1 traces"),
        (GENERATION, {"traces": 2}, "8 times: 2 answers x 2 traces"),
    ):
        world.configure({name: {"reward": "posterior", **settings}}, dual={"max_new_tokens": 8})
        assert re.search(what, examine(world.run(RL))[-1].what)


def test_reward_files_of_ours_are_in_order(world):
    config = world.folder / "data" / "cellduality.json"
    world.configure(dual={"endpoint": {"urls": ["http://127.0.0.1:8000/v1"], "model": "toy"}})
    for ours in (bound_reward_file(config), bound_reward_file(config, ["http://a:5000/"]), REWARD_FILE):
        assert world.found(RL, f"~train.agent_func_path --reward.remote_url {ours}") == "", ours


def test_folders_nobody_may_write_to(world, monkeypatch):
    monkeypatch.setattr(os, "access", lambda *_: False)  # tests may run as root, whom nothing is refused
    assert [finding.check for finding in examine(world.run(RL))] == ["folders_can_be_written"] * 3


def test_a_configuration_may_be_named_by_the_shell_the_command_or_the_job(world, monkeypatch):
    named = f"{world.folder}/data/cellduality.json"
    assert world.found(RL, PACKAGED, variables={"CELLDUALITY_CONFIG": named}) == ""
    assert world.found(RL, PACKAGED, f"CELLDUALITY_CONFIG={named} cellduality-cpu python -m") == ""
    job = f"{JOB} --runtime-env-json '{json.dumps({'env_vars': {'CELLDUALITY_CONFIG': named}})}' -- {ON_GPU}"
    assert world.found(RL, PACKAGED, job) == "note enough_cards", "the cluster cannot be seen"
    reaches = "warning configuration_reaches_workers"
    there = {"CELLDUALITY_CONFIG": named, "RAY_ADDRESS": table.NOWHERE}
    assert world.found(RL, PACKAGED, variables=there) == f"note enough_cards, {reaches}"
    monkeypatch.chdir(world.folder)
    assert world.found(RL, PACKAGED, variables={"CELLDUALITY_CONFIG": "data/cellduality.json"}) == reaches


@pytest.mark.parametrize(
    ("usage", "found"),
    [
        ({"GPU": (0.0, 4.0), "CPU": (0.0, 64.0)}, "error"),
        ({"GPU": (0.0, 8.0), "CPU": (0.0, 4.0)}, "error"),
        ({"GPU": (1.0, 8.0), "CPU": (0.0, 64.0)}, "warning"),
        ({"GPU": (0.0, 8.0), "CPU": (0.0, 64.0)}, ""),
        (None, "note"),
    ],
)
@pytest.mark.parametrize("submitted", [True, False])
def test_a_cluster_that_is_joined_is_looked_at(usage, found, submitted, world, dashboard):
    address = dashboard(*([usage] if usage else []))
    launch = f"ray job submit --address {address} -- {ON_GPU}" if submitted else ON_GPU
    variables = {} if submitted else {"RAY_ADDRESS": address}
    assert world.found(RL, EIGHT, launch, **table.CARDS, variables=variables) == (
        f"{found} enough_cards" if found else ""
    )


def test_rows_of_several_files_are_counted_together_each_cut_to_the_limit(world):
    both = "--data.prompt_dataset {}/data/rl.jsonl,{}/data/rl.jsonl"
    assert world.run(RL, both).row_count == 10
    assert world.run(RL, f"{both} --data.max_samples 3").row_count == 3
    assert world.run(RL, f"{both} --data.prompt_probs 0.5,0.5").row_count is None
    assert world.run(RL, "--data.prompt_dataset somebody/rows").row_count is None
