"""L1000, level 3 of GSE92742."""

from __future__ import annotations

import numpy as np

from data_prep.loading.dataset import RESPONSE, Dataset, Files, geo, not_published
from data_prep.loading.draft import Draft, read_rows
from data_prep.splits import PublishedSplit

PREFIX = "GSE92742_Broad_LINCS_"
MATRIX, PROFILES, GENES = (
    f"{PREFIX}{name}" for name in ("Level3_INF_mlr12k_n1319138x12328.gctx", "inst_info.txt", "gene_info.txt")
)
COMPOUND, VEHICLE = "trt_cp", "ctl_vehicle"
DOSE = ("pert_dose", "pert_dose_unit")
CHEMCPA = PublishedSplit(
    unknown="the paper trains on it and names no profiles for testing; chemCPA drew its own (a tenth of those of the 49"
    " commonest compounds, 16 % of the others) from a file of its own."
)
UNKNOWN_DOSE = ("-666", "-666.0")  # how L1000 writes that a dose is not known


def read(files: Files, variant: str) -> Draft:
    """Return the bulk profiles of compounds and their vehicle: log2 of the intensities of 978 landmark genes.

    All of them take about 8 GB of memory; the matrix on the disk, with its 12,328 genes, is read in blocks.
    """
    import h5py

    from data_prep.h5ad.matrices import StoredMatrix

    path = files[MATRIX]
    genes = {row["pr_gene_id"]: row for row in read_rows(files[GENES], "\t")}
    profiles = {row["inst_id"]: row for row in read_rows(files[PROFILES], "\t")}
    try:
        with h5py.File(path) as store:
            matrix = StoredMatrix.find(store, path, "0/DATA/0/matrix")
            gene_ids, profile_ids = (store[f"0/META/{axis}/id"].asstr()[:].tolist() for axis in ("ROW", "COL"))
        if matrix.shape != (len(profile_ids), len(gene_ids)):
            raise ValueError(f"a matrix of {matrix.shape} for {len(profile_ids)} profiles of {len(gene_ids)} genes")
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise not_published(path, error) from error
    wanted = [profiles.get(name, {}).get("pert_type", "") in (COMPOUND, VEHICLE) for name in profile_ids]
    measured = [genes.get(name, {}).get("pr_is_lm", "") == "1" for name in gene_ids]
    kept = [profiles[name] for name, good in zip(profile_ids, wanted, strict=True) if good]
    symbols = [genes[name]["pr_gene_symbol"] for name, good in zip(gene_ids, measured, strict=True) if good]
    values = matrix.read(np.array(wanted), np.flatnonzero(measured))
    draft = Draft(values, [row["inst_id"] for row in kept], symbols, counts=False)
    draft.drops["profile that is neither of a compound nor of its vehicle"] = wanted.count(False)
    draft.drops["gene that was inferred, not measured"] = measured.count(False)
    draft.put(**{name: [row[name] for row in kept] for name in ("cell_id", "pert_iname", *DOSE, "pert_type")})
    return with_drugs(draft)


def with_drugs(draft: Draft) -> Draft:
    """Return the profiles with the columns that all sets have, in place of those of L1000 (``pert_...``)."""
    known, drugs, size = draft.obs, draft.obs["pert_iname"], len(draft.cells)
    units, kinds = known.get("pert_dose_unit", np.full(size, "um")), known.get("pert_type", np.full(size, ""))
    doses = [dose_of(*both) for both in zip(known["pert_dose"], units, strict=True)]
    draft.put(cell_line=known["cell_id"])
    return draft.put_drugs(drugs, doses, control=(kinds == VEHICLE) | (drugs == "DMSO"))


def dose_of(amount: str, unit: str, digits: int = 4) -> str:
    """Return a dose as it is spoken of; empty if it is not known.

    Examples
    --------
    >>> dose_of("10.0", "um"), dose_of("0.12345", "µM"), dose_of("-666", "-666"), dose_of("1|2", "um")
    ('10 uM', '0.1235 uM', '', '')
    """
    try:
        number = float(amount)
    except ValueError:
        return ""
    if amount in UNKNOWN_DOSE or not np.isfinite(number):
        return ""
    return f"{number:.{digits}g} {unit.lower().replace('µm', 'um').replace('um', 'uM').replace('nm', 'nM')}"


DATASET = Dataset(
    title="L1000 (LINCS phase I, level 3)",
    tissue="cell lines",
    modality="bulk, 978 landmark genes, log2 of intensities",
    sources=geo("GSE92742", f"{MATRIX}.gz", f"{PROFILES}.gz", f"{GENES}.gz", unpack=True),
    citation="Subramanian et al. 2017, Cell 171:1437, doi:10.1016/j.cell.2017.10.049",
    read=read,
    columns=("drug", "perturbation", "dose", "cell_line"),
    tasks=RESPONSE,
    split=CHEMCPA,
    notes="Bulk, not single cells; 11,350 of the 12,328 genes are inferred and left out. Compounds and their vehicle"
    " alone are loaded, in blocks. The 1,034,271 profiles one reads of are chemCPA's, with phase II (GSE70138) added."
    " The matrix is 65 GB unpacked.",
)
