# shellcheck shell=bash disable=SC2034  # read by the recipes
# The paper's machine: one node with eight 48 GB GPUs. G = 8, SFT 3 epochs at 1e-5, 200 updates of 512 samples.
BACKEND=gpu
: "${BASE_MODEL:=meta-llama/Llama-3.2-3B-Instruct}"

: "${TOP_GENES:=200}" "${HIDDEN:=0.25}" "${N_LABELLED:=140}" "${N_RL:=12800}" "${SFT_VIEWS:=4}" "${SFT_LABEL_VIEWS:=4}"
: "${WEIGHTS=}"
: "${MAX_LEN:=4096}" "${MAX_NEW_TOKENS:=1536}"

: "${PRETRAIN_VIEWS:=2}" "${CLUSTERS:=32}" "${PRETRAIN_EPOCHS:=1}" "${PRETRAIN_LR:=1e-5}"
: "${SFT_EPOCHS:=3}" "${SFT_LR:=1e-5}" "${SFT_BATCH:=128}" "${SFT_MICRO_BATCH:=2}"

# 512 samples a rollout in two updates of 256, so that the clip is active.
: "${ROLLOUT_BATCH:=64}" "${GROUP_SIZE:=8}" "${TRAIN_BATCH:=256}" "${MICRO_BATCH:=4}" "${EPISODES:=1}"
: "${ACTOR_LR:=1e-6}" "${LR_WARMUP:=0.03}" "${KL:=1e-2}" "${CLIP:=0.2}" "${TEMPERATURE:=1.0}" "${ADVANTAGE:=group_norm}"
: "${DUAL_TEMPERATURE:=0}" "${VALIDITY_POWER:=1}" "${VALIDITY_SHARE:=0}" "${SAVE_STEPS:=20}"

: "${MAX_TOKENS_PER_GPU:=8192}" "${ROLLOUT_TOKENS_PER_GPU:=16384}"  # of a dynamic batch; MAX_LEN or more
: "${NODES:=1}" "${GPUS:=8}" "${TENSOR_PARALLEL:=1}"
: "${ENGINES:=$((NODES * GPUS / TENSOR_PARALLEL))}"
if [[ "${flash:-0}" == 1 ]]; then
  rows=(--ds.packing_samples) batches=(
    --train.dynamic_batch_enable --train.max_tokens_per_gpu "$MAX_TOKENS_PER_GPU"
    --rollout.max_tokens_per_gpu "$ROLLOUT_TOKENS_PER_GPU"
  )
else
  rows=(--ds.attn_implementation sdpa) batches=()
fi
sft_machine=(--ds.zero_stage 2 "${rows[@]}" --model.gradient_checkpointing_enable)
# Stage 3: with stage 1 or 2 dynamic batches would keep only the last micro-batch's gradient.
grpo_machine=(
  --ds.zero_stage 3 "${rows[@]}" "${batches[@]}" --actor.gradient_checkpointing_enable --ds.enable_sleep
  --vllm.sync_backend nccl --vllm.enable_sleep --vllm.gpu_memory_utilization 0.5
)

expect_prepare=60 expect_traces=15 expect_pretrain=600 expect_sft=600 expect_audit=180 expect_grpo=36000 expect_evaluate=900
