#!/usr/bin/env bash
# Before GRPO: does the reward prefer the truth? The SFT checkpoint judges answers of known worth about validation cells.
# Says what it found and stops nothing. Further arguments go to `cellduality audit`.
#
#   bash recipes/audit.sh
#   AUDIT_CELLS=128 AUDIT_REWARDS=duality,likelihood,posterior bash recipes/audit.sh
#   AUDIT=0 bash recipes/grpo_duality.sh             # goes without
set -euo pipefail
root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
# shellcheck source=recipes/common.sh
source "$root/recipes/common.sh"
[[ "$AUDIT" != 0 ]] || exit 0
set_up
lock_run
finished audit && exit 0
unmark audit

rewards=()
if [[ -n "$AUDIT_REWARDS" ]]; then rewards=(--rewards "$AUDIT_REWARDS"); fi
code=0
run audit "$expect_audit" "${launch[@]}" cellduality audit --model "$sft" --data "$data" --out "$RUN_DIR/audit" \
  --cells "$AUDIT_CELLS" --samples "$GROUP_SIZE" --temperature "$TEMPERATURE" "${rewards[@]}" \
  --max-len "$MAX_LEN" --max-new-tokens "$MAX_NEW_TOKENS" --seed "$SEED" "$@" || code=$?
if ((code >= 64)); then exit "$code"; fi # stopped by the user, or no room for a log: not the audit's own failure
if ((code)); then
  say "The audit itself failed: training goes on without it."
elif [[ "$DRY_RUN" != 1 ]]; then
  sed -nE 's/^## (.*)/\1/p; s/^- \*\*(.*)\*\* \([a-z ]+\): (.*)/  \1: \2/p' "$RUN_DIR/audit/audit.md" >&2
  say "Audit: $RUN_DIR/audit/audit.md"
  mark_finished audit
fi
