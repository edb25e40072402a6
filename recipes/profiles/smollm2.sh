# shellcheck shell=bash disable=SC2034  # read by the recipes
# SmolLM2-135M-Instruct on a CPU: a real instruction model, slow; shows that nothing hangs on the small vocabulary.
BACKEND=cpu
: "${BASE_MODEL:=smollm2}"

: "${TOP_GENES:=24}" "${HIDDEN:=0.25}" "${N_LABELLED:=35}" "${N_RL:=32}" "${SFT_VIEWS:=1}" "${SFT_LABEL_VIEWS:=1}"
: "${MAX_CELLS:=pbmc68k_reduced=250,kang_2018_ifnb=250}"
: "${WEIGHTS=}"
: "${REWARDS=}"
: "${MAX_LEN:=512}" "${MAX_NEW_TOKENS:=160}" "${AUDIT_CELLS:=4}" "${AUDIT_REWARDS=configured}"

: "${PRETRAIN_VIEWS:=1}" "${CLUSTERS:=16}" "${PRETRAIN_EPOCHS:=1}" "${PRETRAIN_LR:=1e-4}"
: "${SFT_EPOCHS:=1}" "${SFT_LR:=1e-4}" "${SFT_BATCH:=8}" "${SFT_MICRO_BATCH:=4}"

: "${ROLLOUT_BATCH:=4}" "${GROUP_SIZE:=4}" "${TRAIN_BATCH:=16}" "${MICRO_BATCH:=4}" "${EPISODES:=1}"
: "${ACTOR_LR:=1e-5}" "${LR_WARMUP:=0.03}" "${KL:=1e-2}" "${CLIP:=0.2}" "${TEMPERATURE:=1.0}" "${ADVANTAGE:=dr_grpo}"
: "${DUAL_TEMPERATURE:=0}" "${VALIDITY_POWER:=1}" "${VALIDITY_SHARE:=0}" "${SAVE_STEPS:=4}"

: "${NODES:=1}" "${GPUS:=1}" "${ENGINES:=1}" "${TENSOR_PARALLEL:=1}"
sft_machine=(--ds.zero_stage 0 --ds.packing_samples)
grpo_machine=(--ds.zero_stage 0 --ds.packing_samples --vllm.sync_backend gloo --vllm.enforce_eager)

expect_prepare=30 expect_traces=15 expect_pretrain=900 expect_sft=900 expect_audit=120 expect_grpo=1200 expect_evaluate=1200
