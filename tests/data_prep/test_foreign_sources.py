"""Sets no cell of which trains: asked with the labels of the training set, scored by the types both share."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import anndata
import numpy as np
import pytest
import scipy.sparse

from cellduality_plugin.evaluation.sections import COARSE_FILE as COARSE_FILE_READ
from cellduality_plugin.examples import Example
from cellduality_plugin.files import read_jsonl
from cellduality_plugin.parsing import bulleted
from cellduality_plugin.vocabulary import Vocabulary
from data_prep.cells import FEW_GENES
from data_prep.datasets import DATASETS
from data_prep.datasets.kang_2018_ifnb import CONTAMINANT, MARKERS
from data_prep.foreign import NO_COUNTERPART, shareable
from data_prep.manifests import read_manifest
from data_prep.prepare import COARSE_FILE, FILES, OOD_FILE, PrepareSettings, prepare
from data_prep.sources import file_of
from tests.data_prep.conftest import toy_cells
from tests.refused import refused

KIDNEY = "kidney_immune"
RELABELLED = {"CD19+ B": "B cell", "CD14+ Monocyte": "MNPa(mono)", "CD56+ NK": "NK cell", "CD34+": "Mast cell"}
ASKED = {"B cell": 30, "MNPa(mono)": 20, "NK cell": 10}
POOR = 2
"""B cells, besides those above, that express too few genes of the vocabulary."""


@pytest.fixture(scope="session")
def kidney_cache(tmp_path_factory) -> Path:
    """A cache that holds a few blood cells in the published shape of the kidney's."""
    cache = tmp_path_factory.mktemp("small kidney")
    blood = anndata.read_h5ad(file_of(DATASETS["pbmc68k_reduced"]))
    kinds = blood.obs["bulk_labels"].astype(str).map(RELABELLED).to_numpy()
    wanted = {**ASKED, "B cell": ASKED["B cell"] + POOR, "Mast cell": 8}
    places = np.concatenate([np.flatnonzero(kinds == kind)[:count] for kind, count in wanted.items()])
    values = blood.raw.X[places].toarray()
    values[:POOR, np.cumsum(values[:POOR] > 0, axis=1).min(axis=0) > 5] = 0
    loud = np.full((len(places), 20), 9.0, dtype=values.dtype)  # genes that the vocabulary does not know
    cells = [f"kidney{number:03}" for number in range(len(places))]
    genes = [*blood.raw.var_names, *(f"UNKNOWN{number}" for number in range(20))]
    (cache / KIDNEY).mkdir()
    own = {"genes": genes, "cells": cells, "celltype": kinds[places], "Experiment": "donor 1"}
    toy_cells(cache / KIDNEY / "kidneyimmune.h5ad", scipy.sparse.csr_matrix(np.hstack([values, loud])), **own)
    return cache


@pytest.fixture
def _small_kidney(kidney_cache: Path, monkeypatch) -> None:
    monkeypatch.setenv("CELLDUALITY_CACHE", str(kidney_cache))


@pytest.fixture(scope="session")
def with_kidney(kidney_cache: Path, tmp_path_factory):
    """The default preparation beside the small kidney set."""
    folder = tmp_path_factory.mktemp("with kidney") / "data"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CELLDUALITY_CACHE", str(kidney_cache))
        summary = prepare(PrepareSettings.read({"foreign": [KIDNEY]}), folder)
    return folder, summary


def rows_of(folder: Path, name: str = OOD_FILE) -> list[dict[str, object]]:
    return list(read_jsonl(folder / name))


def golds(folder: Path) -> list[object]:
    return [Example.from_label(row["label"]).gold for row in rows_of(folder)]


def test_nothing_that_trains_or_is_tested_hangs_on_a_foreign_set(with_kidney, prepared):
    folder, _ = with_kidney
    for name in set(FILES) - {"cells.jsonl"}:
        assert (folder / name).read_bytes() == (prepared.folder / name).read_bytes(), name
    own = (prepared.folder / "cells.jsonl").read_bytes()
    assert (folder / "cells.jsonl").read_bytes().startswith(own)
    assert set(prepared.summary.manifests) == set(FILES)
    assert not (prepared.folder / COARSE_FILE).exists()


def test_foreign_cells_are_asked_as_the_training_cells_are_and_keep_their_own_label(with_kidney):
    folder, summary = with_kidney
    cells = [cell for cell in rows_of(folder, "cells.jsonl") if cell["id"].startswith(f"{KIDNEY}/")]
    assert Counter(cell["cell_type"] for cell in cells) == ASKED
    assert {(cell["split"], cell["labelled"]) for cell in cells} == {("ood", False)}
    assert [row["id"] for row in rows_of(folder)] == [cell["id"] for cell in cells]
    assert golds(folder) == [cell["cell_type"] for cell in cells]
    vocabulary = Vocabulary.load(folder / "vocabulary.json")
    opening = rows_of(folder, "eval_test.jsonl")[0]["input"].partition("\nCell: ")[0]
    assert bulleted(vocabulary.labels["cell_type"]) in opening
    for row in rows_of(folder):
        asked, _, cell = row["input"].partition("\nCell: ")
        assert asked == opening
        assert set(cell.split()) <= set(vocabulary.genes)  # not one of the unknown genes
    assert summary.manifests[OOD_FILE]["drops"] == {FEW_GENES: POOR, NO_COUNTERPART: 8}
    assert summary.manifests[OOD_FILE]["counts_by_source"][KIDNEY] == {"cell_type_annotation/primal": 60}
    assert COARSE_FILE == COARSE_FILE_READ
    content = json.loads((folder / COARSE_FILE).read_text())
    assert content["training"]["pbmc68k_reduced"] == shareable("pbmc68k_reduced")
    assert content["foreign"][KIDNEY] == shareable(KIDNEY)
    assert read_manifest(folder / COARSE_FILE) == summary.manifests[COARSE_FILE]
    assert summary.manifests[COARSE_FILE]["counts"] == {"pbmc68k_reduced": 9, KIDNEY: 8}


@pytest.mark.usefixtures("_small_kidney")
def test_the_shared_types_are_part_of_what_rows_are_made_of_and_go_with_the_set(with_kidney, tmp_path, monkeypatch):
    settings, known = PrepareSettings.read({"foreign": [KIDNEY]}), DATASETS[KIDNEY]
    shutil.copytree(with_kidney[0], tmp_path, dirs_exist_ok=True)
    assert prepare(settings, tmp_path).up_to_date
    monkeypatch.setitem(DATASETS, KIDNEY, replace(known, coarse_types={**known.coarse_types, "NK cell": ""}))
    summary = prepare(settings, tmp_path)
    assert not summary.up_to_date
    assert summary.manifests[OOD_FILE]["drops"][NO_COUNTERPART] == 8 + ASKED["NK cell"]
    prepare(PrepareSettings(), tmp_path)
    assert not [path.name for path in tmp_path.iterdir() if path.name.startswith((OOD_FILE, COARSE_FILE))]


@pytest.mark.usefixtures("_small_kidney")
def test_a_type_that_is_held_out_of_training_has_no_counterpart(tmp_path):
    source = {"name": "pbmc68k_reduced", "held_out": {"cell_type": ["CD19+ B"]}}
    summary = prepare(PrepareSettings.read({"sources": [source], "foreign": [KIDNEY]}), tmp_path)
    assert summary.manifests[OOD_FILE]["drops"][NO_COUNTERPART] == 8 + ASKED["B cell"]
    assert set(golds(tmp_path)) == {"MNPa(mono)", "NK cell"}
    content = json.loads((tmp_path / COARSE_FILE).read_text())
    assert "B cell" not in {kind for types in content["training"].values() for kind in types.values()}


TOY = {"sources": [{"name": "toy.h5ad", "label_column": "kind"}], "n_labelled": 6, "n_rl": 20, "top_genes": 10}
CLUSTERS = {"sources": [{"name": "pbmc68k_reduced", "label_column": "louvain"}]}


@pytest.mark.usefixtures("_small_kidney")
@pytest.mark.parametrize(
    ("settings", "code", "hint"),
    [
        ({"foreign": ["oligodendroglioma"]}, "no-shared-type", KIDNEY),
        ({**CLUSTERS, "foreign": [KIDNEY]}, "no-shared-type", "--label-column"),
        ({"tasks": {"conditional_cell_generation": 1}, "foreign": [KIDNEY]}, "no-annotation", "cell_type_annotation"),
        ({"foreign": [{"name": KIDNEY, "max_cells": 4}]}, "wrong-count", "9 or more"),
        ({**TOY, "foreign": [KIDNEY]}, "no-shared-type", "kang_2018_ifnb, kidney_immune, pbmc68k"),
    ],
)
def test_what_cannot_be_asked_is_refused(settings, code, hint, tmp_path, write_h5ad, monkeypatch):
    monkeypatch.chdir(write_h5ad().parent)
    with refused(code) as error:
        prepare(PrepareSettings.read(settings), tmp_path / "out")
    assert hint in error.value.hint
    assert not (tmp_path / "out").exists()


def test_the_sets_that_share_types_mean_the_same_by_a_label():
    meant: dict[str, set[str]] = {}
    for dataset in DATASETS.values():
        for label, coarse in dataset.coarse_types.items():
            meant.setdefault(label, set()).add(coarse)
    assert {label: kinds for label, kinds in meant.items() if len(kinds) > 1} == {}
    assert DATASETS["kang_2018_ifnb"].coarse_types.keys() == MARKERS.keys() - {CONTAMINANT}
