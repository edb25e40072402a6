"""Confidence fitted on cells whose labels are known: what is fitted, what the model keeps, what annotation gives."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict
from pathlib import Path

import anndata
import numpy as np
import pytest
from scipy.optimize import check_grad

from cellduality_plugin.cell_sentences import Cell
from cellduality_plugin.config import Config
from cellduality_plugin.evaluation.confidence import calibration_error, coverage_of_sets
from cellduality_plugin.evaluation.rounds.labelling import Opinion
from cellduality_plugin.files import write_jsonl
from cellduality_plugin.inference import Model
from cellduality_plugin.inference.annotating import Annotator
from cellduality_plugin.inference.calibration import UNNAMED, Calibration, Exponents, fit
from cellduality_plugin.inference.checkpoint import pack, read_checkpoint
from cellduality_plugin.profiles import Profile, Profiles
from cellduality_plugin.tasks import TASKS
from tests.commands.conftest import invoke
from tests.evaluation.audit.conftest import ANNOTATION, GENES, TYPES, PlantedPolicy, own
from tests.inference.conftest import KEY, cells_of, made_cells
from tests.refused import refused


@pytest.fixture
def model(trained, tmp_path, played_by) -> Path:
    """A packed model for which a policy of some skill plays."""
    played_by(PlantedPolicy(0.6), PlantedPolicy(0.95), PlantedPolicy(0.8, seed=1))
    return shutil.copytree(trained, tmp_path / "m")


def opinions_of(rng, count, worth):
    """Opinions on three labels, and true ones: the votes boast, and a reward is worth its power of ``worth``."""
    found, truth = [], []
    for _ in range(count):
        true = str(rng.choice(TYPES))
        rewards = {kind: float(rng.beta(3, 2) if kind == true else rng.beta(2, 3)) ** worth for kind in TYPES}
        odds = [0.6 if kind == true else 0.2 for kind in TYPES]
        # Eight answers of one mind count like two: they all follow one draw.
        heart = rng.choice(TYPES, p=odds)
        votes = rng.multinomial(8, [0.8 if kind == heart else 0.1 for kind in TYPES])
        found.append(Opinion(dict(zip(TYPES, votes.tolist(), strict=True)), rewards, {}))
        truth.append(true)
    return found, truth


def test_fitted_confidence_is_true_and_no_less_right_than_votes_times_reward():
    rng = np.random.default_rng(0)
    fitted = fit(*opinions_of(rng, 200, 8), TYPES)
    fresh, truth = opinions_of(rng, 2000, 8)
    true = np.array([TYPES.index(label) for label in truth])
    raw = np.array([[each.shares()[kind] for kind in TYPES] for each in fresh])
    shares = fitted.confidence.probabilities(fresh, TYPES)
    right, boast = shares.argmax(axis=1) == true, raw.argmax(axis=1) == true
    assert calibration_error(raw.max(axis=1), boast) > 0.2
    assert calibration_error(shares.max(axis=1), right) < 0.06
    assert right.mean() >= boast.mean()


def test_exponents_are_those_under_which_the_labels_are_likeliest():
    """Against the likelihood on a grid, computed label by label."""
    found, truth = opinions_of(np.random.default_rng(1), 60, 4)

    def surprise(votes: float, reward: float, *offsets: float) -> float:
        total, factor = 0.0, dict(zip(TYPES, np.exp(offsets), strict=True))
        for opinion, true in zip(found, truth, strict=True):
            worth = {k: factor[k] * (opinion.votes[k] + UNNAMED) ** votes * opinion.rewards[k] ** reward for k in TYPES}
            total -= np.log(worth[true] / sum(worth.values()))
        return total / len(truth) + 0.005 * np.square([votes, reward, *offsets]).sum()

    best = fit(found, truth, TYPES).confidence
    assert best.profiles == pytest.approx(0, abs=0.01), "there are none"
    found_at = best.votes, best.reward, *best.offsets
    grid = [surprise(a, b, *best.offsets) for a in np.arange(0, 2, 0.1) for b in np.arange(0, 2, 0.1)]
    assert surprise(*found_at) <= min(grid) + 1e-6
    slope = check_grad(lambda w: surprise(*w), lambda w: np.zeros(5), np.array(found_at))
    assert slope < 1e-3, "nothing is gained in any direction"


def test_sets_hold_the_true_label_as_often_as_was_asked_on_fresh_cells():
    """Over many calibrations, each of few cells: what split conformal prediction promises, whatever the fit."""
    held, sizes = [], []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        fitted = fit(*opinions_of(rng, 45, 4), TYPES)
        fresh, truth = opinions_of(rng, 100, 4)
        inside = fitted.inside(fresh, TYPES, 0.9)
        held.append(np.mean([row[TYPES.index(label)] for row, label in zip(inside, truth, strict=True)]))
        sizes.append(inside.sum(axis=1).mean())
    assert np.mean(held) == pytest.approx(coverage_of_sets(45, 0.9)[0], abs=0.03)
    assert np.std(held) < 1.5 * coverage_of_sets(45, 0.9)[1]
    assert np.mean(sizes) < 2.2


def test_a_cell_of_which_nothing_could_be_read_may_be_anything_and_notes_hold_a_calibration_whole():
    even = Exponents(1.0, 0.5).probabilities([Opinion({}, {}, {})], TYPES)
    assert even[0] == pytest.approx([1 / 3] * 3)
    fitted = Calibration(Exponents(1, 0.5, 0.25, (0.0, 0.0, 0.0)), tuple(np.linspace(0, 0.7, 40).tolist()), 60)
    assert fitted.inside([Opinion({}, {}, {})], TYPES, 0.5).all()
    notes = {"calibration": {"t": {"greedy": json.loads(json.dumps(asdict(fitted)))}}}
    assert Calibration.of_notes(notes, "t", "greedy") == fitted
    assert Calibration.of_notes(notes, "t", "verify 8, temperature 1") is None
    before = {"confidence": {"votes": 1, "reward": 0.5}, "sets": {}, "scores": [0.1] * 40, "labels": 60}
    earlier = Calibration.of_notes({"calibration": {"t": {"greedy": before}}}, "t", "greedy")
    assert earlier.confidence == Exponents(1, 0.5)
    with refused("too-few-labels"):
        earlier.threshold(0.5)


@pytest.mark.parametrize("verify", [0, 4])
def test_what_was_fitted_goes_with_the_model_and_makes_confidence_true(model, data, tmp_path, verify):
    before = cells_of(list(TYPES) * 5)
    Model.load(model).annotate(before, verify=verify, progress=False)
    assert before.obs[f"{KEY}_confidence"].mean() > 0.9, "and a fifth of such cells are of another type"
    found = Model.load(model).calibrate(data, verify=verify, cells=100)
    assert found["in_sample"]
    assert found["calibration"]["labels"] == 100
    moved = shutil.move(model, tmp_path / "moved")
    after = cells_of(list(TYPES) * 5)
    Model.load(moved).annotate(after, verify=verify, coverage=0.7, progress=False)
    assert after.obs[f"{KEY}_confidence"].mean() == pytest.approx(0.8, abs=0.08)
    assert all(label in chosen for label, chosen in zip(after.obs[KEY], after.obs[f"{KEY}_set"], strict=True))
    assert after.obsm[f"{KEY}_probability"].sum(axis=1) == pytest.approx(1)
    assert after.uns["cellduality"]["calibration_labels"] == 100
    if not verify:
        assert after.obs[KEY].tolist() == before.obs[KEY].tolist(), "greedy answers stay what they are"
    pack(moved, data, None, max_len=256, max_new_tokens=24)
    assert "calibration" not in read_checkpoint(moved).notes, "other weights have another confidence"


def test_class_profiles_are_a_judge_of_their_own_and_are_listened_to_if_they_know(model, data, tmp_path, played_by):
    played_by(PlantedPolicy(1 / 3), PlantedPolicy(1 / 3), PlantedPolicy(1 / 3, seed=1))
    other, labels = shutil.copytree(data, tmp_path / "data"), [*TYPES]
    weights = np.array([[gene in own(kind) for gene in GENES] for kind in labels], dtype=np.float32)
    profile = Profile(TYPES, weights, np.zeros(len(labels), np.float32))
    Profiles(GENES, {"cell_type": profile}).save(other / "profiles.npz")
    (Config.load(other / "cellduality.json").model_copy(update={"profiles": "profiles.npz"})).save(other / "with.json")
    pack(model, other, other / "with.json", max_len=256, max_new_tokens=24)
    found = Model.load(model).calibrate(other, verify=4)
    values = {way: numbers["accuracy"]["value"] for way, numbers in found["metrics"].items()}
    assert found["calibration"]["confidence"]["profiles"] > 0.1
    assert values["calibrated"] >= 0.75 > 0.6 > values["votes"]
    adata = cells_of(labels * 4)
    Model.load(model).annotate(adata, verify=4, progress=False)
    assert adata.obs[KEY].tolist() == adata.obs["kind"].tolist()


def test_the_command_fits_measures_on_cells_that_the_fit_has_not_met_and_sets_go_into_a_file(model, data, tmp_path):
    words = ["calibrate", model, "--data", data, "--verify", 4]
    assert "120 validation cells" in invoke(*words)
    notes = (model / "cellduality" / "checkpoint.json").read_bytes()
    invoke(*words, "--split", "test", "--out", tmp_path / "c.json", "--coverage", 0.75)
    assert (model / "cellduality" / "checkpoint.json").read_bytes() == notes, "nothing was fitted"
    found = json.loads((tmp_path / "c.json").read_text())
    assert (found["n"], found["in_sample"], found["split"]) == (90, False, "test")
    numbers = {way: {name: one["value"] for name, one in own.items()} for way, own in found["metrics"].items()}
    assert numbers["calibrated"]["ece"] < 0.1 < numbers["uncalibrated"]["ece"]
    assert numbers["calibrated"]["accuracy"] >= numbers["votes"]["accuracy"] - 0.03
    assert numbers["calibrated"]["set_coverage"] >= 0.7
    assert 1 <= numbers["calibrated"]["set_size"] <= 3
    assert found["risk_coverage"]["calibrated"][-1] == pytest.approx(
        [1, 1 - numbers["calibrated"]["accuracy"]], abs=1e-5
    )
    assert (tmp_path / "c.png").stat().st_size > 10_000
    cells_of(["B", "T", ""]).write_h5ad(tmp_path / "new.h5ad")
    of = ("--model", model, "--out", tmp_path / "out.h5ad", "--verify", 4, "--coverage", 0.9)
    invoke("annotate", tmp_path / "new.h5ad", *of)
    sets = anndata.read_h5ad(tmp_path / "out.h5ad").obs[f"{KEY}_set"].tolist()
    assert all(set(each.split(" | ")) <= set(TYPES) for each in sets[:2])
    assert sets[2] == "", "a cell without genes is left out"


def test_questions_are_those_of_annotation_and_show_no_label(model, data, played_by):
    sampler = PlantedPolicy(0.8, seed=1)
    played_by(PlantedPolicy(0.6), PlantedPolicy(0.95), sampler)
    Model.load(model).calibrate(data, split="test", cells=1, verify=1)
    [calibrating] = {prompt for prompt, _ in sampler.asked}
    [row] = [row for row in made_cells("test", 90) if " ".join(row["genes"]) in calibrating]
    adata = cells_of(["B"])
    adata.X = adata.X * 0
    for rank, gene in enumerate(row["genes"]):
        adata.X[0, GENES.index(gene)] = 50 - rank
    sampler.asked.clear()
    Model.load(model).annotate(adata, verify=1, progress=False)
    assert {prompt for prompt, _ in sampler.asked} == {calibrating}


def test_the_cells_of_the_audit_come_first_so_that_few_labels_are_read(model, data, tmp_path):
    other = shutil.copytree(data, tmp_path / "data")
    task = TASKS[ANNOTATION]
    chosen = [row for row in made_cells("validation", 120) if row["id"].endswith("7")]
    rng = np.random.default_rng(0)
    cells = [Cell(row["id"], tuple(row["genes"]), {"cell_type": row["cell_type"]}) for row in chosen]
    examples = [task.example(cell, hidden=1.0, labelled=True, rng=rng) for cell in cells]
    write_jsonl(other / "audit.jsonl", [{"input": "", "label": each.to_label()} for each in examples])

    annotator = Annotator(read_checkpoint(model), calibrating=True)
    first = annotator.known_cells(other, "validation", len(chosen))
    assert [example.id for example, _ in first] == [row["id"] for row in chosen]
    assert [label for _, label in first] == [row["cell_type"] for row in chosen]


def test_what_cannot_be_had_is_refused_before_a_cell_is_asked(model, data):
    loaded = Model.load(model)
    with refused("not-calibrated"):
        loaded.annotate(cells_of(["B"]), coverage=0.9, progress=False)
    with refused("too-few-labels"):
        loaded.calibrate(data, cells=10)
    with refused("no-cells"):
        loaded.calibrate(data, split="ood")
    loaded.calibrate(data, cells=30, coverage=0.0)
    for code, settings in {
        "too-few-labels": {"coverage": 0.99},
        "not-calibrated": {"coverage": 0.9, "verify": 2},
    }.items():
        with refused(code):
            loaded.annotate(cells_of(["B"]), progress=False, **settings)
