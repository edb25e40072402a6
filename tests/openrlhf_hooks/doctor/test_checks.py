"""Every check finds the one thing that is wrong in just its way, and says nothing about a good run."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cellduality_plugin.agent_file import (
    bound_client_file,
    bound_reward_file,
    packaged_agent_file,
    packaged_reward_file,
)
from cellduality_plugin.files import read_jsonl, write_jsonl
from cellduality_plugin.openrlhf_hooks import preflight
from cellduality_plugin.openrlhf_hooks.doctor.checks import CHECKS, FLAGS
from cellduality_plugin.openrlhf_hooks.doctor.command import RL, SFT
from cellduality_plugin.openrlhf_hooks.doctor.machine import GIB
from cellduality_plugin.tasks import TASKS

ON_CPU = ("cellduality-cpu", "python", "-m")
ON_GPU = ("python", "-m")
NOWHERE = "http://127.0.0.1:9"
SUBMITTED = ("ray", "job", "submit", "--address", NOWHERE, "--", "python", "-m")
GPU = {"gpus": 8, "gpu_memory": 48 * GIB, "has_flash_attention": True}
PACKAGED = str(packaged_agent_file())
DATE = (
    "{{ strftime_now('%d %b %Y') }}"
    "{% for m in messages %}{{ m.content }}{% if m.role != 'user' %}<|end|>{% endif %}{% endfor %}"
)
EVENLY = {"vllm.num_engines": 8, "actor.num_gpus_per_node": 8, "ref.num_gpus_per_node": 8}
EIGHT = {
    **EVENLY, "rollout.n_samples_per_prompt": 16, "rollout.batch_size": 5, "train.batch_size": 80,
    "rollout.micro_batch_size": 2, "train.micro_batch_size": 2,
}  # fmt: skip

# check, trainer, flags that are changed, (command in front, machine), severity, part of what is said
FLAG_FAULTS: list[tuple[str, str, dict[str, object], tuple[tuple[str, ...], dict[str, Any]], str, str]] = [
    ("unknown_flags", RL, {"actor_learning_rate": 1}, (ON_CPU, {}), "error", "--actor_learning_rate"),
    ("unknown_flags", SFT, {"pretrain": "model"}, (ON_CPU, {}), "error", "--pretrain"),
    ("refused_flags", RL, {"rollout.n_samples_per_prompt": 1}, (ON_CPU, {}), "error", "n_samples_per_prompt > 1"),
    ("refused_flags", RL, {"data.max_len": "long"}, (ON_CPU, {}), "error", "invalid int value"),
    ("refused_flags", SFT, {"help": True}, (ON_CPU, {}), "error", "only ask for help"),
    ("refused_flags", RL, {"ds.packing_samples": True, "vllm.num_engines": None}, (ON_CPU, {}), "error", "TypeError"),
    ("corrected_flags", RL, {"ds.packing_samples": True}, (ON_GPU, GPU), "warning", "flash_attention"),
    ("corrected_flags", RL, {"vllm.enable_sleep": True, "train.colocate_all": None}, (ON_CPU, {}), "warning", "False"),
    ("flags_for_a_gpu", RL, {"vllm.sync_backend": "nccl"}, (ON_CPU, {}), "error", "needs a GPU"),
    ("flags_for_a_gpu", SFT, {}, (ON_GPU, {}), "warning", "no GPU was found"),
    ("readable_environment", RL, {}, ((*SUBMITTED[:5], "--runtime-env-json={", *ON_CPU), {}), "error", "JSON"),
    ("readable_environment", RL, {}, ((*SUBMITTED[:5], "--runtime-env", "e", *ON_CPU), {}), "note", "file"),
    ("agent_and_url", RL, {"reward.remote_url": "http://a"}, (ON_CPU, {}), "warning", "overrides --reward.remote_url"),
    ("agent_and_url", RL, {"reward.model_name_or_path": "m"}, (ON_CPU, {}), "warning", "overrides --reward.model"),
    ("no_reward", RL, {"train.agent_func_path": None}, (ON_CPU, {}), "error", "nothing gives a reward"),
    ("agent_file", RL, {"train.agent_func_path": "{}/gone.py"}, (ON_CPU, {}), "error", "cannot be read"),
    ("agent_file", RL, {"train.agent_func_path": "{}/model"}, (ON_CPU, {}), "error", "no Python file"),
    (
        "reward_file", RL, {"train.agent_func_path": None, "reward.remote_url": "{}/gone.py"}, (ON_CPU, {}), "error",
        "cannot be loaded",
    ),
    ("configuration", RL, {"train.agent_func_path": PACKAGED}, (ON_CPU, {}), "error", "CELLDUALITY_CONFIG is not set"),
    (
        "zero_and_dynamic_batch", RL,
        {"ds.zero_stage": 2, "train.dynamic_batch_enable": True, "ds.packing_samples": True,
         "rollout.max_tokens_per_gpu": 512, "ds.attn_implementation": "flash_attention_2"},
        (ON_GPU, GPU), "error", "last micro-batch",
    ),
    ("adapters", RL, {"ds.lora.rank": 8}, (ON_CPU, {}), "error", "--ds.lora.rank"),
    ("adapters", RL, {"ds.load_in_4bit": True}, (ON_GPU, GPU), "error", "--ds.load_in_4bit"),
    ("unmerged_adapters", SFT, {"ds.lora.rank": 8}, (ON_CPU, {}), "note", "adapter"),
    (
        "partial_rollout", RL,
        {"train.partial_rollout_enable": True, "train.async_enable": True, "train.colocate_all": None}, (ON_CPU, {}),
        "error", "mix weights",
    ),
    ("async_with_colocate", RL, {"train.async_enable": True}, (ON_CPU, {}), "warning", "1 cards for the engines"),
    ("estimator", RL, {"algo.advantage.estimator": "gae"}, (ON_CPU, {}), "warning", "critic"),
    (
        "estimator", RL,
        {"algo.advantage.estimator": "reinforce", "rollout.n_samples_per_prompt": 1, "train.batch_size": 5,
         "train.micro_batch_size": 1}, (ON_CPU, {}), "warning", "no group",
    ),
    ("dynamic_filtering", RL, {"algo.dynamic_filtering_enable": True}, (ON_CPU, {}), "warning", "(0, 1)"),
    ("clipping", RL, {"actor.dual_clip": 1.0}, (ON_CPU, {}), "error", "dual clip of 1"),
    ("clipping", RL, {"actor.eps_clip": 0.0}, (ON_CPU, {}), "error", "[1, 1]"),
    ("clipping", RL, {"actor.eps_clip_low_high": (0.2, -0.1)}, (ON_CPU, {}), "error", "[0.8, 0.9]"),
    (
        "correction", RL, {"algo.advantage.is_correction_level": "seq", "algo.advantage.is_correction_mode": "clip"},
        (ON_CPU, {}), "error", "tokens only",
    ),
    (
        "correction", RL, {"algo.advantage.is_correction_level": "seq", "algo.advantage.is_correction_gating": "tv"},
        (ON_CPU, {}), "error", "no lower bound 0.5",
    ),
    ("temperature", RL, {"rollout.temperature": 0.0}, (ON_CPU, {}), "error", "NaN"),
    ("temperature", RL, {"rollout.top_p": 0.9}, (ON_CPU, {}), "warning", "top_p 0.9"),
    ("advantage_range", RL, {"reward.clip_range": (0, 1)}, (ON_CPU, {}), "error", "(0, 1) cuts advantages"),
    ("precision", RL, {"ds.param_dtype": "fp16"}, (ON_CPU, {}), "error", "fp16"),
    ("rollouts_fill_batches", RL, {"train.batch_size": 4}, (ON_CPU, {}), "error", "5 prompts x 2 samples"),
    (
        "rollouts_fill_batches", RL, {"rollout.batch_size": 0, "rollout.vllm_generate_batch_size": 0,
        "rollout.micro_batch_size": 2}, (ON_CPU, {}), "error", "a batch of 0",
    ),
    ("batches_fill_devices", RL, {"train.micro_batch_size": 3}, (ON_CPU, {}), "error", "micro-batches of 3 on 1"),
    ("batches_fill_devices", RL, {"train.micro_batch_size": 0}, (ON_CPU, {}), "error", "micro-batches of 0"),
    (
        "batches_fill_devices", SFT, {"train.batch_size": 3, "train.micro_batch_size": 1},
        (("cellduality-cpu", "torchrun", "--nproc-per-node", "2", "-m"), {}), "error", "micro-batches of 1 on 2",
    ),
    ("batches_fill_devices", SFT, {}, (("cellduality-cpu", "deepspeed", "--module"), {}), "note", "launcher's choice"),
    ("rollouts_fill_ranks", RL, {**EIGHT, "rollout.micro_batch_size": 3}, (ON_GPU, GPU), "error", "80 samples"),
    (
        "prompts_fill_rollouts", RL, {**EIGHT, "rollout.batch_size": 4, "train.batch_size": 64,
        "rollout.n_samples_per_prompt": 16, "rollout.micro_batch_size": 4, "train.micro_batch_size": 4},
        (ON_GPU, GPU), "error", "uneven across 8",
    ),
    (
        "prompts_fill_rollouts", RL, {"rollout.batch_size": 4, "train.batch_size": 8}, (ON_CPU, {}), "warning",
        "5 rows leave a last rollout of 1 prompts",
    ),
    (
        "rows_left_out", RL, {"data.max_samples": 4, "rollout.batch_size": 4, "train.batch_size": 8}, (ON_CPU, {}),
        "note", "first 4 rows",
    ),
    (
        "any_update", RL, {"data.max_samples": 4, "train.batch_size": 10}, (ON_CPU, {}), "error",
        "8 samples are less than one training batch of 10",
    ),
    ("any_update", SFT, {"train.batch_size": 4096}, (ON_CPU, {}), "error", "less than one training batch of 4096"),
    ("engines", RL, {"vllm.num_engines": 0}, (ON_CPU, {}), "error", "no vLLM engine"),
    ("engines", RL, {"vllm.num_engines": 2}, (ON_CPU, {}), "error", "2 engines of 1 cards do not cover the 1 cards"),
    (
        "engines", RL, {"vllm.tensor_parallel_size": 3, "train.colocate_all": None}, (ON_CPU, {}), "error",
        "2 attention heads",
    ),
    ("colocated_sizes", RL, {"ref.num_gpus_per_node": None}, (ON_CPU, {}), "error", "have 1 and 8"),
    ("enough_cards", RL, {**EIGHT, "train.colocate_all": None}, (ON_GPU, GPU), "error", "24 cards, and there are 8"),
    (
        "enough_cards", RL, {"vllm.num_engines": 2, "train.colocate_all": None, "train.colocate_actor_ref": True},
        (ON_CPU, {"variables": {"CELLDUALITY_CPU_SLOTS": "2"}}), "error", "asks for 3 slots",
    ),
    (
        "enough_cards", SFT, {"train.micro_batch_size": 1},
        (("torchrun", "--nproc-per-node=2", "-m"), {**GPU, "gpus": 1}), "error", "2 cards",
    ),
    ("data_files", RL, {"data.prompt_dataset": "{}/gone.jsonl"}, (ON_CPU, {}), "error", "no such file"),
    ("data_files", RL, {"data.prompt_dataset": "{}/a,b.jsonl"}, (ON_CPU, {}), "error", "no such file"),
    ("data_files", SFT, {"data.dataset": None}, (ON_CPU, {}), "error", "no rows to train on"),
    ("data_files", RL, {"data.prompt_dataset": "somebody/rows"}, (ON_CPU, {}), "note", "hub"),
    ("keys", RL, {"data.label_key": None}, (ON_CPU, {}), "error", "rows call it 'label'"),
    ("keys", SFT, {"data.output_key": None}, (ON_CPU, {}), "error", "rows call it 'output'"),
    ("keys", SFT, {"data.input_key": "question"}, (ON_CPU, {}), "error", "rows call it 'input'"),
    ("model_folder", RL, {"actor.model_name_or_path": "{}/gone"}, (ON_CPU, {}), "error", "no model there"),
    ("model_folder", SFT, {"model.model_name_or_path": None}, (ON_CPU, {}), "error", "no model to start from"),
    ("positions", RL, {"data.max_len": 257}, (ON_CPU, {}), "error", "256 positions, fewer than 257"),
    ("room_for_prompts", RL, {"rollout.max_new_tokens": 256}, (ON_CPU, {}), "error", "leave no room"),
    ("room_for_prompts", RL, {"rollout.max_new_tokens": None}, (ON_CPU, {}), "warning", "no limit"),
    ("rl_rows", RL, {"data.max_len": 64}, (ON_CPU, {}), "error", "more than max_len 64"),
    ("sft_rows", SFT, {"data.max_len": 40}, (ON_CPU, {}), "error", "SFT row needs"),
    ("chat_template_is_applied", SFT, {"data.apply_chat_template": None}, (ON_CPU, {}), "error", "'User: {}"),
    ("chat_template_is_applied", RL, {"data.apply_chat_template": None}, (ON_CPU, {}), "error", "not framed at all"),
    ("chat_template_is_applied", RL, {"data.input_template": "Q: {x}"}, (ON_CPU, {}), "note", "input template is not"),
    (
        "template_given_as_text", SFT, {"data.tokenizer_chat_template": "{}/model/chat_template.jinja"}, (ON_CPU, {}),
        "error", "a path is taken for the template",
    ),
    ("date_in_template", SFT, {"data.tokenizer_chat_template": DATE}, (ON_CPU, {}), "warning", "today's date"),
    (
        "end_of_response", SFT,
        {"data.tokenizer_chat_template": "{% for m in messages %}{{ m.content }}{% endfor %}"}, (ON_CPU, {}), "warning",
        "do not end in the tokenizer's end token '<|end|>'",
    ),
    (
        "end_of_response", SFT, {"data.tokenizer_chat_template": "{{ messages | length }} turns<|end|>"}, (ON_CPU, {}),
        "error", "does not put the answer behind",
    ),
    ("checkpoints_there", RL, {"ckpt.load_enable": True}, (ON_CPU, {}), "warning", "no checkpoint to load"),
    (
        "resumed_model", RL, {"ckpt.load_enable": True, "ckpt.output_dir": "{}/model"}, (ON_CPU, {}), "error",
        "reference policy",
    ),
    ("no_checkpoints", RL, {"ckpt.save_steps": None}, (ON_CPU, {}), "note", "cannot be taken up"),
    ("folders_can_be_written", RL, {"ckpt.output_dir": "{}/data/rl.jsonl/new"}, (ON_CPU, {}), "error", "is a file"),
    ("relative_paths", RL, {"ckpt.path": "checkpoints"}, (SUBMITTED, {}), "warning", "checkpoints is relative"),
    ("unrotated_copies", RL, {"ckpt.save_hf": True}, (ON_CPU, {}), "warning", "every 10 steps"),
    ("disk_space", RL, {"ckpt.max_num": 10**15}, (ON_CPU, {}), "warning", "GiB are free"),
    ("evaluation_without_rows", RL, {"eval.steps": 5}, (ON_CPU, {}), "warning", "no rows"),
    ("evaluation_without_rows", SFT, {"eval.dataset": "{}/data/sft.jsonl"}, (ON_CPU, {}), "warning", "no step"),
    (
        "meaning_of_evaluation", RL, {"eval.steps": 5, "eval.dataset": "{}/data/rl.jsonl"}, (ON_CPU, {}), "note",
        "not accuracy",
    ),
    ("versions", RL, {}, (ON_CPU, {"python": (3, 13)}), "warning", "Python 3.13"),
    ("versions", RL, {}, (ON_CPU, {"versions": {"openrlhf": "0.11.3"}}), "warning", "openrlhf 0.11.3"),
    ("versions", RL, {}, (ON_CPU, {"versions": {}}), "warning", "vllm is not installed"),
    ("flash_attention", RL, {}, (ON_GPU, {**GPU, "has_flash_attention": False}), "error", "flash_attn is not"),
    (
        "configuration_reaches_workers", RL, {"train.agent_func_path": PACKAGED}, (SUBMITTED, {}), "warning",
        "may not reach",
    ),
    ("card_memory", RL, {}, (ON_GPU, {**GPU, "gpu_memory": GIB / 64}), "warning", "a card takes about"),
    ("host_memory", RL, {}, (ON_CPU, {"host_memory": GIB / 2}), "warning", "the host takes about"),
    (
        "engine_cache", RL, {"vllm.gpu_memory_utilization": 0.5}, (ON_GPU, {**GPU, "gpu_memory": 2 * GIB}), "error",
        "can remember 0 tokens, and one sequence has 256",
    ),
    (
        "engine_cache", RL, {"vllm.gpu_memory_utilization": 0.5},
        (ON_GPU, {**GPU, "gpu_memory": 2 * GIB + 2 * 64 * 300 * 2}), "warning", "less than a group needs",
    ),
]  # fmt: skip
# What a fault brings with it, where it cannot be wrong in one way alone.
COMPANIONS: dict[str, set[str]] = {
    "refused_flags": {"any_update", "corrected_flags", "engines", "flags_for_a_gpu", "rollouts_fill_batches"},
    "rollouts_fill_batches": {"refused_flags"},
    "any_update": {"prompts_fill_rollouts", "rows_left_out"},
    "async_with_colocate": {"corrected_flags"},
    "batches_fill_devices": {"card_memory"},
    "card_memory": {"engine_cache"},
    "chat_template_is_applied": {"corrected_flags"},
    "configuration_reaches_workers": {"enough_cards"},
    "readable_environment": {"enough_cards"},
    "relative_paths": {"enough_cards"},
    "resumed_model": {"checkpoints_there"},
    "room_for_prompts": {"rl_rows"},
    "template_given_as_text": {"end_of_response"},
}


@pytest.mark.parametrize("trainer", [SFT, RL])
def test_a_good_run_is_left_in_peace(trainer, world, said):
    assert said(world.run(trainer)) == []


@pytest.mark.parametrize("trainer", [SFT, RL])
def test_a_good_run_on_cards_is_left_in_peace(trainer, world, said):
    assert said(world.run(trainer, launch=ON_GPU, **GPU)) == []


@pytest.mark.parametrize(
    ("check", "trainer", "changes", "around", "severity", "what"),
    FLAG_FAULTS,
    ids=[f"{number} {fault[0]}" for number, fault in enumerate(FLAG_FAULTS)],
)
def test_one_wrong_flag(check, trainer, changes, around, severity, what, world, said):
    launch, machine = around
    found = said(world.run(trainer, changes, launch, **machine))
    mine = [finding for finding in found if finding.check == check]
    assert any(finding.severity == severity and what in finding.what for finding in mine), found
    assert all(finding.where for finding in found)
    assert all(finding.mend for finding in found if finding.severity != "note")
    assert {finding.check for finding in found} <= {check} | COMPANIONS.get(check, set()), found


class TestAgent:
    """Agent files that OpenRLHF could not load, and those of others."""

    HEAD = "from openrlhf.utils.agent import AgentExecutorBase\n"

    @pytest.fixture
    def told(self, world, said) -> Callable[[str], list[tuple[str, str]]]:
        def write(text: str) -> list[tuple[str, str]]:
            (world.folder / "agent.py").write_text(text)
            run = world.run(RL, {"train.agent_func_path": "{}/agent.py"})
            return [(finding.severity, finding.what) for finding in said(run, "agent_file")]

        return write

    @pytest.mark.parametrize(
        ("text", "what"),
        [
            ("class Agent:\n    pass\n", "defines no AgentExecutor"),
            ("class AgentExecutor(:\n", "is not Python"),
            ("from .mine import AgentExecutor\n", "relative import"),
            (
                "from __future__ import annotations\nfrom dataclasses import dataclass\n"
                "@dataclass\nclass A:\n    x: int\nclass AgentExecutor(A):\n    pass\n",
                "postponed annotations",
            ),
        ],
    )
    def test_that_cannot_be_loaded(self, text, what, told):
        assert any(severity == "error" and what in said for severity, said in told(self.HEAD + text))

    def test_of_somebody_else_is_noted_and_its_data_left_alone(self, told, world, said):
        assert told(self.HEAD + "class AgentExecutor(AgentExecutorBase):\n    pass\n") == [
            ("note", "another agent than the dual's: its rows and reward were not checked")
        ]
        found = said(world.run(RL, {"train.agent_func_path": "{}/agent.py", "data.label_key": None}))
        assert [finding.check for finding in found] == ["agent_file"]

    @pytest.mark.parametrize(
        "text",
        [
            Path(PACKAGED).read_text(encoding="utf-8"),
            "from cellduality_plugin.openrlhf_hooks.executor import DualityExecutor\n"
            "class AgentExecutor(DualityExecutor):\n    pass\n",
        ],
    )
    def test_ours_under_another_name_is_ours(self, text, told, world, said):
        assert told(text) == []
        run = world.run(RL, {"train.agent_func_path": "{}/agent.py"})
        assert [finding.what for finding in said(run, "configuration")] == [
            "no configuration: CELLDUALITY_CONFIG is not set"
        ]

    def test_a_reward_file_of_ours_is_in_order(self, world, said):
        endpoint = {"urls": ["http://127.0.0.1:8000/v1"], "model": "toy"}
        config = world.data / "cellduality.json"
        config.write_text(json.dumps({**json.loads(config.read_text()), "dual": {"endpoint": endpoint}}))
        for ours in (
            bound_reward_file(config),
            bound_client_file(config, ["http://127.0.0.1:5000/"]),
            packaged_reward_file(),
        ):
            assert (
                said(world.run(RL, {"train.agent_func_path": None, "reward.remote_url": ours}), "reward_file") == []
            ), ours

    @pytest.mark.parametrize("text", ["def other():\n    pass\n", "def reward_func(:\n"])
    def test_a_reward_file_without_its_function(self, text, world, said):
        (world.folder / "reward.py").write_text(text)
        changes = {"train.agent_func_path": None, "reward.remote_url": "{}/reward.py"}
        assert [finding.severity for finding in said(world.run(RL, changes), "reward_file")] == ["error"]
        (world.folder / "reward.py").write_text("def reward_func(queries, prompts, labels):\n    return []\n")
        assert said(world.run(RL, changes), "reward_file") == []
        changes["reward.remote_url"] = "{}/reward.py,{}/other.py"
        assert "only the first" in said(world.run(RL, changes), "reward_file")[0].what


class TestConfiguration:
    @pytest.fixture
    def spoiled(self, world, said) -> Callable[..., list[str]]:
        """Return what is found when settings of the configuration are others."""

        def change(check: str, tasks: dict[str, Any] | None = None, **settings: Any) -> list[str]:
            path = world.data / "cellduality.json"
            values = json.loads(path.read_text())
            for name, values_of_task in (tasks or {}).items():
                values["tasks"][name] = {**values["tasks"].get(name, {}), **values_of_task}
            path.write_text(json.dumps({**values, **settings}))
            return [f"{finding.severity}: {finding.what}" for finding in said(world.run(RL), check)]

        return change

    @pytest.mark.parametrize(
        ("settings", "what"),
        [
            ({"tasks": {"cell_type_annotation": {"pair": "gone.py:Pair"}}}, "gone.py"),
            ({"tasks": {"cell_type_annotation": {"reward": "truth"}}}, "no reward 'truth'"),
            ({"tasks": {"conditional_cell_generation": {"reward": "duality-rwjs"}}}, "compares ranked lists"),
            ({"vocabulary": "gone.json"}, ""),
            ({"duals": {}}, "duals"),
            ({"tasks": {"other": {"pair": "cell_type_annotation"}}}, "called 'cell_type_annotation', not 'other'"),
        ],
    )
    def test_that_cannot_judge(self, settings, what, spoiled):
        [found] = spoiled("configuration", **settings)
        assert found.startswith("error: ")
        assert what in found

    def test_that_is_not_there(self, world, said):
        (world.data / "cellduality.json").unlink()
        [found] = said(world.run(RL), "configuration")
        assert "cannot read the configuration" in found.what

    def test_that_is_no_json(self, world, said):
        (world.data / "cellduality.json").write_text("{")
        [found] = said(world.run(RL), "configuration")
        assert "not JSON" in found.what
        assert str(world.data) in found.where

    def test_with_a_task_that_rows_have_and_it_has_not(self, world, said):
        path = world.data / "cellduality.json"
        values = json.loads(path.read_text())
        del values["tasks"]["cell_type_annotation"]
        path.write_text(json.dumps(values))
        [found] = said(world.run(RL))
        assert (found.check, found.what) == ("rl_rows", "row of the unknown task 'cell_type_annotation'")
        assert "rl.jsonl:" in found.where

    def test_with_an_oracle_that_rows_hold_no_answer_for(self, spoiled):
        [found] = spoiled("rl_rows", tasks={"cell_type_annotation": {"reward": "oracle"}})
        assert "the oracle needs the true answer" in found

    def test_with_a_dual_that_may_take_an_hour(self, spoiled):
        assert spoiled("dual_timeout", dual={"timeout_seconds": 600}) == []
        assert spoiled("dual_timeout", dual={"timeout_seconds": 3600}) == [
            "warning: one stuck dual holds up a step for 3600 s"
        ]

    ANNOTATION, GENERATION = "cell_type_annotation", "conditional_cell_generation"

    @pytest.mark.parametrize(
        ("name", "settings", "what"),
        [
            (ANNOTATION, {"traces": 3}, "24 times: 4 labels x 3 traces, each decoded and then read on from"),
            (ANNOTATION, {"traces": 3, "hidden": 1}, "24 times: 4 labels x 3 traces, .*, the traces once a step"),
            (ANNOTATION, {"traces": 1, "negatives": 1}, "6 times: 3 labels x 1 traces"),
            (ANNOTATION, {"traces": 1, "reward": "likelihood"}, "4 times: 2 answers x 1 traces"),
            (GENERATION, {"traces": 2}, "8 times: 2 answers x 2 traces"),
        ],
    )
    def test_with_duals_that_reason(self, name, settings, what, spoiled):
        dual = {"max_new_tokens": 8}
        assert spoiled("dual_calls", tasks={name: {"reward": "posterior"}}, dual=dual) == []
        [found] = spoiled("dual_calls", tasks={name: {"reward": "posterior", **settings}}, dual=dual)
        assert re.search(f"note: a group of {name} asks the dual up to .*{what}", found), found
        assert spoiled("dual_calls", tasks={name: {"reward": "duality"}}) == [], "it generates reasoning and all"

    def test_with_duals_that_reason_without_end(self, spoiled):
        tasks = {self.ANNOTATION: {"traces": 1, "reward": "posterior"}}
        assert spoiled("length_of_traces", tasks=tasks, dual={"max_new_tokens": 8}) == []
        assert spoiled("length_of_traces", tasks=tasks, dual={}) == [
            f"warning: the dual of {self.ANNOTATION} reasons without a limit"
        ]

    def test_with_a_whole_cell_to_write_that_has_to_fit_behind_its_reasoning(self, world, cell, vocabulary):
        path, rows = world.data / "cellduality.json", world.data / "rl.jsonl"
        values = json.loads(path.read_text())
        write_jsonl(rows, [row for row in read_jsonl(rows) if row["datasource"] == self.ANNOTATION] * 5)

        def longest(**settings: Any) -> int:
            dual = {"max_new_tokens": settings.pop("max_new_tokens", None)}
            values["tasks"][self.ANNOTATION] = {"pair": self.ANNOTATION, **settings}
            path.write_text(json.dumps({**values, "dual": dual}))
            run = world.run(RL)
            return preflight.check_rl(rows, run.config, run.tokenizer, max_len=512, max_new_tokens=1)

        task, lengths = TASKS[self.ANNOTATION], preflight.Lengths(world.run(RL).tokenizer)
        asked = (task.dual_prompt({"length": "8"}, label, vocabulary) for label in vocabulary.labels["cell_type"])
        written = max(map(lengths.prompt, asked)) + lengths.response(task.rebuilt_response(cell.genes))
        assert longest(hidden=1, traces=1, max_new_tokens=200, reward="likelihood") == written + 200
        again = lengths.prompt(task.primal_prompt({"cell": cell.genes}, vocabulary))
        assert longest(hidden=1, reward="consistency") > again

    def test_named_by_the_shell_the_command_or_the_job(self, world, said):
        named = str(world.data / "cellduality.json")
        packaged = {"train.agent_func_path": PACKAGED}
        assert said(world.run(RL, packaged, variables={"CELLDUALITY_CONFIG": named})) == []
        assert said(world.run(RL, packaged, (f"CELLDUALITY_CONFIG={named}", *ON_CPU))) == []
        environment = json.dumps({"env_vars": {"CELLDUALITY_CONFIG": named}})
        job = (
            "ray",
            "job",
            "submit",
            "--runtime-env-json",
            environment,
            "--address",
            "http://127.0.0.1:9",
            "--",
            *ON_CPU,
        )
        assert [finding.check for finding in said(world.run(RL, packaged, job))] == ["enough_cards"], "it is not there"

    @pytest.mark.parametrize(
        ("variables", "what"),
        [
            (
                {"CELLDUALITY_CONFIG": "{}/data/cellduality.json", "RAY_ADDRESS": NOWHERE},
                "may not reach the workers",
            ),
            ({"CELLDUALITY_CONFIG": "data/cellduality.json"}, "relative path"),
        ],
    )
    def test_named_where_workers_may_not_see_it(self, variables, what, world, said, monkeypatch):
        monkeypatch.chdir(world.folder)
        there = {name: value.replace("{}", str(world.folder)) for name, value in variables.items()}
        found = next(iter(said(world.run(RL, {"train.agent_func_path": PACKAGED}, variables=there))))
        assert (found.check, found.severity) == ("configuration_reaches_workers", "warning")
        assert what in found.what


class TestCluster:
    """Whether the Ray that a run joins has room for it."""

    @pytest.mark.parametrize(
        ("usage", "severity", "what"),
        [
            ({"GPU": (0.0, 4.0), "CPU": (0.0, 64.0)}, "error", "asks Ray for 8 cards, a CPU each, and it has 64 of 64"),
            ({"GPU": (0.0, 8.0), "CPU": (0.0, 4.0)}, "error", "4 of 4 CPU free, 8 of 8 GPU free"),
            ({"CPU": (0.0, 64.0)}, "error", "64 of 64 CPU free"),
            ({"GPU": (1.0, 8.0), "CPU": (0.0, 64.0)}, "warning", "waits for others: 64 of 64 CPU free, 7 of 8 GPU"),
            ({"GPU": (0.0, 8.0), "CPU": (0.0, 64.0)}, "", ""),
            (None, "note", "cannot be seen"),
        ],
    )
    @pytest.mark.parametrize("submitted", [True, False])
    def test_it_is_looked_at_where_it_can_be_seen(self, usage, severity, what, submitted, world, said, dashboard):
        address = dashboard(*([usage] if usage else []))
        launch = ("ray", "job", "submit", "--address", address, "--", *ON_GPU) if submitted else ON_GPU
        variables = {} if submitted else {"RAY_ADDRESS": address}
        found = said(world.run(RL, EIGHT, launch, **GPU, variables=variables), "enough_cards")
        assert [finding.severity for finding in found] == [severity] * bool(severity)
        assert all(what in finding.what for finding in found)


class TestRows:
    @pytest.mark.parametrize("text", ['{"input": "a"}', '{"input": 1, "output": "b"}', "[]", "{", ""])
    def test_a_malformed_supervised_row(self, text, world, said):
        lines = (world.data / "sft.jsonl").read_text(encoding="utf-8").splitlines()
        lines[2] = text
        (world.data / "sft.jsonl").write_text("\n".join(lines) + "\n")
        [found] = said(world.run(SFT), "sft_rows")
        assert found.where.endswith("sft.jsonl:3")
        assert "prepare the data again" in found.mend

    @pytest.mark.parametrize(
        "text", ['{"input": "a"}', '{"input": "a", "label": "T"}', '{"input": "a", "label": "{\\"schema\\": 2}"}', "{"]
    )
    def test_a_malformed_label_row(self, text, world, said):
        lines = (world.data / "rl.jsonl").read_text(encoding="utf-8").splitlines()
        lines[4] = text
        (world.data / "rl.jsonl").write_text("\n".join(lines) + "\n")
        [found] = said(world.run(RL), "rl_rows")
        assert found.where.endswith("rl.jsonl:5")
        assert "prepare the data again" in found.mend

    def test_a_dual_longer_than_the_context(self, world, said):
        rows = [
            row for row in read_jsonl(world.data / "rl.jsonl") if row["datasource"] == "conditional_cell_generation"
        ]
        write_jsonl(world.data / "rl.jsonl", rows * 5)
        short = said(world.run(RL, {"data.max_len": 40}), "rl_rows")[0].what
        assert short.startswith("prompt with its response needs")
        primal = next(word for word in short.split() if word.isdigit())
        [found] = said(world.run(RL, {"data.max_len": primal}), "rl_rows")
        assert found.what.startswith("dual prompt with its response needs")

    def test_several_files_are_counted_together_each_cut_to_the_limit(self, world):
        both = {"data.prompt_dataset": "{}/data/rl.jsonl,{}/data/rl.jsonl"}
        assert world.run(RL, both).row_count == 10
        assert world.run(RL, {**both, "data.max_samples": 3}).row_count == 3
        assert world.run(RL, {**both, "data.prompt_probs": "0.5,0.5"}).row_count is None
        assert world.run(RL, {"data.prompt_dataset": "somebody/rows"}).row_count is None


class TestModelFolder:
    @pytest.mark.parametrize(
        ("gone", "what"),
        [
            (["config.json"], "no config.json"),
            (["tokenizer.json", "tokenizer_config.json", "chat_template.jinja"], "cannot load the tokenizer"),
            (["model.safetensors"], "no weights"),
        ],
    )
    def test_that_is_incomplete(self, gone, what, world, said):
        for name in gone:
            (world.model / name).unlink()
        [found] = said(world.run(RL), "model_folder")
        assert found.severity == "error"
        assert what in found.what

    def test_without_a_chat_template(self, world, said):
        (world.model / "chat_template.jinja").unlink()
        settings = json.loads((world.model / "tokenizer_config.json").read_text())
        settings.pop("chat_template", None)
        (world.model / "tokenizer_config.json").write_text(json.dumps(settings))
        [found] = said(world.run(RL))
        assert (found.check, found.what) == ("model_folder", "the model has no chat template")

    @pytest.mark.parametrize("template", ["{{ messages", "{{ raise_exception('never') }}", "{% for %}"])
    def test_with_a_template_that_cannot_be_rendered(self, template, world, said):
        [given] = said(world.run(SFT, {"data.tokenizer_chat_template": template}))
        (world.model / "chat_template.jinja").write_text(template)
        [own] = said(world.run(RL))
        assert own.check == given.check == "model_folder"
        assert "the chat template cannot be rendered" in own.what == given.what

    def test_with_a_template_that_knows_no_answers(self, world, said):
        template = "{% if messages | length > 1 %}{{ raise_exception('one turn') }}{% endif %}{{ messages[0].content }}"
        (world.model / "chat_template.jinja").write_text(template)
        assert said(world.run(RL)) == []
        [found] = said(world.run(SFT))
        assert (found.check, found.severity) == ("end_of_response", "error")

    def test_of_the_hub_that_is_not_at_hand_is_a_note(self, world, said):
        run = world.run(RL, {"actor.model_name_or_path": "nobody/no-such-model"})
        found = said(run)
        assert {(finding.check, finding.severity) for finding in found} == {
            ("model_folder", "note"), ("positions", "note"), ("card_memory", "note"),
        }  # fmt: skip

    def test_with_a_template_that_inserts_the_date(self, world, said):
        (world.model / "chat_template.jinja").write_text(DATE)
        [found] = said(world.run(RL))
        assert (found.check, found.severity) == ("date_in_template", "warning")


class TestOutputs:
    def test_checkpoints_of_an_earlier_run(self, world, said):
        (world.folder / "checkpoints" / "_actor" / "global_step10").mkdir(parents=True)
        [found] = said(world.run(RL))
        assert (found.check, found.severity) == ("checkpoints_there", "warning")
        assert said(world.run(RL, {"ckpt.load_enable": True})) == []

    def test_a_run_taken_up_from_its_own_copy(self, world, said):
        copy = world.folder / "checkpoints" / "global_step10_hf"
        shutil.copytree(world.model, copy)
        (world.folder / "checkpoints" / "_actor" / "global_step10").mkdir(parents=True)
        changes = {"ckpt.load_enable": True, "actor.model_name_or_path": copy}
        assert [finding.check for finding in said(world.run(RL, changes))] == ["resumed_model"]

    def test_a_folder_nobody_may_write_to(self, world, said, monkeypatch):
        monkeypatch.setattr(os, "access", lambda *_: False)  # tests may run as root, whom nothing is refused
        found = said(world.run(RL), "folders_can_be_written")
        assert len(found) == 3
        assert all("cannot be written to" in finding.what for finding in found)


def test_every_check_is_tested_and_says_why():
    tested = {fault[0] for fault in FLAG_FAULTS} | {"dual_timeout", "dual_calls", "length_of_traces"}
    checks = [*FLAGS, *(check for _, check in CHECKS)]
    assert {check.__name__ for check in checks} == tested
    assert len({check.__name__ for check in checks}) == len(checks)
    assert all(check.__doc__ for check in checks)
