#!/usr/bin/env bash
# What reasoning traces and dual rows are worth to SFT: with and without either, on held-out cells in both directions,
# over seeds, as Markdown. "answers" are the rows that "traces" has, without their reasoning; "primal" leaves the dual
# rows out. Every row is seen equally often. Finished parts are skipped.
#
#   bash recipes/benchmark_traces.sh
#   SEEDS="0 1 2 3 4" SPLIT=validation bash recipes/benchmark_traces.sh
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
: "${SEEDS:=42 43 44}" "${RUNS_DIR:=$root/runs/traces-$PROFILE}"
set_up

found=()
for seed in $SEEDS; do
  models=()
  for arm in "1 both" "0 both" "1 primal" "0 primal"; do
    read -r TRACES SFT_DIRECTIONS <<<"$arm"
    if [[ "$TRACES" == 1 ]]; then name="traces, $SFT_DIRECTIONS"; else name="answers, $SFT_DIRECTIONS"; fi
    export TRACES SFT_DIRECTIONS SEED="$seed" RUN_DIR="$RUNS_DIR/$seed/${name/, /-}" RESUME=1
    stage="[seed $seed, $name]"
    export stage
    for recipe in prepare traces pretrain sft; do bash "$root/recipes/$recipe.sh"; done
    models+=(--model "$name=$RUN_DIR/sft")
  done
  RUN_DIR="$RUNS_DIR/$seed"
  stage="[seed $seed]" evaluate_models "$RUN_DIR/traces-both/data" "$SPLIT" "$RUN_DIR/$SPLIT" "$@"
  found+=("$RUN_DIR/$SPLIT/metrics.json")
done
if [[ "$DRY_RUN" != 1 ]]; then
  cellduality seeds "${found[@]}" --before "answers, both" --after "traces, both" | tee "$RUNS_DIR/$SPLIT.md"
fi
