"""Kang 2018, blood cells with and without interferon beta, whose types are derived here by marker genes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cellduality_plugin.errors import CellDualityError
from cellduality_plugin.perturbations import CONTROL, Perturbation
from data_prep.normalisation import log1p_per_10k
from data_prep.published.draft import Draft, file_of
from data_prep.published.h5 import backed, sparse_rows

if TYPE_CHECKING:
    from anndata import AnnData

CYTOKINE = "IFN-beta"

FILES = {CONTROL: "pbmc_ctrl.h5ad", Perturbation("cytokine", CYTOKINE).render(): "pbmc_stim.h5ad"}

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

AMBIGUOUS_ABOVE = 0.7
"""The second best score of a cluster over the best, above which its cells are left out."""

AMBIGUOUS, RED_BLOOD = "cell of a cluster whose type is ambiguous", "red blood cell"


def load(files: Mapping[str, Path], variant: str) -> AnnData:
    """Return the cells; see :meth:`data_prep.registry.Dataset.load`.

    ``obs`` has ``perturbation``, ``exposure``, ``drug`` (the cytokine, of which every cell can be asked) and
    ``cell_type``, which ``uns["derived"]`` names as derived: see :func:`derive_types`.
    """
    import scipy.sparse

    parts = {perturbation: _read(file_of(files, name)) for perturbation, name in FILES.items()}
    (_, _, genes), (_, _, others) = parts.values()
    if list(genes) != list(others):
        raise CellDualityError("the two files have other genes", where="kang_2018_ifnb", mend="fetch the set again")
    draft = Draft(
        scipy.sparse.vstack([values for values, _, _ in parts.values()], format="csr"),
        np.concatenate([cells for _, cells, _ in parts.values()]),
        genes,
    )
    sizes = [len(cells) for _, cells, _ in parts.values()]
    types = derive_types([values for values, _, _ in parts.values()], [str(gene) for gene in genes])
    draft.put(
        cell_type=np.concatenate(types),
        perturbation=np.repeat(list(parts), sizes),
        exposure=np.repeat(["not exposed", "exposed"], sizes),
        drug=CYTOKINE,
    )
    draft.keep_cells(draft.obs["cell_type"] != "", AMBIGUOUS)
    draft.keep_cells(draft.obs["cell_type"] != CONTAMINANT, RED_BLOOD)
    draft.drop_copies()
    return draft.finish("kang_2018_ifnb", variant, "human", "counts", derived=("cell_type",))


def _read(path: Path) -> tuple[Any, NDArray[Any], NDArray[Any]]:
    """Return (counts, cell names, gene names)."""
    with backed(path) as adata:
        values = sparse_rows(adata.X, np.arange(adata.n_obs))
        return values, adata.obs_names.to_numpy(), adata.var_names.to_numpy()


def derive_types(samples: list[Any], genes: list[str]) -> list[NDArray[Any]]:
    """Return the lineage of every cell of every sample; empty where it is ambiguous.

    Each sample is clustered on its own (k-means of the principal components of its most dispersed genes, seeded), so
    that what a treatment does to all cells of a sample has no part in the types. A cluster is of the lineage whose
    markers it has most of, and ambiguous if another lineage has nearly as much.

    Parameters
    ----------
    samples
        Counts, cells by genes, sparse by row; one matrix a sample.
    genes
        The names of the genes.
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
