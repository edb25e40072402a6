"""What is found on which command, with which file, with which configuration."""

from __future__ import annotations

from typing import Any

from cellduality_plugin.agent_file import packaged_agent_file
from cellduality_plugin.openrlhf_hooks.doctor.flags import RL, SFT
from cellduality_plugin.openrlhf_hooks.doctor.machine import GIB

NOWHERE = "http://127.0.0.1:9"
JOB = f"ray job submit --address {NOWHERE}"
ON_GPU = "python -m"
CARDS = {"gpus": 8, "gpu_memory": 48 * GIB, "has_flash_attention": True}
STOOD_IN = {"PATH": "/bin", "CELLDUALITY_DEVICE": "gpu"}
CPU: dict[str, Any] = {}
GPU = {"launch": ON_GPU, **CARDS}
PACKAGED = f"--train.agent_func_path {packaged_agent_file()}"
EIGHT = (
    "--vllm.num_engines 8 --actor.num_gpus_per_node 8 --ref.num_gpus_per_node 8 --rollout.n_samples_per_prompt 16 "
    "--train.batch_size 80"
)
DATE = (
    '{{ strftime_now("%d") }}{% for m in messages %}{{ m.content }}'
    '{% if m.role != "user" %}<|end|>{% endif %}{% endfor %}'
)
TEMPLATE = "--data.tokenizer_chat_template"
ANNOTATION, GENERATION = "cell_type_annotation", "conditional_cell_generation"

# what is found, whose run, its flags beside the good ones, where it is started
COMMANDS: list[tuple[str, str, str, dict[str, Any]]] = [
    ("", SFT, "", CPU),
    ("", RL, "", CPU),
    ("", SFT, "", GPU),
    ("", RL, "", GPU),
    ("error unknown_flags", RL, "--actor_learning_rate 1", CPU),
    ("error unknown_flags", SFT, "--pretrain model", CPU),
    ("error any_update, error refused_flags, error rollouts_fill_batches", RL, "--rollout.n_samples_per_prompt 1", CPU),
    ("error refused_flags", RL, "--data.max_len long", CPU),
    ("error refused_flags, warning corrected_flags", SFT, "--help", CPU),
    (
        "error engines, error flags_for_a_gpu, error refused_flags, warning corrected_flags", RL,
        "--train.dynamic_batch_enable ~vllm.num_engines", CPU,
    ),
    ("warning corrected_flags", RL, "--ds.packing_samples", GPU),
    ("warning corrected_flags", RL, "--vllm.enable_sleep ~train.colocate_all", CPU),
    ("error optimisers", RL, "", {**GPU, "has_optimisers": False}),
    ("error flags_for_a_gpu", RL, "--vllm.sync_backend nccl", CPU),
    ("warning flags_for_a_gpu", SFT, "", {"launch": ON_GPU}),
    ("error readable_environment, note enough_cards", RL, "", {"launch": f"{JOB} --runtime-env-json={{ -- {ON_GPU}"}),
    ("note enough_cards, note readable_environment", RL, "", {"launch": f"{JOB} --runtime-env e.yaml -- {ON_GPU}"}),
    ("warning agent_and_url", RL, "--reward.remote_url http://a", CPU),
    ("warning agent_and_url", RL, "--reward.model_name_or_path m", CPU),
    ("error no_reward", RL, "~train.agent_func_path", CPU),
    ("error agent_file", RL, "--train.agent_func_path {}/model", CPU),
    ("error reward_file", RL, "~train.agent_func_path --reward.remote_url {}/gone.py", CPU),
    ("error configuration", RL, PACKAGED, CPU),
    (
        "error zero_and_dynamic_batch", RL, "--ds.zero_stage 2 --train.dynamic_batch_enable --ds.packing_samples "
        "--rollout.max_tokens_per_gpu 512 --ds.attn_implementation flash_attention_2", GPU,
    ),
    ("error adapters", RL, "--ds.lora.rank 8", CPU),
    ("error adapters", RL, "--ds.load_in_4bit", GPU),
    ("note unmerged_adapters", SFT, "--ds.lora.rank 8", CPU),
    ("error partial_rollout", RL, "--train.partial_rollout_enable --train.async_enable ~train.colocate_all", CPU),
    ("warning async_with_colocate, warning corrected_flags", RL, "--train.async_enable", CPU),
    ("warning estimator", RL, "--algo.advantage.estimator gae", CPU),
    (
        "warning estimator", RL, "--algo.advantage.estimator reinforce --rollout.n_samples_per_prompt 1 "
        "--train.batch_size 5 --train.micro_batch_size 1", CPU,
    ),
    ("warning dynamic_filtering", RL, "--algo.dynamic_filtering_enable", CPU),
    ("error clipping", RL, "--actor.dual_clip 1.0", CPU),
    ("error clipping", RL, "--actor.eps_clip 0.0", CPU),
    ("error clipping", RL, "--actor.eps_clip_low_high 0.2 -0.1", CPU),
    (
        "error correction", RL,
        "--algo.advantage.is_correction_level seq --algo.advantage.is_correction_mode clip", CPU,
    ),
    (
        "error correction", RL,
        "--algo.advantage.is_correction_level seq --algo.advantage.is_correction_gating tv", CPU,
    ),
    ("error temperature", RL, "--rollout.temperature 0.0", CPU),
    ("warning temperature", RL, "--rollout.top_p 0.9", CPU),
    ("error advantage_range", RL, "--reward.clip_range 0 1", CPU),
    ("error precision", RL, "--ds.param_dtype fp16", CPU),
    ("error rollouts_fill_batches", RL, "--train.batch_size 4", CPU),
    (
        "error refused_flags, error rollouts_fill_batches", RL,
        "--rollout.batch_size 0 --rollout.vllm_generate_batch_size 0", CPU,
    ),
    ("error batches_fill_devices", RL, "--train.micro_batch_size 3", CPU),
    ("error batches_fill_devices", RL, "--train.micro_batch_size 0", CPU),
    (
        "error batches_fill_devices", SFT, "--train.batch_size 3 --train.micro_batch_size 1",
        {"launch": "cellduality-cpu torchrun --nproc-per-node 2 -m"},
    ),
    ("note batches_fill_devices, note card_memory", SFT, "", {"launch": "cellduality-cpu deepspeed --module"}),
    ("error rollouts_fill_ranks", RL, f"{EIGHT} --rollout.micro_batch_size 3", GPU),
    (
        "error prompts_fill_rollouts", RL, f"{EIGHT} --rollout.batch_size 4 --train.batch_size 64 "
        "--rollout.micro_batch_size 4 --train.micro_batch_size 4", GPU,
    ),
    ("warning prompts_fill_rollouts", RL, "--rollout.batch_size 4 --train.batch_size 8", CPU),
    ("note rows_left_out", RL, "--data.max_samples 4 --rollout.batch_size 4 --train.batch_size 8", CPU),
    (
        "error any_update, note rows_left_out, warning prompts_fill_rollouts", RL,
        "--data.max_samples 4 --train.batch_size 10", CPU,
    ),
    ("error any_update", SFT, "--train.batch_size 4096", CPU),
    ("error engines", RL, "--vllm.num_engines 0", CPU),
    ("error engines", RL, "--vllm.num_engines 2", CPU),
    ("error engines", RL, "--vllm.tensor_parallel_size 3 ~train.colocate_all", CPU),
    ("error colocated_sizes", RL, "~ref.num_gpus_per_node", CPU),
    ("error enough_cards", RL, f"{EIGHT} ~train.colocate_all", GPU),
    (
        "error enough_cards", RL, "--vllm.num_engines 2 ~train.colocate_all --train.colocate_actor_ref",
        {"variables": {"CELLDUALITY_CPU_SLOTS": "2"}},
    ),
    (
        "error enough_cards", SFT, "--train.micro_batch_size 1",
        {**CARDS, "launch": "torchrun --nproc-per-node=2 -m", "gpus": 1},
    ),
    ("error data_files", RL, "--data.prompt_dataset {}/gone.jsonl", CPU),
    ("error data_files", RL, "--data.prompt_dataset {}/a,b.jsonl", CPU),
    ("error data_files", SFT, "~data.dataset", CPU),
    ("note data_files", RL, "--data.prompt_dataset somebody/rows", CPU),
    ("error keys", RL, "~data.label_key", CPU),
    ("error keys", SFT, "~data.output_key", CPU),
    ("error keys", SFT, "--data.input_key question", CPU),
    ("error model_folder", RL, "--actor.model_name_or_path {}/gone", CPU),
    ("error model_folder", SFT, "~model.model_name_or_path", CPU),
    (
        "note card_memory, note model_folder, note positions", RL, "--actor.model_name_or_path nobody/no-such-model",
        CPU,
    ),
    ("error positions", RL, "--data.max_len 257", CPU),
    ("error rl_rows, error room_for_prompts", RL, "--rollout.max_new_tokens 256", CPU),
    ("warning room_for_prompts", RL, "~rollout.max_new_tokens", CPU),
    ("error rl_rows", RL, "--data.max_len 64", CPU),
    ("error sft_rows", SFT, "--data.max_len 40", CPU),
    ("error chat_template_is_applied", SFT, "~data.apply_chat_template", CPU),
    ("error chat_template_is_applied", RL, "~data.apply_chat_template", CPU),
    ("note chat_template_is_applied, warning corrected_flags", RL, "--data.input_template 'Q: {x}'", CPU),
    ("error end_of_response, error template_given_as_text", SFT, f"{TEMPLATE} {{}}/model/chat_template.jinja", CPU),
    ("error model_folder", SFT, f"{TEMPLATE} '{{{{ messages'", CPU),
    ("warning date_in_template", SFT, f"{TEMPLATE} '{DATE}'", CPU),
    ("warning end_of_response", SFT, f"{TEMPLATE} '{{% for m in messages %}}{{{{ m.content }}}}{{% endfor %}}'", CPU),
    ("error end_of_response", SFT, f"{TEMPLATE} '{{{{ messages | length }}}} turns<|end|>'", CPU),
    ("warning checkpoints_there", RL, "--ckpt.load_enable", CPU),
    ("error resumed_model, warning checkpoints_there", RL, "--ckpt.load_enable --ckpt.output_dir {}/model", CPU),
    ("note no_checkpoints", RL, "~ckpt.save_steps", CPU),
    ("error folders_can_be_written", RL, "--ckpt.output_dir {}/data/rl.jsonl/new", CPU),
    ("note enough_cards, warning relative_paths", RL, "--ckpt.path checkpoints", {"launch": f"{JOB} -- {ON_GPU}"}),
    ("warning unrotated_copies", RL, "--ckpt.save_hf", CPU),
    ("warning disk_space", RL, "--ckpt.max_num 1000000000000000", CPU),
    ("warning evaluation_without_rows", RL, "--eval.steps 5", CPU),
    ("warning evaluation_without_rows", SFT, "--eval.dataset {}/data/sft.jsonl", CPU),
    ("note meaning_of_evaluation", RL, "--eval.steps 5 --eval.dataset {}/data/rl.jsonl", CPU),
    ("warning versions", RL, "", {"python": (3, 13)}),
    ("warning versions", RL, "", {"versions": {"openrlhf": "0.11.3"}}),
    ("error flash_attention", RL, "", {**GPU, "has_flash_attention": False}),
    ("note flash_attention", RL, "", {**GPU, "has_flash_attention": False, "variables": STOOD_IN}),
    (
        "error flash_attention", RL, "--ds.packing_samples --ds.attn_implementation flash_attention_2",
        {**GPU, "has_flash_attention": False, "variables": STOOD_IN},
    ),
    ("error flags_for_a_gpu", RL, "", {"launch": ON_GPU, "unusable": "550.54"}),
    (
        "note enough_cards, warning configuration_reaches_workers", RL, PACKAGED, {"launch": f"{JOB} -- {ON_GPU}"},
    ),
    ("error engine_cache, warning card_memory", RL, "", {**GPU, "gpu_memory": GIB / 64}),
    ("error card_memory, error engine_cache", RL, "", {**GPU, "gpu_memory": GIB / 2**14}),
    ("warning host_memory", RL, "", {"host_memory": GIB / 2}),
    ("error engine_cache", RL, "--vllm.gpu_memory_utilization 0.5", {**GPU, "gpu_memory": 2 * GIB}),
    (
        "warning engine_cache", RL, "--vllm.gpu_memory_utilization 0.5",
        {**GPU, "gpu_memory": 2 * GIB + 2 * 64 * 300 * 2},
    ),
]  # fmt: skip

IMPORT = "from openrlhf.utils.agent import AgentExecutorBase\n"
OURS = "from cellduality_plugin.openrlhf_hooks.executor import DualityExecutor\n"
FUNCTION = "def reward_func(queries, prompts, labels):\n    return []\n"
AGENT, REWARD = "--train.agent_func_path {}/file.py", "~train.agent_func_path --reward.remote_url {}/file.py"
ONE_TURN = "{% if messages | length > 1 %}{{ raise_exception('one turn') }}{% endif %}{{ messages[0].content }}"

CELLS, CELL = "data/cells.jsonl", '{{"id": "{}", "split": "{}", "labelled": true, "genes": []}}\n'
# what is found, whose run, its flags, the file that is written (None: deleted), its text
FILES: list[tuple[str, str, str, str, str | None]] = [
    ("error agent_file", RL, AGENT, "file.py", "class Agent:\n    pass\n"),
    ("error agent_file", RL, AGENT, "file.py", "from .mine import AgentExecutor\n"),
    (
        "error agent_file", RL, AGENT, "file.py", "from __future__ import annotations\n"
        "from dataclasses import dataclass\n@dataclass\nclass A:\n    x: int\nclass AgentExecutor(A):\n    pass\n",
    ),
    (
        "note agent_file", RL, f"{AGENT} ~data.label_key", "file.py",
        f"{IMPORT}class AgentExecutor(AgentExecutorBase):\n    pass\n",
    ),
    ("error configuration", RL, AGENT, "file.py", packaged_agent_file().read_text(encoding="utf-8")),
    ("error configuration", RL, AGENT, "file.py", f"{OURS}class AgentExecutor(DualityExecutor):\n    pass\n"),
    ("error reward_file", RL, REWARD, "file.py", "def other():\n    pass\n"),
    ("error reward_file", RL, f"{REWARD},b.py", "file.py", FUNCTION),
    ("", RL, REWARD, "file.py", FUNCTION),
    ("error configuration", RL, "", "data/cellduality.json", None),
    ("error configuration", RL, "", "data/cellduality.json", "{"),
    ("error any_update, error rl_rows, warning prompts_fill_rollouts", RL, "", "data/rl.jsonl", '{"input": "a"}\n'),
    ("error sft_rows", SFT, "", "data/sft.jsonl", "[]\n"),
    ("", RL, "", CELLS, CELL.format("set/AAAC-1", "train")),
    ("error held_out_rows", SFT, "", CELLS, CELL.format("set/AAAC-1", "ood")),
    ("error held_out_rows", RL, "", CELLS, CELL.format("set/AAAC-1", "test")),
    ("error held_out_rows", RL, "", CELLS, CELL.format("set/another", "train")),
    ("error model_folder", RL, "", "model/chat_template.jinja", "{{ raise_exception('never') }}"),
    ("error end_of_response", SFT, "", "model/chat_template.jinja", ONE_TURN),
    ("", RL, "", "model/chat_template.jinja", ONE_TURN),
    ("warning date_in_template", RL, "", "model/chat_template.jinja", DATE),
    ("warning checkpoints_there", RL, "", "checkpoints/_actor/latest", ""),
    ("", RL, "--ckpt.load_enable", "checkpoints/_actor/latest", ""),
]  # fmt: skip

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
