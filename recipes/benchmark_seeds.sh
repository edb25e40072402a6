#!/usr/bin/env bash
# The whole pipeline for several seeds on the same split; mean, standard deviation and the paired change, as Markdown.
# Finished seeds are skipped, so a stopped benchmark goes on where it was.
#
#   bash recipes/benchmark_seeds.sh
#   SEEDS="0 1 2 3 4" SPLIT=validation bash recipes/benchmark_seeds.sh
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
: "${SEEDS:=42 43 44}" "${RUNS_DIR:=$root/runs/seeds-$PROFILE}"
export SPLIT

found=()
for seed in $SEEDS; do
  SEED="$seed" RUN_DIR="$RUNS_DIR/$seed" RESUME=1 bash "$root/recipes/grpo_duality.sh" "$@"
  found+=("$RUNS_DIR/$seed/$SPLIT/metrics.json")
done
if [[ "$DRY_RUN" != 1 ]]; then cellduality seeds "${found[@]}" | tee "$RUNS_DIR/$SPLIT.md"; fi
