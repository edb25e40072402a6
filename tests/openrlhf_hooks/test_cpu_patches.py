"""The CPU backend without Ray: how patches are applied, their strictness, and the stand-ins against plain torch."""

from __future__ import annotations

import importlib.util
import re
import socket
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType

import numpy
import pytest
import torch

from cellduality_plugin.openrlhf_hooks.cpu import patches, post_import
from tests.openrlhf_hooks.conftest import SITE, run_python
from tests.refused import refused

PATCHES = """
import contextlib, sys, types
def patch(module): module.value = 'cpu'
@contextlib.contextmanager
def around():
    extra = types.ModuleType('toy_extra'); extra.name = 'stand-in'
    sys.modules['toy_extra'] = extra
    try: yield
    finally: del sys.modules['toy_extra']
"""


@pytest.fixture
def finder(tmp_path, monkeypatch):
    """A finder in front of `sys.meta_path` with two toy modules, and the module that patches them."""
    (tmp_path / "toy_upstream.py").write_text("import toy_extra\nvalue = 'cuda'\nextra = toy_extra.name\n")
    (tmp_path / "toy_patches.py").write_text(PATCHES)
    monkeypatch.syspath_prepend(str(tmp_path))
    made = post_import.PostImportFinder(
        after={"toy_upstream": "toy_patches:patch"}, during={"toy_upstream": "toy_patches:around"}
    )
    monkeypatch.setattr(sys, "meta_path", [made, *sys.meta_path])
    yield made
    for name in ("toy_upstream", "toy_patches", "toy_extra"):
        sys.modules.pop(name, None)


def test_a_listed_module_is_patched_once_it_has_run_and_its_loader_and_other_modules_are_left_alone(finder):
    import toy_upstream

    assert (toy_upstream.value, toy_upstream.extra) == ("cpu", "stand-in")
    with pytest.raises(ModuleNotFoundError):  # the context was held while importing only
        import toy_extra  # noqa: F401
    assert type(toy_upstream.__spec__.loader).__name__ == "SourceFileLoader"
    assert "value = 'cuda'" in toy_upstream.__spec__.loader.get_source("toy_upstream")
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
