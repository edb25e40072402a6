#!/usr/bin/env bash
# Reasoning traces for SFT (section 3.3): a teacher answers the questions of the labelled cells, and filters choose.
# Further arguments go to `cellduality traces sample`. What was answered is kept: a stopped run goes on where it was.
#
#   bash recipes/traces.sh                                   # the rule teacher: marker genes, no network
#   OPENAI_API_KEY=... TEACHER=gpt-4o bash recipes/traces.sh --budget-usd 20 --price-in 2.5 --price-out 10
#   TEACHER=Qwen/Qwen3-32B TEACHER_URL=http://localhost:8000/v1 CANDIDATES=8 bash recipes/traces.sh
#   TEACHER=none bash recipes/traces.sh                      # nothing: SFT then sees bare answers
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
[[ "$TEACHER" != none ]] || exit 0
begin_stage

run traces "${expected[traces]}" cellduality traces sample --data "$data" --teacher "$TEACHER" \
  ${TEACHER_URL:+--base-url "$TEACHER_URL"} --candidates "$CANDIDATES" --seed "$DATA_SEED" "$@"

choose=(--directions "$SFT_DIRECTIONS")
if [[ "$FILL" == 1 ]]; then choose+=(--fill); fi
if [[ "$TRACES" == 0 ]]; then choose+=(--no-traces); fi
run filter 15 cellduality traces filter --data "$data" --threshold "$TRACE_SIMILARITY" --seed "$DATA_SEED" "${choose[@]}"
