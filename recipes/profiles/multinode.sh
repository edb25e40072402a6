# shellcheck shell=bash disable=SC2034  # read by the recipes
# Several nodes of eight GPUs behind one Ray cluster. Start it first:
#   head:   ray start --head --port 6379 --dashboard-host 127.0.0.1
#   others: ray start --address HEAD:6379
# The package is installed on every node, and RUN_DIR is a folder that every node sees under the same path.
: "${NODES:=2}" "${GPUS:=8}"
: "${ENGINES:=$((NODES * GPUS))}"
: "${RAY_JOB_ADDRESS:=http://127.0.0.1:8265}"
: "${ROLLOUT_BATCH:=$((64 * NODES))}" "${TRAIN_BATCH:=$((256 * NODES))}"
source "$(dirname "${BASH_SOURCE[0]}")/a6000x8.sh"
