#!/usr/bin/env bash
# How busy the sampler keeps a teacher: requests a second against a local server that answers after a fixed time, and
# the processor time of both sides; beside it a plain loop with aiohttp alone. Server and sampler need a core each.
#
#   bash recipes/benchmark_sampler.sh
#   CONCURRENCY=256 DELAY=0.5 bash recipes/benchmark_sampler.sh
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
: "${REQUESTS:=10000}" "${CONCURRENCY:=64}"
: "${DELAY:=0.05}"              # seconds the server takes to answer
: "${REPEATS:=3}"               # the median counts
: "${STRICT:=1}"                # 0: print what is not kept, but do not fail for it
: "${BENCH_DIR:=$root/runs/benchmark_sampler}"
set_up
benchmark sampler --requests "$REQUESTS" --concurrency "$CONCURRENCY" --delay "$DELAY" --repeats "$REPEATS" --strict "$STRICT"
