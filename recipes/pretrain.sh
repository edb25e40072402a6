#!/usr/bin/env bash
# The base model the profile starts from, then stage 0: cells without labels. The training cells as sentences, in both
# directions, under the numbers of their clusters, with the unmodified openrlhf.cli.train_sft.
# Further arguments go to the trainer.
#
#   bash recipes/pretrain.sh
#   PRETRAIN_EPOCHS=2 PRETRAIN_LR=1e-3 bash recipes/pretrain.sh --max_norm 0.5
#   PRETRAIN=1 PRETRAIN_VIEWS=4 CLUSTERS=32 PROFILE=gpu1 bash recipes/grpo_duality.sh   # the rows are made by prepare.sh
#   PRETRAIN=0 bash recipes/grpo_duality.sh          # goes without
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
[[ "$PRETRAIN" != 0 ]] || exit 0
begin_stage
finished pretrain && exit 0
unmark pretrain sft audit grpo

if [[ -f "$STAGE0_OF/.finished-pretrain" ]] && cmp -s "$STAGE0_OF/data/pretrain.jsonl" "$data/pretrain.jsonl"; then
  say "Stage 0 is that of $STAGE0_OF."
  for part in base pretrained; do ln -sfn "$(realpath -- "$STAGE0_OF/$part")" "$RUN_DIR/$part"; done
  mark_finished pretrain
  exit 0
fi
make_base
train_sft pretrain "$model" "$data/pretrain.jsonl" "$pretrained" "$PRETRAIN_EPOCHS" "$PRETRAIN_LR" "$@"
