# shellcheck shell=bash disable=SC2034  # read by the recipes
# One GPU of 24 GB: the smaller Llama, one sequence at a time; the rest as gpu1.
: "${BASE_MODEL:=meta-llama/Llama-3.2-1B-Instruct}"
: "${MICRO_BATCH:=1}" "${SFT_MICRO_BATCH:=1}" "${MAX_TOKENS_PER_GPU:=4096}" "${ROLLOUT_TOKENS_PER_GPU:=8192}"
source "$(dirname "${BASH_SOURCE[0]}")/gpu1.sh"
