# shellcheck shell=bash disable=SC2034  # read by the recipes
# One GPU of 48 GB or more: the paper's settings with a smaller rollout; nothing else differs from a6000x8.
: "${ROLLOUT_BATCH:=16}" "${TRAIN_BATCH:=64}" "${MICRO_BATCH:=2}" "${N_RL:=3200}" "${SFT_BATCH:=32}"
: "${GPUS:=1}" "${OFFLOAD=1}"  # the optimiser's state on the host; OFFLOAD= keeps it on the card
source "$(dirname "${BASH_SOURCE[0]}")/a6000x8.sh"
grpo_machine+=(${OFFLOAD:+--ds.adam_offload} --vllm.gpu_memory_utilization 0.35)
sft_machine+=(${OFFLOAD:+--ds.adam_offload})
# Never run; by arithmetic, from tokens.
expect_pretrain=4500 expect_sft=4500 expect_audit=900 expect_evaluate=18000
