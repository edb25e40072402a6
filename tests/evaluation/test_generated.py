from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest

from cellduality_plugin.evaluation import generated
from cellduality_plugin.evaluation.embedding import rank_profile
from cellduality_plugin.evaluation.evaluate import evaluate
from cellduality_plugin.evaluation.generated import maps_of, point_rows, styles_of, tsne
from cellduality_plugin.evaluation.predictions import Prediction
from cellduality_plugin.evaluation.sections import EvaluationSettings
from cellduality_plugin.evaluation.tables import REAL
from tests.refused import refused

GENERATION, RESPONSE = "conditional_cell_generation", "perturbation_response_generation"
MADE_FROM = {"model": "abc", "settings": {"seed": 1, "engine": {"chat_template": ""}}}


@pytest.fixture
def write(tmp_path: Path, sections, vocabulary):
    """Return a function that writes predictions and reads them as scanpy does."""
    import scanpy as sc

    def written(predictions, **settings):
        path = tmp_path / "cells.h5ad"
        generated.write_generated(path, predictions, list(sections.values()), vocabulary, MADE_FROM, **settings)
        return sc.read_h5ad(path) if path.exists() else None

    return written


def test_scanpy_reads_every_generated_cell_with_its_condition(write, answered, sections, vocabulary) -> None:
    assert write([]) is None
    adata = write(answered)
    cells = {f"{p.task}{at}/{p.id}/{p.sample}": p for p in answered for at in ("", "@ood")}
    assert adata.n_obs == sum(isinstance(p.unknown, str) for p in answered) == 60 + 96 + 64
    assert adata.var_names.tolist() == list(vocabulary.genes)
    assert adata.obs_names.is_unique
    rank, values = adata.layers["rank"].toarray(), adata.X.toarray()
    assert values[rank > 0] == pytest.approx(rank_profile(8)[rank[rank > 0] - 1], abs=1e-6)
    assert not values[rank == 0].any()
    for name, ranks, row in zip(adata.obs_names, rank, adata.obs.to_dict("records"), strict=True):
        p, kind, state = cells[name], row["cell_type"], row["state"]
        assert tuple(vocabulary.genes[place] for place in np.argsort(ranks, kind="stable") if ranks[place]) == p.answer
        assert (row["row"], row["task"], row["sample"], row["validity"]) == (p.id, p.task, p.sample, p.validity)
        assert (row["dual_similarity"], row["parsed"], row["failure"]) == (p.similarity, True, "")
        of_response = p.task == RESPONSE
        assert (row["condition"], p.unknown) == ((f"{kind}, {state}", state) if of_response else (kind, kind))
    assert set(adata.obs["section"]) == {key for key, section in sections.items() if section.writes_cells}
    provenance = adata.uns["cellduality"]
    assert json.loads(provenance["made_from"]) == MADE_FROM
    assert provenance["X"].startswith("1 - log(rank)/log(9)")


def test_real_cells_and_what_could_not_be_read_may_stand_beside_them(write, sections) -> None:
    row = next(iter(sections[GENERATION].rows))[1]
    adata = write([Prediction(row, GENERATION, 1, "B", None, "", None, "unclosed", drawn=True)], real=True)
    real, unread = (adata[adata.obs["origin"] == origin] for origin in ("real", "generated"))
    assert [unread.obs[key].tolist() for key in ("parsed", "failure")] == [[False], ["unclosed"]]
    assert not unread.layers["rank"].toarray().any()
    held_out = {s.key: s.reference.held_out for s in sections.values() if s.writes_cells}
    assert real.n_obs == sum(map(len, held_out.values()))
    for key, cells in held_out.items():
        own = real[real.obs["section"] == key].obs
        assert (own["row"].tolist(), own["condition"].tolist()) == (list(cells.ids), list(cells.names))


def test_without_the_package_it_is_told_before_any_question(data, model, tmp_path, opened, expert_decoder, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with refused("not-installed"):
        evaluate({"SFT": model}, data, "test", tmp_path / "run", EvaluationSettings(anndata=True), opener=opened)
    assert expert_decoder.asked == []
    assert not (tmp_path / "run").exists()


def test_a_map_has_a_place_for_everyone_however_few_and_a_seed_fixes_it():
    points = np.random.default_rng(0).normal(size=(40, 6))
    for count, dimensions in [(0, 6), (1, 6), (3, 6), (5, 6), (40, 1), (40, 6)]:
        plane = tsne(points[:count, :dimensions], seed=3)
        assert plane.shape == (count, 2)
        assert np.isfinite(plane).all()
    np.testing.assert_array_equal(tsne(points, seed=3), plane)


def test_a_map_of_a_section_shows_held_out_cells_and_every_cell_that_could_be_read(sections, answered):
    metrics = {"spaces": dict.fromkeys(sections, "PCA"), "settings": {"seed": 0}}
    rows = [*point_rows({"<i>": answered}, [*sections.values()])]
    found = maps_of(rows, metrics, ["<i>"])
    assert len(found) == sum(each.writes_cells for each in sections.values())
    section = sections[GENERATION]
    read = sum((p.task, p.id) in section.rows and p.answer is not None for p in answered)
    real = len(section.reference.held_out)
    assert list(found[0]["plots"]) == [f"{REAL} (n = {real})", f"<i> (n = {read})"]
    assert [plot.count("<use ") for plot in found[0]["plots"].values()] == [real, read]
    assert [plot.count("<image ") for plot in found[0]["plots"].values()] == [1, 1]
    text = "".join(found[0]["plots"].values())
    assert ("<i>" in text, "&lt;i&gt;" in text) == (False, True), "names are text"
    assert {str(each["plots"]) for each in maps_of(rows, metrics, ["SFT"])} == {"{}"}, "nothing of it could be read"
    assert maps_of([], metrics, ["<i>"]) == []
    old = [{key: value for key, value in row.items() if key != "point"} for row in rows]
    assert len(maps_of(old, metrics, ["<i>"])) == len(found), "points as older evaluations wrote them"


def test_no_two_conditions_look_alike():
    for number in (1, 6, 7, 18, 24):
        assert len(set(styles_of([f"type {place}" for place in range(number)]).values())) == number
    for kinds, states in (("ABCDEF", ("control", "drug 2 uM", "IFN")), ("ABCDEFGHIJKL", ("control", "IFN"))):
        styles = styles_of([f"{kind}, {state}" for kind in kinds for state in states])
        assert len(set(styles.values())) == len(kinds) * len(states)
        assert all(styles[f"{kind}, IFN"].colour == styles[f"{kind}, control"].colour for kind in kinds)
        assert {styles[f"{kind}, control"].shape for kind in kinds} <= {"dot", "square"}
    assert len(set(styles_of([f"{kind}, {state}" for kind in "ABCDEFG" for state in "abc"]).values())) == 21
    assert styles_of(["a"]) == {"a": (1, "dot")}
