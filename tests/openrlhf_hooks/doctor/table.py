"""What is found on which command, with which file, with which configuration."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from cellduality_plugin.agent_file import AGENT_FILE
from cellduality_plugin.openrlhf_hooks.doctor.flags import RL, SFT
from cellduality_plugin.openrlhf_hooks.doctor.machine import GIB

NOWHERE = "http://127.0.0.1:9"
JOB = f"ray job submit --address {NOWHERE}"
ON_GPU = "python -m"
CARDS = {"gpus": 8, "gpu_memory": 48 * GIB, "has_flash_attention": True}
STOOD_IN = {"PATH": "/bin", "CELLDUALITY_DEVICE": "gpu"}
GPU = {"launch": ON_GPU, **CARDS}
PACKAGED = f"--train.agent_func_path {AGENT_FILE}"
EIGHT = (
    "--vllm.num_engines 8 --actor.num_gpus_per_node 8 --ref.num_gpus_per_node 8 --rollout.n_samples_per_prompt 16 "
    "--train.batch_size 80"
)
DATE = (
    '{{ strftime_now("%d") }}{% for m in messages %}{{ m.content }}'
    '{% if m.role != "user" %}<|end|>{% endif %}{% endfor %}'
)
ANNOTATION, GENERATION = "cell_type_annotation", "conditional_cell_generation"

# what is found | flags beside the good ones, of runs on a CPU and on eight cards
RL_ON_CPU = """
 |
error unknown_flags | --actor_learning_rate 1
error any_update, error refused_flags, error rollouts_fill_batches | --rollout.n_samples_per_prompt 1
error refused_flags | --data.max_len long
error engines, error flags_for_a_gpu, error refused_flags, warning corrected_flags | \
--train.dynamic_batch_enable ~vllm.num_engines
warning corrected_flags | --vllm.enable_sleep ~train.colocate_all
error flags_for_a_gpu | --vllm.sync_backend nccl
warning agent_and_url | --reward.remote_url http://a
warning agent_and_url | --reward.model_name_or_path m
error no_reward | ~train.agent_func_path
error agent_file | --train.agent_func_path {}/model
error reward_file | ~train.agent_func_path --reward.remote_url {}/gone.py
error configuration | PACKAGED
error adapters | --ds.lora.rank 8
error partial_rollout | --train.partial_rollout_enable --train.async_enable ~train.colocate_all
warning async_with_colocate, warning corrected_flags | --train.async_enable
warning estimator | --algo.advantage.estimator gae
warning estimator | --algo.advantage.estimator reinforce --rollout.n_samples_per_prompt 1 --train.batch_size 5 \
--train.micro_batch_size 1
warning dynamic_filtering | --algo.dynamic_filtering_enable
error clipping | --actor.dual_clip 1.0
error clipping | --actor.eps_clip 0.0
error clipping | --actor.eps_clip_low_high 0.2 -0.1
error correction | --algo.advantage.is_correction_level seq --algo.advantage.is_correction_mode clip
error correction | --algo.advantage.is_correction_level seq --algo.advantage.is_correction_gating tv
error temperature | --rollout.temperature 0.0
warning temperature | --rollout.top_p 0.9
error advantage_range | --reward.clip_range 0 1
error precision | --ds.param_dtype fp16
error rollouts_fill_batches | --train.batch_size 4
error refused_flags, error rollouts_fill_batches | --rollout.batch_size 0 --rollout.vllm_generate_batch_size 0
error batches_fill_devices | --train.micro_batch_size 3
error batches_fill_devices | --train.micro_batch_size 0
warning prompts_fill_rollouts | --rollout.batch_size 4 --train.batch_size 8
note rows_left_out | --data.max_samples 4 --rollout.batch_size 4 --train.batch_size 8
error any_update, note rows_left_out, warning prompts_fill_rollouts | --data.max_samples 4 --train.batch_size 10
error engines | --vllm.num_engines 0
error engines | --vllm.num_engines 2
error engines | --vllm.tensor_parallel_size 3 ~train.colocate_all
error colocated_sizes | ~ref.num_gpus_per_node
error data_files | --data.prompt_dataset {}/gone.jsonl
error data_files | --data.prompt_dataset {}/a,b.jsonl
note data_files | --data.prompt_dataset somebody/rows
error keys | ~data.label_key
error model_folder | --actor.model_name_or_path {}/gone
note card_memory, note model_folder, note positions | --actor.model_name_or_path nobody/no-such-model
error positions | --data.max_len 257
error rl_rows, error room_for_prompts | --rollout.max_new_tokens 256
warning room_for_prompts | ~rollout.max_new_tokens
error rl_rows | --data.max_len 64
error chat_template_is_applied | ~data.apply_chat_template
note chat_template_is_applied, warning corrected_flags | --data.input_template 'Q: {x}'
warning checkpoints_there | --ckpt.load_enable
error resumed_model, warning checkpoints_there | --ckpt.load_enable --ckpt.output_dir {}/model
note no_checkpoints | ~ckpt.save_steps
error folders_can_be_written | --ckpt.output_dir {}/data/rl.jsonl/new
warning unrotated_copies | --ckpt.save_hf
warning disk_space | --ckpt.max_num 1000000000000000
warning evaluation_without_rows | --eval.steps 5
note meaning_of_evaluation | --eval.steps 5 --eval.dataset {}/data/rl.jsonl
"""
SFT_ON_CPU = """
 |
error unknown_flags | --pretrain model
error refused_flags, warning corrected_flags | --help
note unmerged_adapters | --ds.lora.rank 8
error any_update | --train.batch_size 4096
error data_files | ~data.dataset
error keys | ~data.output_key
error keys | --data.input_key question
error model_folder | ~model.model_name_or_path
error sft_rows | --data.max_len 40
error chat_template_is_applied | ~data.apply_chat_template
error end_of_response, error template_given_as_text | TEMPLATE {}/model/chat_template.jinja
error model_folder | TEMPLATE '{{ messages'
warning date_in_template | TEMPLATE 'DATE'
warning end_of_response | TEMPLATE '{% for m in messages %}{{ m.content }}{% endfor %}'
error end_of_response | TEMPLATE '{{ messages | length }} turns<|end|>'
warning evaluation_without_rows | --eval.dataset {}/data/sft.jsonl
"""
RL_ON_CARDS = """
 |
warning corrected_flags | --ds.packing_samples
error zero_and_dynamic_batch | --ds.zero_stage 2 --train.dynamic_batch_enable --ds.packing_samples \
--rollout.max_tokens_per_gpu 512 --ds.attn_implementation flash_attention_2
error adapters | --ds.load_in_4bit
error rollouts_fill_ranks | EIGHT --rollout.micro_batch_size 3
error prompts_fill_rollouts | EIGHT --rollout.batch_size 4 --train.batch_size 64 --rollout.micro_batch_size 4 \
--train.micro_batch_size 4
error enough_cards | EIGHT ~train.colocate_all
"""
NAMES = {"EIGHT": EIGHT, "PACKAGED": PACKAGED, "TEMPLATE": "--data.tokenizer_chat_template", "DATE": DATE}


def _rows(text: str, trainer: str, where: dict[str, Any]) -> Iterator[tuple[str, str, str, dict[str, Any]]]:
    for line in text.strip("\n").split("\n"):
        found, _, words = (part.strip() for part in line.partition("|"))
        for name, given in NAMES.items():
            words = words.replace(name, given)
        yield found, trainer, words, where


NO_FLASH = {**GPU, "has_flash_attention": False}
PACKED = "--ds.packing_samples --ds.attn_implementation flash_attention_2"
ONE_EACH, CPU, TORCHRUN = "--train.micro_batch_size 1", "cellduality-cpu", "torchrun --nproc-per-node"
# what is found, whose run, its flags beside the good ones, where it is started
COMMANDS: list[tuple[str, str, str, dict[str, Any]]] = [
    *_rows(RL_ON_CPU, RL, {}),
    *_rows(SFT_ON_CPU, SFT, {}),
    *_rows(RL_ON_CARDS, RL, GPU),
    ("", SFT, "", GPU),
    ("error optimisers", RL, "", {**GPU, "has_optimisers": False}),
    ("warning flags_for_a_gpu", SFT, "", {"launch": ON_GPU}),
    ("error readable_environment, note enough_cards", RL, "", {"launch": f"{JOB} --runtime-env-json={{ -- {ON_GPU}"}),
    ("error readable_environment, note enough_cards", RL, "", {"launch": f"{JOB} --runtime-env-json [] -- {ON_GPU}"}),
    ("note enough_cards, note readable_environment", RL, "", {"launch": f"{JOB} --runtime-env e.yaml -- {ON_GPU}"}),
    ("error batches_fill_devices", SFT, f"--train.batch_size 3 {ONE_EACH}", {"launch": f"{CPU} {TORCHRUN}=2 -m"}),
    ("note batches_fill_devices, note card_memory", SFT, "", {"launch": "cellduality-cpu deepspeed --module"}),
    (
        "error enough_cards", RL, "--vllm.num_engines 2 ~train.colocate_all --train.colocate_actor_ref",
        {"variables": {"CELLDUALITY_CPU_SLOTS": "2"}},
    ),
    ("error enough_cards", SFT, ONE_EACH, {**CARDS, "launch": f"{TORCHRUN}=2 -m", "gpus": 1}),
    ("note enough_cards, warning relative_paths", RL, "--ckpt.path checkpoints", {"launch": f"{JOB} -- {ON_GPU}"}),
    ("warning versions", RL, "", {"python": (3, 13)}),
    ("warning versions", RL, "", {"versions": {"openrlhf": "0.11.3"}}),
    ("error flash_attention", RL, "", NO_FLASH),
    ("note flash_attention", RL, "", {**NO_FLASH, "variables": STOOD_IN}),
    ("error flash_attention", RL, PACKED, {**NO_FLASH, "variables": STOOD_IN}),
    ("error flags_for_a_gpu", RL, "", {"launch": ON_GPU, "unusable": "550.54"}),
    ("note enough_cards, warning configuration_reaches_workers", RL, PACKAGED, {"launch": f"{JOB} -- {ON_GPU}"}),
    ("error engine_cache, warning card_memory", RL, "", {**GPU, "gpu_memory": GIB / 64}),
    ("error card_memory, error engine_cache", RL, "", {**GPU, "gpu_memory": GIB / 2**14}),
    ("warning host_memory", RL, "", {"host_memory": GIB / 2}),
    ("error engine_cache", RL, "--vllm.gpu_memory_utilization 0.5", {**GPU, "gpu_memory": 2 * GIB}),
    ("warning engine_cache", RL, "--vllm.gpu_memory_utilization 0.5", {**GPU, "gpu_memory": 2 * GIB + 76800}),
]  # fmt: skip

ANOTHER = "from openrlhf.utils.agent import AgentExecutorBase\nclass AgentExecutor(AgentExecutorBase):\n    pass\n"
OURS = "from cellduality_plugin.openrlhf_hooks.executor import DualityExecutor\n"
OURS += "class AgentExecutor(DualityExecutor):\n    pass\n"
POSTPONED = "from __future__ import annotations\nfrom dataclasses import dataclass\n@dataclass\nclass A:\n    x: int\n"
POSTPONED += "class AgentExecutor(A):\n    pass\n"
FUNCTION = "def reward_func(queries, prompts, labels):\n    return []\n"
AGENT, REWARD = "--train.agent_func_path {}/file.py", "~train.agent_func_path --reward.remote_url {}/file.py"
ONE_TURN = "{% if messages | length > 1 %}{{ raise_exception('one turn') }}{% endif %}{{ messages[0].content }}"

RL_ROWS, SFT_ROWS, CELLS, TEMPLATE = "data/rl.jsonl", "data/sft.jsonl", "data/cells.jsonl", "model/chat_template.jinja"
CONFIG, CHECKPOINT, CELL = "data/cellduality.json", "checkpoints/_actor/latest", '{{"id": "{}", "split": "{}"}}\n'
TRAINED, OF_A, OF_B = CELL.format("set/AAAC-1", "train"), '{"vocabulary": "a"}', '{"vocabulary": "b"}'
# what is found, whose run, its flags, the files that are written (None: deleted)
FILES: list[tuple[str, str, str, dict[str, str | None]]] = [
    ("error agent_file", RL, AGENT, {"file.py": "class Agent:\n    pass\n"}),
    ("error agent_file", RL, AGENT, {"file.py": "from .mine import AgentExecutor\n"}),
    ("error agent_file", RL, AGENT, {"file.py": POSTPONED}),
    ("note agent_file", RL, f"{AGENT} ~data.label_key", {"file.py": ANOTHER}),
    ("error configuration", RL, AGENT, {"file.py": AGENT_FILE.read_text(encoding="utf-8")}),
    ("error configuration", RL, AGENT, {"file.py": OURS}),
    ("error reward_file", RL, REWARD, {"file.py": "def other():\n    pass\n"}),
    ("error reward_file", RL, f"{REWARD},b.py", {"file.py": FUNCTION}),
    ("", RL, REWARD, {"file.py": FUNCTION}),
    ("error configuration", RL, "", {CONFIG: None}),
    ("error configuration", RL, "", {CONFIG: "{"}),
    ("error any_update, error rl_rows, warning prompts_fill_rollouts", RL, "", {RL_ROWS: '{"input": "a"}\n'}),
    ("error sft_rows", SFT, "", {SFT_ROWS: "[]\n"}),
    ("", RL, "", {CELLS: TRAINED}),
    ("error held_out_rows", SFT, "", {CELLS: CELL.format("set/AAAC-1", "ood")}),
    ("error held_out_rows", RL, "", {CELLS: CELL.format("set/AAAC-1", "test")}),
    ("error held_out_rows", RL, "", {CELLS: CELL.format("set/another", "train")}),
    ("", RL, "", {CELLS: TRAINED, f"{CELLS}.manifest.json": OF_A, f"{RL_ROWS}.manifest.json": OF_A}),
    ("error held_out_rows", RL, "", {CELLS: TRAINED, f"{CELLS}.manifest.json": OF_A, f"{RL_ROWS}.manifest.json": OF_B}),
    ("error model_folder", RL, "", {TEMPLATE: "{{ raise_exception('never') }}"}),
    ("error end_of_response", SFT, "", {TEMPLATE: ONE_TURN}),
    ("", RL, "", {TEMPLATE: ONE_TURN}),
    ("warning date_in_template", RL, "", {TEMPLATE: DATE}),
    ("warning checkpoints_there", RL, "", {CHECKPOINT: ""}),
    ("", RL, "--ckpt.load_enable", {CHECKPOINT: ""}),
]

TRACES = {"traces": 1, "reward": "posterior"}
# what is found when settings of the configuration are others
SETTINGS: list[tuple[str, dict[str, Any]]] = [
    ("error configuration", {"tasks": {GENERATION: {"reward": "duality-rwjs"}}}),
    ("error configuration", {"vocabulary": "gone.json"}),
    ("error rl_rows", {"tasks": {ANNOTATION: {"reward": "oracle"}}}),
    ("", {"dual": {"timeout_seconds": 600}}),
    ("warning dual_timeout", {"dual": {"timeout_seconds": 3600}}),
    ("note dual_calls", {"tasks": {ANNOTATION: TRACES}, "dual": {"max_new_tokens": 8}}),
    ("", {"tasks": {ANNOTATION: {**TRACES, "reward": "duality"}}, "dual": {"max_new_tokens": 8}}),
    ("note dual_calls, warning length_of_traces", {"tasks": {ANNOTATION: TRACES}, "dual": {}}),
]
RUNS = [
    *COMMANDS,
    *((found, trainer, words, {"files": files}) for found, trainer, words, files in FILES),
    *((found, RL, "", {"settings": settings}) for found, settings in SETTINGS),
]
