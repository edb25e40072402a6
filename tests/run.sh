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
say "Tests"
trainer=(-m "stack and not long")
if [[ "${1:-}" == --all ]]; then
  trainer=(-m stack)
elif (($#)); then
  exec python -m pytest "$@"
fi
# Neighbouring tests stay in one process, which makes what they share once, and each process keeps to its core.
OMP_NUM_THREADS=1 python -m pytest -m "not stack and not browser" --numprocesses auto --dist worksteal
if [[ "${1:-}" == --all ]]; then python -m pytest -m browser; fi
# One trainer at a time: each takes what cores there are.
exec python -m pytest "${trainer[@]}"
