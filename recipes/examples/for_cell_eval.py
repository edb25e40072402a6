"""Responses that a run has written, beside real cells, as the two files that cell-eval compares.

bash recipes/evaluate.sh --real-cells
python recipes/examples/for_cell_eval.py runs/cpu/test/predictions/GRPO.h5ad --out runs/cpu/cell-eval
cd runs/cpu/cell-eval
cell-eval run -ap pred.h5ad -ar real.h5ad --pert-col state --control-pert control --celltype-col cell_type
"""

from __future__ import annotations

import argparse
from pathlib import Path

import anndata

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("cells", type=Path, help="generated and real cells of a checkpoint")
parser.add_argument("--out", type=Path, required=True, help="the folder of pred.h5ad and real.h5ad")
parser.add_argument("--section", default="perturbation_response_generation", help="the pair; with @ood held-out cells")
given = parser.parse_args()

cells = anndata.read_h5ad(given.cells)
cells = cells[cells.obs["section"] == given.section]
real = cells[cells.obs["origin"] == "real"]
if not real.n_obs:
    parser.error(f"{given.cells} has no real cells of {given.section}: evaluate with --real-cells")
control = real[real.obs["state"] == "control"]
written = cells[(cells.obs["origin"] == "generated") & (cells.obs["state"] != "control")]
given.out.mkdir(parents=True, exist_ok=True)
# Both have the real untreated cells: what is compared is the shift from them.
anndata.concat([control, written]).write_h5ad(given.out / "pred.h5ad")
real.copy().write_h5ad(given.out / "real.h5ad")
print(f"{written.n_obs} written and {real.n_obs} real cells, {control.n_obs} of them untreated: {given.out}")
