"""Patches of OpenRLHF. Each function is the value of one line in `post_import.AFTER_IMPORT`."""

from __future__ import annotations

import functools
from collections.abc import Callable
from types import ModuleType
from typing import Any

from cellduality_plugin.openrlhf_hooks.cpu.precision import computes_in_float32
from cellduality_plugin.openrlhf_hooks.cpu.upstream import existing, replace


def train_on_cpu(strategy: ModuleType) -> None:
    """openrlhf/utils/deepspeed/deepspeed.py names CUDA in its device mesh (line 105) and by its callers' EMA device.

    It also asks DeepSpeed for an optimiser that DeepSpeed compiles at first use (line 345); `torch_adam` is the same
    AdamW from torch, so that no compiler is needed.
    """
    mesh = existing(strategy, "init_device_mesh", "the mesh of training ranks")
    replace(strategy, "init_device_mesh", lambda device, *shape, **names: mesh("cpu", *shape, **names), "the mesh")

    cls = existing(strategy, "DeepspeedStrategy", "training")
    if computes_in_float32():
        for name in ("get_train_ds_config", "get_eval_ds_config"):
            replace(strategy, name, _without_bf16(existing(strategy, name, "training in float32")), "the precision")
    average = existing(cls, "moving_average", "the moving average of weights")
    configure = existing(cls, "get_ds_train_config", "the optimiser")

    @functools.wraps(average)
    def moving_average(self: Any, model: Any, model_ema: Any, beta: float = 0.992, device: str = "cpu") -> Any:
        return average(self, model, model_ema, beta, "cpu")

    @functools.wraps(configure)
    def get_ds_train_config(self: Any, *args: Any, **options: Any) -> dict[str, Any]:
        config: dict[str, Any] = configure(self, *args, **options)
        optimizer = config.get("optimizer") or {}
        if optimizer.get("type") in ("Adam", "AdamW"):
            optimizer["params"]["torch_adam"] = True
        return config

    cls.moving_average = moving_average
    cls.get_ds_train_config = get_ds_train_config


def _without_bf16(make: Callable[..., dict[str, Any]]) -> Callable[..., dict[str, Any]]:
    """Return ``make`` of a DeepSpeed configuration, which then asks for no mixed precision: float32 throughout."""

    @functools.wraps(make)
    def make_float32(*args: Any, **options: Any) -> dict[str, Any]:
        return {**make(*args, **options), "bf16": {"enabled": False}}

    return make_float32


def load_in_the_cpus_precision(utils: ModuleType) -> None:
    """`convert_to_torch_dtype` (openrlhf/utils/utils.py:8) knows no float32, the only fast type of many processors."""
    import torch

    convert = existing(utils, "convert_to_torch_dtype", "training in float32")

    def convert_to_torch_dtype(param_dtype: str) -> torch.dtype:
        found: torch.dtype = convert(param_dtype)
        return torch.float32 if found == torch.bfloat16 and computes_in_float32() else found

    replace(utils, "convert_to_torch_dtype", convert_to_torch_dtype, "training in float32")


def read_columns_once(sft_dataset: ModuleType) -> None:
    """`SFTDataset` (openrlhf/datasets/sft_dataset.py:82) keeps columns of a table, each read of which selects it anew.

    That is an eighth of a step of a small model; lists of the same values cost nothing.
    """
    cls = existing(sft_dataset, "SFTDataset", "the reading of SFT rows")
    make = cls.__init__

    @functools.wraps(make)
    def init(self: Any, *args: Any, **options: Any) -> None:
        make(self, *args, **options)
        for name in ("prompts", "responses", "prompt_ids_lens", "response_ranges"):
            setattr(self, name, list(existing(self, name, "the reading of SFT rows") or ()))

    cls.__init__ = init


class _TorchOnCpu:
    """`torch`, except that every device is the CPU."""

    def __init__(self, torch: ModuleType) -> None:
        self._torch = torch

    def __getattr__(self, name: str) -> Any:
        return getattr(self._torch, name)

    def device(self, name: object) -> Any:
        return self._torch.device("cpu")


def replay_on_cpu(replay_buffer: ModuleType) -> None:
    """openrlhf/trainer/ppo_utils/replay_buffer.py:40 spells its device `torch.device(f"cuda:{...}")`.

    The prefix is inside the constructor, so the module is given a `torch` whose `device` is the CPU.
    """
    torch = existing(replay_buffer, "torch", "the replay buffer")
    existing(replay_buffer, "NaiveReplayBuffer", "the replay buffer")
    replay_buffer.torch = _TorchOnCpu(torch)  # type: ignore[attr-defined]


def sync_weights_over_gloo(distributed_util: ModuleType) -> None:
    """`stateless_init_process_group` (openrlhf/utils/distributed_util.py:13) joins an NCCL communicator."""
    from cellduality_plugin.openrlhf_hooks.cpu.weight_sync import GlooCommunicator

    def join(master_address: str, master_port: int, rank: int, world_size: int, device: object) -> GlooCommunicator:
        return GlooCommunicator(master_address, master_port, rank, world_size)

    replace(distributed_util, "stateless_init_process_group", join, "weight sync over gloo")


def receive_weights_on_cpu(worker_wrap: ModuleType) -> None:
    """`WorkerWrap.update_weight` (openrlhf/trainer/ray/vllm_worker_wrap.py:40) receives into `device="cuda"`."""
    import torch

    cls = existing(worker_wrap, "WorkerWrap", "weight sync")

    def update_weight(self: Any, name: str, dtype: torch.dtype, shape: torch.Size, empty_cache: bool = False) -> None:
        if dtype != self.model_config.dtype:
            raise TypeError(f"{name} comes as {dtype}, the vLLM engine holds {self.model_config.dtype}")
        weight = torch.empty(shape, dtype=dtype)
        self._model_update_group.broadcast(weight, src=0)
        self.model_runner.model.load_weights(weights=[(name, weight)])

    replace(cls, "update_weight", update_weight, "weight sync")
