#!/usr/bin/env bash
# Sets up what the tests need and runs them all: linters, fast tests, then the real trainer on the CPU.
#
#   bash tests/run.sh
#   bash tests/run.sh --all                # also reward routes, faults, several nodes, and the report in a browser (needs Chromium)
#   bash tests/run.sh -m "not stack"       # without the trainer, one test after the other
#   bash tests/run.sh tests/test_parsing.py
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# The tests run on the CPU, whatever the machine has.
export PROFILE=cpu CUDA_VISIBLE_DEVICES=""
source recipes/common.sh
set_up

say "Linters"
ruff check .
ruff format --check .
mypy
lint-imports
shellcheck --external-sources --source-path=SCRIPTDIR recipes/*.sh recipes/slurm/*.sbatch tests/*.sh .ci/run
hadolint recipes/Dockerfile
trainer=(-m "stack and not long")
if [[ "${1:-}" == --all ]]; then
  trainer=(-m stack)
elif (($#)); then
  exec python -m pytest "$@"
fi
# One trainer at a time, which leaves half of what cores there are to the fast tests. Neighbours among those stay in one
# process, which makes what they share once, and each process keeps to its core.
told="$(mktemp)"
say "Fast tests, whose words come at the end: tail -f $told"
OMP_NUM_THREADS=1 nice python -m pytest -m "not stack and not browser" --numprocesses auto --dist worksteal >"$told" 2>&1 &
fast=$!
trap 'kill "$fast" 2>/dev/null || true; rm -f "$told"' EXIT
say "The real trainer"
code=0
python -m pytest "${trainer[@]}" || code=$?
wait "$fast" || code=$?
cat "$told"
if [[ "${1:-}" == --all ]]; then python -m pytest -m browser || code=$?; fi
exit "$code"
