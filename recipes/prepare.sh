#!/usr/bin/env bash
# Cells -> rows for SFT, RL and evaluation.
#
#   bash recipes/prepare.sh
#   DATASET=my.h5ad bash recipes/prepare.sh --label-column cell_type --perturbation-column condition
#   DATASET=screen.h5ad PREPARE_OPTIONS="--perturbation-column target --match batch" bash recipes/grpo_duality.sh
#   DATASET="he_2020_liver segerstolpe_2016" TASKS=cell_type_annotation bash recipes/prepare.sh
#   DRY_RUN=1 bash recipes/prepare.sh
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
begin_stage

# Several sets are parted by blanks; a path that holds blanks is one set.
if [[ -f "$DATASET" ]]; then sources=("$DATASET"); else read -ra sources <<<"$DATASET"; fi
kept_out=()
IFS=';' read -ra items <<<"$HELD_OUT"
for item in "${items[@]}"; do kept_out+=(--held-out "$item"); done
for item in $FOREIGN; do kept_out+=(--foreign "$item"); done
if [[ "$LABEL_SEED" == seed ]]; then LABEL_SEED="$SEED"; fi
options=()
if [[ -n "$PREPARE_OPTIONS" ]]; then # blanks part them, quotes keep blanks
  words="$(xargs -n 1 printf '%s\n' <<<"$PREPARE_OPTIONS")" || die "PREPARE_OPTIONS=$PREPARE_OPTIONS" "close its quotes"
  mapfile -t options <<<"$words"
fi
watched=() pretraining=()
if [[ "$GOLD" == 1 ]]; then watched=(--gold-for-monitoring); fi
if [[ "$PRETRAIN" != 0 ]]; then pretraining=(--pretrain-views "$PRETRAIN_VIEWS" --clusters "$CLUSTERS"); fi

# Until an audit has chosen: what knows every label of a set.
prepared="$REWARDS"
if [[ "$REWARDS" == auto ]]; then
  printf -v prepared '%s=posterior,' cell_type_annotation conditional_cell_generation drug_sensitivity_prediction \
    drug_exposure_prediction perturbation_response_generation perturbation_identification
  prepared="${prepared%,}"
fi

run prepare "${expected[prepare]}" cellduality data prepare "${sources[@]}" --out "$data" --label-column "$LABEL_COLUMN" \
  --task "$TASKS" --weights "$WEIGHTS" --rewards "$prepared" --votes "$VOTES" "${kept_out[@]}" \
  --top-genes "$TOP_GENES" --genes "$N_GENES" --hidden "$HIDDEN" --max-cells "$MAX_CELLS" --labelled "$N_LABELLED" \
  --rl-rows "$N_RL" --masks "$MASKS" --sft-views "$SFT_VIEWS" --sft-label-views "$SFT_LABEL_VIEWS" "${pretraining[@]}" \
  --dual-temperature "$DUAL_TEMPERATURE" --validity-power "$VALIDITY_POWER" --validity-share "$VALIDITY_SHARE" --seed "$DATA_SEED" --label-seed "$LABEL_SEED" \
  --small-classes "$SMALL_CLASSES" --records "$RUN_DIR/rollouts" "${watched[@]}" "${options[@]}" "$@"
