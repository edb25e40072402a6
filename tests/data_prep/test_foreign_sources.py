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
from cellduality_plugin.parsing import bulleted
from data_prep.cells import FEW_GENES
from data_prep.datasets import DATASETS
from data_prep.datasets.kang_2018_ifnb import CONTAMINANT, MARKERS
from data_prep.foreign import shareable
from data_prep.manifests import read_manifest
from data_prep.prepare import COARSE_FILE, FILES, OOD_FILE, PrepareSettings
from data_prep.sources import file_of
from data_prep.views import NO_COUNTERPART
from tests.data_prep.conftest import Prepared, toy_cells
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
def prepared_beside(kidney_cache: Path, tmp_path: Path, monkeypatch):
    """Return a function that prepares a set, by default the embedded one, beside the small kidney set."""
    monkeypatch.setenv("CELLDUALITY_CACHE", str(kidney_cache))

    def made(folder: Path = tmp_path / "out", **changes) -> Prepared:
        return Prepared.by(PrepareSettings.read({"foreign": [KIDNEY], **changes}), folder)

    return made


@pytest.fixture(scope="session")
def with_kidney(kidney_cache: Path, tmp_path_factory) -> Prepared:
    """The default preparation beside the small kidney set."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CELLDUALITY_CACHE", str(kidney_cache))
        return Prepared.by(PrepareSettings.read({"foreign": [KIDNEY]}), tmp_path_factory.mktemp("with kidney") / "data")


def test_nothing_that_trains_or_is_tested_hangs_on_a_foreign_set(with_kidney, prepared):
    for name in FILES:
        mine, alone = ((made.folder / name).read_bytes() for made in (with_kidney, prepared))
        assert mine.startswith(alone) if name == "cells.jsonl" else mine == alone, name
    assert set(prepared.summary.manifests) == set(FILES)
    assert not (prepared.folder / COARSE_FILE).exists()


def test_foreign_cells_are_asked_as_the_training_cells_are_and_keep_their_own_label(with_kidney):
    cells = [cell for cell in with_kidney.rows("cells.jsonl") if cell["id"].startswith(f"{KIDNEY}/")]
    assert Counter(cell["cell_type"] for cell in cells) == ASKED
    assert {(cell["split"], cell["labelled"]) for cell in cells} == {("ood", False)}
    assert [row["id"] for row in with_kidney.rows(OOD_FILE)] == [cell["id"] for cell in cells]
    assert [example.gold for example in with_kidney.examples(OOD_FILE)] == [cell["cell_type"] for cell in cells]
    opening = with_kidney.rows("eval_test.jsonl")[0]["input"].partition("\nCell: ")[0]
    assert bulleted(with_kidney.vocabulary.labels["cell_type"]) in opening
    for row in with_kidney.rows(OOD_FILE):
        asked, _, cell = row["input"].partition("\nCell: ")
        assert asked == opening
        assert set(cell.split()) <= set(with_kidney.vocabulary.genes)  # not one of the unknown genes
    manifests = with_kidney.summary.manifests
    assert manifests[OOD_FILE]["drops"] == {FEW_GENES: POOR, NO_COUNTERPART: 8}
    assert manifests[OOD_FILE]["counts_by_source"][KIDNEY] == {"cell_type_annotation/primal": 60}
    assert COARSE_FILE == COARSE_FILE_READ
    content = json.loads((with_kidney.folder / COARSE_FILE).read_text())
    assert content["training"]["pbmc68k_reduced"] == shareable("pbmc68k_reduced")
    assert content["foreign"][KIDNEY] == shareable(KIDNEY)
    assert read_manifest(with_kidney.folder / COARSE_FILE) == manifests[COARSE_FILE]
    assert manifests[COARSE_FILE]["counts"] == {"pbmc68k_reduced": 9, KIDNEY: 8}


def test_the_shared_types_are_part_of_what_rows_are_made_of_and_go_with_the_set(
    with_kidney, prepared_beside, tmp_path, monkeypatch
):
    known = DATASETS[KIDNEY]
    shutil.copytree(with_kidney.folder, tmp_path / "out")
    assert prepared_beside().summary.up_to_date
    monkeypatch.setitem(DATASETS, KIDNEY, replace(known, coarse_types={**known.coarse_types, "NK cell": ""}))
    summary = prepared_beside().summary
    assert not summary.up_to_date
    assert summary.manifests[OOD_FILE]["drops"][NO_COUNTERPART] == 8 + ASKED["NK cell"]
    prepared_beside(foreign=[])
    assert not [path.name for path in summary.out.iterdir() if path.name.startswith((OOD_FILE, COARSE_FILE))]


def test_a_type_that_is_held_out_of_training_has_no_counterpart(prepared_beside):
    made = prepared_beside(sources=[{"name": "pbmc68k_reduced", "held_out": {"cell_type": ["CD19+ B"]}}])
    assert made.summary.manifests[OOD_FILE]["drops"][NO_COUNTERPART] == 8 + ASKED["B cell"]
    assert {example.gold for example in made.examples(OOD_FILE)} == {"MNPa(mono)", "NK cell"}
    content = json.loads((made.folder / COARSE_FILE).read_text())
    assert "B cell" not in {kind for types in content["training"].values() for kind in types.values()}


@pytest.mark.parametrize(
    ("settings", "code", "hint"),
    [
        ({"foreign": ["oligodendroglioma"]}, "no-shared-type", KIDNEY),
        ({"sources": [{"name": "pbmc68k_reduced", "label_column": "louvain"}]}, "no-shared-type", "--label-column"),
        ({"tasks": {"conditional_cell_generation": 1}}, "no-annotation", "cell_type_annotation"),
        ({"foreign": [{"name": KIDNEY, "max_cells": 4}]}, "wrong-count", "9 or more"),
        ({"sources": [{"name": "toy.h5ad", "label_column": "kind"}], "n_labelled": 6}, "no-shared-type", "kang_2018"),
    ],
)
def test_what_cannot_be_asked_is_refused(settings, code, hint, prepared_beside, tmp_path, write_h5ad, monkeypatch):
    monkeypatch.chdir(write_h5ad().parent)
    with refused(code) as error:
        prepared_beside(**settings)
    assert hint in error.value.hint
    assert not (tmp_path / "out").exists()


def test_the_sets_that_share_types_mean_the_same_by_a_label():
    meant: dict[str, set[str]] = {}
    for dataset in DATASETS.values():
        for label, coarse in dataset.coarse_types.items():
            meant.setdefault(label, set()).add(coarse)
    assert {label: kinds for label, kinds in meant.items() if len(kinds) > 1} == {}
    assert DATASETS["kang_2018_ifnb"].coarse_types.keys() == MARKERS.keys() - {CONTAMINANT}
