#!/usr/bin/env bash
# Before GRPO: does the reward prefer the truth? The SFT checkpoint judges answers of known worth about validation cells.
# With REWARDS=auto it chooses for each task what it is trained with, and leaves out those for which nothing agrees with
# the truth; otherwise it says what it found and stops nothing. Further arguments go to `cellduality audit`.
#
#   bash recipes/audit.sh
#   AUDIT_REWARDS=posterior,profile AUDIT_HIDDEN=0.25,1 AUDIT_TRACES=0,4 bash recipes/audit.sh
#   AUDIT_CELLS=128 AUDIT_REWARDS=duality,likelihood,posterior bash recipes/audit.sh
#   AUDIT=0 bash recipes/grpo_duality.sh             # goes without
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
[[ "$AUDIT" != 0 ]] || exit 0
begin_stage
if finished audit && { [[ "$REWARDS" != auto ]] || chosen; }; then exit 0; fi
unmark audit

rewards=(--hidden "$AUDIT_HIDDEN" --traces "$AUDIT_TRACES" ${AUDIT_REWARDS:+--rewards "$AUDIT_REWARDS"})
if [[ "$REWARDS" == auto ]]; then
  forget_choice
  rewards+=(--choose "$data/chosen.json" --rl-rows "$data/rl.jsonl" --chosen-rows "$data/rl_chosen.jsonl"
    --rollout-batch "$ROLLOUT_BATCH")
fi
if [[ "$BACKEND" == gpu ]]; then rewards+=(--tensor-parallel "$TENSOR_PARALLEL"); fi
code=0
run audit "${expected[audit]}" "${launch[@]}" cellduality audit --model "$sft" --data "$data" --out "$RUN_DIR/audit" \
  --cells "$AUDIT_CELLS" --samples "$GROUP_SIZE" --temperature "$TEMPERATURE" "${rewards[@]}" \
  --max-len "$MAX_LEN" --max-new-tokens "$MAX_NEW_TOKENS" --seed "$SEED" "$@" || code=$?
if ((code >= 64)); then exit "$code"; fi # stopped by the user, or no room for a log: not the audit's own failure
if ((code)); then
  say "The audit itself failed: training goes on without it."
elif [[ "$DRY_RUN" != 1 ]]; then
  shown='s/^- \*\*(.*)\*\* \([a-z ]+\): (.*)/  \1: \2/p'
  if [[ "$REWARDS" == auto ]]; then shown='s/^\*\*Choice\.\*\* (.*)/  \1/p'; fi
  sed -nE "s/^## (.*)/\1/p; $shown" "$RUN_DIR/audit/audit.md" >&2
  say "Audit: $RUN_DIR/audit/audit.md"
  mark_finished audit
fi
