from __future__ import annotations

import pytest

from tests.refused import refused

COUNTS, CELLS = "erl_total_data_2K.csv", "erl_total_2K_meta.csv"
STATUS = ["sensitive"] * 12 + ["resistant"] * 11
NAMES = [f"{status[:5]}_AC{number:02}" for number, status in enumerate(STATUS)]

WHOLE = [[cell, "erl", "2000", status] for cell, status in zip(NAMES, STATUS, strict=True)]


@pytest.fixture
def write(counts, write_table, write_counts):
    """Counts whose first column holds the genes, and a table of cells without a header."""

    def make(cells=WHOLE):
        values = counts(len(STATUS))
        values[:, 229] = 1
        values[5, 229] = 5000
        genes = [f"G{number}" for number in range(229)] + ["MT-ND1"]
        table = write_counts(COUNTS, values, NAMES, genes, separator=",", corner=[""])
        return {COUNTS: table, CELLS: write_table(CELLS, cells, ",")}

    return make


@pytest.mark.parametrize("numbered", [False, True])
def test_status_is_the_third_value_and_the_first_line_is_a_cell(load, write, tally, numbered):
    both = enumerate(zip(NAMES, STATUS, strict=True))
    adata = load("gse149383", write([[*((n, c) if numbered else (c, "erl")), "2000", s] for n, (c, s) in both]))
    assert tally(adata, "sensitivity") == {"Sensitive": 11, "Resistant": 11}
    assert adata.obs_names[0] == "sensi_AC00"
    assert adata.uns["drops"] == {"cell with 10 % mitochondrial counts or more": 1}
    assert set(adata.obs["cell_line"]) == {"PC9"}


@pytest.mark.parametrize(
    "cells",
    [
        [["sensi_AC00", "erl", "sensitive"]],
        [["sensi_AC00", "erl", "sensitive", "2000"]],
        [["another", "erl", "2000", "sensitive"]],
        [["a", "b", "c", "d"], ["a", "b", "c"]],
    ],
)
def test_another_table_of_cells_is_refused(load, write, cells):
    with refused("not-as-published"):
        load("gse149383", write(cells))
