#!/usr/bin/env bash
# Does this machine do what it should? Minutes on any one card, without a network once the environment is there: the
# engine's log-probabilities beside those of transformers, SFT, and two steps of GRPO with the dual reward on the small
# Llama, the engine's weights beside the trainer's, evaluation. A line for each stage, all numbers in smoke.json.
#
#   bash recipes/smoke_gpu.sh                                # a CPU, where there is no card: the same stages
#   SET_UP=0 VENV=/opt/env bash recipes/smoke_gpu.sh         # in an environment that is there, which is not touched
#   PROFILE=gpu24 RUN_DIR=/tmp/smoke bash recipes/smoke_gpu.sh
set -euo pipefail

# One card, and the settings of the CPU profile but for the machine: they reach every recipe that is called.
if [[ -z "${PROFILE:-}" ]]; then
  if nvidia-smi -L 2>/dev/null | grep -q GPU; then PROFILE=gpu1; else PROFILE=cpu; fi
fi
: "${RUN_DIR:=$(dirname "${BASH_SOURCE[0]}")/../runs/smoke-$PROFILE}"
export PROFILE RUN_DIR BASE_MODEL=small-llama PRETRAIN=0 ROUNDS=1 AUDIT=0 REWARDS="*=duality" GOLD=0 GPUS=1 ENGINES=1
export DATASET=pbmc68k_reduced HELD_OUT="" MAX_CELLS=200 N_LABELLED=40 N_RL=16 TOP_GENES=64 N_GENES=0 HIDDEN=1
export MAX_LEN=256 MAX_NEW_TOKENS=112 SFT_VIEWS=2 SFT_LABEL_VIEWS=2 SAMPLES=1 DECODE=headline OFFLOAD=""
export SFT_PROCESSES=1 SFT_EPOCHS=6 SFT_BATCH=16 SFT_MICRO_BATCH=8 SFT_LR=2e-3
export ROLLOUT_BATCH=8 GROUP_SIZE=4 TRAIN_BATCH=32 MICRO_BATCH=8 ACTOR_LR=1e-4 SAVE_STEPS=-1
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
begin_stage
out="$RUN_DIR/smoke"
smoke=(python "$root/recipes/benchmarks/smoke.py")
finish() { for_real "${smoke[@]}" summary "$out" >/dev/null || true; }

# check NAME COMMAND...: one line, and the end of everything if it fails.
check() {
  local name="$1" code=0 began=$SECONDS
  shift
  if [[ "$DRY_RUN" == 1 ]]; then perform "$@" && return; fi
  "$@" >"$out/$name.out" 2>&1 || code=$?
  printf '{"stage": "%s", "passed": %s, "seconds": %d}\n' "$name" "$( ((code)) && echo false || echo true)" \
    $((SECONDS - began)) >>"$out/stages.jsonl"
  if ((code)); then
    finish
    die "fail  $name ($((SECONDS - began)) s)" "$(grep -v '^ *$' "$out/$name.out" | tail -n 1); all of it: $out/$name.out"
  fi
  echo "pass  $name ($((SECONDS - began)) s)"
}

for_real mkdir -p "$out"
for_real rm -f "$out"/*
token_level=(--algo.advantage.is_correction_level token) # logs how far engine and trainer are apart
check card "${launch[@]}" "${smoke[@]}" card "$BACKEND"
check prepare bash "$root/recipes/prepare.sh"
check traces bash "$root/recipes/traces.sh"
check sft bash "$root/recipes/sft.sh" # until answers have the form that a dual can be asked about
check probe "${launch[@]}" "${smoke[@]}" probe "$sft" "$data"
check grpo bash "$root/recipes/grpo.sh" "${token_level[@]}"
check weights "${smoke[@]}" weights "$RUN_DIR/tensorboard/grpo"
check evaluate bash "$root/recipes/evaluate.sh"
finish
for_real echo "all passed: $out/smoke.json"
