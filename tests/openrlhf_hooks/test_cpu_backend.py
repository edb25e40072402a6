"""The CPU backend without Ray: hook mechanics, strictness, the launcher, and the stand-ins against plain torch."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest

from cellduality_plugin.errors import CellDualityError
from cellduality_plugin.openrlhf_hooks.cpu import (
    launch,
    library_patches,
    openrlhf_patches,
    post_import,
    precision,
    upstream,
)

SITE = Path(launch.__file__).parent / "site"
ROOT = Path(launch.__file__).parents[3]


def run_python(code: str, folders: list[Path], **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    environment |= variables
    environment["PYTHONPATH"] = os.pathsep.join(str(folder) for folder in [*folders, ROOT])
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], env=environment, capture_output=True, text=True, timeout=120
    )


@pytest.fixture
def finder(tmp_path, monkeypatch):
    """A finder in front of `sys.meta_path` with two toy modules, and the module that patches them."""
    (tmp_path / "toy_upstream.py").write_text("import toy_extra\nvalue = 'cuda'\nextra = toy_extra.name\n")
    (tmp_path / "toy_patches.py").write_text(
        "import contextlib, sys, types\n"
        "def patch(module): module.value = 'cpu'\n"
        "@contextlib.contextmanager\n"
        "def around():\n"
        "    extra = types.ModuleType('toy_extra'); extra.name = 'stand-in'\n"
        "    sys.modules['toy_extra'] = extra\n"
        "    try: yield\n"
        "    finally: del sys.modules['toy_extra']\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    made = post_import.PostImportFinder(
        after={"toy_upstream": "toy_patches:patch"}, during={"toy_upstream": "toy_patches:around"}
    )
    monkeypatch.setattr(sys, "meta_path", [made, *sys.meta_path])
    yield made
    for name in ("toy_upstream", "toy_patches", "toy_extra"):
        sys.modules.pop(name, None)


class TestPostImport:
    def test_patches_a_listed_module_once_it_has_run(self, finder):
        import toy_upstream

        assert toy_upstream.value == "cpu"

    def test_holds_the_context_only_while_importing(self, finder):
        import toy_upstream

        assert toy_upstream.extra == "stand-in"
        with pytest.raises(ModuleNotFoundError):
            import toy_extra  # noqa: F401

    def test_leaves_the_loader_and_other_modules_alone(self, finder):
        import toy_upstream

        assert type(toy_upstream.__spec__.loader).__name__ == "SourceFileLoader"
        assert "value = 'cuda'" in toy_upstream.__spec__.loader.get_source("toy_upstream")
        assert finder.find_spec("json") is None
        assert finder.find_spec("no_such_module_anywhere") is None

    def test_every_entry_of_the_tables_resolves(self):
        for entry in [*post_import.AFTER_IMPORT.values(), *post_import.DURING_IMPORT.values()]:
            assert callable(post_import._resolve(entry)), entry

    def test_install_needs_the_switch_and_registers_once(self, monkeypatch):
        monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
        before = len(sys.meta_path)
        monkeypatch.delenv(post_import.DEVICE_VARIABLE, raising=False)
        post_import.install()
        assert len(sys.meta_path) == before
        monkeypatch.setenv(post_import.DEVICE_VARIABLE, "cpu")
        post_import.install()
        post_import.install()
        assert len(sys.meta_path) == before + 1


class TestSitecustomize:
    def test_registers_without_importing_anything_heavy(self):
        code = """
            import sys
            print(type(sys.meta_path[0]).__name__)
            print(sorted({'torch', 'numpy', 'cellduality_plugin', 'pydantic'} & set(sys.modules)))
        """
        shown = run_python(code, [SITE], CELLDUALITY_DEVICE="cpu")
        assert shown.stdout.split("\n")[:2] == ["PostImportFinder", "[]"], shown.stderr

    def test_runs_the_sitecustomize_it_hides(self, tmp_path):
        (tmp_path / "sitecustomize.py").write_text("import sys; sys.hidden_one_ran = True")
        shown = run_python("import sys; print(sys.hidden_one_ran)", [SITE, tmp_path], CELLDUALITY_DEVICE="cpu")
        assert shown.stdout.strip() == "True", shown.stderr

    def test_torch_answers_cuda_calls_only_with_the_switch(self):
        code = """
            import torch
            try:
                print(torch.cuda.current_device(), torch.zeros(1).to(torch.cuda.current_device()).device)
            except (AssertionError, RuntimeError):
                print('upstream')
        """
        assert run_python(code, [SITE], CELLDUALITY_DEVICE="cpu").stdout.strip() == "cpu cpu"
        assert run_python(code, [SITE], CELLDUALITY_DEVICE="").stdout.strip() != "cpu cpu"

    def test_children_of_children_are_reached(self):
        code = """
            import subprocess, sys
            inner = "import sys; print(type(sys.meta_path[0]).__name__)"
            subprocess.run([sys.executable, '-c', inner], check=True)
        """
        assert run_python(code, [SITE], CELLDUALITY_DEVICE="cpu").stdout.strip() == "PostImportFinder"


class TestStrictness:
    def test_names_the_behaviour_and_the_attribute(self):
        import json

        with pytest.raises(CellDualityError, match=r"weight sync .* json has no attribute 'gone'"):
            upstream.replace(json, "gone", None, "weight sync")
        assert not hasattr(json, "gone")

    def test_names_the_version_of_the_package(self):
        import numpy

        with pytest.raises(CellDualityError, match=rf"numpy {numpy.__version__}"):
            upstream.existing(numpy, "gone", "anything")

    @pytest.mark.parametrize("entry", sorted(set(post_import.AFTER_IMPORT.values())))
    def test_every_patch_refuses_a_module_without_its_attribute(self, entry):
        from types import ModuleType

        torch = ModuleType("torch")
        torch.cuda = ModuleType("torch.cuda")
        torch.device = str
        module = torch if entry.endswith(":answer_cuda_calls") else ModuleType("newer_upstream")
        with pytest.raises(CellDualityError, match="cannot be set up on the CPU"):
            post_import._resolve(entry)(module)

    @pytest.mark.parametrize("module", sorted({*post_import.AFTER_IMPORT, *post_import.DURING_IMPORT}))
    def test_the_installed_versions_have_every_module(self, module):
        import importlib.util

        top = module.partition(".")[0]
        folders = list(importlib.util.find_spec(top).submodule_search_locations)
        path = Path(folders[0], *module.split(".")[1:])
        assert path.with_suffix(".py").is_file() or (path / "__init__.py").is_file(), module


class TestPrecision:
    @pytest.mark.parametrize(
        ("told", "dtype"),
        [
            ("flags\t\t: fpu avx2 avx512_bf16 fma\n", "bfloat16"),
            ("flags\t\t: fpu amx_bf16 amx_tile\n", "bfloat16"),
            ("Features\t: fp asimd bf16\n", "bfloat16"),
            ("flags\t\t: fpu avx avx2 fma\n", "float32"),
            ("model name\t: bf16\n", "float32"),
            ("", "float32"),
        ],
    )
    def test_bfloat16_only_where_the_processor_has_instructions_for_it(self, tmp_path, told, dtype):
        (tmp_path / "cpuinfo").write_text(told)
        assert precision.fast_dtype(tmp_path / "cpuinfo") == dtype
        assert precision.fast_dtype(tmp_path / "none") == "float32"

    @pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
    def test_trainer_and_engine_compute_in_the_same(self, monkeypatch, dtype):
        from types import SimpleNamespace

        import torch

        monkeypatch.setenv(precision.DTYPE_VARIABLE, dtype)
        utils = SimpleNamespace(convert_to_torch_dtype=lambda name: {"bf16": torch.bfloat16, "fp16": torch.half}[name])
        openrlhf_patches.load_in_the_cpus_precision(utils)

        class EngineArgs:
            dtype = "bfloat16"

            def __post_init__(self):
                self.seen = self.dtype

        library_patches.serve_in_the_cpus_precision(SimpleNamespace(EngineArgs=EngineArgs))
        engine = EngineArgs()
        engine.__post_init__()
        assert utils.convert_to_torch_dtype("bf16") == getattr(torch, engine.seen) == getattr(torch, dtype)
        assert utils.convert_to_torch_dtype("fp16") == torch.half


class TestLauncher:
    def test_defaults_yield_to_the_user(self):
        made = launch.cpu_environment({"OMP_NUM_THREADS": "7", "PYTHONPATH": "/a", "PATH": "/bin"})
        assert made["OMP_NUM_THREADS"] == "7"
        assert made["DS_ACCELERATOR"] == "cpu"
        assert made["PYTHONPATH"].split(os.pathsep)[:2] == [str(SITE), "/a"]

    def test_twice_is_once(self):
        once = launch.cpu_environment({"PATH": "/bin"})
        assert launch.cpu_environment(once)["PYTHONPATH"] == once["PYTHONPATH"]

    def test_on_a_gpu_the_environment_is_untouched(self, tmp_path):
        code = f"""
            import sys
            import torch
            torch.cuda.is_available = lambda: True
            from cellduality_plugin.openrlhf_hooks.cpu import launch
            launch.version = lambda name: "2.13.0"  # of a wheel for GPUs
            show = "import os; print(os.environ.get('CELLDUALITY_DEVICE'), {str(SITE)!r} in os.environ['PYTHONPATH'])"
            sys.exit(launch.main([sys.executable, '-c', show, '--ds.packing_samples', 'openrlhf.cli.train_sft']))
        """
        shown = run_python(code, [])
        assert shown.stdout.splitlines() == ["cellduality-cpu: a GPU is there, so nothing is patched", "None False"]

    def test_without_a_gpu_the_command_gets_the_switch(self):
        code = """
            import sys
            import torch
            torch.cuda.is_available = lambda: False
            from cellduality_plugin.openrlhf_hooks.cpu import launch
            launch.version = lambda name: "2.13.0"
            sys.exit(launch.main(['python', '-c', "import os; print(os.environ['CELLDUALITY_DEVICE'])"]))
        """
        assert run_python(code, []).stdout.strip() == "cpu"

    def test_a_wheel_without_gpus_is_not_imported_to_ask_it(self):
        code = """
            import sys
            from cellduality_plugin.openrlhf_hooks.cpu import launch
            launch.version = lambda name: "2.13.0+cpu"
            print(launch.gpu_is_there(), "torch" in sys.modules)
        """
        assert run_python(code, []).stdout.split() == ["False", "False"]

    @pytest.mark.parametrize(("command", "kept"), [("ray", False), ("python", True)])
    def test_a_ray_node_has_slots_where_gpus_are_hidden(self, command, kept, monkeypatch, tmp_path):
        program, started = tmp_path / command, []
        program.write_text("#!/bin/sh\n")
        program.chmod(0o755)
        monkeypatch.setattr(launch, "gpu_is_there", lambda: False)
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
        monkeypatch.setattr(os, "execve", lambda *words: started.append(words))
        launch.main([str(program), "start"])
        [(_, _, environment)] = started
        assert ("CUDA_VISIBLE_DEVICES" in environment) == kept

    def test_an_unknown_command_is_127(self, monkeypatch, capsys):
        monkeypatch.setattr(launch, "gpu_is_there", lambda: False)
        assert launch.main(["no-such-command-anywhere"]) == 127
        assert "no-such-command-anywhere" in capsys.readouterr().err

    @pytest.mark.parametrize(
        ("flags", "named"),
        [
            ([], "--ds.attn_implementation flash_attention_2"),
            (["--ds.attn_implementation=sdpa"], "--vllm.sync_backend nccl"),
            (["--ds.attn_implementation", "sdpa", "--vllm.sync_backend", "gloo", "--ds.packing_samples"], "packing"),
            (["--ds.attn_implementation", "sdpa", "--vllm.sync_backend", "gloo"], "--vllm.enforce_eager"),
        ],
    )
    def test_refuses_what_needs_a_gpu(self, flags, named):
        with pytest.raises(CellDualityError, match=named):
            launch.refuse_gpu_only(["python", "-m", "openrlhf.cli.train_ppo_ray", *flags])

    def test_sft_needs_no_engine_flags(self):
        launch.refuse_gpu_only(["torchrun", "-m", "openrlhf.cli.train_sft", "--ds.attn_implementation", "sdpa"])


class TestSlots:
    """Of the cluster that the launcher makes, for what the flags of the trainer ask."""

    RL = ("python", "-m", "openrlhf.cli.train_ppo_ray")
    LEAST = ("--actor.model_name_or_path", "m", "--algo.advantage.estimator", "group_norm",
             "--rollout.n_samples_per_prompt", "2", "--train.agent_func_path", "a.py")  # fmt: skip

    def flags(self, ranks: int, engines: int, *more: str, critic: int = 0) -> list[str]:
        groups = {"actor": ranks, "ref": ranks, **({"critic": critic} if critic else {})}
        sizes = [word for name, size in groups.items() for word in (f"--{name}.num_gpus_per_node", str(size))]
        return [*self.RL, *self.LEAST, *sizes, "--vllm.num_engines", str(engines), *more]

    @pytest.mark.parametrize(
        ("ranks", "engines", "more", "wanted"),
        [
            (1, 1, ["--train.colocate_all"], 1),
            (2, 2, ["--train.colocate_all"], 2),
            (2, 1, ["--train.colocate_all", "--vllm.tensor_parallel_size", "2"], 2),
            (2, 2, ["--train.colocate_all", "--actor.num_nodes", "3", "--ref.num_nodes", "3"], 6),
            (1, 1, [], 3),
            (1, 1, ["--algo.kl.init_coef", "0"], 2),
            (2, 2, ["--train.colocate_actor_ref"], 4),
            (2, 2, ["--train.colocate_all", "--train.async_enable"], 4),
        ],
    )
    def test_as_many_as_the_flags_ask_for(self, ranks, engines, more, wanted):
        assert launch.slots(self.flags(ranks, engines, *more), {}) == {"CELLDUALITY_CPU_SLOTS": str(wanted)}

    def test_a_critic_and_a_reward_model_ask_for_their_own(self):
        command = [word for word in self.flags(1, 1, critic=1) if word not in ("--train.agent_func_path", "a.py")]
        command[command.index("group_norm")] = "gae"
        command += ["--critic.model_name_or_path", "c", "--reward.model_name_or_path", "r"]
        command += ["--reward.num_gpus_per_node", "1"]
        for more, wanted in (
            ([], 5),
            (["--train.colocate_actor_ref"], 4),
            (["--train.colocate_actor_ref", "--train.colocate_critic_reward"], 3),
            (["--train.colocate_all"], 1),
        ):
            assert launch.slots([*command, *more], {}) == {"CELLDUALITY_CPU_SLOTS": str(wanted)}

    @pytest.mark.parametrize(("given", "refused"), [("2", False), ("7", False), ("1", True), ("two", True)])
    def test_what_is_set_stays_unless_the_run_would_wait_for_ever(self, given, refused):
        command, environment = self.flags(2, 2, "--train.colocate_all"), {"CELLDUALITY_CPU_SLOTS": given}
        if not refused:
            assert launch.slots(command, environment) == {}
            return
        with pytest.raises(CellDualityError, match=f"asks for 2 slots, and CELLDUALITY_CPU_SLOTS is {given}"):
            launch.slots(command, environment)

    def test_other_commands_a_cluster_that_is_joined_and_flags_that_are_refused_get_none(self):
        assert launch.slots(["cellduality", "audit"], {}) == {}
        assert launch.slots(self.flags(2, 2), {"RAY_ADDRESS": "10.0.0.1:6379"}) == {}
        assert launch.slots([*self.flags(2, 2), "--data.max_len", "long"], {}) == {}

    def test_the_command_finds_them_in_its_environment(self, monkeypatch, tmp_path):
        python, started = tmp_path / "python", []
        python.write_text("#!/bin/sh\n")
        python.chmod(0o755)
        monkeypatch.setattr(launch, "gpu_is_there", lambda: False)
        monkeypatch.setattr(os, "execve", lambda *words: started.append(words))
        for name in ("CELLDUALITY_CPU_SLOTS", "RAY_ADDRESS"):
            monkeypatch.delenv(name, raising=False)
        on_cpu = ("--train.colocate_all", "--ds.attn_implementation", "sdpa", "--vllm.sync_backend", "gloo")
        launch.main([str(python), *self.flags(2, 2, *on_cpu, "--vllm.enforce_eager")[1:]])
        [(_, _, environment)] = started
        assert environment["CELLDUALITY_CPU_SLOTS"] == "2"
        assert environment["OMP_NUM_THREADS"] == os.environ.get("OMP_NUM_THREADS", "1")


class TestRayInit:
    @pytest.fixture
    def ray(self, monkeypatch):
        from types import ModuleType

        from cellduality_plugin.openrlhf_hooks.cpu.library_patches import declare_slots

        monkeypatch.delenv("RAY_ADDRESS", raising=False)
        module = ModuleType("ray")
        module.init = lambda address=None, **options: (address, options)
        declare_slots(module)
        return module

    def test_a_new_cluster_has_slots(self, ray, monkeypatch):
        monkeypatch.setenv("CELLDUALITY_CPU_SLOTS", "2")
        address, options = ray.init(runtime_env={})
        assert address == "local", "whatever cluster runs on this machine"
        assert options["num_gpus"] == 2
        assert options["num_cpus"] >= 5

    def test_the_caller_decides(self, ray):
        assert ray.init(num_gpus=3)[1]["num_gpus"] == 3

    def test_an_existing_cluster_keeps_its_resources(self, ray, monkeypatch):
        assert ray.init("auto") == ("auto", {})
        monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
        assert ray.init() == (None, {})


class TestStandIns:
    def test_pad_inverts_unpad(self):
        import torch

        from cellduality_plugin.openrlhf_hooks.cpu.flash_attn_stand_in import pad_input, unpad_input

        mask = torch.tensor([[1, 1, 1, 0], [0, 1, 1, 1], [1, 0, 0, 0]])
        hidden = torch.randn(3, 4, 5, generator=torch.Generator().manual_seed(0))
        tokens, indices, bounds, longest, lengths = unpad_input(hidden, mask)
        reference = torch.cat([row[keep.bool()] for row, keep in zip(hidden, mask, strict=True)])
        assert torch.equal(tokens, reference)
        assert bounds.tolist() == [0, 3, 6, 7]
        assert bounds.dtype == torch.int32
        assert (longest, lengths.tolist()) == (3, [3, 3, 1])
        assert torch.equal(pad_input(tokens, indices, 3, 4), hidden * mask.unsqueeze(-1))

    def test_index_first_axis_and_pad_keep_the_gradient(self):
        import torch

        from cellduality_plugin.openrlhf_hooks.cpu.flash_attn_stand_in import index_first_axis, pad_input

        values = torch.ones(4, 2, requires_grad=True)
        pad_input(index_first_axis(values, torch.tensor([0, 2])), torch.tensor([1, 3]), 2, 2).sum().backward()
        assert values.grad.tolist() == [[1, 1], [0, 0], [1, 1], [0, 0]]

    def test_visible_only_inside_the_block(self):
        import importlib.util

        from cellduality_plugin.openrlhf_hooks.cpu.flash_attn_stand_in import standing_in

        there = importlib.util.find_spec("flash_attn") is not None
        with standing_in():
            from flash_attn.bert_padding import index_first_axis, pad_input, rearrange, unpad_input  # noqa: F401
            from flash_attn.utils.distributed import all_gather  # noqa: F401
        assert (importlib.util.find_spec("flash_attn") is not None) == there


@pytest.mark.parametrize(("asked_for", "made", "kept"), [(False, 128, 32), (False, 16, 16), (True, 128, 128)])
def test_prompts_of_a_small_model_fill_blocks_of_the_cache(asked_for, made, kept):
    from cellduality_plugin.openrlhf_hooks.cpu.library_patches import cache_short_prompts

    class CpuPlatform:
        @classmethod
        def check_and_update_config(cls, vllm_config):
            vllm_config.cache_config.block_size = made

    cache_short_prompts(SimpleNamespace(CpuPlatform=CpuPlatform))
    config = SimpleNamespace(cache_config=SimpleNamespace(user_specified_block_size=asked_for, block_size=None))
    CpuPlatform.check_and_update_config(config)
    assert config.cache_config.block_size == kept


class TestOpenRLHFPatches:
    def test_replay_buffer_devices_are_the_cpu(self):
        from types import ModuleType

        import torch

        from cellduality_plugin.openrlhf_hooks.cpu.openrlhf_patches import replay_on_cpu

        module = ModuleType("replay_buffer")
        module.torch, module.NaiveReplayBuffer = torch, object
        replay_on_cpu(module)
        assert module.torch.device("cuda:cpu") == torch.device("cpu")
        assert module.torch.tensor is torch.tensor

    def test_optimizer_and_mesh_are_for_the_cpu(self):
        from types import ModuleType

        from cellduality_plugin.openrlhf_hooks.cpu.openrlhf_patches import train_on_cpu

        class DeepspeedStrategy:
            def moving_average(self, model, model_ema, beta=0.992, device="cpu"):
                return device

            def get_ds_train_config(self, optim_dict=None, *, max_norm=None):
                return {"optimizer": optim_dict} if optim_dict else {}

        module = ModuleType("strategy")
        module.init_device_mesh = lambda device, *shape, **names: (device, shape, names)
        module.DeepspeedStrategy = DeepspeedStrategy
        train_on_cpu(module)
        strategy = DeepspeedStrategy()
        assert module.init_device_mesh("cuda", (1, 1), mesh_dim_names=("a", "b"))[0] == "cpu"
        assert strategy.moving_average(None, None, 0.9, "cuda") == "cpu"
        assert strategy.get_ds_train_config() == {}
        adam = strategy.get_ds_train_config({"type": "AdamW", "params": {"lr": 1.0}}, max_norm=1.0)["optimizer"]
        assert adam["params"] == {"lr": 1.0, "torch_adam": True}


def test_weights_reach_every_engine_bit_for_bit():
    import torch

    from cellduality_plugin.openrlhf_hooks.cpu.weight_sync import GlooCommunicator

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shapes = [(3, 5), (7,), (1,)]
    weights = [torch.randn(shape, generator=torch.Generator().manual_seed(0)).bfloat16() for shape in shapes]

    def member(rank: int) -> list[torch.Tensor]:
        group = GlooCommunicator("127.0.0.1", port, rank, 3)
        tensors = weights if rank == 0 else [torch.zeros(shape, dtype=torch.bfloat16) for shape in shapes]
        for tensor in tensors:
            group.broadcast(tensor, src=0, stream=None)
        return tensors

    with ThreadPoolExecutor(3) as pool:
        for received in pool.map(member, range(3), timeout=60):
            assert all(torch.equal(one, other) for one, other in zip(received, weights, strict=True))


def test_the_engine_receives_and_loads_in_its_own_dtype():
    from types import ModuleType

    import torch

    from cellduality_plugin.openrlhf_hooks.cpu.openrlhf_patches import receive_weights_on_cpu

    class WorkerWrap:
        def update_weight(self, name, dtype, shape, empty_cache=False):
            raise AssertionError("upstream asks for cuda")

    module = ModuleType("worker_wrap")
    module.WorkerWrap = WorkerWrap
    receive_weights_on_cpu(module)
    loaded = {}
    worker = WorkerWrap()
    worker.model_config = SimpleNamespace(dtype=torch.bfloat16)
    worker._model_update_group = SimpleNamespace(broadcast=lambda tensor, src: tensor.fill_(2.0))
    worker.model_runner = SimpleNamespace(model=SimpleNamespace(load_weights=lambda weights: loaded.update(weights)))
    worker.update_weight("w", torch.bfloat16, torch.Size([2]))
    assert loaded["w"].tolist() == [2.0, 2.0]
    with pytest.raises(TypeError, match="float32"):
        worker.update_weight("w", torch.float32, torch.Size([2]))
