from __future__ import annotations

import pytest

from cellduality_plugin.errors import CellDualityError

COUNTS, CELLS = "erl_total_data_2K.csv", "erl_total_2K_meta.csv"
STATUS = ["sensitive"] * 12 + ["resistant"] * 11


@pytest.fixture
def write(counts, write_table):
    """Counts whose first column holds the genes, and a table of cells without a header."""

    def make(meta=None):
        names = [f"{status[:5]}_AC{number:02}" for number, status in enumerate(STATUS)]
        values = counts(len(STATUS))
        values[:, 229] = 1
        values[5, 229] = 5000
        genes = [f"G{number}" for number in range(229)] + ["MT-ND1"]
        lines = [["", *names]] + [[gene, *row] for gene, row in zip(genes, values.T.tolist(), strict=True)]
        meta = meta or [[name, "erl", "2000", status] for name, status in zip(names, STATUS, strict=True)]
        return {COUNTS: write_table(COUNTS, lines, ","), CELLS: write_table(CELLS, meta, ",")}

    return make


def test_status_is_the_third_value_and_the_first_line_is_a_cell(load, write):
    adata = load("gse149383", write())
    assert adata.obs["sensitivity"].value_counts().to_dict() == {"Sensitive": 11, "Resistant": 11}
    assert adata.obs_names[0] == "sensi_AC00"
    assert adata.uns["drops"] == {"cell with 10 % mitochondrial counts or more": 1}
    assert set(adata.obs["cell_line"]) == {"PC9"}


def test_cell_names_may_follow_a_running_number(load, write):
    rows = [[number, f"{status[:5]}_AC{number:02}", "erl", status] for number, status in enumerate(STATUS)]
    adata = load("gse149383", write(rows))
    assert adata.obs["sensitivity"].value_counts().to_dict() == {"Sensitive": 11, "Resistant": 11}


@pytest.mark.parametrize(
    ("meta", "told"),
    [
        ([["sensi_AC00", "erl", "sensitive"]], "lines of 3 fields, not 4"),
        ([["sensi_AC00", "erl", "sensitive", "2000"]], "the third value is '2000'"),
        ([["another", "erl", "2000", "sensitive"]], "no cell of the matrix has a label"),
        ([["a", "b", "c", "d"], ["a", "b", "c"]], "line 2 has 3 fields, not 4"),
    ],
)
def test_another_table_of_cells_is_refused(load, write, meta, told):
    with pytest.raises(CellDualityError, match=told):
        load("gse149383", write(meta))
