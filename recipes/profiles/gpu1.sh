# shellcheck shell=bash disable=SC2034  # read by the recipes
# One GPU of 48 GB or more: the paper's settings with a smaller rollout; nothing else differs from a6000x8.
: "${ROLLOUT_BATCH:=16}" "${TRAIN_BATCH:=64}" "${MICRO_BATCH:=2}" "${N_RL:=3200}" "${SFT_BATCH:=32}"
: "${NODES:=1}" "${GPUS:=1}" "${ENGINES:=1}"
# shellcheck source=recipes/profiles/a6000x8.sh
source "$(dirname "${BASH_SOURCE[0]}")/a6000x8.sh"
grpo_machine+=(--ds.adam_offload --vllm.gpu_memory_utilization 0.35)
sft_machine+=(--ds.adam_offload)
