#!/usr/bin/env bash
# The base, SFT and GRPO checkpoints on held-out cells: table, metrics.json, report.html, and the last one's model card.
#
#   bash recipes/evaluate.sh
#   SPLIT=validation bash recipes/evaluate.sh        # while choosing hyperparameters: test cells are read once, last
#   bash recipes/evaluate.sh --decode greedy         # further arguments go to cellduality evaluate
#
# What was stopped goes on where it was; what was answered and is unchanged is not asked again.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
begin_stage
models=()
if [[ "$BASE_MODEL" != small-llama ]]; then models+=(--model "base=$base"); fi # that has not learned a word
models+=(--model "SFT=$sft") curves=(--curves "SFT=$RUN_DIR/tensorboard/sft") last="$sft"
if [[ -d "$refit" ]]; then models+=(--model "refit=$refit") last="$refit"; fi
if nothing_chosen; then
  say "GRPO has not been run: nothing was chosen to train on."
else
  models+=(--model "GRPO=$grpo") curves+=(--curves "GRPO=$RUN_DIR/tensorboard/grpo") last="$grpo"
fi
if [[ "$BACKEND" == gpu ]]; then models+=(--tensor-parallel "$TENSOR_PARALLEL" --batch $((256 * GPUS))); fi
if [[ "$BACKEND" == cpu ]] && (("$(OMP_NUM_THREADS="" nproc)" > 1)); then models+=(--together); fi
evaluate_models "$data" "$SPLIT" "$RUN_DIR/$SPLIT" --decode "$DECODE" "$@"
card=(cellduality card "$last" --metrics "$RUN_DIR/$SPLIT/metrics.json")
if [[ "$AUDIT" != 0 && (-f "$RUN_DIR/audit/audit.json" || "$DRY_RUN" == 1) ]]; then card+=(--audit "$RUN_DIR/audit/audit.json"); fi
if [[ "$DRY_RUN" == 1 ]]; then perform "${card[@]}"; else "${card[@]}" >/dev/null & fi # a few seconds, beside the report
run report 25 cellduality report --evaluation "$RUN_DIR/$SPLIT" --data "$data" --out "$RUN_DIR/report.html" \
  --commands "$RUN_DIR/logs" "${curves[@]}" --audit "$RUN_DIR/audit/audit.json"
if [[ "$DRY_RUN" != 1 ]]; then
  wait $! || say "There is no new card: a card of your own, or a model that was packed elsewhere, stays as it is."
  cellduality table "$RUN_DIR/$SPLIT/metrics.json"
  say "Report: $RUN_DIR/report.html   Metrics: $RUN_DIR/$SPLIT/metrics.json   Model card: $last/README.md"
fi
