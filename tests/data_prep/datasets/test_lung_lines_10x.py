from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from data_prep.datasets.lung_lines_10x import IC50, NOT_SCREENED

NAME = "lung_lines_10x"
LINES = ["H838", "H1975", "H2228", "A549", "HCC827"] * 4
CELLS = [f"Lib90_{number:05}" for number in range(len(LINES))]
GENES = [f"G{number}" for number in range(6)]


@pytest.fixture
def write(counts, sparse, save_r):
    """Return a function that writes the list that SuperCell has, genes by cells, and a vector of the lines."""

    def make(scale=1.0):
        expression = sparse(counts(len(LINES), len(GENES)).T * scale, GENES, CELLS)
        content = {"GE": expression, "meta": np.array(LINES, dtype=object)}
        return {"cell_lines.rda": save_r("cell_lines.rda", cell_lines=content)}

    return make


def test_a_line_answers_as_its_ic50_says(load, write):
    adata = load(NAME, write(0.7))
    answers = Counter(zip(adata.obs["cell_line"], adata.obs["drug"], adata.obs["sensitivity"], strict=True))
    sensitive = {("HCC827", "gefitinib"), ("HCC827", "afatinib"), ("H1975", "afatinib")}
    assert answers == {
        (line, drug, "Sensitive" if (line, drug) in sensitive else "Resistant"): 2
        for drug, measured in IC50.items()
        for line in measured
    }
    assert adata.uns["drops"] == {NOT_SCREENED: 4}
    assert not adata.uns["counts"]


def test_no_cell_is_there_under_two_drugs_and_counts_are_known(load, write, counts):
    adata = load(NAME, write())
    kept = [place for place, line in enumerate(LINES) if line != "H2228"]
    assert adata.obs_names.tolist() == [CELLS[place] for place in kept]
    assert adata.X.toarray().tolist() == counts(len(LINES), len(GENES))[kept].tolist()
    assert adata.uns["counts"]
