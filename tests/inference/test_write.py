"""Cells from a trained model: of a type, of untreated ones, of a pair of one's own; and its model card."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import anndata
import numpy as np
import pandas
import pytest
import scanpy
from huggingface_hub import metadata_load

from cellduality_plugin.config import Config
from cellduality_plugin.evaluation.predictions import model_hash
from cellduality_plugin.inference import Model
from cellduality_plugin.inference.card import write_card
from cellduality_plugin.inference.checkpoint import pack
from cellduality_plugin.parsing import join_response
from data_prep.manifests import read_manifest, write_manifest
from data_prep.prepare import PrepareSettings, prepare
from tests.commands.conftest import invoke
from tests.evaluation.audit.conftest import TYPES, own
from tests.inference.conftest import DRUG, cells_of, packed
from tests.refused import refused

OWN = f"{Path(__file__).parents[1]}/stack/my_pair.py:DropoutRecovery"
RESPONSE, EXPOSURE = "perturbation_response_generation", "drug_exposure_prediction"
IDENTIFICATION = "perturbation_identification"
PAIRS = {
    name: name for name in ("cell_type_annotation", "conditional_cell_generation", RESPONSE, EXPOSURE, IDENTIFICATION)
}


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("written")
    both = anndata.concat([cells_of(TYPES * 8), cells_of(TYPES * 8, treated=True, seed=1)])
    both.write_h5ad(folder / "made.h5ad")
    columns = {name: name for name in ("perturbation", "drug", "exposure")}
    source = {"name": str(folder / "made.h5ad"), "label_column": "kind", "columns": columns}
    asked = dict.fromkeys([*PAIRS, OWN], 1.0)
    how = {"sources": [source], "tasks": asked, "top_genes": 12, "min_genes": 4, "n_labelled": 12, "n_rl": 10}
    prepare(PrepareSettings.read(how), folder / "data")
    pairs = {**PAIRS, "dropout_recovery": OWN}
    config = {"tasks": {name: {"pair": pair} for name, pair in pairs.items()}, "profiles": "profiles.npz"}
    Config.read(config).save(folder / "data" / "cellduality.json")
    return folder / "data"


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory) -> Path:
    return packed(tmp_path_factory.mktemp("model") / "m", data)


class Scribe:
    """A policy that writes cells of the wrong type in a share of the draws, and else knows everything."""

    def __init__(self, wrong: float) -> None:
        self.wrong, self.asked = wrong, []

    async def generate(self, prompt: str, *, seed: int | None = None, temperature: float | None = None) -> str:
        self.asked.append((prompt, seed))
        shown = prompt.rsplit(": ", 1)[1].split()
        if prompt.startswith("Write a cell"):
            others = [kind for kind in TYPES if kind != shown[-1]]
            slip = np.random.default_rng(seed).random() < self.wrong
            return join_response(" ".join(own(others[0] if slip else shown[-1])), "as asked")
        if prompt.startswith("Write the cell"):
            return join_response(" ".join(shown[::-1] if f"Perturbation: {DRUG}\n" in prompt else shown))
        if prompt.startswith("Name the perturbation"):
            before = prompt.split("Untreated cell: ")[1].split("\n")[0].split()
            return join_response("control" if before == shown else DRUG)
        if prompt.startswith("Name the type"):
            return join_response(TYPES[int(shown[0][1:]) // 12])
        if prompt.startswith("Tell whether"):
            return join_response(str(shown[0] > shown[-1]))
        kind = TYPES[int(shown[0][1:]) // 12]
        return join_response(" ".join(gene for gene in own(kind) if gene not in shown))

    async def choice_log_probs(self, prompt: str, responses) -> list[float]:
        return [0.0 if response == await self.generate(prompt) else -9.0 for response in responses]


@pytest.fixture
def scribe(played_by):
    """Return a function that lets a scribe play for the model."""

    def play(wrong: float = 0.0) -> Scribe:
        one = Scribe(wrong)
        played_by(one, one, one)
        return one

    return play


def names_of(cells: anndata.AnnData) -> list[list[str]]:
    """The genes of each cell by its ranks."""
    ranks = cells.layers["rank"].toarray()
    return [[str(cells.var_names[at]) for at in np.argsort(row) if row[at]] for row in ranks]


def test_cells_of_a_type_are_anndata_that_scanpy_takes(trained, scribe):
    scribe()
    cells = Model.load(trained).generate(["B", " nk "], 4, verify=0, progress=False)
    assert cells.obs["cellduality_cell_type"].tolist() == ["B"] * 4 + ["NK"] * 4, "as the vocabulary spells it"
    assert names_of(cells) == [list(own("B"))] * 4 + [list(own("NK"))] * 4
    assert cells.obs["cellduality_validity"].tolist() == [1.0] * 8
    assert set(cells.obs["cellduality_reasoning"]) == {"as asked"}
    assert cells.obs["cellduality_reward"].isna().all(), "nobody judged"
    scanpy.pp.pca(cells, n_comps=2)
    apart = cells.obsm["X_pca"][:4].mean(axis=0) - cells.obsm["X_pca"][4:].mean(axis=0)
    assert np.abs(apart).max() > 1


def test_expression_is_the_line_that_fits_the_training_cells(trained, data, scribe):
    """The counts of the training cells fall from 400 to 345 of about 4,480."""
    scribe()
    cells = Model.load(trained).generate("T", 1, progress=False)
    expressed = cells[:, list(own("T"))].X.toarray()[0]
    curve = read_manifest(data / "cells.jsonl")["expression_at_rank"]["made"]
    assert curve["cells"] == [30] * 12, "every training cell has every rank"
    assert expressed == pytest.approx(np.array(curve["mean"]), abs=0.05)
    assert (np.diff(expressed) < 0).all()
    assert "fitted to log1p of counts per 10,000 of 30 training cells (made)" in cells.uns["cellduality"]["X"]


def test_data_of_an_earlier_version_give_a_proxy_that_is_called_one(trained, data, scribe, tmp_path):
    scribe()
    older, model = shutil.copytree(data, tmp_path / "data"), shutil.copytree(trained, tmp_path / "m")
    manifest = read_manifest(older / "cells.jsonl")
    del manifest["expression_at_rank"]
    write_manifest(older / "cells.jsonl", manifest)
    pack(model, older, None, max_len=256, max_new_tokens=24)
    cells = Model.load(model).generate("T", 1, progress=False)
    assert "not fitted" in cells.uns["cellduality"]["X"]
    assert cells.X.max() == 1
    assert "log1p" not in cells.uns


def test_the_best_of_several_cells_shows_the_type_more_often(trained, scribe):
    """Five of ten draws are of a wrong type: eight draws are all so once in 256 times."""
    scribe(0.5)
    model, share = Model.load(trained), {}
    for verify in (0, 8):
        cells = model.generate("T", 60, verify=verify, progress=False)
        share[verify] = np.mean([genes == list(own("T")) for genes in names_of(cells)])
    assert 0.3 < share[0] < 0.7
    assert share[8] > 0.9
    assert cells.obs["cellduality_reward"].mean() == pytest.approx(share[8])


def test_untreated_cells_become_treated_ones_under_their_own_names(trained, scribe):
    scribe()
    adata = anndata.concat([cells_of(["B", "T"]), cells_of(["NK"], treated=True)])
    model = Model.load(trained)
    found = model.perturb(adata, DRUG.upper(), verify=1, progress=False)
    assert found.obs_names.tolist() == ["t0", "t1"], "of the cells that are called control"
    assert found.obs["kind"].tolist() == ["B", "T"]
    assert names_of(found) == [list(own("B")[::-1]), list(own("T")[::-1])]
    assert found.obs["cellduality_perturbation"].tolist() == [DRUG] * 2
    assert found.obs["cellduality_reward"].tolist() == [1.0] * 2
    assert model.perturb(adata, "control", control=("kind", "NK"), progress=False).obs_names.tolist() == ["s0"]
    assert adata.shape == (3, 36)
    assert "cellduality_validity" not in adata.obs


def test_any_pair_is_asked_by_name_and_a_label_pair_as_annotate_asks_it(trained, scribe):
    scribe()
    model, adata = Model.load(trained), cells_of(["B", "T"], treated=True)
    changed = model.predict(EXPOSURE, adata, given={"drug": "X"}, copy=True, verify=0, progress=False)
    assert changed is not None
    assert changed.obs["exposure_cellduality"].tolist() == ["True", "True"]
    assert "exposure_cellduality" not in adata.obs
    assert model.predict("cell_type_annotation", adata, verify=0, progress=False) is None
    again = model.annotate(cells_of(["B", "T"], treated=True), verify=0, copy=True, progress=False)
    assert adata.obs["cell_type_cellduality"].tolist() == again.obs["cell_type_cellduality"].tolist() == ["B", "T"]
    missed = model.predict("dropout_recovery", adata, progress=False)
    assert [set(genes) < set(own(kind)) for genes, kind in zip(names_of(missed), "BT", strict=True)] == [True, True]
    assert {len(genes) for genes in names_of(missed)} == {3}, "a quarter of twelve"


@pytest.mark.parametrize("verify", [0, 2])
def test_what_was_done_to_a_cell_is_named_beside_an_untreated_cell_of_its_type(trained, scribe, tmp_path, verify):
    asked, model = scribe(), Model.load(trained)
    screen = anndata.concat([cells_of(TYPES * 2), cells_of(TYPES * 2, treated=True)])
    screen.obs["cell_type"] = screen.obs["kind"]
    model.predict(IDENTIFICATION, screen, verify=verify, progress=False)
    assert screen.obs["perturbation_cellduality"].tolist() == screen.obs["perturbation"].tolist()
    renamed = screen[::-1].copy()
    renamed.obs = renamed.obs[["cell_type"]].assign(stim=["drug"] * 6 + ["ctrl"] * 6)
    model.predict(IDENTIFICATION, renamed, control=("stim", "ctrl"), verify=verify, progress=False)
    assert renamed.obs["perturbation_cellduality"].tolist() == [DRUG] * 6 + ["control"] * 6
    new, control, out = tmp_path / "new.h5ad", tmp_path / "control.h5ad", tmp_path / "out.h5ad"
    treated = screen[6:9].copy()
    anndata.AnnData(treated.X, treated.obs[["cell_type"]], treated.var).write_h5ad(new)
    screen[screen.obs_names.str.startswith("t") & (screen.obs["kind"] != "NK")].copy().write_h5ad(control)
    of = ("--model", trained, "--out", out, "--verify", verify)
    invoke("predict", IDENTIFICATION, new, "--control", control, *of)
    assert anndata.read_h5ad(out).obs["perturbation_cellduality"].tolist() == [DRUG, "unassigned", DRUG]
    assert all("Untreated cell: " in prompt for prompt, _ in asked.asked if prompt.startswith("Name the perturbation"))
    with refused("missing-file"):
        invoke("predict", IDENTIFICATION, new, "--control", tmp_path / "no.h5ad", *of)
    alone, beside = anndata.read_h5ad(new), anndata.read_h5ad(control)
    for untreated in (control, beside):
        model.predict(IDENTIFICATION, alone, control=untreated, key_added=type(untreated).__name__, progress=False)
        assert alone.obs[type(untreated).__name__].tolist() == [DRUG, "unassigned", DRUG]
    with refused("no-control"):
        model.asker(IDENTIFICATION, control=beside).of_file(new, tmp_path / "other.h5ad")
    kept = (tmp_path / "other.answers").write_text("of a run that was stopped")
    with refused("no-layer"):
        model.asker(IDENTIFICATION).of_file(new, tmp_path / "other.h5ad", layer="scaled")
    assert (tmp_path / "other.answers").stat().st_size == kept


def test_commands_write_files_whatever_weights_say(trained, tmp_path):
    """Random weights write nonsense: that is data, with the reason why nothing could be read."""
    source, out = tmp_path / "new.h5ad", tmp_path / "out.h5ad"
    cells_of(["B", "T"]).write_h5ad(source)
    of = ("--model", trained, "--out", out)
    invoke("generate", *of, "--cell-type", "B", "-n", 2, "--verify", 2)
    assert anndata.read_h5ad(out).shape == (2, 36)
    invoke("perturb", source, *of, "--perturbation", DRUG)  # a file of ours may be replaced
    found = anndata.read_h5ad(out)
    assert found.obs["kind"].tolist() == ["B", "T"]
    read = np.array([len(genes) > 0 for genes in names_of(found)])
    assert ((found.obs["cellduality_failure"] == "").to_numpy() == read).all()
    invoke("predict", "dropout_recovery", source, *of)
    invoke("predict", EXPOSURE, source, *of, "--set", "drug=X", "--verify", 0)
    assert "exposure_cellduality" in anndata.read_h5ad(out).obs
    invoke("annotate", source, *of, "--verify", 2)
    assert set(anndata.read_h5ad(out).obs["cell_type_cellduality"]) <= {*TYPES, "unassigned"}
    with refused("file-taken"):
        invoke("perturb", source, "--model", trained, "--out", source, "--perturbation", DRUG)


CONTROLS, TREATED, TWINS = cells_of(["B", "T"]), cells_of(["B", "T"], treated=True), cells_of(["B", "T"])
TWINS.obs_names = ["one", "one"]


def knowing(obs: pandas.DataFrame) -> anndata.AnnData:
    """Return the untreated cells with another ``obs``."""
    return anndata.AnnData(CONTROLS.X, obs, CONTROLS.var)


@pytest.mark.parametrize(
    ("code", "ask"),
    [
        ("unknown-label", lambda model: model.generate("plasma cell")),
        ("missing-value", lambda model: model.generate()),
        ("wrong-length", lambda model: model.generate("B", length=99)),
        ("unknown-task", lambda model: model.generate("B", task="nothing")),
        ("no-cell-task", lambda model: model.generate("B", task="cell_type_annotation")),
        ("needs-cells", lambda model: model.generate(task="dropout_recovery")),
        ("wrong-settings", lambda model: model.generate("B", verify=-1)),
        ("unknown-label", lambda model: model.perturb(CONTROLS, "drug Y")),
        ("no-control", lambda model: model.perturb(TREATED, DRUG)),
        ("no-control", lambda model: model.perturb(CONTROLS, DRUG, control=("kind", "CD34+"))),
        ("unknown-column", lambda model: model.perturb(CONTROLS, DRUG, control=("state", "resting"))),
        ("key-taken", lambda model: model.perturb(knowing(CONTROLS.obs.assign(cellduality_validity=1)), DRUG)),
        ("no-shared-genes", lambda model: model.perturb(CONTROLS[:, :0], DRUG)),
        ("duplicate-names", lambda model: model.perturb(TWINS, DRUG)),
        ("wrong-count", lambda model: model.generate("B", 0)),
        ("unshown-value", lambda model: model.generate("B", given={"drug": "X"})),
        ("unshown-value", lambda model: model.predict(EXPOSURE, CONTROLS, given={"durg": "X"})),
        ("no-control", lambda model: model.predict(EXPOSURE, CONTROLS, control=("kind", "B"))),
        ("no-control", lambda model: model.predict(IDENTIFICATION, TREATED)),
        ("no-control", lambda model: model.predict(IDENTIFICATION, CONTROLS, control=("state", "resting"))),
        ("no-control", lambda model: model.predict(IDENTIFICATION, knowing(CONTROLS.obs[["kind"]]))),
        ("no-control", lambda model: model.predict(RESPONSE, CONTROLS, control=CONTROLS)),
        ("unknown-task", lambda model: model.predict("nothing", CONTROLS)),
        ("unknown-label", lambda model: model.predict(RESPONSE, CONTROLS, given={"perturbation": "drug Y"})),
        ("unknown-column", lambda model: model.predict(EXPOSURE, knowing(CONTROLS.obs[[]]))),
    ],
)
def test_what_cannot_be_answered_is_one_line(trained, code, ask):
    with refused(code) as error:
        ask(Model.load(trained))
    assert "\n" not in str(error.value)
    assert error.value.hint


def evaluated(path: Path, weights: str) -> Path:
    one = {"value": 0.75, "better": "higher", "n": 8, "interval": [0.5, 1.0], "space": "", "note": "", "estimator": "x"}
    content = {
        "format": "cellduality-metrics", "version": 2, "split": "test",
        "columns": {"GRPO": {"metrics": {"cell_type_annotation/accuracy": one}}},
        "provenance": {"models": {"GRPO": {"model": weights}}},
    }  # fmt: skip
    path.write_text(json.dumps(content))
    return path


def test_a_model_card_has_front_matter_results_and_label_budget(trained, tmp_path):
    model = shutil.copytree(trained, tmp_path / "m")
    metrics = evaluated(tmp_path / "metrics.json", model_hash(model))
    invoke("card", model, "--metrics", metrics, "--licence", "apache-2.0")
    card = model / "README.md"
    head, text = metadata_load(card), card.read_text()
    assert (head["license"], head["library_name"]) == ("apache-2.0", "transformers")
    (result,) = head["model-index"][0]["results"]
    assert result["metrics"][0]["value"] == 0.75
    assert result["metrics"][0]["args"]["interval_95"] == [0.5, 1.0]
    assert "0.500 to 1.000" in text
    assert "12 cells showed their label" in text
    assert "without an audit" in text
    assert model_hash(model) == model_hash(trained), "a card is no part of the model"
    write_card(model)  # ours may be replaced
    assert "without an evaluation" in card.read_text()


def test_cards_of_others_stay_and_metrics_of_other_models_are_refused(trained, tmp_path):
    model = shutil.copytree(trained, tmp_path / "m")
    with refused("other-model"):
        write_card(model, evaluated(tmp_path / "metrics.json", "other"))
    (model / "README.md").write_text("mine")
    with refused("file-taken"):
        write_card(model)
    assert (model / "README.md").read_text() == "mine"
