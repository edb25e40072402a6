"""Human islets of GSE114297, which InstructCell calls Xin-2016."""

from __future__ import annotations

import gzip
import io
import tarfile
import zlib
from pathlib import Path

from cellduality_plugin.errors import CellDualityError
from data_prep.loading.dataset import Dataset, Files, UserFile, geo, not_published
from data_prep.loading.draft import Draft, look_up, read_rows
from data_prep.splits import INSTRUCTCELL

ARCHIVE, LABELS = "GSE114297_RAW.tar", "labels.csv"
PARTS = ("matrix.mtx.gz", "barcodes.tsv.gz", "genes.tsv.gz")


def read(files: Files, variant: str) -> Draft:
    """Return the cells, the same in both variants, with labels of the user's: InstructCell's own are not public."""
    if LABELS not in files:
        what = "this set has no public labels: the published ones were given by hand to clusters, and are not published"
        hint = f"put a table {LABELS} with the columns cell (SAMPLE_BARCODE) and cell_type beside {ARCHIVE}"
        raise CellDualityError(what, code="missing-file", where=f"xin_2016/{LABELS}", hint=hint)
    draft = read_samples(files[ARCHIVE])
    labels = {row.get("cell", ""): row.get("cell_type", "") for row in read_rows(files[LABELS], ",")}
    draft.put(cell_type=look_up(labels, draft.cells, LABELS))
    named = [not gene.startswith(("ENSG", "chromosome")) for gene in draft.genes]
    draft.keep_genes(named, "gene without a symbol (ENSG..., chromosome...)")
    return draft.clean(max_genes=4000, max_mito=10.0)


def read_samples(archive: Path) -> Draft:
    """Return the cells of all samples, called SAMPLE_BARCODE, with the genes that all have; nothing is unpacked."""
    import scipy.io
    import scipy.sparse
    from pandas import Index

    parts: dict[str, dict[str, bytes]] = {}
    samples = []
    try:
        with tarfile.open(archive) as pack:
            for member in filter(tarfile.TarInfo.isreg, pack):
                sample, _, part = Path(member.name).name.rpartition("_")
                if part in PARTS and (content := pack.extractfile(member)):
                    parts.setdefault(sample, {})[part] = gzip.decompress(content.read())
        for sample, found in sorted(parts.items()):
            if len(found) < len(PARTS):
                raise ValueError(f"sample {sample} lacks one of {', '.join(PARTS)}")
            matrix, barcodes, symbols = (found[part] for part in PARTS)
            cells = [f"{sample}_{barcode}" for barcode in first_fields(barcodes)]
            draft = Draft(scipy.io.mmread(io.BytesIO(matrix)).T, cells, first_fields(symbols))
            draft.put(donor=sample.partition("_")[2] or sample)
            draft.keep_genes(~Index(draft.genes).duplicated(), "gene whose name came before")
            samples.append(draft)
        shared = set.intersection(*(set(draft.genes) for draft in samples))  # a TypeError if there is none
    except (tarfile.TarError, EOFError, zlib.error, OSError, ValueError, TypeError) as error:
        raise not_published(archive, error) from error
    order = [gene for gene in samples[0].genes if gene in shared]
    values = scipy.sparse.vstack([draft.values[:, Index(draft.genes).get_indexer(order)] for draft in samples])
    donors = [donor for draft in samples for donor in draft.obs["donor"]]
    return Draft(values, [cell for draft in samples for cell in draft.cells], order).put(donor=donors)


def first_fields(content: bytes) -> list[str]:
    """Return the first field of every line: symbols come first in these files, and not second as elsewhere."""
    return [line.split("\t")[0] for line in content.decode("utf-8").splitlines()]


DATASET = Dataset(
    title="Xin, pancreatic islets (GSE114297)",
    tissue="pancreas",
    modality="10x 3', counts",
    sources=(
        *geo("GSE114297", ARCHIVE),
        UserFile(
            LABELS,
            "your own table with the columns cell (SAMPLE_BARCODE) and cell_type: InstructCell named its clusters"
            " by hand and has not published the names",
        ),
    ),
    citation="Xin et al. 2018, Diabetes 67:1783, doi:10.2337/db18-0365"
    " (as published: Xin et al. 2016, Cell Metabolism 24:608, doi:10.1016/j.cmet.2016.08.018)",
    read=read,
    columns=("cell_type", "tissue", "donor"),
    cells=19_915,
    test_cells=1_992,
    split=INSTRUCTCELL,
    correction="the cells are said to be of Xin 2018, whose accession this is; Xin 2016 is GSE81608.",
    notes="There are no public labels for these cells: you have to bring them.",
)
