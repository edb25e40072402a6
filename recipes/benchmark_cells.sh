#!/usr/bin/env bash
# Cells to sentences: speed and memory against the package cell2sentence on the same sparse matrices, and a file with
# 1,000,000 cells x 20,000 genes, 5 % of it non-zero, that is never held whole. The file (8 GB) is removed afterwards.
#
#   bash recipes/benchmark_cells.sh
#   SIZES="500 1000 2000" FILE_CELLS=100000 bash recipes/benchmark_cells.sh
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
: "${SIZES:=4000 16000 64000}"   # cells
: "${GENES:=20000}" "${PER_CELL:=2000}"
: "${FILE_CELLS:=1000000}" "${FILE_GENES:=20000}" "${FILE_DENSITY:=0.05}"
: "${STRICT:=1}"                # 0: print what is not kept, but do not fail for it
: "${BENCH_DIR:=$root/runs/benchmark_cells}"
read -ra sizes <<<"$SIZES"
set_up

if [[ "$DRY_RUN" != 1 ]]; then
  mkdir -p "$BENCH_DIR"
  need=$((FILE_CELLS * FILE_GENES / 2000000))   # megabytes, at the density of 5 % and some to spare
  free="$(df --output=avail --block-size=1000000 "$BENCH_DIR" | tail -n 1)"
  ((free > need)) || die "not enough space in $BENCH_DIR" "free $((need / 1000 + 1)) GB, or choose BENCH_DIR or FILE_CELLS"
fi

# In a folder of its own and last on the path: it must not change what the project runs with.
if [[ ! -f "$BENCH_DIR/peer/.complete" ]]; then
  perform python -m pip install --quiet --disable-pip-version-check --no-deps --upgrade --target "$BENCH_DIR/peer" \
    cell2sentence==1.2.0 plotnine==0.15.9 mizani==0.14.6
  for_real touch "$BENCH_DIR/peer/.complete"
fi
export PYTHONPATH="$BENCH_DIR/peer${PYTHONPATH:+:$PYTHONPATH}"
benchmark cells --sizes "${sizes[@]}" --genes "$GENES" --per-cell "$PER_CELL" --file-cells "$FILE_CELLS" \
  --file-genes "$FILE_GENES" --file-density "$FILE_DENSITY" --strict "$STRICT"
