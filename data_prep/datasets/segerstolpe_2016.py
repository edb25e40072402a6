"""Segerstolpe 2016, human pancreas (E-MTAB-5061)."""

from __future__ import annotations

from data_prep.loading.dataset import Dataset, Files, not_published, remote
from data_prep.loading.draft import Draft, look_up, read_header, read_matrix, read_rows
from data_prep.splits import INSTRUCTCELL

MATRIX, SAMPLES = "pancreas_refseq_rpkms_counts_3514sc.txt", "E-MTAB-5061.sdrf.txt"
GENE_ROWS = 26_177  # Lines of genes; spike-ins and a reporter follow
ID_FIELDS = 2  # Gene and RefSeq accession, before the numbers
NO_TYPE = frozenset({"co-expression cell", "unclassified cell", "unclassified endocrine cell", "not applicable"})


def read(files: Files, variant: str) -> Draft:
    """Return the cells; a line holds a gene's RPKM in all cells and then its counts, which are read."""
    path = files[MATRIX]
    header, width = read_header(path, "\t")
    n_cells, odd = divmod(width - ID_FIELDS, 2)
    cells = [name for name in header if name != "#samples"][:n_cells]
    if odd or len(cells) != n_cells:
        raise not_published(path, f"{width - ID_FIELDS} numbers a line for {len(cells)} cells, not twice as many")
    values, _, genes = read_matrix(path, "\t", names=ID_FIELDS, columns=slice(n_cells, None), rows=GENE_ROWS)
    draft = Draft(values, cells, genes)

    rows = read_rows(files[SAMPLES], "\t")  # names that repeat (Protocol REF) keep the last value
    name, quality, label, donor = (
        column_like(rows, wanted) for wanted in ("sourcename", "quality", "inferredcelltype", "individual")
    )
    good = {row[name] for row in rows if row[quality] == "OK"}
    draft.put(
        cell_type=look_up({row[name]: row[label] for row in rows}, draft.cells, path),
        donor=look_up({row[name]: row[donor] for row in rows}, draft.cells, path),
    )
    draft.drop_copies()
    draft.keep_cells([cell in good for cell in draft.cells], "well that failed the publication's quality control")
    return draft.clean(max_genes=10_000, no_type=NO_TYPE)


def column_like(rows: list[dict[str, str]], wanted: str) -> str:
    """Return the column whose name holds ``wanted``, spaces and case aside: they vary between releases."""
    for name in rows[0]:
        if wanted in name.lower().replace(" ", ""):
            return name
    raise not_published(SAMPLES, f"no column like {wanted!r}")


DATASET = Dataset(
    title="Segerstolpe 2016, pancreas",
    tissue="pancreas",
    modality="Smart-seq2, counts",
    sources=remote("https://www.ebi.ac.uk/biostudies/files/E-MTAB-5061", MATRIX, SAMPLES),
    licence="none stated (ArrayExpress)",
    citation="Segerstolpe et al. 2016, Cell Metabolism 24:593, doi:10.1016/j.cmet.2016.08.020",
    read=read,
    columns=("cell_type", "tissue", "donor"),
    cells=2_209,
    test_cells=209,
    split=INSTRUCTCELL,
    notes="One table holds RPKM and then counts of the same cells under one header, and spike-ins below the genes.",
)
