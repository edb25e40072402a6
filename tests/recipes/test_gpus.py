"""What the recipes make of the cards that are there; nvidia-smi is a stand-in."""

from __future__ import annotations

import gzip
import json
import os
import re
import shlex
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from packaging.requirements import Requirement
from tokenizers import ByteLevelBPETokenizer

from cellduality_plugin.openrlhf_hooks.doctor.machine import TESTED
from cellduality_plugin.tasks import TASKS
from data_prep.rows import RowMaker
from data_prep.settings import PrepareSettings
from tests.recipes.conftest import value_of

ROOT = Path(__file__).parents[2]

MIG = "  MIG 1g.10gb     Device  0: (UUID: MIG-1)"


@pytest.fixture
def cards(program, project):
    """Return a function that has nvidia-smi tell of cards, by MiB, and gives the variables that find it."""

    def put(*sizes: int, driver: str = "580.82", mig: bool = False) -> dict[str, str]:
        listed = "\n".join([f"GPU {at}: NVIDIA" for at in range(len(sizes))] + [MIG] * mig)
        lines = "\n".join(map(str, sizes))
        cases = f'*memory*) echo "{lines}" ;;\n*driver*) echo {driver} ;;\n-L) echo "{listed}" ;;'
        program("nvidia-smi", f'case "$*" in\n{cases}\nesac')
        return {"PATH": f"{project / '.venv' / 'bin'}:{os.defpath}"}

    return put


@pytest.mark.parametrize(
    ("sizes", "variables", "profile", "flags"),
    [
        ((24564,), {}, "gpu24", "--nproc-per-node 1 "),
        ((49140,), {}, "gpu1", "--ds.adam_offload"),
        ((81559,), {}, "gpu80", "--nproc-per-node 1 "),
        ((143771,), {}, "gpu80", "--vllm.num_engines 1 "),
        ((49140,) * 8, {}, "a6000x8", "--vllm.num_engines 8 "),
        ((49140,) * 6, {}, "a6000x8", "--vllm.num_engines 4 "),
        ((81559,) * 8, {"CUDA_VISIBLE_DEVICES": "2,5"}, "a6000x8", "--vllm.num_engines 2 "),
        ((81559,) * 8, {"CUDA_VISIBLE_DEVICES": "3"}, "gpu80", "--nproc-per-node 1 "),
        ((81559,) * 8, {"CUDA_VISIBLE_DEVICES": ""}, "cpu", "cellduality-cpu"),
        ((8192,), {}, "cpu", "cellduality-cpu"),
        ((), {}, "cpu", "cellduality-cpu"),
    ],
)
def test_the_profile_is_that_of_the_cards_that_are_visible(sizes, variables, profile, flags, cards, run):
    done = run("grpo_duality", profile="", DRY_RUN="1", **cards(*sizes), **variables)
    assert f"profile {profile}, into" in done.stderr
    assert flags in done.stdout
    assert "--ds.adam_offload" not in done.stdout or profile in ("gpu1", "gpu24")


def test_a_card_that_is_cut_up_is_said(cards, run):
    assert "MIG" in run("grpo_duality", profile="", DRY_RUN="1", **cards(81559, mig=True)).stderr


def test_rows_are_packed_where_flash_attn_is_there_and_padded_elsewhere(dry, project):
    padded = dry("grpo_duality", profile="a6000x8")
    assert "--ds.attn_implementation sdpa" in padded
    assert not re.search("packing_samples|dynamic_batch|max_tokens_per_gpu", padded)
    (project / ".venv/lib/python3.11/site-packages/flash_attn").mkdir(parents=True)
    for packed in (dry("grpo_duality", profile="a6000x8"), dry("grpo_duality", profile="gpu1", FLASH_ATTN="build")):
        assert "sdpa" not in packed
        assert "--ds.packing_samples --train.dynamic_batch_enable" in packed


@pytest.mark.parametrize("profile", ["gpu24", "multinode"])
def test_no_stage_but_the_first_knows_the_hubs_name_and_stage_2_is_looked_at_before_stage_1_runs(profile, dry):
    lines = [shlex.split(line) for line in dry("grpo_duality", profile=profile).splitlines()]
    named = [words[:3] for words in lines if any(word.rpartition("=")[2].startswith("meta-llama/") for word in words)]
    assert {" ".join(words) for words in named} == {"cellduality model fetch"}
    trained = next(place for place, words in enumerate(lines) if words[0] == "torchrun")
    assert any({"doctor", "openrlhf.cli.train_ppo_ray"} <= {*words} for words in lines[:trained])


def test_what_workers_on_other_nodes_need_is_in_the_job_and_no_secret(dry):
    printed = dry("grpo", profile="multinode", NCCL_SOCKET_IFNAME="eth0", VLLM_API_KEY="secret", HF_TOKEN="secret")
    *_, words = (shlex.split(line) for line in printed.splitlines() if line.startswith("ray job submit"))
    given = json.loads(value_of("--runtime-env-json", words))["env_vars"]
    assert (given["NCCL_SOCKET_IFNAME"], given["CELLDUALITY_DEVICE"]) == ("eth0", "gpu")
    assert given["PYTHONPATH"].partition(":")[0].endswith("openrlhf_hooks/cpu/site")
    assert "secret" not in printed


def test_a_driver_too_old_is_one_line_before_anything_is_downloaded(cards, run, project):
    done = run("setup", profile="gpu1", VENV=str(project / "other"), **cards(49140, driver="550.54"))
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "580" in done.stderr
    assert not (project / "other").exists()


def test_the_lock_holds_what_is_tested_and_a_compiler_of_its_torchs_cuda():
    lines = (ROOT / "recipes/requirements/gpu.lock").read_text(encoding="utf-8").splitlines()
    locked = dict(line.partition(" ")[0].split("==") for line in lines if "==" in line and not line.startswith("#"))
    assert {name: locked[name] for name in TESTED} == TESTED
    parts = ("cuda-runtime", "cuda-nvcc", "cuda-crt", "nvvm", "cuda-cccl")
    assert {locked[f"nvidia-{part}"].rpartition(".")[0] for part in parts} == {"13.0"}
    assert "flash-attn" not in locked


@pytest.mark.parametrize("profile", ["gpu24", "gpu1", "gpu80", "a6000x8", "multinode"])
def test_questions_and_answers_fit_where_a_gene_is_several_tokens(profile, dry, vocabulary, cell):
    words = shlex.split(dry("sft", profile=profile)) + shlex.split(dry("prepare", profile=profile))
    context, answer, top = (
        int(value_of(flag, words)) for flag in ("--data.max_len", "--max-new-tokens", "--top-genes")
    )
    with gzip.open(ROOT / "data_prep/h5ad/data/mouse_human_orthologues.tsv.gz", "rt") as table:
        names = sorted({line.split("\t")[1] for line in table})
    words_known = ByteLevelBPETokenizer()  # of English: gene names are cut up as a Llama's tokenizer cuts them
    words_known.train_from_iterator([(ROOT / "README.md").read_text(encoding="utf-8")], vocab_size=2000)

    def tokens(text: str) -> int:
        return len(words_known.encode(text).ids)

    genes = tuple(np.random.default_rng(0).choice(names, 2 * top, replace=False).tolist())
    whole = replace(cell, genes=genes[:top], control=genes[top:])
    assert tokens(" ".join(whole.genes)) > 3 * top
    made = RowMaker([*TASKS.values()], vocabulary, PrepareSettings(hidden=(0.25, 1.0)))
    rows = made.sft([whole], np.random.default_rng(0))
    assert max(tokens(row["output"]) for row in rows) <= answer
    assert max(tokens(row["input"]) for row in rows) + answer <= context


@pytest.mark.stack
@pytest.mark.long  # it asks the package index
@pytest.mark.parametrize("python", ["3.10", "3.11", "3.12"])
def test_the_lock_is_what_the_resolver_finds_for_each_python(python):
    told = ("--python-version", python, "--python-platform", "x86_64-unknown-linux-gnu", "--constraint", "gpu.lock")
    command = ("uv", "pip", "compile", "gpu.in", "--overrides", "gpu.overrides", "--no-header", "--no-annotate", *told)
    folder = ROOT / "recipes/requirements"
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    versions = {"python_version": python, "python_full_version": f"{python}.9"}
    lines = (folder / "gpu.lock").read_text(encoding="utf-8").splitlines()
    locked = map(Requirement, (line for line in lines if line and line[0] != "#"))
    here = {f"{each.name}{each.specifier}" for each in locked if not each.marker or each.marker.evaluate(versions)}
    assert {line.partition(" ")[0] for line in done.stdout.splitlines()} == here
