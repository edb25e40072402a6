"""Human islets of GSE114297, which InstructCell calls Xin-2016."""

from __future__ import annotations

import gzip
import io
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cellduality_plugin.errors import CellDualityError
from data_prep.download.archives import BROKEN
from data_prep.published.draft import Draft, file_of, first_of_name, look_up, rare_labels
from data_prep.published.tables import read_rows

if TYPE_CHECKING:
    from anndata import AnnData

ARCHIVE, LABELS = "GSE114297_RAW.tar", "labels.csv"
PARTS = ("matrix.mtx.gz", "barcodes.tsv.gz", "genes.tsv.gz")
MAX_GENES, MAX_MITO = 4000, 10.0
NO_SYMBOLS = ("ENSG", "chromosome")
NO_SYMBOL = "gene without a symbol (ENSG..., chromosome...)"


def load(files: Mapping[str, Path], variant: str) -> AnnData:
    """Return the cells; see :meth:`data_prep.registry.Dataset.load`.

    InstructCell clustered these cells and named the clusters by hand; the names are not public. The labels are the
    user's: ``labels.csv`` with the columns ``cell`` (SAMPLE_BARCODE) and ``cell_type``. The accession is that of Xin
    2018; the variant "as_published" cites 2016 in ``uns["citation"]``, "corrected" 2018. The cells are the same.

    Raises
    ------
    CellDualityError
        If there are no labels.
    """
    if LABELS not in files:
        raise CellDualityError(
            "this set has no public labels: the published ones were given by hand to clusters, and are not published",
            where=f"xin_2016/{LABELS}",
            mend=f"put a table {LABELS} with the columns cell (SAMPLE_BARCODE) and cell_type beside {ARCHIVE}",
        )
    samples = read_samples(file_of(files, ARCHIVE))
    draft = join(samples)
    labels = {row.get("cell", ""): row.get("cell_type", "") for row in read_rows(files[LABELS], ",")}
    draft.put(cell_type=look_up(labels, draft.cells, LABELS), tissue="pancreas")
    draft.keep_genes(np.array([not gene.startswith(NO_SYMBOLS) for gene in draft.genes], dtype=bool), NO_SYMBOL)
    draft.drop_copies()
    rare = rare_labels(draft.obs["cell_type"])
    draft.filter(max_genes=MAX_GENES, max_mito=MAX_MITO)
    draft.drop_labels("cell_type", rare)
    citation = "doi:10.1016/j.cmet.2016.08.018" if variant == "as_published" else "doi:10.2337/db18-0365"
    return draft.finish("xin_2016", variant, "human", "counts", citation=citation)


def read_samples(archive: Path) -> dict[str, tuple[Any, np.ndarray, np.ndarray]]:
    """Return (counts of cells by genes, barcodes, genes) by sample, in alphabetical order.

    Nothing of the archive is unpacked to the disk.

    Raises
    ------
    CellDualityError
        If the archive is broken, or a sample lacks one of its three files.
    """
    import scipy.io

    parts: dict[str, dict[str, bytes]] = {}
    try:
        with tarfile.open(archive) as pack:
            for member in pack:
                part = next((part for part in PARTS if member.name.endswith(f"_{part}")), "")
                content = pack.extractfile(member) if part and member.isreg() else None
                if content is not None:
                    sample = Path(member.name).name.removesuffix(f"_{part}")
                    parts.setdefault(sample, {})[part] = gzip.decompress(content.read())
        short = [sample for sample, found in parts.items() if len(found) < len(PARTS)]
        if short or not parts:
            raise CellDualityError(
                f"sample {short[0]} lacks one of {', '.join(PARTS)}" if short else "no sample in the archive",
                where=str(archive),
                mend="remove it and fetch the set again",
            )
        return {
            sample: (
                scipy.io.mmread(io.BytesIO(found[PARTS[0]])).T.tocsr(),
                _first_field(found[PARTS[1]]),
                _first_field(found[PARTS[2]]),
            )
            for sample, found in sorted(parts.items())
        }
    except (*BROKEN, OSError, ValueError) as error:
        raise CellDualityError(
            f"broken archive ({type(error).__name__}: {str(error)[:100]})",
            where=str(archive),
            mend="remove it and fetch the set again",
        ) from error


def _first_field(content: bytes) -> np.ndarray:
    """Return the first field of every line: symbols come first in these files, and not second as elsewhere."""
    return np.array([line.split("\t")[0] for line in content.decode("utf-8").splitlines()], dtype=object)


def join(samples: Mapping[str, tuple[Any, np.ndarray, np.ndarray]]) -> Draft:
    """Return all samples in one, with the genes that all have; cells are called SAMPLE_BARCODE."""
    import scipy.sparse

    kept = {sample: (values, cells, genes, first_of_name(genes)) for sample, (values, cells, genes) in samples.items()}
    shared = set.intersection(*(set(genes) for _, _, genes, _ in kept.values()))
    order = [gene for gene in next(iter(kept.values()))[2] if gene in shared]
    order = list(dict.fromkeys(order))
    blocks, names, donors = [], [], []
    for sample, (values, cells, genes, first) in kept.items():
        place = {gene: number for number, gene in enumerate(genes) if first[number]}
        blocks.append(values[:, [place[gene] for gene in order]])
        names += [f"{sample}_{cell}" for cell in cells]
        donors += [sample.partition("_")[2] or sample] * len(cells)
    draft = Draft(scipy.sparse.vstack(blocks, format="csr"), np.array(names), np.array(order))
    draft.put(donor=donors)
    return draft
