from __future__ import annotations

import numpy as np
import pytest

from tests.refused import refused

LABELS = ["B Cell CD79A"] * 22 + ["NK/T Cell GNLY"] * 21 + ["Cholangiocyte"] * 20 + ["Macrophage FCN3"] * 19
COUNTS, ANNOTATION = "GSM4850582_Liver_Counts.csv.gz", "Annotation_AHCA_alltissues_meta.data_84363_cell.txt"


@pytest.fixture
def files(counts, write_table, write_counts):
    """The liver's counts, and labels of all tissues, as R writes them: no name above the row names."""
    values = counts(len(LABELS), 3100)
    values[:, 225:] = 0
    values[3:13, 400:] = 1  # every gene is in eight cells at least
    values[13:23, 225:600] = 1
    values[0, 225:3000] = 1  # 3,000 genes less the one that is zero: below the cap
    values[1, 225:3001] = 1  # 3,000 genes: a doublet
    values[2, 220:224] = 400  # far more than a tenth of its counts
    genes = [f"G{number}" for number in range(3096)] + ["G0", "G1", "G2", "G3"]
    genes[220:224] = [f"MT-{number}" for number in range(4)]
    cells = [f"ACGT{number:03}-1" for number in range(len(LABELS))]
    labels = [["orig.ident", "Cell_type_in_each_tissue", "Cell_type_in_merged_data"]]
    labels += [[f"Liver_cDNA_{cell}", "Liver_cDNA", "other", kind] for cell, kind in zip(cells, LABELS, strict=True)]
    labels += [[f"Blood_cDNA_{cells[0]}", "Blood_cDNA", "other", "Monocyte"]]
    quoted = [f'"{cell}"' for cell in cells], [f'"{gene}"' for gene in genes]
    table = write_counts(COUNTS, values, *quoted, separator=",", corner=[""])
    return {COUNTS: table, ANNOTATION: write_table(ANNOTATION, labels)}


def test_rare_types_go_before_the_marker_is_stripped_from_the_rest(load, files, tally, counts):
    adata = load("he_2020_liver", files)
    assert tally(adata) == {"NK/T Cell": 21, "Cholangiocyte": 20, "B Cell": 20}
    assert adata.uns["drops"] == {
        "gene whose name came before": 4,
        "cell with 3000 genes or more": 1,
        "cell with 10 % mitochondrial counts or more": 1,
        "cell of a type with fewer than 20 cells": 19,
    }
    assert set(adata.obs["tissue"]) == {"liver"}
    assert adata["ACGT010-1", "G5"].X.toarray().item() == counts(len(LABELS), 3100)[10, 5]
    assert np.array_equal(adata["ACGT010-1", "G10"].X.toarray(), [[0]])


def test_two_rare_types_are_not_saved_by_their_common_stem(load, files):
    files[ANNOTATION].write_text(files[ANNOTATION].read_text().replace("B Cell CD79A", "B Cell CD79B", 11))
    adata = load("he_2020_liver", files)
    assert set(adata.obs["cell_type"]) == {"NK/T Cell", "Cholangiocyte"}
    assert adata.uns["drops"]["cell of a type with fewer than 20 cells"] == 19 + 20


def test_labels_of_another_tissue_a_cut_off_table_and_a_missing_file_are_refused(load, files):
    files[ANNOTATION].write_text(files[ANNOTATION].read_text().replace("Liver_cDNA_", "Heart_cDNA_"))
    with refused("not-as-published"):
        load("he_2020_liver", files)
    content = files[COUNTS].read_bytes()
    files[COUNTS].write_bytes(content[: len(content) // 2])
    with refused("not-as-published") as error:
        load("he_2020_liver", files)
    assert error.value.where == str(files[COUNTS])
    with refused("missing-file"):
        load("he_2020_liver", {COUNTS: write_whole(files[COUNTS], content)})


def write_whole(path, content):
    path.write_bytes(content)
    return path
