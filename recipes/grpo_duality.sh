#!/usr/bin/env bash
# The whole pipeline: set-up if needed, prepare, reasoning traces, SFT, GRPO with the dual reward, evaluation, report.
# Further arguments go to the GRPO trainer. Everything in recipes/profiles/ can be set from the environment.
#
#   bash recipes/grpo_duality.sh                                   # CPU without a GPU, one GPU with one
#   PROFILE=a6000x8 bash recipes/grpo_duality.sh                   # the paper's set-up
#   DATASET=my.h5ad LABEL_COLUMN=cell_type bash recipes/grpo_duality.sh
#   SEED=1 RUN_DIR=runs/seed1 ACTOR_LR=5e-5 bash recipes/grpo_duality.sh
#   RESUME=1 bash recipes/grpo_duality.sh                          # skips finished stages, resumes a stopped one
#   DRY_RUN=1 bash recipes/grpo_duality.sh                         # prints the exact commands
set -euo pipefail
root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
# shellcheck source=recipes/common.sh
source "$root/recipes/common.sh"

say "CellDuality, profile $PROFILE, into $RUN_DIR"
export PROFILE VENV SEED DATA_SEED DATASET LABEL_COLUMN RUN_DIR DRY_RUN RESUME stage
stage="[1/6]" set_up
lock_run
stage="[2/6]" bash "$root/recipes/prepare.sh"
stage="[3/6]" bash "$root/recipes/traces.sh"
stage="[4/6]" bash "$root/recipes/sft.sh"
stage="[5/6]" bash "$root/recipes/grpo.sh" "$@"
stage="[6/6]" bash "$root/recipes/evaluate.sh"
