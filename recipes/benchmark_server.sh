#!/usr/bin/env bash
# The reward server under load: clients that ask again as soon as they have an answer, each answer checked against its
# request; then more of them than a server with little room takes on.
#
#   bash recipes/benchmark_server.sh
#   SECONDS=10 CLIENTS=256 bash recipes/benchmark_server.sh
set -euo pipefail
seconds="$SECONDS"   # bash counts it up, from what the environment says or from 0
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
if [[ "$seconds" == 0 ]]; then seconds=60; fi
: "${CLIENTS:=64}"
: "${ROWS:=8192}"               # more than the server remembers; eight rollouts each
: "${DELAY:=0.02}"              # seconds the policy takes to answer
: "${BENCH_DIR:=$root/runs/benchmark_server}"
set_up
benchmark server --clients "$CLIENTS" --seconds "$seconds" --rows "$ROWS" --delay "$DELAY"
