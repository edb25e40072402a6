#!/usr/bin/env bash
# Stage 1: supervised fine-tuning on the curated rows, primal and dual, with the unmodified openrlhf.cli.train_sft, from
# what recipes/pretrain.sh made; with PRETRAIN=0 from the base model the profile names, which is made first.
# Further arguments go to the trainer.
#
#   bash recipes/sft.sh
#   SFT_EPOCHS=3 bash recipes/sft.sh --max_norm 0.5
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
begin_stage
finished sft && exit 0
unmark sft audit grpo
if [[ -z "${START_MODEL:-}" ]]; then forget_choice; fi # a round's refit keeps the rewards that were chosen

model="${START_MODEL:-$pretrained}" # or any other checkpoint
if [[ "$PRETRAIN" == 0 && -z "${START_MODEL:-}" ]]; then make_base; fi
train_sft sft "$model" "$sft_rows" "$sft" "$SFT_EPOCHS" "$SFT_LR" "$@"
