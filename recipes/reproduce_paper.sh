#!/usr/bin/env bash
# The paper's Tables 2 to 6 on its own sets, splits and model: base, SFT, GRPO with the ground truth, and GRPO with the
# paper's self-supervised rewards from the same SFT checkpoint, for five seeds; once for each of its two themes. Tables
# 2 to 5 come last, a row a model and a column a set.
#
# We have never run this: not on the paper's eight 48 GB GPUs, not on its sets. That the commands are ones that the
# trainers and our own command line take is tested; how many hours they take is not known.
#
#   DRY_RUN=1 bash recipes/reproduce_paper.sh                  # prints the exact commands
#   bash recipes/reproduce_paper.sh                            # again after a stop: goes on where it was
#   THEMES=identity SEEDS=42 bash recipes/reproduce_paper.sh   # one part, beside others on other machines
#   OPENAI_API_KEY=... TEACHER=gpt-4o bash recipes/reproduce_paper.sh
#
# It needs
# - eight GPUs of 48 GB (PROFILE=gpu1: one GPU, smaller batches), and access to meta-llama/Llama-3.2-3B-Instruct, whose
#   licence is accepted on Hugging Face (or BASE_MODEL=FOLDER);
# - the sets, which `cellduality data fetch` downloads at first use, but for three files that nobody serves at a fixed
#   address (`cellduality data list` says where each goes): the cell types of xin_2016, which have not been published,
#   and the two tables of gse149383. Without them: IDENTITY_SETS="he_2020_liver segerstolpe_2016 human_immune".
#
# Where it differs from the paper: recipes/README.md.
set -euo pipefail

# One labelled cell of every class is the least, where there are few; of sciplex3 a class is a drug at a dose.
labels=he_2020_liver=140,segerstolpe_2016=140,xin_2016=140,human_immune=280,gse149383=140,gse117872=140,sciplex3=1520,l1000=1520
presets=(PROFILE=a6000x8 VALIDITY_POWER=0 SMALL_CLASSES=drop HELD_OUT= REWARDS=
  "MAX_CELLS=human_immune=20000,sciplex3=20000,l1000=20000" N_LABELLED="$labels")
: "${IDENTITY_SETS:=he_2020_liver segerstolpe_2016 xin_2016 human_immune ma_2020 bastidas_ponce_2019}"
: "${DYNAMICS_SETS:=l1000 gse149383 gse117872 sciplex3 gse110894}"
: "${DYNAMICS_MAX_LEN:=}" # another MAX_LEN than the profile's, for that theme
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
: "${THEMES:=identity dynamics}" "${SEEDS:=42 43 44 45 46}" "${ARMS:=oracle duality}"
: "${RUNS_DIR:=$root/runs/paper-$PROFILE}"
export PROFILE SEEDS SPLIT ARMS

theme() { # name, sets, further settings
  local name="$1" sets="$2"
  shift 2
  say "Theme $name: $sets"
  env "$@" DATASET="$sets" RUNS_DIR="$RUNS_DIR/$name" bash "$root/recipes/benchmark_table6.sh"
}

for name in $THEMES; do
  case "$name" in
    identity) theme "$name" "$IDENTITY_SETS" ;;
    dynamics) theme "$name" "$DYNAMICS_SETS" ${DYNAMICS_MAX_LEN:+MAX_LEN="$DYNAMICS_MAX_LEN"} ;;
    *) die "no theme '$name'" "use identity, dynamics or both" ;;
  esac
done
perform python "$root/recipes/benchmarks/paper_tables.py" "$RUNS_DIR" --split "$SPLIT"
