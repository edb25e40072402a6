"""What is patched in torch, ray, deepspeed, vllm and OpenRLHF, line by line of `post_import.AFTER_IMPORT`.

Patches are strict: a version that moved what they replace fails loudly, by the name of the patch.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.metadata
import os
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from types import ModuleType
from typing import Any

from cellduality_plugin.errors import CellDualityError

DTYPE_VARIABLE, SLOTS_VARIABLE = "CELLDUALITY_CPU_DTYPE", "CELLDUALITY_CPU_SLOTS"
_BFLOAT16 = {"avx512_bf16", "amx_bf16", "bf16"}  # instructions for it


def fast_dtype(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """Return ``"bfloat16"`` if the kernel lists processor instructions for it, else ``"float32"``."""
    try:
        lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return "float32"
    features = next((line for line in lines if line.lower().startswith(("flags", "features"))), "")
    return "bfloat16" if _BFLOAT16 & set(features.split()) else "float32"


def computes_in_float32() -> bool:
    """Return whether the launcher chose float32 for this run (:data:`DTYPE_VARIABLE`)."""
    return os.environ.get(DTYPE_VARIABLE) == "float32"


def installed_version(package: str) -> tuple[str, str] | None:
    """Return the distribution of a package, its own or the one for a CPU, and its version; None if it is not there."""
    for name in (package, f"{package}-cpu"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            return name, importlib.metadata.version(name)
    return None


@contextlib.contextmanager
def strict(patch: str) -> Iterator[None]:
    """Turn what a block misses in an upstream module into a CellDualityError; the name of ``patch`` says what is lost.

    Nobody goes on with half of the patches, or with one of what has moved.
    """
    try:
        yield
    except AttributeError as error:
        package = str(getattr(error.obj, "__module__", None) or getattr(error.obj, "__name__", "")).partition(".")[0]
        raise CellDualityError(
            f"no way to {patch.replace('_', ' ')}: {error}",
            code="wrong-version",
            where=" ".join((package and installed_version(package)) or [package]),
            hint="install the versions of recipes/requirements/cpu.lock, or report this version as unsupported",
        ) from error


def replace(owner: Any, name: str, new: Any) -> None:
    """Set `owner.name`, which has to exist, to `new`."""
    getattr(owner, name)
    setattr(owner, name, new)


def wrap(owner: Any, name: str) -> Callable[[Callable[..., Any]], None]:
    """Replace `owner.name` by the decorated function, which gets what was there as its first argument."""
    old = getattr(owner, name)

    def put(new: Callable[..., Any]) -> None:
        @functools.wraps(old)
        def wrapped(*args: Any, **options: Any) -> Any:
            return new(old, *args, **options)

        setattr(owner, name, wrapped)

    return put


def answer_cuda_calls(torch: ModuleType) -> None:
    """OpenRLHF calls these without a guard; `current_device()` is a destination of tensors (ppo_actor.py:171)."""
    cpu = torch.device("cpu")
    replace(torch.cuda, "current_device", lambda: cpu)
    for name in ("set_device", "synchronize", "current_stream"):
        replace(torch.cuda, name, lambda device=None: None)
    if os.environ.get("TORCHDYNAMO_DISABLE") == "1":
        replace(torch, "compile", _leave_uncompiled)


def _leave_uncompiled(model: Any = None, **options: Any) -> Any:
    """`torch.compile`, DeepSpeed's decorator, loads the compiler before it looks whether that is turned off."""
    return model if model is not None else lambda decorated: decorated


def generate_without_sklearn(import_utils: ModuleType) -> None:
    """`transformers.generation.candidate_generator` imports scikit-learn, two seconds, for assisted decoding alone."""
    replace(import_utils, "is_sklearn_available", lambda: False)


def declare_slots(ray: ModuleType) -> None:
    """`ray.init` (train_ppo_ray.py:28) starts a cluster of no GPUs, and every placement group asks for some.

    A cluster that this process starts has `CELLDUALITY_CPU_SLOTS` of them. One that is joined, by its address or
    `RAY_ADDRESS`, keeps its own resources; one that merely runs on this machine is not joined, as Ray would do unasked.
    """

    @wrap(ray, "init")
    def init(start: Callable[..., Any], address: str | None = None, **options: Any) -> Any:
        if address not in (None, "local") or os.environ.get("RAY_ADDRESS"):
            return start(address, **options)
        slots = int(os.environ.get(SLOTS_VARIABLE, "1"))
        own = {"num_gpus": slots, "num_cpus": max(4, 2 * slots + 2), "include_dashboard": False}
        # Ray refuses slots when this lists no device, which is how a user hides the GPUs of a machine.
        if os.environ.get("CUDA_VISIBLE_DEVICES") == "":
            del os.environ["CUDA_VISIBLE_DEVICES"]
        return start("local", **{**own, **options})


def communicate_without_compiled_kernels(comm: ModuleType) -> None:
    """`deepspeed.comm.torch.build_shm_op` compiles a C++ kernel at first use; gloo alone needs no compiler."""
    replace(comm, "build_shm_op", lambda: None)


def serve_in_the_cpus_precision(arguments: ModuleType) -> None:
    """OpenRLHF starts its engines with `dtype="bfloat16"` (openrlhf/trainer/ray/vllm_engine.py:273)."""

    @wrap(arguments.EngineArgs, "__post_init__")
    def post_init(check: Callable[..., None], self: Any) -> None:
        if self.dtype == "bfloat16" and computes_in_float32():
            self.dtype = "float32"
        check(self)


def fork_engines(system_utils: ModuleType) -> None:
    """`vllm.utils.system_utils` spawns the core of a Ray actor's engine: half a minute of imports on two cores.

    Without a GPU nothing stands against a fork; `fit_engines` has the other half.
    """
    replace(system_utils, "is_in_ray_actor", lambda: False)


def keep_linear_weights(layers: ModuleType) -> None:
    """`vllm.model_executor.layers.utils` repacks weights and drops the originals, into which a weight sync loads."""
    import torch

    def compute_with_the_parameter(layer: torch.nn.Module, remove_weight: bool) -> None:
        layer.cpu_linear = torch.nn.functional.linear

    replace(layers, "dispatch_cpu_unquantized_gemm", compute_with_the_parameter)


def fit_engines(cpu: ModuleType) -> None:
    """`vllm.platforms.cpu.CpuPlatform.check_and_update_config` has engine cores spawned, and blocks of 128 tokens.

    They are forked (:func:`fork_engines`), unless VLLM_WORKER_MULTIPROC_METHOD was set. Only whole blocks are cached,
    and a question to a small model is shorter: 32 is the smallest that vLLM's attention on a CPU is written for.
    """
    largest, method = 32, "VLLM_WORKER_MULTIPROC_METHOD"
    update, start = cpu.CpuPlatform.check_and_update_config, os.environ.get(method, "fork")

    def check_and_update_config(vllm_config: Any) -> None:
        cache = vllm_config.cache_config
        asked_for = cache.user_specified_block_size
        update(vllm_config)
        os.environ[method] = start
        if not asked_for:
            cache.block_size = min(largest, cache.block_size)

    cpu.CpuPlatform.check_and_update_config = staticmethod(check_and_update_config)


def train_on_cpu(strategy: ModuleType) -> None:
    """openrlhf/utils/deepspeed/deepspeed.py names CUDA in its device mesh (line 105) and by its callers' EMA device.

    The optimiser it asks for is one that DeepSpeed compiles (line 345); `torch_adam` is the same AdamW from torch.
    """

    @wrap(strategy, "init_device_mesh")
    def init_device_mesh(mesh: Callable[..., Any], device: str, *shape: Any, **names: Any) -> Any:
        return mesh("cpu", *shape, **names)

    @wrap(strategy.DeepspeedStrategy, "moving_average")
    def moving_average(
        average: Callable[..., Any], self: Any, model: Any, ema: Any, beta: float = 0.992, device: str = "cpu"
    ) -> Any:
        return average(self, model, ema, beta, "cpu")

    @wrap(strategy.DeepspeedStrategy, "get_ds_train_config")
    def get_ds_train_config(configure: Callable[..., Any], *args: Any, **options: Any) -> Any:
        config = configure(*args, **options)
        optimizer = config.get("optimizer") or {}
        if optimizer.get("type") in ("Adam", "AdamW"):
            optimizer["params"]["torch_adam"] = True
        return config

    for name in ("get_train_ds_config", "get_eval_ds_config") if computes_in_float32() else ():

        @wrap(strategy, name)
        def without_mixed_precision(make: Callable[..., Any], *args: Any, **options: Any) -> Any:
            return {**make(*args, **options), "bf16": {"enabled": False}}


def load_in_the_cpus_precision(utils: ModuleType) -> None:
    """`convert_to_torch_dtype` (openrlhf/utils/utils.py:8) knows no float32, the only fast type of many processors."""
    import torch

    @wrap(utils, "convert_to_torch_dtype")
    def convert_to_torch_dtype(convert: Callable[[str], torch.dtype], param_dtype: str) -> torch.dtype:
        found = convert(param_dtype)
        return torch.float32 if found == torch.bfloat16 and computes_in_float32() else found


def read_columns_once(sft_dataset: ModuleType) -> None:
    """`SFTDataset` (sft_dataset.py:82) selects a column anew at every read: an eighth of a small model's step."""

    @wrap(sft_dataset.SFTDataset, "__init__")
    def init(make: Callable[..., None], self: Any, *args: Any, **options: Any) -> None:
        make(self, *args, **options)
        with strict("read_columns_once"):
            for name in ("prompts", "responses", "prompt_ids_lens", "response_ranges"):
                setattr(self, name, list(getattr(self, name) or ()))


def replay_on_cpu(replay_buffer: ModuleType) -> None:
    """openrlhf/trainer/ppo_utils/replay_buffer.py:40 spells its device `torch.device(f"cuda:{...}")`."""
    on_cpu, cpu = ModuleType("torch"), replay_buffer.torch.device("cpu")
    vars(on_cpu).update(vars(replay_buffer.torch), device=lambda name: cpu)
    replace(replay_buffer, "torch", on_cpu)


class GlooCommunicator:
    """The part of vLLM's `PyNcclCommunicator` that OpenRLHF uses: a gloo group outside torch's global one.

    Rank 0, the trainer's, opens the rendezvous at ``host`` and ``port``; ranks from 1 are the engine workers.
    """

    def __init__(self, host: str, port: int, rank: int, world_size: int, device: object = None) -> None:
        from torch.distributed import PrefixStore, ProcessGroupGloo, TCPStore

        patience = timedelta(minutes=10)
        store = TCPStore(host, port, world_size, is_master=rank == 0, timeout=patience)
        self._store = store  # rank 0 serves the rendezvous for as long as it holds this
        self._group = ProcessGroupGloo(PrefixStore("cellduality", store), rank, world_size, timeout=patience)

    def broadcast(self, tensor: Any, src: int, stream: object = None) -> None:
        """Overwrite `tensor` with the one of rank `src`, byte by byte, on every other rank; blocks until done."""
        import torch

        # As bytes: gloo does not know every dtype. `tensor` is contiguous on both sides (a parameter, an empty).
        self._group.broadcast(tensor.detach().view(-1).view(torch.uint8), src).wait()


def sync_weights_over_gloo(distributed_util: ModuleType) -> None:
    """`stateless_init_process_group` (openrlhf/utils/distributed_util.py:13) joins an NCCL communicator."""
    replace(distributed_util, "stateless_init_process_group", GlooCommunicator)


def receive_weights_on_cpu(worker_wrap: ModuleType) -> None:
    """`WorkerWrap.update_weight` (openrlhf/trainer/ray/vllm_worker_wrap.py:40) receives into `device="cuda"`."""
    import torch

    def update_weight(self: Any, name: str, dtype: torch.dtype, shape: torch.Size, empty_cache: bool = False) -> None:
        if dtype != self.model_config.dtype:
            raise TypeError(f"{name} comes as {dtype}, the vLLM engine holds {self.model_config.dtype}")
        weight = torch.empty(shape, dtype=dtype)
        self._model_update_group.broadcast(weight, src=0)
        self.model_runner.model.load_weights(weights=[(name, weight)])

    replace(worker_wrap.WorkerWrap, "update_weight", update_weight)
