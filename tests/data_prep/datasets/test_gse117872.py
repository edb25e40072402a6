from __future__ import annotations

import pytest

from tests.refused import refused

TPM, CELLS = "GSE117872_good_Data_TPM.txt.gz", "GSE117872_good_Data_cellinfo.txt.gz"
STATUS = ["Sensitive"] * 14 + ["Resistant"] * 9 + ["Holiday"] * 6
HEADER = ["groups", "cell_color", "patient_id", "origin", "drug_status", "cluster"]


@pytest.fixture
def write(counts, write_table, write_counts):
    def make(header=HEADER, status=STATUS):
        names = [f"HN120P_{number}" for number in range(len(STATUS))]
        values = (counts(len(STATUS)) + 0.25) * (counts(len(STATUS)) > 0)
        cells = [[n, "HN120PCR", "#ff0000", "HN120", "Primary", s] for n, s in zip(names, status, strict=True)]
        return {TPM: write_counts(TPM, values, names, corner=[]), CELLS: write_table(CELLS, [header, *cells])}

    return make


def test_status_is_found_under_cluster_and_holiday_is_sensitive_as_published(load, write, tally):
    adata = load("gse117872", write(), "as_published")
    assert tally(adata, "sensitivity") == {"Sensitive": 20, "Resistant": 9}
    assert adata.uns["counts"]
    assert float(adata.X.data.min()) == 1.25
    assert set(adata.obs["donor"]) == {"HN120"}
    assert set(adata.obs["drug"]) == {"cisplatin"}


@pytest.mark.parametrize("header", [HEADER, HEADER[1:]])
def test_holiday_cells_are_left_out_in_the_corrected_variant(load, write, tally, header):
    adata = load("gse117872", write(header))
    assert tally(adata, "sensitivity") == {"Sensitive": 14, "Resistant": 9}
    assert adata.uns["drops"] == {"cell on a drug holiday, neither sensitive nor resistant": 6}


def test_cell_table_without_a_status_is_refused(load, write):
    with refused("not-as-published"):
        load("gse117872", write(status=["maybe"] * len(STATUS)))
