#!/usr/bin/env bash
# How busy the sampler keeps a teacher: requests a second against a local server that answers after a fixed time, and
# the processor time of both sides; beside it a plain loop with aiohttp alone, for what a client gets on this machine.
# Server and sampler need a core each.
#
#   bash recipes/benchmark_sampler.sh
#   CONCURRENCY=256 DELAY=0.5 bash recipes/benchmark_sampler.sh
set -euo pipefail
root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
# shellcheck source=recipes/common.sh
source "$root/recipes/common.sh"
: "${REQUESTS:=10000}"
: "${CONCURRENCY:=64}"
: "${DELAY:=0.05}"              # seconds the server takes to answer
: "${REPEATS:=3}"               # the median counts
: "${STRICT:=1}"                # 0: print what is not kept, but do not fail for it
: "${BENCH_DIR:=$root/runs/benchmark_sampler}"
set_up

export OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1
export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}"
measure=(python "$root/recipes/benchmarks/sampler.py" all --out "$BENCH_DIR" --requests "$REQUESTS"
  --concurrency "$CONCURRENCY" --delay "$DELAY" --repeats "$REPEATS" --strict "$STRICT")
if [[ "$DRY_RUN" == 1 ]]; then
  printf '%q ' "${measure[@]}"
  echo
else
  mkdir -p "$BENCH_DIR"
  "${measure[@]}"
fi
