"""Patches of torch, ray, deepspeed and vllm. Each function is the value of one line in `post_import.AFTER_IMPORT`."""

from __future__ import annotations

import functools
import os
from types import ModuleType
from typing import Any

from cellduality_plugin.openrlhf_hooks.cpu.precision import computes_in_float32
from cellduality_plugin.openrlhf_hooks.cpu.upstream import existing, replace

SLOTS_VARIABLE = "CELLDUALITY_CPU_SLOTS"


def answer_cuda_calls(torch: ModuleType) -> None:
    """`torch.cuda.{current_device, set_device, synchronize, current_stream}`: OpenRLHF calls them without a guard.

    `current_device()` is used as a destination (`tensor.to(torch.cuda.current_device())`, for instance in
    ppo_actor.py:171 and deepspeed.py:614), so the CPU device is the true answer; the other three have nothing to do.
    """
    cpu = torch.device("cpu")
    answers = {
        "current_device": lambda: cpu,
        "set_device": lambda device: None,
        "synchronize": lambda device=None: None,
        "current_stream": lambda device=None: None,
    }
    for name, answer in answers.items():
        replace(torch.cuda, name, answer, "the placement of tensors")
    if os.environ.get("TORCHDYNAMO_DISABLE") == "1":
        leave_uncompiled(torch)


def leave_uncompiled(torch: ModuleType) -> None:
    """`torch.compile` loads its compiler, three seconds, before it sees that TORCHDYNAMO_DISABLE leaves nothing to do.

    DeepSpeed decorates with it at import, in every process of a run.
    """

    def compile(model: Any = None, **options: Any) -> Any:
        return model if model is not None else lambda decorated: decorated

    replace(torch, "compile", compile, "a start without torch's compiler")


def generate_without_sklearn(import_utils: ModuleType) -> None:
    """`transformers.generation.candidate_generator` imports scikit-learn, two seconds, for assisted decoding alone."""
    replace(import_utils, "is_sklearn_available", lambda: False, "a start without scikit-learn")


def declare_slots(ray: ModuleType) -> None:
    """`ray.init` (train_ppo_ray.py:28) starts a cluster of no GPUs, and every placement group asks for some.

    A cluster that this process starts has `CELLDUALITY_CPU_SLOTS` of them, as many as the flags of the trainer ask for.
    One that is joined, by its address or `RAY_ADDRESS`, keeps its own resources; one that merely runs on this machine
    is not joined, as Ray would do unasked.
    """
    start = existing(ray, "init", "a Ray cluster with slots for actors and engines")

    @functools.wraps(start)
    def init(address: str | None = None, **options: Any) -> Any:
        joins = address not in (None, "local") or bool(os.environ.get("RAY_ADDRESS"))
        if not joins:
            address = "local"
            slots = int(os.environ.get(SLOTS_VARIABLE, "1"))
            options.setdefault("num_gpus", slots)
            options.setdefault("num_cpus", max(4, 2 * slots + 2))
            options.setdefault("include_dashboard", False)
            # Ray refuses slots when this lists no device, which is how a user hides the GPUs of a machine.
            if os.environ.get("CUDA_VISIBLE_DEVICES") == "":
                del os.environ["CUDA_VISIBLE_DEVICES"]
        return start(address, **options)

    ray.init = init  # type: ignore[attr-defined]


def communicate_without_compiled_kernels(comm: ModuleType) -> None:
    """`deepspeed.comm.torch.build_shm_op` compiles a C++ kernel at first use; gloo alone needs no compiler."""
    replace(comm, "build_shm_op", lambda: None, "DeepSpeed's communication over gloo")


def serve_in_the_cpus_precision(arguments: ModuleType) -> None:
    """OpenRLHF starts its engines with `dtype="bfloat16"` (openrlhf/trainer/ray/vllm_engine.py:273)."""
    cls = existing(arguments, "EngineArgs", "engines in float32")
    check = existing(cls, "__post_init__", "engines in float32")

    @functools.wraps(check)
    def post_init(self: Any) -> None:
        if self.dtype == "bfloat16" and computes_in_float32():
            self.dtype = "float32"
        check(self)

    cls.__post_init__ = post_init


def keep_linear_weights(layers: ModuleType) -> None:
    """`vllm.model_executor.layers.utils.dispatch_cpu_unquantized_gemm` repacks weights and drops the originals.

    A weight sync loads into the original parameters, so they have to stay the ones that the layer computes with.
    """
    import torch

    def compute_with_the_parameter(layer: torch.nn.Module, remove_weight: bool) -> None:
        layer.cpu_linear = torch.nn.functional.linear

    replace(layers, "dispatch_cpu_unquantized_gemm", compute_with_the_parameter, "loading new weights into vLLM")


def start_engines_fast(system_utils: ModuleType) -> None:
    """`vllm.utils.system_utils._maybe_force_spawn` would spawn the engine core of a Ray actor: see `fit_engines`."""
    replace(system_utils, "is_in_ray_actor", lambda: False, "the start of engines")


def fit_engines(cpu: ModuleType) -> None:
    """`vllm.platforms.cpu.CpuPlatform.check_and_update_config` chooses the cache's blocks and how the core starts.

    Blocks of 128 tokens: only whole ones are cached, and a question about a cell of a small model is shorter, so that
    `--vllm.enable_prefix_caching` would hold nothing of it. Blocks of 32 are the smallest that vLLM's attention on a
    CPU is written for. A size that was asked for stays.

    Spawned: a core of `AsyncLLM` that is spawned imports torch and vLLM anew, half a minute where the engines of a run
    share two cores. It speaks to no Ray cluster, and without a GPU nothing stands against a fork. A way that is set in
    `VLLM_WORKER_MULTIPROC_METHOD` stays.
    """
    behaviour, largest, method = "the engines of a small model", 32, "VLLM_WORKER_MULTIPROC_METHOD"
    platform = existing(cpu, "CpuPlatform", behaviour)
    update = existing(platform, "check_and_update_config", behaviour).__func__
    start = os.environ.get(method, "fork")

    @functools.wraps(update)
    def check_and_update_config(cls: type, vllm_config: Any) -> None:
        cache = vllm_config.cache_config
        asked_for = cache.user_specified_block_size
        update(cls, vllm_config)
        os.environ[method] = start
        if not asked_for:
            cache.block_size = min(largest, cache.block_size)

    platform.check_and_update_config = classmethod(check_and_update_config)
