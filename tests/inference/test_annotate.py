"""From a trained model's folder and a new file to labels, and every way in which that cannot work."""

from __future__ import annotations

import shutil
from dataclasses import replace

import anndata
import h5py
import numpy as np
import pandas
import pytest
import scipy.sparse

from cellduality_plugin.config import Config
from cellduality_plugin.errors import CellDualityError
from cellduality_plugin.inference import Model
from cellduality_plugin.inference.annotating import UNASSIGNED, Annotator
from cellduality_plugin.inference.asking import write_copy
from cellduality_plugin.inference.checkpoint import pack, read_checkpoint
from cellduality_plugin.vocabulary import Vocabulary
from tests.evaluation.audit.conftest import ANNOTATION, GENERATION, GENES, TYPES, PlantedPolicy
from tests.inference.conftest import ELSEWHERE, KEY, cells_of
from tests.refused import refused

IDENTIFICATION = "perturbation_identification"


@pytest.fixture
def planted(played_by):
    """Return a function that lets a policy of some skill play for the model; it gives what was asked."""

    def play(skill: float) -> list[PlantedPolicy]:
        asked = [PlantedPolicy(skill), PlantedPolicy(skill), PlantedPolicy(skill, seed=1)]
        played_by(*asked)
        return asked

    return play


@pytest.mark.parametrize("listed", [True, False])
@pytest.mark.parametrize("verify", [0, 4])
def test_cells_get_labels_confidence_votes_reasoning_and_probabilities(
    trained, planted, data, tmp_path, verify, listed
):
    """Those of a set that no question lists, too: its columns are what was answered."""
    asked, adata = planted(0.95), cells_of(["B", "T", "NK", "T"])
    model = shutil.copytree(trained, tmp_path / "m")
    if not listed:
        replace(Vocabulary.load(data / "vocabulary.json"), listed=2).save(model / "cellduality" / "vocabulary.json")
        with refused("too-many-labels"):
            Model.load(model).calibrate(data, verify=verify)
    assert Model.load(model).annotate(adata, verify=verify, progress=False) is None
    assert any("too many to list" in prompt for policy in asked for prompt, _ in policy.asked) != listed
    assert adata.obs[KEY].tolist() == ["B", "T", "NK", "T"]
    assert adata.obs[f"{KEY}_confidence"].between(0.9, 1).all()
    assert adata.obs[f"{KEY}_votes"].between(0.25, 1).all()
    assert set(adata.obs[f"{KEY}_reasoning"]) == {"seen"}
    labels, shares = adata.uns["cellduality"]["labels"], adata.obsm[f"{KEY}_probability"]
    assert [labels[at] for at in shares.argmax(axis=1)] == adata.obs[KEY].tolist()
    assert shares.sum(axis=1) == pytest.approx(1)


def test_a_judge_that_knows_better_corrects_the_votes(trained, planted):
    """Votes of a policy that knows little, and a dual that knows much: the product is right more often."""
    _, _, sampler = planted(0.99)
    sampler.skill = 0.5
    adata = cells_of(list(TYPES) * 20)
    model = Model.load(trained)
    model.annotate(adata, verify=8, progress=False)
    right = (adata.obs[KEY] == adata.obs["kind"]).mean()
    assert right > 0.9 > adata.obs[f"{KEY}_votes"].mean() + 0.3


def test_unsure_cells_get_no_label_and_keep_their_probabilities(trained, planted):
    planted(0.4)
    adata = cells_of(["B", "T", "NK"])
    result = Model.load(trained).annotate(adata, verify=0, unassigned_below=0.9, copy=True, progress=False)
    assert KEY not in adata.obs, "a copy was asked for"
    assert set(result.obs[KEY]) == {UNASSIGNED}
    assert result.obsm[f"{KEY}_probability"].sum(axis=1) == pytest.approx(1)


def test_a_file_is_copied_whole_and_what_was_found_is_added_and_files_of_others_stay(trained, planted, tmp_path):
    planted(0.95)
    source, out, other = tmp_path / "new.h5ad", tmp_path / "sub" / "out.h5ad", tmp_path / "other.h5ad"
    adata = cells_of(["B", "", "NK"])
    adata.X = scipy.sparse.csr_matrix(adata.X)
    adata.layers["other"], adata.obsm["X_umap"], adata.uns["kept"] = adata.X.copy(), np.ones((3, 2)), {"a": 1}
    adata.write_h5ad(source)
    before = source.read_bytes()
    other.write_bytes(before)
    annotator = Annotator(read_checkpoint(trained), settings={"verify": 0})
    labels = annotator.of_file(source, out)
    assert (len(labels.asked), labels.uns["cellduality"]["shared_genes"]) == (2, 1.0)
    found = anndata.read_h5ad(out)
    assert found.obs[KEY].tolist() == ["B", UNASSIGNED, "NK"], "a cell without genes is left out"
    assert found.obs["kind"].tolist() == ["B", "", "NK"]
    assert (found.X != adata.X).sum() == 0
    assert ({*found.layers}, {*found.obsm}) == ({"other"}, {"X_umap", f"{KEY}_probability"})
    assert found.uns["kept"]["a"] == 1
    assert [path.name for path in out.parent.iterdir()] == [out.name], "nothing else is left"
    for taken in (source, other):
        with refused("file-taken"):
            annotator.of_file(source, taken)
        assert taken.read_bytes() == before


def test_a_column_that_this_anndata_cannot_read_is_copied_as_it_is(tmp_path):
    source, out = tmp_path / "cells.h5ad", tmp_path / "out.h5ad"
    obs = pandas.DataFrame({"strange": ["a", "b"]}, index=["c0", "c1"])
    anndata.AnnData(np.ones((2, 3), np.float32), obs, pandas.DataFrame(index=list("ABC"))).write_h5ad(source)
    with h5py.File(source, "a") as file:
        encoding = file["obs/strange"].attrs["encoding-type"]
        file["obs/strange"].attrs["encoding-type"] = "of-the-future"
    write_copy(
        source, out, {"type": pandas.Categorical(["B", "T"]), "sure": np.array([0.5, 1.0])}, {}, {"made": "by us"}
    )
    with h5py.File(out, "a") as file:
        assert file["obs/strange"].attrs["encoding-type"] == "of-the-future"
        file["obs/strange"].attrs["encoding-type"] = encoding
    found = anndata.read_h5ad(out)
    assert {name: list(found.obs[name]) for name in found.obs} == {
        "strange": ["a", "b"], "type": ["B", "T"], "sure": [0.5, 1.0]
    }  # fmt: skip
    assert list(found.obs_names) == ["c0", "c1"]


BROKEN = {
    "no-shared-genes": lambda adata: setattr(adata, "var_names", [f"X{number}" for number in range(len(GENES))]),
    "key-taken": lambda adata: adata.obs.insert(0, KEY, "x"),
    "negative-values": lambda adata: setattr(adata, "X", -adata.X),
    "duplicate-names": lambda adata: setattr(adata, "obs_names", ["one", "one"]),
}


@pytest.mark.parametrize("code", BROKEN)
def test_a_file_that_cannot_be_annotated_is_one_line_and_nothing_is_written(code, trained, tmp_path):
    adata = cells_of(["B", "T"])
    BROKEN[code](adata)
    adata.write_h5ad(tmp_path / "new.h5ad")
    with refused(code) as error:
        Annotator(read_checkpoint(trained), settings={"verify": 0}).of_file(tmp_path / "new.h5ad", tmp_path / "o.h5ad")
    assert "\n" not in str(error.value)
    assert error.value.hint
    assert [path.name for path in tmp_path.iterdir()] == ["new.h5ad"]


def test_a_model_that_was_not_packed_is_refused_with_how_to_pack_it(trained, data, tmp_path):
    bare = shutil.copytree(trained, tmp_path / "bare", ignore=shutil.ignore_patterns("cellduality"))
    with pytest.raises(CellDualityError) as error:
        Model.load(bare)
    assert "cellduality pack" in error.value.hint
    with refused("no-checkpoint"):
        read_checkpoint(tmp_path / "nowhere")
    with refused("no-checkpoint"):
        pack(data, data, None, max_len=8, max_new_tokens=8)


def test_a_packed_model_needs_nothing_of_where_it_was_trained_and_has_a_pair_of_ones_own(
    trained, planted, data, tmp_path
):
    planted(0.95)
    (tmp_path / "mine.py").write_text(
        "from cellduality_plugin.tasks.cell_type_annotation import CellTypeAnnotation\n"
        "class Mine(CellTypeAnnotation):\n    pass\n"
    )
    config = Config.load(data / "cellduality.json").with_each("pair", {ANNOTATION: f"{tmp_path}/mine.py:Mine"}, "")
    config.save(data / "mine.json")
    model = shutil.copytree(trained, tmp_path / "m")
    pack(model, data, data / "mine.json", max_len=256, max_new_tokens=24)
    (tmp_path / "mine.py").unlink()
    moved, adata = shutil.move(model, tmp_path / "elsewhere"), cells_of(["NK"])
    assert str(data) not in "".join(path.read_text() for path in (moved / "cellduality").glob("*.json"))
    Model.load(moved).annotate(adata, verify=2, progress=False)
    assert adata.obs[KEY].tolist() == ["NK"]


def test_a_reward_that_reads_the_truth_cannot_verify_new_cells(trained, data, tmp_path):
    model = shutil.copytree(trained, tmp_path / "m")
    Config.load(data / "cellduality.json").with_each("reward", {"*": "oracle"}, "--rewards").save(data / "oracle.json")
    pack(model, data, data / "oracle.json", max_len=256, max_new_tokens=24)
    with refused("reward-needs-gold"):
        Model.load(model).annotate(cells_of(["B"]), verify=2, progress=False)


def test_questions_show_the_genes_of_the_training_questions_alone(trained, planted):
    asked, adata = planted(0.95), cells_of(["B", "T"])
    counts = np.hstack([adata.X, np.full((2, 1), 99.0, dtype=np.float32)])
    wider = anndata.AnnData(counts, obs=adata.obs, var=pandas.DataFrame(index=[*GENES, ELSEWHERE]))
    Model.load(trained).annotate(wider, verify=0, progress=False)
    assert wider.uns["cellduality"]["shared_genes"] == 1
    prompts = [prompt for policy in asked for prompt, _ in policy.asked]
    assert len(prompts) > 0
    assert not any(ELSEWHERE in prompt for prompt in prompts)


def test_a_pair_that_names_no_cells_or_cells_beside_others_is_refused(trained, data, tmp_path):
    model = shutil.copytree(trained, tmp_path / "m")
    config = Config.load(data / "cellduality.json").model_dump()
    config["tasks"][IDENTIFICATION] = {"pair": IDENTIFICATION}
    Config.read(config).save(model / "cellduality" / "cellduality.json")
    loaded, adata = Model.load(model), cells_of(["B"])
    with refused("no-label-task"):
        loaded.annotate(adata, task=GENERATION, progress=False)
    with refused("task-not-packed"):
        loaded.predict(IDENTIFICATION, adata, progress=False)
