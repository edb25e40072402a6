#!/usr/bin/env bash
# Stage 2: GRPO with the dual reward on unlabelled cells, with the unmodified openrlhf.cli.train_ppo_ray.
# Further arguments go to the trainer.
#
#   bash recipes/grpo.sh
#   RESUME=1 bash recipes/grpo.sh                    # goes on from the last checkpoint
#   ACTOR_LR=5e-5 KL=0.02 bash recipes/grpo.sh --actor.max_norm 0.5
#   cellduality configure runs/cpu/data/cellduality.json --rewards "*=posterior" --out runs/cpu/data/posterior.json
#   CONFIG=runs/cpu/data/posterior.json bash recipes/grpo.sh      # another reward on the same rows
#   PROFILE=multinode NODES=4 RUN_DIR=/shared/run bash recipes/grpo.sh
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
begin_stage
from="$sft"
if [[ "${CHECK_ONLY:-0}" == 1 ]]; then # before SFT: of the same kind as its model is what it starts from
  finished sft && exit 0
  make_base
  from="$model"
  : "${CONFIG:=$data/cellduality.json}"
else
  finished grpo && exit 0
  unmark grpo
fi

if [[ -z "${CONFIG:-}" ]] && nothing_chosen; then
  say "No reward agrees with the truth in any task: there is nothing to train on ($RUN_DIR/audit/audit.md)."
  exit 0
fi
take_choice
agent="${CONFIG%.json}.agent.py"
if [[ "$DRY_RUN" != 1 ]]; then agent="$(cellduality agent-path --config "$CONFIG")"; fi
resume=() caching=()
if [[ "$RESUME" == 1 ]]; then resume=(--ckpt.load_enable); fi
if [[ "$PREFIX_CACHING" == 1 ]]; then caching=(--vllm.enable_prefix_caching); fi

trainer=(python -m openrlhf.cli.train_ppo_ray)
if [[ "$PROFILE" == multinode ]]; then
  # Workers on other nodes see nothing of this shell but this.
  reaching="\"CELLDUALITY_CONFIG\": \"$CONFIG\", \"CELLDUALITY_DEVICE\": \"gpu\", \"PYTHONPATH\": \"$PYTHONPATH\""
  for name in $(compgen -e); do
    if [[ "$name" =~ ^(NCCL|GLOO|VLLM|HF_HUB)_ && ! "$name" =~ (KEY|TOKEN) ]]; then reaching+=", \"$name\": \"${!name}\""; fi
  done
  trainer=(
    # By its name the job is stopped when the recipe is.
    ray job submit --address "$RAY_JOB_ADDRESS" --submission-id "cellduality-$$-$(date +%s)"
    --runtime-env-json "{\"env_vars\": {$reaching}}"
    -- "${trainer[@]}"
  )
fi

trainer=(
  "${launch[@]}" "${trainer[@]}"
  --actor.model_name_or_path "$from" --ckpt.output_dir "$grpo.new" --ckpt.path "$RUN_DIR/checkpoints/grpo"
  --ckpt.save_steps "$SAVE_STEPS" --ckpt.max_num 2 "${resume[@]}"
  --train.agent_func_path "$agent"
  --data.prompt_dataset "$RL_ROWS" --data.input_key input --data.label_key label --data.apply_chat_template
  --data.max_len "$MAX_LEN" --rollout.max_new_tokens "$MAX_NEW_TOKENS"
  --rollout.batch_size "$ROLLOUT_BATCH" --rollout.n_samples_per_prompt "$GROUP_SIZE"
  --rollout.micro_batch_size "$MICRO_BATCH" --rollout.temperature "$TEMPERATURE" --rollout.top_p 1.0
  --train.batch_size "$TRAIN_BATCH" --train.micro_batch_size "$MICRO_BATCH" --train.num_episodes "$EPISODES"
  --train.max_epochs 1 --train.seed "$SEED"
  --algo.advantage.estimator "$ADVANTAGE" --algo.kl.use_loss --algo.kl.estimator k3 --algo.kl.init_coef "$KL"
  --actor.eps_clip "$CLIP" --actor.loss_agg_mode seq-mean-token-mean --actor.adam.lr "$ACTOR_LR"
  --actor.lr_warmup_ratio "$LR_WARMUP"
  --train.colocate_all --actor.num_nodes "$NODES" --actor.num_gpus_per_node "$GPUS"
  --ref.num_nodes "$NODES" --ref.num_gpus_per_node "$GPUS"
  --vllm.num_engines "$ENGINES" --vllm.tensor_parallel_size "$TENSOR_PARALLEL"
  --ds.param_dtype bf16 --logger.tensorboard_dir "$RUN_DIR/tensorboard/grpo" "${grpo_machine[@]}" "${caching[@]}" "$@"
)
run check-grpo 10 cellduality doctor -- "${trainer[@]}"
if [[ "${CHECK_ONLY:-0}" == 1 ]]; then exit 0; fi
# A stopped run is taken up only on request; otherwise its checkpoints would be mistaken for this run's.
if [[ "$RESUME" != 1 ]]; then
  for_real rm -rf "$RUN_DIR/checkpoints/grpo" "$RUN_DIR/tensorboard/grpo" "$RUN_DIR/rollouts" "$RUN_DIR/alarms.jsonl"
fi
run grpo "${expected[grpo]}" "${trainer[@]}"

for_real replace_folder "$grpo.new" "$grpo"
pack_model "$grpo" "$CONFIG"
mark_finished grpo
