"""`cellduality-cpu COMMAND...`: run a command written for GPUs on a machine without one."""

from __future__ import annotations

import os
import shutil
import site
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

from cellduality_plugin.errors import CellDualityError
from cellduality_plugin.openrlhf_hooks.cpu.patches import DTYPE_VARIABLE, SLOTS_VARIABLE, fast_dtype
from cellduality_plugin.openrlhf_hooks.cpu.post_import import DEVICE_VARIABLE
from cellduality_plugin.openrlhf_hooks.doctor.flags import RL, TRAINERS, Flags, read_flags

# Defaults only: whatever the user has set stays. Why each is there:
DEFAULTS: dict[str, str] = {
    DEVICE_VARIABLE: "cpu",  # the switch that sitecustomize looks at
    "DS_ACCELERATOR": "cpu",  # DeepSpeed would guess from installed packages
    "OMP_NUM_THREADS": "1",  # trainer, engine and reference take turns, but Ray and gloo threads need cores too
    "TOKENIZERS_PARALLELISM": "false",  # forked data workers deadlock on it
    "VLLM_CPU_KVCACHE_SPACE": "1",  # GiB; without it vLLM claims gpu_memory_utilization of the host's memory
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # pinning two processes to one core halves both
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # on a CPU: no worker process of its own below the engine's, 10 s less
    "TORCHDYNAMO_DISABLE": "1",  # compiling the sampler takes 25 s and a C++ compiler, and gains nothing at this size
    "RAY_prestart_worker_first_driver": "0",  # actors get fresh workers; idle ones only compete while those import
    # vLLM's engine core outlives the worker that started it if that is killed, and holds its memory: Ray ends it.
    "RAY_kill_child_processes_on_worker_exit_with_raylet_subreaper": "true",
    "RAY_DEDUP_LOGS": "0",  # the log is for reading after a failure: every rank's line belongs there
    "VLLM_NO_USAGE_STATS": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "DO_NOT_TRACK": "1",
}

# What only computes on a GPU: flag, its value, what to do instead.
_GPU_ONLY: tuple[tuple[str, bool | str, str], ...] = (
    ("train.dynamic_batch_enable", True, "leave it out: batches are for a processor as they are"),
    ("ds.load_in_4bit", True, "leave it out: bitsandbytes computes on GPUs"),
    ("ds.adam_offload", True, "leave it out: the optimiser is in host memory already"),
    ("ds.attn_implementation", "flash_attention_3", "leave it out"),
    ("vllm.sync_backend", "nccl", "pass --vllm.sync_backend gloo"),
    # The launcher turns torch's compiler off: an engine that compiles does not start, and the trainer waits for it.
    ("vllm.enforce_eager", False, "pass --vllm.enforce_eager"),
    ("ds.attn_implementation", "flash_attention_2", "pass --ds.packing_samples, or --ds.attn_implementation sdpa"),
)


def refuse_gpu_only(trainer: str, flags: Flags) -> None:
    """Raise a CellDualityError if one of the trainer's flags, given or default, takes a GPU."""
    for name, refused, hint in _GPU_ONLY:
        packed = refused == "flash_attention_2" and flags.get("ds.packing_samples")
        if flags.get(name) == refused and not packed:
            raise CellDualityError(f"--{name} {refused} needs a GPU", code="needs-gpu", where=trainer, hint=hint)


def slots(flags: Flags, environment: Mapping[str, str]) -> dict[str, str]:
    """Return the variable that gives the cluster which the RL trainer starts as many slots as its flags ask for.

    What is set already stays; too few are a CellDualityError: Ray would wait for the others without an end.
    """
    given = environment.get(SLOTS_VARIABLE)
    if environment.get("RAY_ADDRESS") or flags.args is None:  # the trainer will say what it refuses
        return {}
    if given is None:
        return {SLOTS_VARIABLE: str(flags.cards)}
    if not given.isdigit() or int(given) < flags.cards:
        what = f"the run asks for {flags.cards} slots, and {SLOTS_VARIABLE} is {given}"
        hint = f"unset {SLOTS_VARIABLE}, or lower the ranks and engines (GPUS, ENGINES)"
        raise CellDualityError(what, code="too-few-slots", where=RL, hint=hint)
    return {}


def cpu_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Return a copy of `environment` with the defaults of a CPU run where it has no value of its own, and with the
    patches first on `PYTHONPATH`."""
    here = Path(__file__).resolve().parent
    root, old = str(here.parents[2]), environment.get("PYTHONPATH", "").split(os.pathsep)
    folders = dict.fromkeys([str(here / "site"), *filter(None, old)])
    # A source checkout has to be found by the workers as well; an installed package is found anyway.
    if root not in {str(Path(folder).resolve()) for folder in site.getsitepackages()}:
        folders[root] = None
    own = {
        "PYTHONPATH": os.pathsep.join(folders),
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), environment.get("PATH", os.defpath)]),
    }
    return {**DEFAULTS, DTYPE_VARIABLE: fast_dtype(), **environment, **own}


def gpu_is_there() -> bool:
    """Return whether torch can compute on a GPU in this environment."""
    if version("torch").endswith("+cpu"):  # built without: to import torch and ask it takes three seconds
        return False
    import torch

    return bool(torch.cuda.is_available())


def main(arguments: Sequence[str] | None = None) -> int:
    """Become the command given on the command line; return only to report why that is not possible.

    That is 2 for no command, a flag that needs a GPU or too few slots, 127 for a command that does not exist.
    """
    command = list(sys.argv[1:] if arguments is None else arguments)
    if not command or command[0] in ("-h", "--help"):
        print("usage: cellduality-cpu COMMAND...   (for example: python -m openrlhf.cli.train_ppo_ray <flags>)")
        return 0 if command else 2
    if gpu_is_there():
        print("cellduality-cpu: a GPU is there, so nothing is patched", flush=True)
        environment = dict(os.environ)
    else:
        environment, trainer = cpu_environment(os.environ), next((word for word in command if word in TRAINERS), "")
        try:
            if trainer:
                flags = read_flags(trainer, command[command.index(trainer) + 1 :])
                refuse_gpu_only(trainer, flags)
                environment |= slots(flags, os.environ) if trainer == RL else {}
        except CellDualityError as error:
            print(f"cellduality-cpu: {error}", file=sys.stderr)
            return 2
        # How a user hides the GPUs of a machine; a Ray node refuses to have slots then.
        if Path(command[0]).name == "ray" and environment.get("CUDA_VISIBLE_DEVICES") == "":
            del environment["CUDA_VISIBLE_DEVICES"]
    program = shutil.which(command[0], path=environment.get("PATH"))
    if program is None:
        print(f"cellduality-cpu: no such command: {command[0]}", file=sys.stderr)
        return 127
    os.execve(program, command, environment)


if __name__ == "__main__":
    sys.exit(main())
