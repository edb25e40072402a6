#!/usr/bin/env bash
# What a reward costs: seconds a GRPO step by kind of reward, beside a reward that asks nobody, with and without vLLM's
# prefix caching, for a task that is answered by a label and one that is answered by a cell. Finished arms are skipped.
#
#   bash recipes/benchmark_reward.sh
#   STEPS=5 KINDS="likelihood posterior" CACHING=on bash recipes/benchmark_reward.sh
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
: "${RUNS_DIR:=$root/runs/reward-$PROFILE}" "${STEPS:=12}" "${CACHING:=on off}"
: "${KINDS:=oracle duality likelihood posterior}" "${BENCHMARK_TASKS:=cell_type_annotation conditional_cell_generation}"
set_up
bench=(python "$root/recipes/benchmarks/reward.py" --root "$RUNS_DIR" --group-size "$GROUP_SIZE")

if [[ ! -f "$RUNS_DIR/shared/.finished-sft" ]]; then
  # The truth stands in the rows for the oracle.
  for recipe in prepare traces pretrain sft; do GOLD=1 RUN_DIR="$RUNS_DIR/shared" bash "$root/recipes/$recipe.sh"; done
fi
for task in $BENCHMARK_TASKS; do
  for caching in $CACHING; do
    if [[ "$caching" == on ]]; then export PREFIX_CACHING=1; else export PREFIX_CACHING=0; fi
    for kind in random $KINDS; do
      folder="$RUNS_DIR/$task/$caching/$kind"
      [[ ! -f "$folder/.finished-grpo" ]] || continue
      for_real "${bench[@]}" --arm "$task/$caching/$kind" --rows "$((STEPS * ROLLOUT_BATCH))"
      stage="[$task, $kind, prefix caching $caching]" RUN_DIR="$folder" CONFIG="$folder/data/cellduality.json" ACTOR_LR=0 bash "$root/recipes/grpo.sh" "$@"
    done
  done
done
for_real "${bench[@]}"
