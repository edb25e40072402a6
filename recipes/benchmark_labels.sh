#!/usr/bin/env bash
# What a reward without labels is worth when labels are few: sorted blood cells, some of which show their label; all
# other training cells are there without one. For each number of labels and each seed (which draws the labelled cells,
# too) one SFT checkpoint, from which every arm starts; the same test cells for all. Beside the arms stand classifiers
# with the same labels and the same cells without. Finished parts are skipped: a stopped benchmark goes on where it was.
#
#   bash recipes/benchmark_labels.sh
#   LABELS=40 SEEDS="42 43" ARMS="oracle default" SPLIT=validation bash recipes/benchmark_labels.sh
#
# Arms: see recipes/benchmark_table6.sh.
set -euo pipefail
presets=(DATASET=pbmc_zheng2017_facs "TASKS=cell_type_annotation,conditional_cell_generation" HELD_OUT= FOREIGN=pbmc_10x3k
  MAX_CELLS= REWARDS=auto N_GENES=1000 "HIDDEN=1,0.25" N_RL=2048 WEIGHTS=)
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
: "${LABELS:=20 40 80}" "${SEEDS:=42 43 44 45 46}" "${ALL_RUNS:=$root/runs/labels-$PROFILE}"
: "${ARMS:=oracle default random self-train refit rounds paper posterior profile}"
set_up

for labels in $LABELS; do
  runs="$ALL_RUNS/$labels"
  # Stage 0 sees no label: that of a seed serves all numbers of labels.
  STAGE0_RUNS="$ALL_RUNS/${LABELS%% *}" RUNS_DIR="$runs" N_LABELLED="$labels" LABEL_SEED=seed SEEDS="$SEEDS" ARMS="$ARMS" SPLIT="$SPLIT" \
    bash "$root/recipes/benchmark_table6.sh" "$@"
  [[ "$DRY_RUN" != 1 ]] || continue
  for seed in $SEEDS; do
    python "$root/recipes/benchmarks/labels_baselines.py" "$runs/$seed/data" --split "$SPLIT" >"$runs/$seed/$SPLIT/baselines.json"
  done
done
for_real python "$root/recipes/benchmarks/label_curves.py" "$ALL_RUNS" --split "$SPLIT"
