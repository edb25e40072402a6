"""The CPU backend without Ray: the launcher's environment, refusals and slots; how patches are applied; stand-ins."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import re
import socket
import sys
import textwrap
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType

import numpy
import pytest
import torch

from cellduality_plugin.openrlhf_hooks.cpu import launch, patches, post_import
from cellduality_plugin.openrlhf_hooks.doctor.flags import RL, SFT, read_flags
from tests.openrlhf_hooks.conftest import SITE, run_python
from tests.refused import refused

ASK = launch.gpu_is_there
CRITIC = (
    "--critic.model_name_or_path c --critic.num_gpus_per_node 1 --reward.model_name_or_path r "
    "--reward.num_gpus_per_node 1 --algo.advantage.estimator gae"
)
SDPA, ENGINE = "--ds.attn_implementation sdpa", "--vllm.sync_backend gloo --vllm.enforce_eager"


def test_every_process_is_patched_once_the_sitecustomize_that_is_hidden_has_run_and_imports_nothing_for_it(tmp_path):
    (tmp_path / "sitecustomize.py").write_text("import sys; sys.hidden_one_ran = True")
    inner = """
        import sys
        print(type(sys.meta_path[0]).__name__, sys.hidden_one_ran)
        print({'torch', 'numpy', 'cellduality_plugin', 'pydantic'} & set(sys.modules))
        import torch
        print(torch.zeros(1).to(torch.cuda.current_device()).device)
    """
    outer = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {textwrap.dedent(inner)!r}])"
    found = run_python(outer, SITE, tmp_path, CELLDUALITY_DEVICE="cpu")
    assert found == ["PostImportFinder", "True", "set()", "cpu"]
    code = "import sys; print('PostImportFinder' in {type(finder).__name__ for finder in sys.meta_path})"
    assert run_python(code, SITE, CELLDUALITY_DEVICE="") == ["False"]


@pytest.mark.parametrize(
    ("cpuinfo", "dtype"),
    [
        ("flags\t\t: fpu avx2 avx512_bf16 fma\n", "bfloat16"),
        ("Features\t: fp asimd bf16\n", "bfloat16"),
        ("flags\t\t: fpu avx avx2 fma\nmodel name\t: bf16\n", "float32"),
        (None, "float32"),
    ],
)
def test_bfloat16_only_where_the_processor_has_instructions_for_it(tmp_path, cpuinfo, dtype):
    if cpuinfo is not None:
        (tmp_path / "cpuinfo").write_text(cpuinfo)
    assert launch.fast_dtype(tmp_path / "cpuinfo") == dtype


@pytest.fixture
def launched(monkeypatch, tmp_path):
    """Return a function that launches a program of a name without a GPU, and gives the environment it gets."""
    started = []
    monkeypatch.setattr(launch, "gpu_is_there", lambda: False)
    monkeypatch.setattr(os, "execve", lambda *words: started.append(words))
    for name in ("CELLDUALITY_CPU_SLOTS", "RAY_ADDRESS"):
        monkeypatch.delenv(name, raising=False)

    def run(name: str, *words: str) -> dict[str, str]:
        (tmp_path / name).write_text("#!/bin/sh\n")
        (tmp_path / name).chmod(0o755)
        launch.main([str(tmp_path / name), *words])
        return started.pop()[2]

    return run


def test_defaults_yield_to_the_user_and_twice_is_once():
    made = launch.cpu_environment({"OMP_NUM_THREADS": "7", "PYTHONPATH": "/a", "PATH": "/bin"})
    assert (made["OMP_NUM_THREADS"], made["DS_ACCELERATOR"]) == ("7", "cpu")
    assert made["PYTHONPATH"].split(os.pathsep)[:2] == [str(SITE), "/a"]
    assert launch.cpu_environment(made)["PYTHONPATH"] == made["PYTHONPATH"]


@pytest.mark.parametrize(
    ("version", "there", "switch"), [("2.13.0", True, None), ("2.13.0", False, "cpu"), ("2.13.0+cpu", True, "cpu")]
)
def test_only_without_a_gpu_the_command_gets_the_switch(version, there, switch, launched, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: there)
    monkeypatch.setattr(launch, "version", lambda name: version)
    monkeypatch.setattr(launch, "gpu_is_there", ASK)
    monkeypatch.delenv("CELLDUALITY_DEVICE", raising=False)
    assert launched("python").get("CELLDUALITY_DEVICE") == switch


def test_a_ray_node_has_slots_where_gpus_are_hidden_and_an_unknown_command_is_127(launched, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert ["CUDA_VISIBLE_DEVICES" in launched(name, "start") for name in ("ray", "python")] == [False, True]
    assert launch.main(["no-such-command-anywhere"]) == 127


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        ("", "vllm.sync_backend nccl"),
        (ENGINE, "ds.attn_implementation flash_attention_2"),
        (f"{SDPA} {ENGINE} --train.dynamic_batch_enable", "train.dynamic_batch_enable"),
        (f"{SDPA} --vllm.sync_backend gloo", "vllm.enforce_eager False"),
    ],
)
def test_what_needs_a_gpu_is_refused(flags, named):
    with refused("needs-gpu") as error:
        launch.refuse_gpu_only(RL, read_flags(RL, flags.split()))
    assert error.value.what.startswith(f"--{named}")


def test_packed_rows_pass_with_the_attention_of_openrlhf_and_sft_without_flags_of_an_engine():
    launch.refuse_gpu_only(RL, read_flags(RL, f"{ENGINE} --ds.packing_samples".split()))
    launch.refuse_gpu_only(SFT, read_flags(SFT, SDPA.split()))


def flags_of(ranks: int, engines: int, more: str = "") -> list[str]:
    least = "--actor.model_name_or_path m --algo.advantage.estimator group_norm --rollout.n_samples_per_prompt 2"
    sizes = f"--actor.num_gpus_per_node {ranks} --ref.num_gpus_per_node {ranks} --vllm.num_engines {engines}"
    return f"{least} {sizes} {'' if CRITIC in more else '--train.agent_func_path=a.py'} {more}".split()


@pytest.mark.parametrize(
    ("ranks", "engines", "more", "wanted"),
    [
        (2, 1, "--train.colocate_all --vllm.tensor_parallel_size 2", 2),
        (2, 2, "--train.colocate_all --actor.num_nodes 3 --ref.num_nodes 3", 6),
        (1, 1, "", 3),
        (1, 1, "--algo.kl.init_coef 0", 2),
        (2, 2, "--train.colocate_actor_ref", 4),
        (2, 2, "--train.colocate_all --train.async_enable", 4),
        (1, 1, CRITIC, 5),
        (1, 1, f"{CRITIC} --train.colocate_actor_ref --train.colocate_critic_reward", 3),
        (1, 1, f"{CRITIC} --train.colocate_all", 1),
    ],
)
def test_the_cluster_has_as_many_slots_as_the_flags_ask_for(ranks, engines, more, wanted):
    flags = read_flags(RL, flags_of(ranks, engines, more))
    assert launch.slots(flags, {}) == {"CELLDUALITY_CPU_SLOTS": str(wanted)}
    for enough in (wanted, wanted + 1):
        assert launch.slots(flags, {"CELLDUALITY_CPU_SLOTS": str(enough)}) == {}, "what is set stays"
    for given in (str(wanted - 1), "two"):  # the run would wait for ever
        with refused("too-few-slots"):
            launch.slots(flags, {"CELLDUALITY_CPU_SLOTS": given})


def test_other_commands_a_cluster_that_is_joined_and_flags_that_are_refused_get_no_slots(launched):
    assert launch.slots(read_flags(RL, flags_of(2, 2)), {"RAY_ADDRESS": "10.0.0.1:6379"}) == {}
    assert launch.slots(read_flags(RL, flags_of(2, 2, "--data.max_len long")), {}) == {}
    words = flags_of(2, 2, f"--train.colocate_all {SDPA} {ENGINE}")
    found = launched("python", "-m", RL, *words), launched("cellduality", "audit")
    assert [environment.get("CELLDUALITY_CPU_SLOTS") for environment in found] == ["2", None]


def patch(module: ModuleType) -> None:
    module.ONE_SIXTH = "patched", module.held


@contextlib.contextmanager
def around() -> Iterator[None]:
    module = sys.modules["colorsys"]
    before = hasattr(module, "ONE_SIXTH")
    yield
    module.held = before, hasattr(module, "ONE_SIXTH")


def test_a_listed_module_is_patched_once_it_has_run_and_its_loader_and_other_modules_are_left_alone(monkeypatch):
    both = ({"colorsys": f"{__name__}:{name}"} for name in ("patch", "around"))
    finder = post_import.PostImportFinder(*both)
    monkeypatch.setattr(sys, "meta_path", [finder, *sys.meta_path])
    monkeypatch.delitem(sys.modules, "colorsys", raising=False)
    import colorsys

    assert colorsys.ONE_SIXTH == ("patched", (False, True)), "the context was held while importing only"
    assert type(colorsys.__spec__.loader).__name__ == "SourceFileLoader"
    assert "ONE_SIXTH = 1.0/6.0" in colorsys.__spec__.loader.get_source("colorsys")
    assert finder.find_spec("json") is finder.find_spec("no_such_module_anywhere") is None


@pytest.mark.parametrize("entry", sorted(set(post_import.AFTER_IMPORT.values())))
def test_every_patch_refuses_a_module_without_its_attribute(entry):
    module = ModuleType("newer_upstream")
    if entry.endswith(":answer_cuda_calls"):
        module.cuda, module.device = numpy, str
    with refused("wrong-version") as error:
        post_import.patch(entry, module)
    where = f"numpy {numpy.__version__}" if hasattr(module, "cuda") else "newer_upstream"
    assert error.value.where == where, "what is looked into, and its version if it is installed"


@pytest.mark.parametrize("module", sorted({*post_import.AFTER_IMPORT, *post_import.DURING_IMPORT}))
def test_the_installed_versions_have_every_module(module):
    top, *parts = module.split(".")
    path = Path(importlib.util.find_spec(top).submodule_search_locations[0], *parts)
    assert path.with_suffix(".py").is_file() or (path / "__init__.py").is_file(), module


def test_only_a_new_cluster_whose_caller_does_not_decide_has_slots(monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("CELLDUALITY_CPU_SLOTS", "2")
    ray = ModuleType("ray")
    ray.init = lambda address=None, **options: (address, options)
    patches.declare_slots(ray)
    address, options = ray.init(runtime_env={})
    assert (address, options["num_gpus"]) == ("local", 2), "whatever cluster runs on this machine"
    assert options["num_cpus"] >= 5
    assert ray.init(num_gpus=3)[1]["num_gpus"] == 3
    assert ray.init("auto") == ("auto", {})
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    assert ray.init() == (None, {})


PACKED = """
import torch
from openrlhf.models.actor import Actor
from transformers import LlamaConfig, LlamaForCausalLM
torch.manual_seed(0)
config = LlamaConfig(vocab_size=40, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=4,
                     num_key_value_heads=2)
LlamaForCausalLM(config).save_pretrained("model")
tokens, mask = torch.randint(0, 40, (3, 9)), torch.ones(3, 9, dtype=torch.long)
mask[0, :4], mask[1, 6:] = 0, 0
ask = dict(attention_mask=mask, return_output=True, return_logprobs=True)
found = []
for attention, packs in (("sdpa", False), ("flash_attention_2", True)):
    actor = Actor("model", attn_implementation=attention, param_dtype="bf16", packing_samples=packs).eval().float()
    found.append(actor(tokens, **ask)[0] * mask[:, :-1] * mask[:, 1:])
print("apart", float((found[0] - found[1]).abs().max()), "of", float(found[0].abs().max()))
try:
    Actor("model", attn_implementation="flash_attention_2", param_dtype="bf16")(tokens, **ask)
except Exception as error:
    print("refused", error)
"""


def test_packed_rows_are_as_likely_as_padded_ones(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    said = " ".join(run_python(PACKED, SITE, CELLDUALITY_DEVICE="cpu"))
    apart, most = re.search(r"apart (\S+) of (\S+)", said).groups()
    assert float(apart) < 1e-4 < 1 < float(most)
    assert "refused flash_attention_2" in said
    assert "--ds.packing_samples" in said


def test_without_flash_attn_the_trainer_imports_what_it_lacks_on_a_gpu_as_well():
    code = """
        import sys
        import openrlhf.models.ring_attn_utils as used
        print(used.unpad_input.__module__, 'flash_attn' in sys.modules)
        print([len(finder.after) for finder in sys.meta_path if type(finder).__name__ == "PostImportFinder"])
    """
    assert run_python(code, SITE, CELLDUALITY_DEVICE="gpu")[-3:] == [
        "transformers.modeling_flash_attention_utils", "False", "[0]",
    ]  # fmt: skip


def test_weights_reach_every_engine_bit_for_bit():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shapes = [(3, 5), (7,), (1,)]
    weights = [torch.randn(shape, generator=torch.Generator().manual_seed(0)).bfloat16() for shape in shapes]

    def member(rank: int) -> list[torch.Tensor]:
        group = patches.GlooCommunicator("127.0.0.1", port, rank, 3)
        tensors = weights if rank == 0 else [torch.zeros(shape, dtype=torch.bfloat16) for shape in shapes]
        for tensor in tensors:
            group.broadcast(tensor, src=0, stream=None)
        return tensors

    with ThreadPoolExecutor(3) as pool:
        for received in pool.map(member, range(3), timeout=60):
            assert all(torch.equal(one, other) for one, other in zip(received, weights, strict=True))
