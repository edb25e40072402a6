# shellcheck shell=bash disable=SC2034  # read by the recipes
# A laptop without a GPU: a Llama of less than a million parameters with a word-level gene vocabulary, trained from scratch.
BACKEND=cpu
: "${BASE_MODEL:=small-llama}" "${LAYERS:=3}"

# data
: "${TOP_GENES:=48}" "${HIDDEN:=1}" "${N_GENES:=765}" "${SFT_VIEWS:=3}" "${SFT_LABEL_VIEWS:=3}"
: "${N_LABELLED:=pbmc68k_reduced=40,kang_2018_ifnb=40}" "${MAX_CELLS:=kang_2018_ifnb=800}" "${N_RL:=320}" "${SAMPLES:=2}"
: "${WEIGHTS=}"
# The audit chooses among these, on validation cells of the run itself; REWARDS= has the paper's for all tasks.
: "${REWARDS=auto}"
if [[ "$REWARDS" == auto ]]; then
  : "${AUDIT_CELLS:=48}" "${AUDIT_REWARDS=posterior,profile,posterior^0.1*profile}" "${AUDIT_HIDDEN=1}"
fi
: "${MAX_LEN:=224}" "${MAX_NEW_TOKENS:=96}" "${DECODE:=headline}"
# Otherwise it only reports, on a sample of 40 s, of which starting the engine takes 17.
: "${AUDIT_CELLS:=8}" "${AUDIT_REWARDS=configured}"

# Stage 0: training cells without labels, SFT's batches
: "${PRETRAIN_VIEWS:=1}" "${CLUSTERS:=16}" "${PRETRAIN_EPOCHS:=2}" "${PRETRAIN_LR:=2e-3}"

# SFT
: "${SFT_EPOCHS:=6}" "${SFT_LR:=2e-3}" "${SFT_BATCH:=16}" "${SFT_MICRO_BATCH:=8}"
# Two processes take half the time of one, two threads of one process as long.
: "${SFT_PROCESSES:=2}"

# Between SFT and GRPO: unlabelled cells get the label that class profiles give them, and a fresh model is fitted to both
: "${ROUNDS:=3}" "${RL:=last}" "${RL_LABELS:=0}" "${KEEP:=last}" "${JUDGE:=profile}" "${PSEUDO_VOTES:=0}" "${PSEUDO_LABELLED:=0.3}"
: "${REFIT_EPOCHS:=2}"

# GRPO
: "${ROLLOUT_BATCH:=32}" "${GROUP_SIZE:=8}" "${TRAIN_BATCH:=128}" "${MICRO_BATCH:=32}" "${EPISODES:=1}"
: "${ACTOR_LR:=1e-4}" "${LR_WARMUP:=0.1}" "${CLIP:=0.2}" "${TEMPERATURE:=1.0}"
# Without a KL term, which was a thousandth of the loss here, no reference model is started: two processes less.
: "${KL:=0}"
# dr_grpo leaves out GRPO's division by the group's standard deviation: a group whose rewards hardly differ, as those of
# annotation do, then counts for little instead of as much as any other.
: "${ADVANTAGE:=dr_grpo}"
: "${DUAL_TEMPERATURE:=0}" "${VALIDITY_POWER:=3}" "${VALIDITY_SHARE:=0.3}" "${SAVE_STEPS:=10}"

# machine: two ranks with an engine each take half the time of one, where each has a core
if (("$(OMP_NUM_THREADS="" nproc)" > 1)); then pairs=2; else pairs=1; fi
: "${NODES:=1}" "${GPUS:=$pairs}" "${ENGINES:=$GPUS}" "${TENSOR_PARALLEL:=1}"
# Rows are not padded to the longest: a quarter of the tokens would be padding.
sft_machine=(--ds.zero_stage 0 --ds.packing_samples)
grpo_machine=(--ds.zero_stage 0 --ds.packing_samples --vllm.sync_backend gloo --vllm.enforce_eager)

# about how long a stage takes, in seconds
expect_prepare=25 expect_traces=8 expect_pretrain=65 expect_sft=95 expect_audit=60 expect_grpo=125 expect_evaluate=100
