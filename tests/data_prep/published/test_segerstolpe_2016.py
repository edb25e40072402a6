from __future__ import annotations

import numpy as np
import pytest

from cellduality_plugin.errors import CellDualityError

GENE_ROWS = 26_177
TYPES = ["alpha cell"] * 21 + ["PSC cell"] * 20 + ["co-expression cell"] * 20 + ["mast cell"] * 7
MATRIX, SDRF = "pancreas_refseq_rpkms_counts_3514sc.txt", "E-MTAB-5061.sdrf.txt"


@pytest.fixture
def files(tmp_path, write_table):
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
    with (tmp_path / MATRIX).open("w") as out:
        out.write("\t".join(["#samples", *cells]) + "\n")
        for number, (name, row) in enumerate(zip(names, counts.tolist(), strict=True)):
            rpkm = ["0.5" if count else "0" for count in row]
            out.write("\t".join([name, f"NM_{number}", *rpkm, *map(str, row)]) + "\n")
    header = ["Source Name", "Protocol REF", "Characteristics [cell type]", "Characteristics [individual]"]
    header += ["Characteristics [single cell well quality]", "Characteristics [inferred cell type]", "Protocol REF"]
    rows = [[cell, "P1", "islet", "HP1502401", "OK", kind, "P2"] for cell, kind in zip(cells, TYPES, strict=False)]
    rows.append([cells[-1], "P1", "islet", "HP1502401", "low quality cell", "not applicable", "P2"])
    return {MATRIX: tmp_path / MATRIX, SDRF: write_table(SDRF, [header, *reversed(rows)])}


def test_counts_are_read_and_not_rpkm_and_no_spike_ins(load, files):
    adata = load("segerstolpe_2016", files)
    assert adata.uns["expression"] == "counts"
    assert adata.obs["cell_type"].value_counts().to_dict() == {"alpha cell": 20, "PSC cell": 20}
    assert float(adata.X.data.min()) == 1.0
    assert float(adata.X.data.max()) == 8.0
    assert not [gene for gene in adata.var_names if gene.startswith(("ERCC", "eGFP"))]
    assert set(adata.obs["donor"]) == {"HP1502401"}
    drops = adata.uns["drops"]
    assert drops["well that failed the publication's quality control"] == 1
    assert drops["cell whose label is no type (co-expression, unclassified)"] == 20
    assert drops["cell of a type with fewer than 20 cells"] == 7
    assert drops["gene whose name came before"] == 1


def test_header_for_another_number_of_cells_is_refused(load, files):
    content = files[MATRIX].read_text().split("\n", 1)
    files[MATRIX].write_text("#samples\tA\tB\n" + content[1])
    with pytest.raises(CellDualityError, match="not twice as many"):
        load("segerstolpe_2016", files)


def test_sample_sheet_without_inferred_types_is_refused(load, files):
    files[SDRF].write_text(files[SDRF].read_text().replace("inferred cell type", "disease"))
    with pytest.raises(CellDualityError, match="no column like 'inferredcelltype'"):
        load("segerstolpe_2016", files)
