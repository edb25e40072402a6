from __future__ import annotations

import gzip
import io
import tarfile

import numpy as np
import pytest
import scipy.io
import scipy.sparse

from cellduality_plugin.errors import CellDualityError

ARCHIVE, LABELS = "GSE114297_RAW.tar", "labels.csv"
SAMPLES = ("GSM3138939_Donor_1", "GSM3138940_Donor_2")
CELLS = 24


@pytest.fixture
def write_archive(tmp_path, counts):
    """Triplets of two donors whose barcodes repeat; symbols stand first, beside Ensembl ids and a spike-in."""

    def write(leave_out: str = "", end: int | None = None):
        path = tmp_path / ARCHIVE
        genes = [f"G{number}" for number in range(228)] + ["ENSG00000000003", "chromosome_EGFP", "G0"]
        with tarfile.open(path, "w") as pack:
            for sample in SAMPLES:
                matrix = io.BytesIO()
                scipy.io.mmwrite(matrix, scipy.sparse.coo_matrix(counts(CELLS, 231).T))
                parts = {
                    "matrix.mtx.gz": matrix.getvalue(),
                    "barcodes.tsv.gz": "".join(f"AAAC{number:02}-1\n" for number in range(CELLS)).encode(),
                    "genes.tsv.gz": "".join(f"{gene}\t{gene}_id\n" for gene in genes).encode(),
                }
                for part, content in parts.items():
                    if f"{sample}_{part}" == leave_out:
                        continue
                    member, packed = tarfile.TarInfo(f"{sample}_{part}"), gzip.compress(content)
                    member.size = len(packed)
                    pack.addfile(member, io.BytesIO(packed))
        if end:
            path.write_bytes(path.read_bytes()[:end])
        return path

    return write


@pytest.fixture
def labels(write_table):
    kinds = ["Beta"] * 22 + ["Alpha"] * (2 * CELLS - 22)
    cells = [f"{sample}_AAAC{number:02}-1" for sample in SAMPLES for number in range(CELLS)]
    return write_table(LABELS, [["cell", "cell_type"], *zip(cells, kinds, strict=True)], ",")


def test_triplets_of_all_donors_are_joined_and_labelled_by_the_user(load, write_archive, labels, counts):
    adata = load("xin_2016", {ARCHIVE: write_archive(), LABELS: labels})
    assert adata.obs["cell_type"].value_counts().to_dict() == {"Alpha": 26, "Beta": 22}
    assert adata.obs["donor"].value_counts().to_dict() == {"Donor_1": 24, "Donor_2": 24}
    assert adata.n_vars == 228
    assert adata.uns["drops"] == {"gene without a symbol (ENSG..., chromosome...)": 2}
    assert adata[f"{SAMPLES[1]}_AAAC03-1", "G5"].X.toarray().item() == counts(CELLS, 231)[3, 5]


def test_each_variant_cites_its_publication(load, write_archive, labels):
    files = {ARCHIVE: write_archive(), LABELS: labels}
    corrected, published = load("xin_2016", files), load("xin_2016", files, "as_published")
    assert corrected.uns["citation"] == "doi:10.2337/db18-0365"
    assert published.uns["citation"] == "doi:10.1016/j.cmet.2016.08.018"
    assert np.array_equal(corrected.X.data, published.X.data)


@pytest.mark.parametrize("variant", ["as_published", "corrected"])
def test_without_the_users_labels_there_is_no_set(load, write_archive, variant):
    with pytest.raises(CellDualityError, match="no public labels") as raised:
        load("xin_2016", {ARCHIVE: write_archive()}, variant)
    assert "labels.csv" in raised.value.mend


def test_sample_without_its_genes_is_named(load, write_archive, labels):
    path = write_archive(leave_out=f"{SAMPLES[1]}_genes.tsv.gz")
    with pytest.raises(CellDualityError, match=f"sample {SAMPLES[1]} lacks one of"):
        load("xin_2016", {ARCHIVE: path, LABELS: labels})


def test_cut_off_archive_is_one_line(load, write_archive, labels):
    with pytest.raises(CellDualityError, match=r"broken archive|lacks one of"):
        load("xin_2016", {ARCHIVE: write_archive(end=9000), LABELS: labels})
