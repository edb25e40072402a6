from __future__ import annotations

import gzip
import io
import tarfile

import pytest
import scipy.io
import scipy.sparse

from tests.refused import refused

ARCHIVE, LABELS = "GSE114297_RAW.tar", "labels.csv"
SAMPLES = ("GSM3138939_Donor_1", "GSM3138940_Donor_2")
CELLS = 24


@pytest.fixture
def write(tmp_path, counts, write_table):
    """Return a function that writes triplets of two donors whose barcodes repeat, and the user's labels.

    Symbols stand first, beside Ensembl ids and a spike-in.
    """

    def make(leave_out: str = ""):
        genes = [f"G{number}" for number in range(228)] + ["ENSG00000000003", "chromosome_EGFP", "G0"]
        with tarfile.open(tmp_path / ARCHIVE, "w") as pack:
            for sample in SAMPLES:
                matrix = io.BytesIO()
                scipy.io.mmwrite(matrix, scipy.sparse.coo_matrix(counts(CELLS, 231).T))
                parts = {
                    f"{sample}_matrix.mtx.gz": matrix.getvalue(),
                    f"{sample}_barcodes.tsv.gz": "".join(f"AAAC{number:02}-1\n" for number in range(CELLS)).encode(),
                    f"{sample}_genes.tsv.gz": "".join(f"{gene}\t{gene}_id\n" for gene in genes).encode(),
                }
                for name in parts.keys() - {leave_out}:
                    member, packed = tarfile.TarInfo(name), gzip.compress(parts[name])
                    member.size = len(packed)
                    pack.addfile(member, io.BytesIO(packed))
        kinds = ["Beta"] * 22 + ["Alpha"] * (2 * CELLS - 22)
        cells = [f"{sample}_AAAC{number:02}-1" for sample in SAMPLES for number in range(CELLS)]
        labels = write_table(LABELS, [["cell", "cell_type"], *zip(cells, kinds, strict=True)], ",")
        return {ARCHIVE: tmp_path / ARCHIVE, LABELS: labels}

    return make


def test_triplets_of_all_donors_are_joined_and_labelled_by_the_user(load, write, counts, tally):
    adata = load("xin_2016", write())
    assert tally(adata) == {"Alpha": 26, "Beta": 22}
    assert tally(adata, "donor") == {"Donor_1": 24, "Donor_2": 24}
    assert adata.n_vars == 228
    assert adata.uns["drops"] == {"gene without a symbol (ENSG..., chromosome...)": 2}
    assert adata[f"{SAMPLES[1]}_AAAC03-1", "G5"].X.toarray().item() == counts(CELLS, 231)[3, 5]


def test_lacking_labels_genes_and_a_cut_off_archive_are_refused(load, write):
    files = write(leave_out=f"{SAMPLES[1]}_genes.tsv.gz")
    with refused("not-as-published"):
        load("xin_2016", files)
    files[ARCHIVE].write_bytes(files[ARCHIVE].read_bytes()[:9000])
    with refused("not-as-published"):
        load("xin_2016", files)
    with refused("missing-file") as error:
        load("xin_2016", {ARCHIVE: files[ARCHIVE]})
    assert LABELS in error.value.hint
