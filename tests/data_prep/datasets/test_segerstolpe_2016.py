from __future__ import annotations

import numpy as np
import pytest

from tests.refused import refused

GENE_ROWS = 26_177
TYPES = ["alpha cell"] * 21 + ["PSC cell"] * 20 + ["co-expression cell"] * 20 + ["mast cell"] * 7
MATRIX, SAMPLES = "pancreas_refseq_rpkms_counts_3514sc.txt", "E-MTAB-5061.sdrf.txt"


@pytest.fixture
def files(write_table):
    """RPKM and then counts of the same cells under one header, spike-ins below, and a poor well."""
    cells = [f"HP150_{number:02}" for number in range(len(TYPES) + 1)]
    counts = np.zeros((GENE_ROWS + 3, len(cells)), dtype=int)
    counts[:230] = np.random.default_rng(0).integers(1, 9, size=(230, len(cells)))
    counts[:9_990, 2:10] = 1  # every gene is in eight cells at least
    counts[9_990:10_001, 10:18] = 1
    counts[:10_001, 0] = 1  # 10,000 genes, one name being there twice: a doublet
    counts[:10_000, 1] = 1
    counts[GENE_ROWS:] = 5000
    names = [f"G{number}" for number in range(GENE_ROWS)] + ["ERCC-00002", "ERCC-00003", "eGFP"]
    names[7] = "G6"
    lines = [["#samples", *cells]]
    for number, (name, row) in enumerate(zip(names, counts.tolist(), strict=True)):
        lines.append([name, f"NM_{number}", *("0.5" if count else "0" for count in row), *row])
    header = ["Source Name", "Protocol REF", "Characteristics [cell type]", "Characteristics [individual]"]
    header += ["Characteristics [single cell well quality]", "Characteristics [inferred cell type]", "Protocol REF"]
    rows = [[cell, "P1", "islet", "HP1502401", "OK", kind, "P2"] for cell, kind in zip(cells, TYPES, strict=False)]
    rows.append([cells[-1], "P1", "islet", "HP1502401", "low quality cell", "not applicable", "P2"])
    return {MATRIX: write_table(MATRIX, lines), SAMPLES: write_table(SAMPLES, [header, *reversed(rows)])}


def test_counts_are_read_and_not_rpkm_and_no_spike_ins(load, files, tally):
    adata = load("segerstolpe_2016", files)
    assert tally(adata) == {"alpha cell": 20, "PSC cell": 20}
    assert (float(adata.X.data.min()), float(adata.X.data.max())) == (1.0, 8.0)
    assert not [gene for gene in adata.var_names if gene.startswith(("ERCC", "eGFP"))]
    assert set(adata.obs["donor"]) == {"HP1502401"}
    drops = adata.uns["drops"]
    assert drops["well that failed the publication's quality control"] == 1
    assert drops["cell whose label is no type (co-expression, unclassified)"] == 20
    assert drops["cell of a type with fewer than 20 cells"] == 7
    assert drops["gene whose name came before"] == 1


def test_other_tables_are_refused(load, files):
    files[SAMPLES].write_text(files[SAMPLES].read_text().replace("inferred cell type", "disease"))
    with refused("not-as-published"):
        load("segerstolpe_2016", files)
    files[MATRIX].write_text("#samples\tA\tB\n" + files[MATRIX].read_text().split("\n", 1)[1])
    with refused("not-as-published"):
        load("segerstolpe_2016", files)
