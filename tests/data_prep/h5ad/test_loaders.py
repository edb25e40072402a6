from __future__ import annotations

import subprocess
import sys

import h5py
import numpy as np
import pandas as pd
import pytest
import scipy.sparse

from data_prep import cells, sources
from data_prep.cells import CellTable
from data_prep.h5ad import matrices
from data_prep.h5ad.genes import NO_ORTHOLOGUE, SEVERAL_ORTHOLOGUES, human_symbols, mouse_symbols
from data_prep.h5ad.loaders import MISSING_LABEL, NO_GENE, SHARED_SYMBOL, load_h5ad
from data_prep.h5ad.matrices import StoredMatrix
from data_prep.prepare import PrepareSettings, prepare
from tests.refused import refused

FORMS = {"dense": np.asarray, "csr": scipy.sparse.csr_matrix, "csc": scipy.sparse.csc_matrix}


def counts() -> np.ndarray:
    return np.random.default_rng(1).integers(0, 60, size=(24, 12)).astype(np.float32)


def reads(path, values, **wanted) -> CellTable:
    """Check which values a file is read as, and return what was read."""
    loaded = load_h5ad(path, "kind", **wanted)
    np.testing.assert_array_equal(scipy.sparse.vstack(list(loaded.blocks())).toarray(), values)
    return loaded


def refuse(code: str, path, column: str = "kind", hint: str = "", **wanted) -> str:
    """Check that a file is not read, for which reason, and that the error names it; return its hint."""
    with refused(code) as error:
        list(load_h5ad(path, column, **wanted).blocks())
    assert str(path) in error.value.where
    assert hint in error.value.hint
    return error.value.hint


def with_value(value: float) -> np.ndarray:
    values = np.log1p(counts())
    values[3, 4] = value
    return values


@pytest.mark.parametrize(
    ("file", "wanted", "code", "hint"),
    [
        ({"x": np.zeros((24, 0), np.float32)}, {}, "no-matrix", ""),
        ({"x": np.zeros((24, 12), np.float32)}, {}, "empty-matrix", ""),
        ({"x": scipy.sparse.csr_matrix((24, 12))}, {}, "empty-matrix", ""),
        ({"x": scipy.sparse.csc_matrix((24, 12))}, {}, "empty-matrix", ""),
        ({"x": with_value(np.inf)}, {"expression": "log1p"}, "bad-values", ""),
        ({"x": with_value(-0.5)}, {}, "negative-values", ""),
        ({"x": counts() + 0.5}, {"expression": "log1p"}, "doubtful-values", ""),
        ({"x": counts() + 0.5}, {"expression": "counts"}, "doubtful-values", ""),
        ({"x": 30 * (counts() > 20)}, {"expression": "counts"}, "no-order", ""),
        ({"x": np.minimum(counts(), 7)}, {}, "doubtful-values", ""),
        ({"genes": ["G0", *(f"G{n}" for n in range(11))]}, {}, "duplicate-names", "var_names_make_unique"),
        ({"cells": ["c0", *(f"c{n}" for n in range(23))]}, {}, "duplicate-names", "obs_names_make_unique"),
        ({"labels": [" "] * 24}, {}, "no-labels", "--label-column"),
        ({"labels": ["B", "</answer>"] * 12}, {}, "unusable-label", ""),
        ({"labels": ["B", "long" * 200] * 12}, {}, "unusable-label", ""),
        ({}, {"column": "celltype"}, "unknown-column", "kind"),
        ({}, {"matrix": "raw"}, "no-matrix", "--matrix X"),
        ({}, {"layer": "other"}, "no-layer", "cut, text"),
        ({}, {"layer": "cut"}, "no-matrix", ""),
        ({}, {"layer": "text"}, "not-numbers", ""),
        ({}, {"columns": {"perturbation": "condition"}}, "unknown-column", "--perturbation-column with one of: kind"),
        ({"labels": ["B", None] * 12, "drug": [None, "x"] * 12}, {"columns": {"drug": "drug"}}, "no-labels", ""),
        ({}, {"species": "mouse"}, "no-genes", "--species"),
    ],
)
def test_what_makes_no_sense_or_is_not_there_is_refused(file, wanted, code, hint, write_h5ad):
    path = write_h5ad(**{"x": counts(), **file})
    with h5py.File(path, "a") as stored:
        stored["layers/cut"] = counts()[:20]
        stored["layers/text"] = np.full((24, 12), b"many")
    refuse(code, path, hint=hint, **wanted)


@pytest.mark.parametrize("spoil", ["text", 0.3, 0.9, "other", "index", "bare"])
def test_corrupt_file_is_refused(spoil, write_h5ad):
    path = write_h5ad(scipy.sparse.csr_matrix(counts()))
    if spoil == "text":
        path.write_text("not an .h5ad file")
    elif isinstance(spoil, float):
        path.write_bytes(path.read_bytes()[: int(spoil * path.stat().st_size)])
    else:
        with h5py.File(path, "a") as file:
            if spoil == "index":
                file["X/indices"][4] = 999
            else:
                del file["X" if spoil == "bare" else "obs"]
                file["obs_" if spoil == "bare" else "obs"] = [1, 2, 3]
    refuse("no-matrix" if spoil == "bare" else "unreadable-file", path)


@pytest.mark.parametrize("part", ["data", "indices", "both", "indptr", "beginning", "order"])
@pytest.mark.parametrize("form", ["csr", "csc"])
def test_sparse_matrix_of_which_a_part_is_missing_is_refused(form, part, write_h5ad):
    path = write_h5ad(FORMS[form](counts()))
    with h5py.File(path, "a") as file:
        for name in ["data", "indices"] if part == "both" else [part if part in file["X"] else "indptr"]:
            stored = file[f"X/{name}"][:]
            del file[f"X/{name}"]
            swapped = stored[[0, 2, 1, *range(3, len(stored))]]
            spoilt = {"beginning": stored + 1, "order": swapped}.get(part, stored[: len(stored) // 2])
            file[f"X/{name}"] = spoilt
    refuse("unreadable-file", path, expression="counts")


@pytest.mark.parametrize("text", ["nan", "None", "N/A", "<NA>", " "])
def test_text_that_stands_for_no_value_is_none(text, write_h5ad):
    path = write_h5ad(counts(), labels=["B", text, "T"] * 8, condition=["control", "x", text] * 8)
    assert load_h5ad(path, "kind").drops == {MISSING_LABEL: 8}
    loaded = load_h5ad(path, "kind", columns={"perturbation": "condition"})
    assert loaded.drops == {MISSING_LABEL: 8, "cell without a perturbation": 8}
    if text.strip() and text != "<NA>":
        named = load_h5ad(path, "kind", columns={"perturbation": "condition"}, control=[text])
        assert set(named.obs["perturbation"]) == {"control", text}, "unless that is what untreated cells are called"


@pytest.mark.parametrize(
    ("flag", "matrix"), [("--layer counts", "X"), ("--layer counts", "raw"), ("--matrix raw", "X")]
)
@pytest.mark.parametrize("x", ["scaled", None])
def test_the_matrix_that_can_be_read_is_named(flag, matrix, x, write_h5ad):
    layers = {"counts": counts(), "scaled": counts() - 30}
    places = {"raw": counts()} if flag == "--matrix raw" else {"layers": layers}
    path = write_h5ad(counts() - 30, without_x=x is None, **places)
    hint = refuse("no-matrix" if matrix == "raw" or x is None else "negative-values", path, hint=flag, matrix=matrix)
    assert "--matrix X" not in hint
    assert "--layer scaled" not in hint


@pytest.mark.parametrize("spoil", ["encoding", "column"])
def test_a_column_that_this_anndata_cannot_read_matters_to_who_asks_for_it(spoil, write_h5ad):
    path = write_h5ad(counts(), strange=["a", "b"] * 12)
    with h5py.File(path, "a") as file:
        if spoil == "encoding":
            file["obs/strange"].attrs["encoding-type"] = "of-the-future"
        else:
            del file["obs/strange"]
    reads(path, counts())
    refuse("unreadable-column", path, "strange")


def test_a_file_that_another_program_writes_is_said_to_be_in_use(write_h5ad):
    path = write_h5ad(counts())
    with h5py.File(path, "a"):
        code = (
            "import sys, pathlib; from data_prep.h5ad import matrices; matrices.open_tables(pathlib.Path(sys.argv[1]))"
        )
        done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=False)
    assert "another program has the file open" in done.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    ("values", "is_log"),
    [
        ("counts per 10,000", True), ("log2 of CPM", True), ("log10", True), ("of lengths, summing up", True),
        ("scaled by gene and cut", False), ("scaled by gene and shifted", False), ("noise of every gene", False),
    ],
)  # fmt: skip
def test_fractions_that_are_no_logarithms_have_to_be_declared(values, is_log, write_h5ad):
    rng = np.random.default_rng(3)
    raw = rng.poisson(rng.gamma(1, 2, size=40), size=(60, 40)).astype(np.float64)
    raw[:, 0] += 1
    rates = raw / raw.sum(1, keepdims=True)
    z = (np.log1p(1e4 * rates) - np.log1p(1e4 * rates).mean(0)) / np.maximum(np.log1p(1e4 * rates).std(0), 1e-9)
    noisy = rates * rng.uniform(0.5, 2, size=rates.shape)
    x = {
        "counts per 10,000": np.log1p(1e4 * rates), "log2 of CPM": np.log2(1 + 1e6 * rates / 64),
        "log10": np.log10(1 + 1e4 * rates),
        "of lengths, summing up": np.log1p(1e6 * noisy / noisy.sum(1, keepdims=True)),
        "scaled by gene and cut": np.clip(z, 0, None), "scaled by gene and shifted": z - z.min(0),
        "noise of every gene": rng.normal(3.0, 0.5, size=(60, 40)).clip(0.1),
    }[values]  # fmt: skip
    path = write_h5ad(x.astype(np.float32), labels=["B", "T"] * 30)
    if is_log:
        assert not reads(path, x.astype(np.float32)).counts()
    else:
        refuse("doubtful-values", path, hint="--expression log1p")
    assert not load_h5ad(path, "kind", expression="log1p").counts()


PLACES = {
    "X": lambda values: ({"x": values}, {}),
    "raw": lambda values: ({"x": counts(), "raw": values}, {"matrix": "raw"}),
    "layer": lambda values: ({"x": counts(), "layers": {"spliced": values}}, {"layer": "spliced"}),
}


@pytest.mark.parametrize(
    ("place", "dtype", "block"),
    [
        ("X", "float64", 5),
        ("X", "float16", 30),
        ("X", "int64", 30),
        ("X", "uint8", 1000),
        ("raw", "float32", 30),
        ("layer", "uint16", 30),
    ],
)
@pytest.mark.parametrize("form", FORMS)
def test_every_layout_type_and_place_is_read_in_blocks(place, dtype, block, form, write_h5ad, monkeypatch):
    monkeypatch.setattr(matrices, "BLOCK", block)
    raw = counts().astype(dtype)
    raw[7], raw[:, 5] = 0, 0
    values = raw if form == "dense" else FORMS[form](raw.astype("float32") if dtype == "float16" else raw)
    stored, wanted = PLACES[place](values)
    genes, kinds = [*(f"G{number}" for number in range(11)), "ERCC-00002"], [None, " ", *["B"] * 10, *["T\tcell"] * 12]
    path = write_h5ad(**stored, genes=genes, labels=pd.Categorical(kinds) if block == 30 else kinds)
    loaded = reads(path, raw[2:, :11], **wanted)
    assert loaded.counts()
    assert loaded.drops == {MISSING_LABEL: 2, NO_GENE: 1}
    assert list(loaded.obs["cell_type"]) == ["B"] * 10 + ["T cell"] * 12
    assert list(loaded.obs.index) == [f"cell{number:02}" for number in range(2, 24)]
    assert (len(list(loaded.blocks())) > 1) == (block < 1000)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("held", "n_genes", "passes"), [(0, None, 1), (0, 6, 3), (24 * 12, 6, 1)])
def test_passes_over_a_matrix(held, n_genes, passes, form, write_h5ad, tmp_path, monkeypatch):
    rows, done = StoredMatrix.rows, []

    def counted(*given):
        yield from rows(*given)
        done.append(given)

    monkeypatch.setattr(StoredMatrix, "rows", counted)
    monkeypatch.setattr(matrices, "BLOCK", 30)
    monkeypatch.setattr(sources, "HELD", held)
    monkeypatch.setattr(cells, "MOST_CELLS", 2)  # of more cells the curve of expression needs no pass
    path = write_h5ad(FORMS[form](counts()))
    wanted = {"sources": [{"name": str(path), "label_column": "kind"}], "n_labelled": 6, "n_rl": 4, "n_genes": n_genes}
    prepare(PrepareSettings.read({**wanted, "min_genes": 2}), tmp_path / "out")
    assert len(done) == passes


def test_compressed_and_old_files_are_read(write_h5ad, monkeypatch):
    monkeypatch.setattr(matrices, "BLOCK", 30)
    path = write_h5ad(counts())
    with h5py.File(path, "a") as file:
        del file["X"]
        file.create_dataset("X", data=counts(), chunks=(5, 4), compression="gzip")
        file["X"].attrs.update({"encoding-type": "array", "encoding-version": "0.2.0"})
        for name in ("encoding-type", "encoding-version"):
            del file["obs"].attrs[name]
    reads(path, counts())
    path = write_h5ad(scipy.sparse.csr_matrix(counts()))
    with h5py.File(path, "a") as file:
        for name in list(file["X"].attrs):
            del file["X"].attrs[name]
        file["X"].attrs.update({"h5sparse_format": "csr", "h5sparse_shape": (24, 12)})
    reads(path, counts())


def test_duplicate_entries_of_a_sparse_row_are_summed(write_h5ad):
    path = write_h5ad(scipy.sparse.csr_matrix(counts()))
    with h5py.File(path, "a") as file:
        file["X/indices"][0] = file["X/indices"][1]
    block = next(load_h5ad(path, "kind").blocks())
    assert block.has_canonical_format
    assert block[0].sum() == counts()[0].sum()


HUMAN = sorted(human_symbols() - mouse_symbols())[::700]
IDS = [f"ENSG{number:011}" for number in range(12)]
MOUSE = ["Cd3e", "Cd19", "Trp53", "Ptprc", "Ccl4", "Gzmb", "Gm10001", "Egfr", "Tnf", "Il6", "Ifng", "Cd4"]


ORTHOLOGUES = ["CD3E", "CD19", "TP53", "PTPRC", None, None, None, "EGFR", "TNF", "IL6", "IFNG", "CD4"]
SYMBOLS, TYPES = {"gene_symbols": "feature_name"}, ["CRISPR Guide Capture", "Antibody Capture", "Peaks"]


@pytest.mark.parametrize(
    ("names", "var", "wanted", "kept", "drops"),
    [
        ([f" {name} " for name in HUMAN[:12]], {}, {}, HUMAN[:12], {}),
        ([*HUMAN[:11], "nan"], {}, {}, HUMAN[:11], {SHARED_SYMBOL: 1}),
        (IDS, {"feature_name": [*HUMAN[:8], None, "", "TWIN", "TWIN"]}, SYMBOLS, HUMAN[:8], {SHARED_SYMBOL: 4}),
        (IDS, {"feature_name": ["nan", *HUMAN[:9], "NaN ", f"{HUMAN[9]} "]}, SYMBOLS, HUMAN[:10], {SHARED_SYMBOL: 2}),
        ([*HUMAN[:9], *(f"{name}_TotalSeqB" for name in HUMAN[:3])], {}, {}, HUMAN[:9], {NO_GENE: 3}),
        (["ERCC-00002", "Hashtag1", "HTO_A", *HUMAN[:9]], {}, {}, HUMAN[:9], {NO_GENE: 3}),
        (HUMAN[:12], {"feature_types": [*["Gene Expression"] * 9, *TYPES]}, {}, HUMAN[:9], {NO_GENE: 3}),
        (HUMAN[:12], {"feature_biotype": [*["gene"] * 9, *["spike-in"] * 3]}, {}, HUMAN[:9], {NO_GENE: 3}),
        (MOUSE, {}, {"species": "mouse"}, ORTHOLOGUES, {SEVERAL_ORTHOLOGUES: 2, NO_ORTHOLOGUE: 1}),
        (MOUSE, {}, {}, MOUSE, {}),
    ],
)
def test_genes_have_the_names_they_should(names, var, wanted, kept, drops, write_h5ad):
    spelt = [str(name).strip() for name in var.get("feature_name", names)]
    places = [spelt.index(name) for name in kept] if kept is not ORTHOLOGUES else [*range(4), *range(7, 12)]
    loaded = reads(write_h5ad(counts(), genes=names, var=var), counts()[:, places], **wanted)
    assert (loaded.genes, loaded.drops) == (tuple(filter(None, kept)), drops)


def test_names_that_would_be_misread_are_refused(write_h5ad):
    path = write_h5ad(counts(), genes=IDS, var={"feature_name": HUMAN[:12], "length": 1000})
    refuse("ensembl-ids", path, hint="--gene-symbols with one of: feature_name")
    refuse("unknown-column", path, hint="feature_name", gene_symbols="name")
    refuse("duplicate-names", write_h5ad(counts(), genes=["LYZ", "LYZ ", *HUMAN[:10]]))
    mouse = sorted(mouse_symbols() - human_symbols())[::700]
    refuse("wrong-species", write_h5ad(np.tile(counts(), 4)[:, :40], genes=mouse[:28] + MOUSE), species="human")
