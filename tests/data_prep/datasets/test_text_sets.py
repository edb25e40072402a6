"""Sets that are published as tables of text, written here in the published shape."""

from __future__ import annotations

import gzip
import io
import tarfile

import numpy as np
import openpyxl
import pytest
import scipy.io
import scipy.sparse

from tests.data_prep.datasets.conftest import MOUSE, counts, gene, load, refuse, tally
from tests.refused import refused

WELLS = "GSE110894_SingleCellInfo.xlsx"
STATUS = ["Sensitive"] * 14 + ["Resistant"] * 9 + ["Holiday"] * 6
HEADER = ["groups", "cell_color", "patient_id", "origin", "drug_status", "cluster"]
PC9 = [(f"{status[:5]}_AC{number:02}", status) for number, status in enumerate(["sensitive"] * 12 + ["resistant"] * 11)]
LIVER, ANNOTATION = "GSM4850582_Liver_Counts.csv.gz", "Annotation_AHCA_alltissues_meta.data_84363_cell.txt"
LIVER_TYPES = ["B Cell CD79A"] * 22 + ["NK/T Cell GNLY"] * 21 + ["Cholangiocyte"] * 20 + ["Macrophage FCN3"] * 19
GENE_ROWS = 26_177
ISLETS, SDRF = "pancreas_refseq_rpkms_counts_3514sc.txt", "E-MTAB-5061.sdrf.txt"
ARCHIVE, DONORS, CELLS = "GSE114297_RAW.tar", ("GSM3138939_Donor_1", "GSM3138940_Donor_2"), 24


@pytest.fixture
def gse110894(tmp_path, write_counts):
    """A sheet with three lines above its header and merged cells, wells with their barcode, two plates."""

    def make(leading: int = 3, header=("Plate#", "Well position", "Sample name")):
        book, names, last = openpyxl.Workbook(), [], ("", "")
        for line in [*([f"about this sheet {number}"] for number in range(leading)), list(header)]:
            book.active.append(line)
        samples = ["DMSO SENSITIVE"] * 12 + ["IBET 1000nM RESISTANT"] * 11 + ["EMPTY"] * 4
        for number, sample in enumerate(samples):
            plate, well = ("LC25", "LC26")[number >= 15], f"{'ABCD'[number % 4]}{number}"
            names.append(f"{plate}_{well}")
            shown = sample if (plate, sample) != last else None
            book.active.append([plate if plate != last[0] else None, f"{well}=ACGTACGT", shown])
            last = (plate, sample)
        book.active.append([None, None, None])
        book.save(tmp_path / WELLS)
        table = write_counts("GSE110894_gene_count.csv.gz", counts(27), names, MOUSE[:230])
        return {**table, WELLS: tmp_path / WELLS}

    return make


def test_empty_wells_are_sensitive_as_published_and_left_out_when_corrected(gse110894):
    published, corrected = load("gse110894", gse110894(), "as_published"), load("gse110894", gse110894())
    assert tally(published, "sensitivity") == {"Sensitive": 16, "Resistant": 11}
    assert tally(corrected, "sensitivity") == {"Sensitive": 12, "Resistant": 11}
    assert corrected.uns["drops"] == {"EMPTY well, which holds no cell": 4}
    assert corrected.obs_names[0] == "LC25_A0"
    for wrong in ({"leading": 2}, {"header": ("Plate#", "Well", "Sample name")}):
        refuse("gse110894", gse110894(**wrong))
    files = gse110894()
    files[WELLS].write_text("<html>")
    refuse("gse110894", files)


@pytest.fixture
def gse117872(write_table, write_counts):
    def make(header=HEADER, status=STATUS):
        names = [f"HN120P_{number}" for number in range(len(STATUS))]
        cells = [[n, "HN120PCR", "#ff0000", "HN120", "Primary", s] for n, s in zip(names, status, strict=True)]
        values = (counts(len(STATUS)) + 0.25) * (counts(len(STATUS)) > 0)
        table = write_counts("GSE117872_good_Data_TPM.txt.gz", values, names, corner=[])
        return table | write_table("GSE117872_good_Data_cellinfo.txt.gz", [header, *cells])

    return make


@pytest.mark.parametrize("header", [HEADER, HEADER[1:]])
def test_status_is_found_under_cluster_and_holiday_is_none_when_corrected(gse117872, header):
    published, corrected = (load("gse117872", gse117872(header), variant) for variant in ("as_published", ""))
    assert tally(published, "sensitivity") == {"Sensitive": 20, "Resistant": 9}
    assert tally(corrected, "sensitivity") == {"Sensitive": 14, "Resistant": 9}
    assert corrected.uns["drops"] == {"cell on a drug holiday, neither sensitive nor resistant": 6}
    assert published.uns["counts"]
    assert float(published.X.data.min()) == 1.25
    assert (set(published.obs["donor"]), set(published.obs["drug"])) == ({"HN120"}, {"cisplatin"})
    refuse("gse117872", gse117872(header, ["maybe"] * len(STATUS)))


@pytest.fixture
def gse149383(write_table, write_counts):
    """Counts whose first column holds the genes, and a table of cells without a header."""

    def make(cells=tuple([cell, "erl", "2000", status] for cell, status in PC9)):
        values = counts(len(PC9))
        values[:, 229] = 1
        values[5, 229] = 5000
        genes, names = [*map(gene, range(229)), "MT-ND1"], [cell for cell, _ in PC9]
        table = write_counts("erl_total_data_2K.csv", values, names, genes, corner=[""])
        return table | write_table("erl_total_2K_meta.csv", cells)

    return make


@pytest.mark.parametrize("numbered", [False, True])
def test_status_is_the_third_value_and_the_first_line_is_a_cell(gse149383, numbered):
    cells = [[*((n, cell) if numbered else (cell, "erl")), "2000", status] for n, (cell, status) in enumerate(PC9)]
    adata = load("gse149383", gse149383(cells))
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
def test_another_table_of_cells_is_refused(gse149383, cells):
    refuse("gse149383", gse149383(cells))


@pytest.fixture
def he_2020_liver(write_table, write_counts):
    """The liver's counts, and labels of all tissues, as R writes them: no name above the row names."""
    values = counts(len(LIVER_TYPES), 3100)
    values[:, 225:] = 0
    values[3:13, 400:] = 1  # every gene is in eight cells at least
    values[13:23, 225:600] = 1
    values[0, 225:3000] = 1  # 3,000 genes less the one that is zero: below the cap
    values[1, 225:3001] = 1  # 3,000 genes: a doublet
    values[2, 220:224] = 400  # far more than a tenth of its counts
    genes = [*map(gene, range(3096)), gene(0), gene(1), gene(2), gene(3)]
    genes[220:224] = [f"MT-{number}" for number in range(4)]
    cells = [f"ACGT{number:03}-1" for number in range(len(LIVER_TYPES))]
    labels = [["orig.ident", "Cell_type_in_each_tissue", "Cell_type_in_merged_data"]]
    labels += [[f"Liver_cDNA_{cell}", "Liver_cDNA", "x", kind] for cell, kind in zip(cells, LIVER_TYPES, strict=True)]
    labels += [[f"Blood_cDNA_{cells[0]}", "Blood_cDNA", "other", "Monocyte"]]
    quoted = [f'"{cell}"' for cell in cells], [f'"{gene}"' for gene in genes]
    return write_counts(LIVER, values, *quoted, corner=[""]) | write_table(ANNOTATION, labels)


def test_rare_types_go_before_the_marker_is_stripped_from_the_rest(he_2020_liver):
    adata = load("he_2020_liver", he_2020_liver)
    assert tally(adata) == {"NK/T Cell": 21, "Cholangiocyte": 20, "B Cell": 20}
    assert adata.uns["drops"] == {
        "gene whose name came before": 4,
        "cell with 3000 genes or more": 1,
        "cell with 10 % mitochondrial counts or more": 1,
        "cell of a type with fewer than 20 cells": 19,
    }
    assert set(adata.obs["tissue"]) == {"liver"}
    assert adata["ACGT010-1", gene(5)].X.toarray().item() == counts(len(LIVER_TYPES), 3100)[10, 5]
    labels = he_2020_liver[ANNOTATION]
    labels.write_text(labels.read_text().replace("B Cell CD79A", "B Cell CD79B", 11))
    assert set(load("he_2020_liver", he_2020_liver).obs["cell_type"]) == {"NK/T Cell", "Cholangiocyte"}


def test_labels_of_another_tissue_a_missing_file_and_a_cut_off_table_are_refused(he_2020_liver):
    table, labels = he_2020_liver[LIVER], he_2020_liver[ANNOTATION]
    labels.write_text(labels.read_text().replace("Liver_cDNA_", "Heart_cDNA_"))
    refuse("he_2020_liver", he_2020_liver)
    with refused("missing-file"):
        load("he_2020_liver", {LIVER: table})
    table.write_bytes(table.read_bytes()[:2000])
    with refused("not-as-published") as error:
        load("he_2020_liver", he_2020_liver)
    assert error.value.where == str(table)


@pytest.fixture
def ma_2020(write_counts, write_table):
    """Barcodes with commas in the counts and dots in the labels, mouse genes, and a cell nobody labelled."""
    kinds = ["Basal"] * 24 + ["Mix"] * 22 + ["Schwann Cell"] * 19
    values = counts(len(kinds) + 1, 260, high=200)
    values[:, 258] = 0
    values[10:20, 258] = 1
    values[0, 258] = 1000  # most of its counts, and far more than 0.6 %
    commas = [f"R1.{number:02},R2.01,R3.06,P1.55" for number in range(len(kinds) + 1)]
    labels = [["A", name.replace(",", "."), kind] for name, kind in zip(commas[:-1], kinds, strict=True)]
    genes = [*MOUSE[:258], "mt-Co1", "MT-Fake"]
    table = write_counts("GSM4156608_skin.late.anagen.rna.counts.txt.gz", values, commas, genes)
    return table | write_table("GSM4156597_skin_celltype.txt.gz", [["atac.bc", "rna.bc", "celltype"], *labels])


def test_commas_meet_dots_and_mouse_mitochondria_are_capped(ma_2020):
    adata = load("ma_2020", ma_2020)
    assert tally(adata) == {"Basal": 23, "Mix": 22}
    assert adata.obs_names[0] == "R1.01.R2.01.R3.06.P1.55"
    assert adata.uns["drops"] == {
        "cell without a label": 1,
        "cell of a type with fewer than 20 cells": 19,
        "cell with 0.6 % mitochondrial counts or more": 1,
    }
    assert "MT-Fake" in adata.var_names


@pytest.fixture
def segerstolpe_2016(write_table):
    """RPKM and then counts of the same cells under one header, spike-ins below, and a poor well."""
    kinds = ["alpha cell"] * 21 + ["PSC cell"] * 20 + ["co-expression cell"] * 20 + ["mast cell"] * 7
    cells = [f"HP150_{number:02}" for number in range(len(kinds) + 1)]
    counts = np.zeros((GENE_ROWS + 3, len(cells)), dtype=int)
    counts[:230] = np.random.default_rng(0).integers(1, 9, size=(230, len(cells)))
    counts[:9_990, 2:10] = 1  # every gene is in eight cells at least
    counts[9_990:10_001, 10:18] = 1
    counts[:10_001, 0] = 1  # 10,000 genes, one name being there twice: a doublet
    counts[:10_000, 1] = 1
    counts[GENE_ROWS:] = 5000
    names = [*map(gene, range(GENE_ROWS)), "ERCC-00002", "ERCC-00003", "eGFP"]
    names[7] = gene(6)
    lines = [["#samples", *cells]]
    for number, (name, row) in enumerate(zip(names, counts.tolist(), strict=True)):
        lines.append([name, f"NM_{number}", *("0.5" if count else "0" for count in row), *row])
    header = ["Source Name", "Protocol REF", "Characteristics [cell type]", "Characteristics [individual]"]
    header += ["Characteristics [single cell well quality]", "Characteristics [inferred cell type]", "Protocol REF"]
    rows = [[cell, "P1", "islet", "HP1502401", "OK", kind, "P2"] for cell, kind in zip(cells, kinds, strict=False)]
    rows.append([cells[-1], "P1", "islet", "HP1502401", "low quality cell", "not applicable", "P2"])
    return write_table(ISLETS, lines) | write_table(SDRF, [header, *reversed(rows)])


def test_counts_are_read_and_not_rpkm_and_no_spike_ins(segerstolpe_2016):
    adata = load("segerstolpe_2016", segerstolpe_2016)
    assert tally(adata) == {"alpha cell": 20, "PSC cell": 20}
    assert (float(adata.X.data.min()), float(adata.X.data.max())) == (1.0, 8.0)
    assert not [gene for gene in adata.var_names if gene.startswith(("ERCC", "eGFP"))]
    assert set(adata.obs["donor"]) == {"HP1502401"}
    assert {
        "well that failed the publication's quality control": 1,
        "cell whose label is no type (co-expression, unclassified)": 20,
        "cell of a type with fewer than 20 cells": 7,
        "gene whose name came before": 1,
    }.items() <= adata.uns["drops"].items()
    samples, table = segerstolpe_2016[SDRF], segerstolpe_2016[ISLETS]
    samples.write_text(samples.read_text().replace("inferred cell type", "disease"))
    refuse("segerstolpe_2016", segerstolpe_2016)
    table.write_text("#samples\tA\tB\n" + table.read_text().split("\n", 1)[1])
    refuse("segerstolpe_2016", segerstolpe_2016)


@pytest.fixture
def xin_2016(tmp_path, write_table):
    """Triplets of two donors whose barcodes repeat, symbols beside other names, and the user's labels."""

    def make(leave_out: str = ""):
        genes = [*map(gene, range(228)), "ENSG00000000003", "chromosome_EGFP", gene(0)]
        with tarfile.open(tmp_path / ARCHIVE, "w") as pack:
            for sample in DONORS:
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
        cells = [f"{sample}_AAAC{number:02}-1" for sample in DONORS for number in range(CELLS)]
        labels = write_table("labels.csv", [["cell", "cell_type"], *zip(cells, kinds, strict=True)])
        return {ARCHIVE: tmp_path / ARCHIVE, **labels}

    return make


def test_triplets_of_all_donors_are_joined_and_labelled_by_the_user(xin_2016):
    adata = load("xin_2016", xin_2016())
    assert tally(adata) == {"Alpha": 26, "Beta": 22}
    assert tally(adata, "donor") == {"Donor_1": 24, "Donor_2": 24}
    assert adata.n_vars == 228
    assert adata.uns["drops"] == {"gene without a symbol (ENSG..., chromosome...)": 2}
    assert adata[f"{DONORS[1]}_AAAC03-1", gene(5)].X.toarray().item() == counts(CELLS, 231)[3, 5]


def test_lacking_labels_genes_and_a_cut_off_archive_are_refused(xin_2016):
    refuse("xin_2016", xin_2016(leave_out=f"{DONORS[1]}_genes.tsv.gz"))
    files = xin_2016()
    for length in (9000, 0):
        files[ARCHIVE].write_bytes(files[ARCHIVE].read_bytes()[:length])
        refuse("xin_2016", files)
    with refused("missing-file") as error:
        load("xin_2016", {ARCHIVE: files[ARCHIVE]})
    assert "labels.csv" in error.value.hint
