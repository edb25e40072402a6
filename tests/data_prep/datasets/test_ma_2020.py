from __future__ import annotations

import pytest

KINDS = ["Basal"] * 24 + ["Mix"] * 22 + ["Schwann Cell"] * 19
COUNTS, LABELS = "GSM4156608_skin.late.anagen.rna.counts.txt.gz", "GSM4156597_skin_celltype.txt.gz"


@pytest.fixture
def files(counts, write_counts, write_table, mouse_genes):
    """Barcodes with commas in the counts and dots in the labels, mouse genes, and a cell nobody labelled."""
    values = counts(len(KINDS) + 1, 260, high=200)
    genes = [*mouse_genes[:258], "mt-Co1", "MT-Fake"]
    values[:, 258] = 0
    values[10:20, 258] = 1
    values[0, 258] = 1000  # most of its counts, and far more than 0.6 %
    commas = [f"R1.{number:02},R2.01,R3.06,P1.55" for number in range(len(KINDS) + 1)]
    labels = [["A", name.replace(",", "."), kind] for name, kind in zip(commas[:-1], KINDS, strict=True)]
    table = write_table(LABELS, [["atac.bc", "rna.bc", "celltype"], *labels])
    return {COUNTS: write_counts(COUNTS, values, commas, genes), LABELS: table}


def test_commas_meet_dots_and_mouse_mitochondria_are_capped(load, files, tally):
    adata = load("ma_2020", files)
    assert tally(adata) == {"Basal": 23, "Mix": 22}
    assert adata.obs_names[0] == "R1.01.R2.01.R3.06.P1.55"
    assert adata.uns["drops"] == {
        "cell without a label": 1,
        "cell of a type with fewer than 20 cells": 19,
        "cell with 0.6 % mitochondrial counts or more": 1,
    }
    assert "MT-Fake" in adata.var_names
