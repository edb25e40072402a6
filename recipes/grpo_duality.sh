#!/usr/bin/env bash
# The whole pipeline: set-up if needed, prepare, reasoning traces, pretraining of a model made from nothing, SFT, an audit
# of the reward, GRPO with the dual reward, evaluation, report.
# Further arguments go to the GRPO trainer.
#
#   bash recipes/grpo_duality.sh                                   # by the cards that are there: recipes/README.md
#   PROFILE=a6000x8 bash recipes/grpo_duality.sh                   # the paper's set-up
#   DATASET=my.h5ad LABEL_COLUMN=cell_type bash recipes/grpo_duality.sh
#   SEED=1 RUN_DIR=runs/seed1 ACTOR_LR=5e-5 bash recipes/grpo_duality.sh
#   ROUNDS=3 bash recipes/grpo_duality.sh                          # GRPO, pseudo-labels, SFT, GRPO, ...; the best round
#   AUDIT=0 bash recipes/grpo_duality.sh                           # without the audit before GRPO
#   RESUME=1 bash recipes/grpo_duality.sh                          # skips finished stages, resumes a stopped one
#   DRY_RUN=1 bash recipes/grpo_duality.sh                         # prints the exact commands
#   RUN_FILE=runs/cpu/run.toml bash recipes/grpo_duality.sh --set sft.epochs=4 --set RUN_DIR=runs/longer
#   bash recipes/grpo_duality.sh --help                            # every setting
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

say "CellDuality, profile $PROFILE, into $RUN_DIR"
export PROFILE VENV SEED DATA_SEED DATASET LABEL_COLUMN RUN_DIR DRY_RUN RESUME ROUNDS stage
if ((ROUNDS > 1)); then rl=rounds; else rl=grpo; fi
stages=(prepare traces pretrain sft audit "$rl" evaluate)
if [[ "$PRETRAIN" == 0 ]]; then unset 'stages[2]'; fi
if [[ "$AUDIT" == 0 ]]; then unset 'stages[4]'; fi
of=$((${#stages[@]} + 1)) at=1
stage="[1/$of]" begin_stage
for name in "${stages[@]}"; do
  at=$((at + 1)) further=()
  if [[ "$name" == "$rl" ]]; then further=("$@"); fi
  if [[ "$name" == sft && "$BACKEND" == gpu ]]; then # what stage 2 would refuse is found before hours of SFT
    stage="[$at/$of]" CHECK_ONLY=1 bash "$root/recipes/grpo.sh" "$@"
  fi
  stage="[$at/$of]" bash "$root/recipes/$name.sh" "${further[@]}"
done
