#!/usr/bin/env bash
# The paper's Table 6 (section 4.3): GRPO from one SFT checkpoint with the ground truth, with the paper's rewards and
# with this profile's, over seeds, on held-out cells of all tasks. Finished parts are skipped, so a stopped benchmark
# goes on where it was; seeds can run side by side (SEEDS="42 43" in one shell, SEEDS="44" in another).
#
#   bash recipes/benchmark_table6.sh
#   SPLIT=validation SEEDS="42 43 44" ARMS="oracle duality likelihood posterior-votes posterior-frozen" \
#     bash recipes/benchmark_table6.sh
#
# An arm is `default` (the profile's rewards; what the audit chooses, with REWARDS=auto), a reward for all tasks
# (posterior, posterior*profile), or one of
#   paper          duality, a quarter of the genes hidden, as the paper has it, whatever the profile hides
#   REWARD-votes   the answers of a group of labels share their evidence
#   REWARD-frozen  the SFT checkpoint plays the dual instead of the policy as it moves
#   self-train     pseudo-labels by majority and a refit, no reward and no RL
#   refit          pseudo-labels by the judge (JUDGE) and a refit, no RL
#   oracle-refit   the same with true labels: the most that could be gained so
#   rounds         as refit, and GRPO from there, paid as default is
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
: "${SEEDS:=42 43 44 45 46}" "${ARMS:=oracle duality default}" "${RUNS_DIR:=$root/runs/table6-$PROFILE}"
: "${DUAL_PORT:=8421}"
labels=cell_type_annotation,drug_exposure_prediction,drug_sensitivity_prediction
RUNS_DIR="$(realpath -m -- "$RUNS_DIR")"
set_up

# The SFT checkpoint behind an endpoint of its own, for as long as an arm trains.
serve_frozen() { # run folder, seed
  local log="$1/logs/dual.log" port=$((DUAL_PORT + $2 % 1000)) machine=(--enforce-eager)
  address="http://127.0.0.1:$port/v1"
  [[ "$DRY_RUN" != 1 ]] || return 0
  mkdir -p "$1/logs"
  VLLM_API_KEY="$(python -c 'import secrets; print(secrets.token_hex())')"
  export VLLM_API_KEY
  if [[ "$BACKEND" == gpu ]]; then machine=(--gpu-memory-utilization 0.2); fi # beside trainer and engine, on the first card
  "${launch[@]}" python -m vllm.entrypoints.openai.api_server --model "$1/sft" --served-model-name sft \
    --host 127.0.0.1 --port "$port" --max-model-len "$MAX_LEN" --dtype bfloat16 "${machine[@]}" >"$log" 2>&1 &
  server=$!
  trap 'kill "$server" 2>/dev/null || true' EXIT
  until (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; do
    kill -0 "$server" 2>/dev/null || die "the frozen dual did not start" "read $log"
    sleep 1
  done
}

train() { # seed, arm
  local shared="$RUNS_DIR/$1" folder="$RUNS_DIR/$1/arms/$2" kind="$2" flags=() rounds=()
  [[ "$RESUME" != 1 || ! -f "$folder/.finished-grpo" ]] || return 0
  for_real mkdir -p "$folder"
  for part in data sft base pretrained; do for_real ln -sfn "../../$part" "$folder/$part"; done
  export stage="[seed $1, $2]" SEED="$1"
  if [[ "$kind" == default && "$REWARDS" == auto ]]; then
    RUN_DIR="$folder" bash "$root/recipes/grpo.sh"
    return
  elif [[ "$kind" =~ ^(self-train|refit|oracle-refit|rounds)-frozen$ ]]; then
    die "$kind: an arm of rounds has no frozen dual"
  elif [[ "$kind" == *-frozen ]]; then
    kind="${kind%-frozen}"
    serve_frozen "$shared" "$1"
    flags=(--dual-url "$address" --dual-model sft --dual-key-variable VLLM_API_KEY)
  fi
  case "$kind" in
    self-train) rounds=(RL=0 ROUNDS=2 JUDGE=none PSEUDO_VOTES="$GROUP_SIZE") ;;
    refit) rounds=(RL=0 ROUNDS=2) ;;
    oracle-refit) rounds=(RL=0 ROUNDS=2 JUDGE=oracle) ;;
    rounds) # Round 1 is the arm `refit`, if it has been trained.
      rounds=(RL=last ROUNDS=3 FIRST=)
      if [[ -d "$shared/arms/refit/grpo" ]]; then rounds=(RL=last ROUNDS=2 FIRST="$shared/arms/refit/grpo"); fi
      ;;
    default) ;;
    paper) flags+=(--votes "" --hidden "*=0.25" --rewards "*=duality") ;;
    *-votes) flags+=(--votes "$labels" --rewards "*=${kind%-votes}") ;;
    *) flags+=(--votes "" --rewards "*=$kind") ;;
  esac
  if ((${#rounds[@]})); then
    env "${rounds[@]}" KEEP=last RUN_DIR="$folder" bash "$root/recipes/rounds.sh"
    return
  fi
  local config="$shared/data/$2.json"
  if [[ "$DRY_RUN" != 1 ]]; then flags+=(--records "$folder/rollouts"); fi
  perform cellduality configure "$shared/data/cellduality.json" "${flags[@]}" --out "$config"
  RUN_DIR="$folder" CONFIG="$config" bash "$root/recipes/grpo.sh"
  if [[ -n "${server:-}" ]]; then kill "$server" && wait "$server" || true; fi
  server=
}

found=()
export RESUME=1
for seed in $SEEDS; do
  export SEED="$seed" RUN_DIR="$RUNS_DIR/$seed" stage="[seed $seed]"
  if [[ ! -f "$RUN_DIR/.finished-sft" ]]; then
    # The truth stands in the rows for the oracle, and to be watched: no other arm is paid by it.
    GOLD=1 bash "$root/recipes/prepare.sh"
    export STAGE0_OF="${STAGE0_RUNS:+$STAGE0_RUNS/$seed}"
    for recipe in traces pretrain sft; do bash "$root/recipes/$recipe.sh"; done
    if [[ "$REWARDS" == auto && " $ARMS " =~ " default "|" rounds " ]]; then bash "$root/recipes/audit.sh"; fi
  fi
  models=()
  if [[ "$BASE_MODEL" != small-llama ]]; then models+=(--model "base=$RUN_DIR/base"); fi # that has not learned a word
  models+=(--model "SFT=$RUN_DIR/sft")
  for arm in $ARMS; do
    train "$seed" "$arm"
    models+=(--model "$arm=$RUN_DIR/arms/$arm/grpo")
  done
  evaluate_models "$RUN_DIR/data" "$SPLIT" "$RUN_DIR/$SPLIT" --decode "$DECODE" "$@"
  found+=("$RUN_DIR/$SPLIT/metrics.json")
done
compare=(cellduality arms "${found[@]}" --out "$RUNS_DIR/$SPLIT")
if [[ " $ARMS " != *" oracle "* ]]; then compare+=(--oracle ""); fi
perform "${compare[@]}"
