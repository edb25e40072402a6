#!/usr/bin/env bash
# Rounds of expectation-maximisation: GRPO moves the question's side alone, a round moves both. Round 1 is GRPO from the
# SFT checkpoint. In each further one the policy labels the cells without a label, the reward weighs its votes (or labels
# alone, PSEUDO_VOTES=0), a fresh model is fitted to labelled and pseudo-labelled rows in both directions, and GRPO goes on from there. Rounds end when
# one does not help on validation cells; the best becomes RUN_DIR/grpo, and RUN_DIR/rounds.json tells of all.
# Further arguments go to the GRPO trainer.
#
#   ROUNDS=3 bash recipes/rounds.sh
#   RL=0 JUDGE=none KEEP=last bash recipes/rounds.sh      # self-training: majority labels and SFT alone, no reward
#   RL=last bash recipes/rounds.sh                        # first the refits, then GRPO once, in the last round
#   RESUME=1 ROUNDS=4 bash recipes/rounds.sh              # goes on where it was
#   FIRST=runs/other/grpo bash recipes/rounds.sh          # this checkpoint is round 1
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
[[ "$RL" != 0 || "$ROUNDS" -ge 2 ]] || die "nothing to do: RL=0 with ROUNDS=$ROUNDS" "give two rounds or more"
if ((ROUNDS < 2)); then exec bash "$root/recipes/grpo.sh" "$@"; fi
further=("$@")
begin_stage
before_grpo=""
if [[ "$RL" == last ]]; then before_grpo=1; fi
if [[ -z "${CONFIG:-}" && "$RL" != 0 ]] && nothing_chosen; then
  if [[ -z "$before_grpo" || "$JUDGE" != audited || "$ROUNDS" -lt 3 ]]; then exec bash "$root/recipes/grpo.sh" "$@"; fi
  # No reward to train on, but cells that can be named.
  RL=0 ROUNDS=$((ROUNDS - 1)) CONFIG="$data/cellduality.json" RL_ROWS="$data/rl_chosen.jsonl"
fi
take_choice
export RL_ROWS
all="$RUN_DIR/rounds" outer="${stage:-}"
if [[ "$RL" != 1 ]]; then : "${FIRST:=$sft}"; fi
if [[ -d "$FIRST" ]]; then FIRST="$(realpath -- "$FIRST")"; fi

# Rounds are taken up only on request, and only if no other SFT checkpoint has come since.
if [[ "$RESUME" != 1 || "$RUN_DIR/.finished-sft" -nt "$all/.begun" ]]; then for_real rm -rf "$all"; fi
for_real mkdir -p "$all"
[[ -f "$all/.begun" ]] || for_real touch "$all/.begun"
RUN_DIR="$all" finished "$ROUNDS" && exit 0

# Who labels: as the audit found best, where it has chosen; of a set whose rewards were given, class profiles.
labeller="$JUDGE" votes="$PSEUDO_VOTES" asked="$CONFIG"
if [[ "$JUDGE" == audited ]] && chosen; then
  labeller="$RUN_DIR/audit/audit.json" asked="$data/cellduality.json" # tasks that stay out of GRPO get labels, too
elif [[ "$JUDGE" == audited ]]; then
  labeller=profile votes=0
fi

refit() { # labels of the policy, and a fresh model on them
  local previous=() start="$base" code=0
  if ((number > 2)); then previous=(--previous "$all/$((number - 1))/pseudo.jsonl"); fi
  if [[ "$BACKEND" == gpu ]]; then previous+=(--tensor-parallel "$TENSOR_PARALLEL"); fi
  if [[ "$RL_LABELS" == 0 ]]; then
    previous+=(--rl-rows "$RL_ROWS" --rollout-batch "$ROLLOUT_BATCH") rest="$folder/pseudo.rl.jsonl"
  fi
  if ! RUN_DIR="$folder" finished pseudo; then
    RUN_DIR="$folder" run pseudo "${expected[audit]}" "${launch[@]}" cellduality pseudo-label --model "$policy" --data "$data" \
      --config "$asked" --labelled "$sft_rows" --out "$folder/pseudo.jsonl" --judge "$labeller" --votes "$votes" \
      --temperature "$TEMPERATURE" --cells "$PSEUDO_CELLS" --weight "$PSEUDO_WEIGHT" --keep-above "$PSEUDO_KEEP_ABOVE" \
      --choose "$PSEUDO_CHOICE" --labelled-share "$PSEUDO_LABELLED" \
      --max-len "$MAX_LEN" --max-new-tokens "$MAX_NEW_TOKENS" --seed "$SEED" "${previous[@]}" || code=$?
    if ((code == 3 && number == 2)) && [[ -n "$before_grpo" ]]; then # nothing has been trained yet
      say "There is no cell to give a label: GRPO goes on from SFT."
      rm -rf "$all"
      export stage="$outer"
      exec bash "$root/recipes/grpo.sh" "${further[@]}"
    fi
    ((code == 0)) || exit "$code"
    unmark grpo
    RUN_DIR="$folder" mark_finished pseudo
  fi
  for_real grep -E '^(pseudo-labels of|alarm:) ' "$folder/logs/pseudo.log" >&2 || true
  if [[ "$PRETRAIN" != 0 ]]; then start="$pretrained"; fi
  if [[ "$REFIT_FROM" == policy ]]; then start="$policy"; fi
  CHECK=0 CONFIG="$CONFIG" RUN_DIR="$folder" START_MODEL="$start" SFT_EPOCHS="$REFIT_EPOCHS" SFT_ROWS="$folder/pseudo.jsonl" bash "$root/recipes/sft.sh"
}

reinforce() { # GRPO from the round's SFT model, whose rollouts are kept in the round
  local config="${CONFIG%.json}.round-$number.json" rows="$RL_ROWS"
  unmark grpo
  perform cellduality configure "$CONFIG" --records "$folder/rollouts" --out "$config"
  # What the judge knows of labels, a refit has taken over: to be paid for them again moves them at random.
  if [[ -s "$rest" || ("$DRY_RUN" == 1 && -n "$rest") ]]; then rows="$rest"; fi
  RUN_DIR="$folder" CONFIG="$config" RL_ROWS="$rows" bash "$root/recipes/grpo.sh" "$@"
  for_real rm -rf "$folder/checkpoints"
}

best="$ROUNDS" goes_on=on policies=() evaluated=() rest=""
for ((number = 1; number <= ROUNDS; number++)); do
  folder="$all/$number"
  export stage="${outer:+$outer }[round $number]"
  rl="$RL"
  if [[ "$RL" == last ]]; then rl=$((number == ROUNDS)); fi
  for_real mkdir -p "$folder"
  for_real ln -sfn ../../data "$folder/data"
  if ((number == 1)); then for_real ln -sfn ../../sft "$folder/sft"; fi
  if [[ "$RL" == last && "$rl" == 1 && "$number" != 1 ]]; then
    for_real ln -sfn "$policy" "$folder/sft"
  elif ((number > 1)); then
    refit
  fi
  if ((number == 1)) && [[ -n "$FIRST" ]]; then
    policy="$FIRST"
  elif [[ "$rl" == 0 ]]; then
    policy="$folder/sft"
  else
    reinforce "$@"
    policy="$folder/grpo"
  fi
  policies[number]="$policy"
  [[ "$KEEP" == best ]] || continue
  models=(--model "round-$number=$policy") evaluated+=("$folder")
  RUN_DIR="$folder" evaluate_models "$data" validation "$folder/validation" --decode headline --no-anndata
  told="$(perform cellduality rounds "${evaluated[@]}" --out "$RUN_DIR/rounds.json" --patience "$ROUNDS_PATIENCE")"
  if [[ "$DRY_RUN" == 1 ]]; then echo "$told"; else read -r best goes_on <<<"$told"; fi
  [[ "$goes_on" == on ]] || break
done

if [[ "$DRY_RUN" != 1 ]]; then
  rm -rf "$grpo.new"
  cp -rL "${policies[best]}" "$grpo.new"
  mkdir -p "$RUN_DIR/tensorboard" "$RUN_DIR/logs"
  for name in tensorboard/grpo rollouts alarms.jsonl logs/grpo.log logs/grpo.command; do # for the report
    rm -rf "${RUN_DIR:?}/$name"
    if [[ -e "$all/$best/$name" ]]; then ln -sr "$all/$best/$name" "$RUN_DIR/$name"; fi
  done
  replace_folder "$grpo.new" "$grpo"
  say "Kept: round $best."
fi
mark_finished grpo
RUN_DIR="$all" mark_finished "$ROUNDS"
