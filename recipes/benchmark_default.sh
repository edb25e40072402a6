#!/usr/bin/env bash
# Which kind of reward should be the default of a task: every kind is audited before training, then trained on, over
# seeds, with the dual played by the policy as it moves and by the frozen SFT checkpoint; validation cells alone.
# Finished parts are skipped, so a stopped benchmark goes on where it was.
#
#   bash recipes/benchmark_default.sh
#   SEEDS="42 43 44 45" ARMS="oracle duality posterior" AUDIT_CELLS=64 bash recipes/benchmark_default.sh
set -euo pipefail
presets=("AUDIT_REWARDS=duality,likelihood,posterior,oracle" AUDIT_CELLS=32)
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
: "${SEEDS:=42 43 44}" "${RUNS_DIR:=$root/runs/default-$PROFILE}"
: "${ARMS:=oracle duality duality-frozen likelihood likelihood-frozen posterior posterior-frozen}"
export SEEDS RUNS_DIR ARMS SPLIT=validation RESUME=1

bash "$root/recipes/benchmark_table6.sh" "$@"
for seed in $SEEDS; do
  stage="[seed $seed]" SEED="$seed" RUN_DIR="$RUNS_DIR/$seed" bash "$root/recipes/audit.sh"
done
# shellcheck disable=SC2086 # the words are to be parted here
for_real python "$root/recipes/benchmarks/default.py" --root "$RUNS_DIR" --seeds $SEEDS --arms $ARMS
