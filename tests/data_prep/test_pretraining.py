"""Rows without labels: what they hold, and that no label of any cell gets into them."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import pairwise

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import adjusted_rand_score
from transformers import AutoTokenizer

import data_prep.prepare
from cellduality_plugin.cell_sentences import Cell
from cellduality_plugin.examples import Example
from cellduality_plugin.tasks import TASKS
from cellduality_plugin.vocabulary import Vocabulary
from data_prep.models import build_small_llama
from data_prep.prepare import prepare
from data_prep.rows import PRETRAIN_FILE, cluster_cells, pretrain_rows
from data_prep.settings import PrepareSettings

GENES = tuple(f"G{number}" for number in range(30))
GENERATION, ANNOTATION = TASKS["conditional_cell_generation"], TASKS["cell_type_annotation"]


def cells_of(kinds: int, each: int, seed: int = 0, name: str = "toy") -> list[Cell]:
    """Return cells of some kinds, each of which has three genes of its own on top."""
    rng = np.random.default_rng(seed)
    orders = [(*GENES[3 * kind : 3 * kind + 3], *rng.permutation(GENES)) for kind in range(kinds) for _ in range(each)]
    return [
        Cell(f"{name}/{number}", tuple(dict.fromkeys(order))[:12], {"cell_type": f"Q{number // each}"})
        for number, order in enumerate(orders)
    ]


def made(*sets: list[Cell], clusters: int = 3, views: int = 1, seed: int = 0) -> list[dict[str, str]]:
    wanted = PrepareSettings(clusters=clusters, pretrain_views=views)
    return pretrain_rows(sets, GENES, wanted, np.random.default_rng(seed))


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 5), st.integers(1, 6), st.integers(1, 8), st.integers(0, 9))
def test_clusters_are_numbered_without_a_gap(kinds, each, count, seed):
    cells = cells_of(kinds, each, seed)
    found = cluster_cells(cells, count, np.random.default_rng(seed))
    assert len(found) == len(cells)
    assert set(found) == set(range(max(found) + 1))
    assert max(found) < count


def test_clusters_are_the_kinds_of_cells_and_cells_that_are_alike_are_one():
    cells = cells_of(4, 25)
    found = cluster_cells(cells, 4, np.random.default_rng(0))
    assert adjusted_rand_score([cell.obs["cell_type"] for cell in cells], found) > 0.9
    assert cluster_cells([cells[0]] * 5, 4, np.random.default_rng(0)) == [0] * 5


def test_rows_are_worded_as_generation_and_annotation_are_and_read_back():
    cells = {cell.id: cell for cell in cells_of(3, 8)}
    rows = made(list(cells.values()), views=2)
    world = Vocabulary(GENES, {"cell_type": ("cluster 1", "cluster 2", "cluster 3")})
    assert Counter((row["datasource"], row["direction"], row["view"]) for row in rows) == {
        (GENERATION.name, direction, view): 24 for direction in ("primal", "dual") for view in "01"
    }
    for row in rows:
        whole, example = cells[row["id"]].genes, Example.from_label(row["label"])
        assert [gene for gene in whole if gene in example.gold] == list(example.gold)
        assert len(example.gold) == (12 if row["view"] == "0" else 9)
        if row["direction"] == "primal":
            assert row["input"] == GENERATION.primal_prompt(example.inputs, world)
            assert GENERATION.parse_answer(row["output"], world).value == example.gold
        else:
            assert row["input"] == ANNOTATION.primal_prompt({"cell": example.gold}, world)
            assert ANNOTATION.parse_answer(row["output"], world).value == example.unknown


def test_two_sets_share_no_number_and_a_question_lists_those_of_its_own():
    rows = made(cells_of(2, 9), [], cells_of(3, 9, name="other"))
    for name, own in (("toy", {1, 2, 3}), ("other", {4, 5, 6})):
        asked = [row for row in rows if row["id"].startswith(name) and row["direction"] == "dual"]
        listed = {line for row in asked for line in row["input"].splitlines() if line.startswith("- ")}
        assert listed == {f"- cluster {number}" for number in own}
        assert {Example.from_label(row["label"]).unknown for row in asked} == {f"cluster {number}" for number in own}


def test_every_training_cell_and_no_other_has_rows(generalist):
    cells, rows = generalist.cells, generalist.rows(PRETRAIN_FILE)
    training = {name for name, cell in cells.items() if cell["split"] == "train"}
    assert {name.partition("/")[0] for name in training} == {"toy", "treated"}
    assert Counter(row["id"] for row in rows) == dict.fromkeys(training, 4)
    labels = {cell.get(kind, "") for cell in cells.values() for kind in ("cell_type", "perturbation")}
    text = " ".join(row["input"] + row["output"] + row["label"] for row in rows)
    assert not [label for label in labels - {""} if f" {label} " in text or f"\n- {label}\n" in text]
    by_source = generalist.summary.manifests[PRETRAIN_FILE]["counts_by_source"]
    assert sum(sum(counts.values()) for counts in by_source.values()) == len(rows) == 4 * len(training)


def test_labels_of_other_cells_give_the_same_rows(generalist, tmp_path, monkeypatch):
    """The split is held as it was: it is drawn within the classes, so that each has cells in all parts."""
    views_of = data_prep.prepare.read_views

    def shuffled(view):
        donors = np.random.default_rng(7).permutation(np.array([*view.cells.values()], dtype=object))
        given = zip(view.cells.items(), donors, strict=True)
        return {name: replace(cell, obs=other.obs, condition=other.condition) for (name, cell), other in given}

    monkeypatch.setattr(
        data_prep.prepare, "read_views", lambda *of: [replace(view, cells=shuffled(view)) for view in views_of(*of)]
    )
    prepare(generalist.settings, tmp_path)
    for name, same in ((PRETRAIN_FILE, True), ("sft.jsonl", False), ("cells.jsonl", False)):
        assert ((tmp_path / name).read_bytes() == (generalist.folder / name).read_bytes()) == same, name


def test_the_small_llama_knows_every_word_and_a_cluster_is_one_token(generalist, tmp_path):
    build_small_llama(generalist.folder, tmp_path / "model", hidden_size=16, layers=1, heads=2)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "model")
    for row in generalist.rows(PRETRAIN_FILE):
        assert tokenizer.unk_token_id not in tokenizer(row["input"] + row["output"]).input_ids
    names = [name for name in tokenizer.get_vocab() if name.startswith("cluster ")]
    assert len(names) == 10
    for one, other in pairwise(names):
        assert tokenizer.tokenize(f"- {one}\n- {other}\n") == ["-", one, "-", other]
