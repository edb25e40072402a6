"""Patches applied to a module when, and only when, a process imports it.

Every Python process of a CPU run loads this file, by path and with the standard library alone.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
from collections.abc import Mapping, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

DEVICE_VARIABLE = "CELLDUALITY_DEVICE"
_HERE = "cellduality_plugin.openrlhf_hooks.cpu"

# module to patch -> "module:function"; the function gets the freshly imported module.
AFTER_IMPORT: dict[str, str] = {
    "torch": f"{_HERE}.patches:answer_cuda_calls",
    "ray": f"{_HERE}.patches:declare_slots",
    "deepspeed.comm.torch": f"{_HERE}.patches:communicate_without_compiled_kernels",
    "vllm.platforms.cpu": f"{_HERE}.patches:fit_engines",
    "vllm.utils.system_utils": f"{_HERE}.patches:fork_engines",
    "vllm.model_executor.layers.utils": f"{_HERE}.patches:keep_linear_weights",
    "vllm.engine.arg_utils": f"{_HERE}.patches:serve_in_the_cpus_precision",
    "transformers.utils.import_utils": f"{_HERE}.patches:generate_without_sklearn",
    "transformers.modeling_utils": f"{_HERE}.attention:stand_in",
    "openrlhf.datasets.sft_dataset": f"{_HERE}.patches:read_columns_once",
    "openrlhf.utils.utils": f"{_HERE}.patches:load_in_the_cpus_precision",
    "openrlhf.utils.distributed_util": f"{_HERE}.patches:sync_weights_over_gloo",
    "openrlhf.utils.deepspeed.deepspeed": f"{_HERE}.patches:train_on_cpu",
    "openrlhf.trainer.ppo_utils.replay_buffer": f"{_HERE}.patches:replay_on_cpu",
    "openrlhf.trainer.ray.vllm_worker_wrap": f"{_HERE}.patches:receive_weights_on_cpu",
}

# module -> "module:function"; the function returns a context manager held open while the module is imported.
DURING_IMPORT: dict[str, str] = {
    "openrlhf.models.ring_attn_utils": f"{_HERE}.attention:standing_in",
}


class PostImportFinder(MetaPathFinder):
    """Finds a module of the tables where the other finders find it, and patches it once it has run."""

    def __init__(self, after: Mapping[str, str], during: Mapping[str, str]) -> None:
        self.after = after
        self.during = during

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return the spec of a listed module with its patches wired in, `None` for any other module."""
        if fullname not in self.after and fullname not in self.during:
            return None
        found = (finder.find_spec(fullname, path, target) for finder in sys.meta_path if finder is not self)
        spec = next(filter(None, found), None)
        if spec is None or spec.loader is None:
            return None
        run = spec.loader.exec_module

        def run_and_patch(module: ModuleType) -> None:
            with _resolve(self.during[fullname])() if fullname in self.during else contextlib.nullcontext():
                run(module)
            if fullname in self.after:
                patch(self.after[fullname], module)

        # On the instance, so that everything else about the loader (its type, its source, its resources) stays true.
        spec.loader.exec_module = run_and_patch  # type: ignore[method-assign]
        return spec


def _resolve(entry: str):  # type: ignore[no-untyped-def]  # the two tables hold functions of two shapes
    module, _, function = entry.partition(":")
    return getattr(importlib.import_module(module), function)


def patch(entry: str, module: ModuleType) -> None:
    """Call the function of an ``entry`` with ``module``; a CellDualityError if that lacks what is patched."""
    function = _resolve(entry)
    with _resolve(f"{_HERE}.patches:strict")(function.__name__):
        function(module)


def install() -> None:
    """Register the finder in this process, once, if the launcher asked for it: on a GPU for flash_attn alone."""
    wanted = os.environ.get(DEVICE_VARIABLE)
    if wanted in ("cpu", "gpu") and not any(
        type(finder).__name__ == PostImportFinder.__name__ for finder in sys.meta_path
    ):
        sys.meta_path.insert(0, PostImportFinder(AFTER_IMPORT if wanted == "cpu" else {}, DURING_IMPORT))
