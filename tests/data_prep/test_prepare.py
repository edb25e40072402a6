from __future__ import annotations

import hashlib
from collections import Counter
from pathlib import Path

import anndata
import numpy as np
import pytest

import cellduality_plugin
from cellduality_plugin.errors import CellDualityError
from cellduality_plugin.files import read_jsonl
from data_prep.h5ad.loaders import MISSING_LABEL
from data_prep.manifests import read_manifest, write_manifest
from data_prep.prepare import FILES, OOD_FILE, PrepareSettings, prepare
from data_prep.sources import file_sha256
from data_prep.splits import SPLITS
from data_prep.views import RARE_CLASS, UNPAIRED
from tests.data_prep.conftest import (
    EXPOSURE,
    IDENTITY,
    IFN,
    RESPONSE,
    Prepared,
    content_of,
    toy_counts,
    toy_settings,
    two_sources,
)
from tests.refused import refused


def test_default_preparation_holds_what_it_says_and_asks_about_the_cells_of_each_split(prepared):
    cells = prepared.cells
    assert Counter(cell["split"] for cell in cells.values()) == {"train": 420, "validation": 142, "test": 138}
    assert {len(cell["genes"]) for cell in cells.values()} == {64}
    assert [*cells] == sorted(cells)
    labelled = {name for name, cell in cells.items() if cell["labelled"]}
    train, validation, test = ({i for i in cells if cells[i]["split"] == part} for part in SPLITS)
    assert len(labelled) == 140
    assert labelled <= train
    assert len(prepared.rows("sft.jsonl")) == 4 * 140
    assert {row["id"] for row in prepared.rows("sft.jsonl")} == labelled
    assert len(prepared.rows("rl.jsonl")) == 512
    assert {row["id"] for row in prepared.rows("rl.jsonl")} <= train
    assert {row["id"] for row in prepared.rows("audit.jsonl")} <= validation
    for part, own in (("validation", validation), ("test", test)):
        for name in prepared.settings.tasks:
            rows = [row for row in prepared.rows(f"eval_{part}.jsonl") if row["datasource"] == name]
            assert [row["id"] for row in rows] == sorted(own)
    vocabulary = prepared.vocabulary
    assert len(vocabulary.genes) == 765
    assert list(vocabulary.genes) == sorted(vocabulary.genes)
    assert set(vocabulary.labels["cell_type"]) == {cell["cell_type"] for cell in cells.values()}


@pytest.mark.parametrize(("masks", "audited"), [(2, 4), (6, 6)])
def test_rl_rows_hold_the_masks_asked_for_and_what_is_left_out_is_counted(masks, audited, tmp_path, write_h5ad):
    labels = ["B"] * 12 + ["T"] * 9 + ["rare", "rare", None]
    settings = toy_settings(write_h5ad(labels=labels), masks=masks, n_audit=3, small_classes="drop")
    made = Prepared.by(settings, tmp_path / "out")
    assert made.manifest("rl.jsonl")["drops"] == {MISSING_LABEL: 1, RARE_CLASS: 2}
    assert {cell["cell_type"] for cell in made.rows("cells.jsonl")} == {"B", "T"}
    found = {}
    for name in ("rl", "audit", "eval_test", "sft"):
        found[name] = max(len(example.splits()) for example in made.examples(name, "cell_type_annotation"))
    assert found == {"rl": masks, "audit": audited, "eval_test": 1, "sft": 1}


def test_manifests_are_true(prepared):
    for name in FILES:
        manifest = read_manifest(prepared.folder / name)
        assert manifest == prepared.summary.manifests[name]
        assert manifest["sha256"] == hashlib.sha256((prepared.folder / name).read_bytes()).hexdigest()
        assert manifest["vocabulary"] == prepared.vocabulary.fingerprint
        assert manifest["source"] == "pbmc68k_reduced"
        assert PrepareSettings(**manifest["settings"]) == prepared.settings
    assert read_manifest(prepared.folder / "vocabulary.json")["counts"] == {"genes": 765, "cell_type": 10}


def test_same_seed_gives_the_same_bytes_and_another_does_not(prepared, tmp_path):
    prepare(PrepareSettings(n_rl=8), tmp_path / "again")
    again, first = content_of(tmp_path / "again"), content_of(prepared.folder)
    assert {name for name in FILES if again[name] != first[name]} == {"rl.jsonl"}, "what one choice does not touch"
    prepare(PrepareSettings(seed=1), tmp_path / "other")
    other = content_of(tmp_path / "other")
    assert all(other[name] != content_of(prepared.folder)[name] for name in FILES if name != "vocabulary.json")


def test_second_run_does_nothing_and_what_changed_is_made_again(write_h5ad, tmp_path, monkeypatch):
    settings, out = toy_settings(write_h5ad()), tmp_path / "out"
    assert not prepare(settings, out).up_to_date
    before, times = content_of(out), {path: path.stat().st_mtime_ns for path in out.iterdir()}
    assert prepare(settings, out).up_to_date
    assert {path: path.stat().st_mtime_ns for path in out.iterdir()} == times
    assert not prepare(settings.model_copy(update={"n_rl": 21}), out).up_to_date
    with monkeypatch.context() as patch:
        patch.setattr(cellduality_plugin, "__version__", "999")
        assert not prepare(settings, out).up_to_date
    (out / "rl.jsonl").unlink()
    assert not prepare(settings, out).up_to_date
    assert content_of(out) == before
    summary = prepare(toy_settings(write_h5ad(toy_counts()[::-1])), out)
    assert not summary.up_to_date
    assert summary.manifests["rl.jsonl"]["source_sha256"] == file_sha256(Path(settings.sources[0].name))


def test_rows_do_not_depend_on_the_order_of_cells_in_the_file(write_h5ad, tmp_path):
    names, kinds = np.array([f"c{n:02}" for n in range(24)]), np.repeat(["B", "T"], 12)
    found = []
    for order in (np.arange(24), np.random.default_rng(3).permutation(24)):
        path = write_h5ad(toy_counts()[order], cells=names[order].tolist(), labels=kinds[order].tolist())
        prepare(toy_settings(path), tmp_path / str(len(found)))
        found.append({name: (tmp_path / str(len(found)) / name).read_bytes() for name in FILES})
    assert found[0] == found[1]


@pytest.mark.parametrize(
    ("values", "where"),
    [
        ({"seeds": 1}, "seeds"),
        ({"hidden": 1.5}, "hidden.0"),
        ({"hidden": (0.25, 1), "thin": 0.5}, "thin"),
        ({"tasks": {"cell_type_annotation": 0}}, "tasks"),
        ({"fractions": (0.6, 0.2, 0.1)}, "fractions"),
        ({"min_genes": 65}, "min_genes"),
        ({"sources": [{"name": "a.h5ad", "lables": 1}]}, "sources.0.lables"),
        ({"sources": [{"name": "a.h5ad", "tasks": ["other"]}]}, "sources"),
        ({"sources": [{"name": "a.h5ad", "tasks": ["cell_type_annotation"]}]}, "sources"),
        ({"foreign": ["pbmc68k_reduced"]}, "foreign"),
    ],
)
def test_bad_settings_are_refused(values, where):
    with pytest.raises(CellDualityError) as error:
        PrepareSettings.read(values)
    assert error.value.where == where


def test_pair_of_ones_own_is_prepared_and_prepared_again_when_its_code_changes(write_h5ad, tmp_path):
    pair, out = tmp_path / "pair.py", tmp_path / "out"
    settings = toy_settings(write_h5ad(), tasks={f"{pair}:Mine": 1})
    for opening in ("Please.", "If you please."):
        pair.write_text(
            "from cellduality_plugin.tasks.cell_type_annotation import CellTypeAnnotation\n"
            "class Mine(CellTypeAnnotation):\n"
            "    name = 'mine'\n"
            "    def primal_prompt(self, inputs, vocabulary):\n"
            f"        return '{opening} ' + super().primal_prompt(inputs, vocabulary)\n"
        )
        summary = prepare(settings, out)
        assert not summary.up_to_date
        assert summary.manifests["rl.jsonl"]["counts"] == {"mine/primal": 20}
        assert all(row["input"].startswith(f"{opening} Name") for row in read_jsonl(out / "rl.jsonl"))
        assert prepare(settings, out).up_to_date


def test_a_source_is_asked_only_what_it_serves(generalist):
    served = {"toy": IDENTITY, "treated": [RESPONSE, EXPOSURE]}
    for name in ("sft.jsonl", "rl.jsonl", "eval_validation.jsonl", "eval_test.jsonl"):
        asked = {(row["id"].partition("/")[0], row["datasource"]) for row in generalist.rows(name)}
        assert asked == {(source, task) for source, tasks in served.items() for task in tasks}
        by_source = generalist.summary.manifests[name]["counts_by_source"]
        assert sum(sum(counts.values()) for counts in by_source.values()) == len(generalist.rows(name))
    assert generalist.asked("rl")[RESPONSE] == 20
    assert generalist.vocabulary.labels == {
        "cell_type": ("B cell", "NK", "T cell"),
        "exposure": ("exposed", "not exposed"),
        "perturbation": ("control", IFN),
    }
    cells = generalist.rows("cells.jsonl")
    assert Counter(cell["id"].partition("/")[0] for cell in cells if cell["labelled"]) == {"toy": 6, "treated": 12}


def test_held_out_type_is_asked_about_nowhere_else(generalist):
    cells = generalist.rows("cells.jsonl")
    held = {cell["id"] for cell in cells if cell["split"] == "ood"}
    assert held == {cell["id"] for cell in cells[-120:] if cell["cell_type"] == "NK"}
    assert Counter(row["id"] for row in generalist.rows(OOD_FILE)) == dict.fromkeys(held, 2)
    for name in generalist.summary.manifests.keys() - {OOD_FILE, "cells.jsonl", "vocabulary.json", "profiles.npz"}:
        assert not {row["id"] for row in generalist.rows(name)} & held
    shown = {tuple(c["genes"]) for c in cells if c["id"] in held}
    for example in (*generalist.examples("rl"), *generalist.examples("eval_test")):
        assert example.inputs.get("control") not in shown


def test_every_cell_stands_beside_an_untreated_one_of_its_type_and_split(generalist):
    cells = generalist.cells
    control_of = {name: cells[cell["control"]] for name, cell in cells.items() if "control" in cell}
    assert len(control_of) == 120
    for name, control in control_of.items():
        assert control["perturbation"] == "control"
        assert [control[key] for key in ("split", "cell_type")] == [cells[name][key] for key in ("split", "cell_type")]
        assert control["id"] != name
    for example in generalist.examples("eval_test", RESPONSE):
        cell = cells[example.id]
        assert example.known == {"control": tuple(control_of[example.id]["genes"])}
        assert (example.unknown, example.gold) == (cell["perturbation"], tuple(cell["genes"]))


def test_several_sources_give_the_same_bytes_and_each_its_own_split(generalist, tmp_path):
    prepare(generalist.settings, tmp_path / "again")
    assert content_of(tmp_path / "again") == content_of(generalist.folder)
    alone = Prepared.by(toy_settings(generalist.folder.parent / "toy.h5ad"), tmp_path / "alone").cells
    assert all(generalist.cells[name]["split"] == cell["split"] for name, cell in alone.items())


def test_vocabulary_of_the_most_variable_genes_is_all_that_is_spoken(tmp_path):
    made = Prepared.by(two_sources(tmp_path, n_genes=9, min_genes=3), tmp_path / "out")
    genes = set(made.vocabulary.genes)
    assert 9 <= len(genes) <= 18
    assert genes > {f"G{number}" for number in (0, 1, 2, 3, 4, 10, 11)}, "what the treatment and the types change"
    assert {gene for cell in made.rows("cells.jsonl") for gene in cell["genes"]} <= genes


def test_type_without_controls_is_left_out_and_counted(tmp_path):
    settings = two_sources(tmp_path)
    adata = anndata.read_h5ad(tmp_path / "treated.h5ad")
    alone = (adata.obs["kind"] == "T") & (adata.obs["treatment"] == "control")
    adata[~alone.to_numpy()].copy().write_h5ad(tmp_path / "treated.h5ad")
    made = Prepared.by(settings, tmp_path / "out")
    assert made.manifest("rl.jsonl")["drops"] == {UNPAIRED: 20}
    assert {made.cells[example.id]["cell_type"] for example in made.examples("eval_test", RESPONSE)} == {"B"}


MANIFEST = "rows.jsonl.manifest.json"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("rows.jsonl", None),
        ("rows.jsonl", b"[]\n"),
        (MANIFEST, None),
        *((MANIFEST, content) for content in (b"{", b"\xff", b"[]", b'{"format": "cellduality-data"}')),
    ],
)
def test_spoilt_file_or_manifest_is_refused(name, content, tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text("{}\n")
    write_manifest(path, {"seed": 3}, counts={"rows": 1})
    (tmp_path / name).unlink()
    if content:
        (tmp_path / name).write_bytes(content)
    with refused("stale-file") as error:
        read_manifest(path)
    assert error.value.where in (str(path), str(tmp_path / MANIFEST))
