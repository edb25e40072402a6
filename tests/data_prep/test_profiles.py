from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cellduality_plugin.cell_sentences import Cell
from cellduality_plugin.profiles import Profiles
from cellduality_plugin.tasks import get_task
from cellduality_plugin.vocabulary import Vocabulary
from data_prep.profiles import fit_profiles
from tests.data_prep.conftest import Prepared, toy_settings
from tests.refused import refused

ANNOTATION, EXPOSURE, RESPONSE = map(
    get_task, ("cell_type_annotation", "drug_exposure_prediction", "perturbation_response_generation")
)
GENES = tuple(f"G{number:02}" for number in range(60))
TYPES, EXPOSURES = ("B", "NK", "T"), ("exposed", "not exposed")
KIND, IFN = "perturbation", "cytokine IFN-beta"
VOCABULARY = Vocabulary(GENES, {"cell_type": TYPES, "exposure": EXPOSURES, "perturbation": ("control", IFN)})


def planted(count: int, seed: int, *, strength: float = 0.5, exposed: float = 0.0) -> list[Cell]:
    """Return cells of three types in turn, each with fifteen genes of its own; half of them exposed to a drug."""
    rng, cells = np.random.default_rng(seed), []
    for number in range(count):
        kind, drug = number % 3, int(rng.integers(2))
        chances = np.full(len(GENES), 0.2)
        chances[15 * kind : 15 * kind + 15] = strength
        chances[50:] += exposed * drug
        genes = rng.permutation(np.array(GENES)[rng.random(60) < chances])
        known = {"cell_type": TYPES[kind], "exposure": EXPOSURES[1 - drug]}
        cells.append(Cell(f"set/{number:04}", tuple(map(str, genes)), known, {"drug": "IFN-beta"}))
    return cells


def fitted(labelled: Sequence[Cell], unlabelled: Sequence[Cell], task=ANNOTATION, vocabulary=VOCABULARY) -> Profiles:
    return fit_profiles(labelled, unlabelled, [task], vocabulary, asked=lambda task, cell: True)


def chances(profiles: Profiles, kind: str, cell: Cell) -> dict[str, float]:
    scores = profiles.log_scores(kind, cell.genes, cell.control)
    whole = sum(map(math.exp, scores.values()))
    return {label: math.exp(score) / whole for label, score in scores.items()}


def accuracy(profiles: Profiles, kind: str, cells: Sequence[Cell]) -> float:
    answers = [chances(profiles, kind, cell) for cell in cells]
    return float(np.mean([max(one, key=one.get) == cell.value(kind) for one, cell in zip(answers, cells, strict=True)]))


def same(one: Profiles, other: Profiles) -> bool:
    both = one.by_kind["cell_type"], other.by_kind["cell_type"]
    return all(np.array_equal(*(getattr(profile, name) for profile in both)) for name in ("weights", "bias"))


def test_cells_without_label_make_planted_classes_plainer():
    train, unseen = planted(400, 0), planted(300, 1)
    alone, refined = (accuracy(fitted(train[:15], rest), "cell_type", unseen) for rest in ([], train[15:]))
    assert refined > alone + 0.05
    assert refined > 0.85


def test_genes_that_come_together_do_not_count_as_often_as_they_are(monkeypatch):
    """Naive Bayes takes thirty genes of one programme for thirty witnesses; the logistic regression does not."""
    rng, cells = np.random.default_rng(5), []
    for number in range(360):
        kind, on = number % 3, rng.random() < (0.7, 0.5, 0.3)[number % 3]
        chances = np.full(len(GENES), 0.3)
        chances[5 * kind : 5 * kind + 5] = 0.75
        chances[30:] = 0.85 if on else 0.1
        genes = tuple(map(str, np.array(GENES)[rng.random(60) < chances]))
        cells.append(Cell(f"set/{number:04}", genes, {"cell_type": TYPES[kind]}))
    shown, unseen = cells[:60], cells[60:]
    both = accuracy(fitted(shown, []), "cell_type", unseen)
    monkeypatch.setattr("data_prep.profiles.MIXTURES", (0.0,))
    assert both > accuracy(fitted(shown, []), "cell_type", unseen) + 0.03


def test_cells_without_label_are_not_used_where_they_differ_in_something_else():
    train, unseen = (planted(count, seed, strength=0.9, exposed=0.6) for count, seed in ((400, 2), (300, 3)))
    alone, with_rest = (accuracy(fitted(train[:40], rest, EXPOSURE), "exposure", unseen) for rest in ([], train[40:]))
    assert with_rest > alone - 0.03
    assert with_rest > 0.85


@pytest.mark.parametrize("labelled", [15, 60])
def test_softmax_of_scores_is_as_probable_as_it_says(labelled):
    train, unseen = planted(400, 4), planted(600, 5)
    profiles = fitted(train[:labelled], train[labelled:])
    confidence = np.mean([max(chances(profiles, "cell_type", cell).values()) for cell in unseen])
    assert confidence == pytest.approx(accuracy(profiles, "cell_type", unseen), abs=0.1)


def test_labels_of_cells_that_do_not_show_them_are_never_read_nor_cells_that_are_not_asked_about():
    train = planted(120, 6)
    labelled, rest = train[:30], train[30:]
    assert same(fitted(labelled, rest), fitted(labelled, [replace(cell, obs={}) for cell in rest]))
    wrong = [replace(cell, obs=other.obs) for cell, other in zip(labelled, labelled[1:] + rest, strict=False)]
    assert not same(fitted(labelled, rest), fitted(wrong, rest))
    others = [replace(cell, id=f"other{cell.id}") for cell in planted(90, 8)]
    shown, hidden = [*labelled, *others[:20]], [*rest, *others[20:]]
    own = fit_profiles(shown, hidden, [ANNOTATION], VOCABULARY, asked=lambda task, cell: cell.id.startswith("set/"))
    assert same(own, fitted(labelled, rest))


def treated(count: int, seed: int) -> list[Cell]:
    """Return cells beside their controls: a treated one has G01 in place of G00, but many a control has either."""
    rng, cells = np.random.default_rng(seed), []
    for number in range(count):
        others = [str(gene) for gene in rng.choice(GENES[4:], 12, replace=False)]
        control = ("G00", *others) if number % 4 < 2 else ("G00", "G01", *others)
        is_treated = bool(number % 2)
        genes = ("G01" if is_treated else "G00", *others) if number % 4 < 2 else ("G01", "G00", *others)
        condition = {"perturbation": IFN if is_treated else "control"}
        cells.append(Cell(f"set/{number:04}", genes, {"cell_type": "B"}, condition, control))
    return cells


def test_paired_profile_knows_what_a_cell_has_gained_and_lost():
    train = treated(80, 9)
    profiles = fitted(train[:8], train[8:], RESPONSE)
    profile = profiles.by_kind[KIND]
    assert profile.paired
    assert profile.weights.shape == (2, 2 * len(GENES))
    lead = profile.weights[1] - profile.weights[0]
    assert set(np.argsort(lead)[-2:]) == {1, 60}, "G01 gained, G00 lost"
    moved, still = train[1], train[3]
    assert chances(profiles, KIND, moved)[IFN] > 0.8
    assert chances(profiles, KIND, still)[IFN] == pytest.approx(chances(profiles, KIND, train[2])[IFN]), (
        "what the control has too is no evidence"
    )


def test_label_without_a_known_cell_has_the_profile_of_the_mean():
    train = [cell for cell in planted(150, 11) if cell.obs["cell_type"] != "NK"]
    profiles = fitted(train[:40], train[40:])
    profile = profiles.by_kind["cell_type"]
    mean = np.mean([[gene in cell.genes for gene in GENES] for cell in train], axis=0)
    assert np.corrcoef(profile.weights[1], np.log(mean / (1 - mean)))[0, 1] > 0.999
    assert accuracy(profiles, "cell_type", train) > 0.8


DRAWN = st.tuples(st.sets(st.sampled_from(GENES[:8]), max_size=8), st.sampled_from(TYPES), st.booleans())


@settings(max_examples=30)
@given(st.lists(DRAWN, max_size=12))
def test_any_cells_give_finite_scores_of_every_label(drawn):
    cells = [
        Cell(f"set/{place}", tuple(sorted(genes)), {"cell_type": kind}) for place, (genes, kind, _) in enumerate(drawn)
    ]
    shown, hidden = ([cell for cell, (*_, of) in zip(cells, drawn, strict=True) if of == which] for which in (1, 0))
    profiles = fitted(shown, hidden)
    for cell in [*cells, Cell("set/none", ())]:
        found = chances(profiles, "cell_type", cell)
        assert tuple(found) == TYPES
        assert all(0 < chance < 1 for chance in found.values())


def test_file_gives_back_what_was_saved_and_an_unusable_one_is_refused(tmp_path):
    path, train = tmp_path / "profiles.npz", treated(40, 14)
    with refused("missing-file"):
        Profiles.load(path)
    profiles = fit_profiles(train[:20], train[20:], [ANNOTATION, RESPONSE], VOCABULARY, asked=lambda task, cell: True)
    profiles.save(path)
    again, whole = Profiles.load(path), path.read_bytes()
    assert {kind: profile.paired for kind, profile in again.by_kind.items()} == {"cell_type": False, KIND: True}
    assert again.genes == GENES
    for kind in again.by_kind:
        assert [chances(again, kind, cell) for cell in train] == [chances(profiles, kind, cell) for cell in train]
    again.save(path)
    assert path.read_bytes() == whole
    middle = len(whole) // 2
    flipped = bytes(255 - byte for byte in whole[middle : middle + 40])
    for broken in (b"", b"nonsense", whole[:middle], whole[:-30], whole[:middle] + flipped + whole[middle + 40 :]):
        path.write_bytes(broken)
        with refused("unreadable-file"):
            Profiles.load(path)
    for arrays, code in (({"version": np.array(0)}, "wrong-format"), ({"genes": np.array(["A"])}, "unreadable-file")):
        np.savez(path, **arrays)
        with refused(code):
            Profiles.load(path)


def test_only_training_cells_matter(write_h5ad, tmp_path):
    counts = np.random.default_rng(17).integers(1, 60, size=(24, 12)).astype(np.float32)
    found = []
    for part in ("one", "two"):
        made = Prepared.by(toy_settings(write_h5ad(counts), top_genes=6, min_genes=2), tmp_path / part)
        found.append([(made.folder / name).read_bytes() for name in ("profiles.npz", "cells.jsonl")])
        kept_out = [int(name[-2:]) for name, cell in made.cells.items() if cell["split"] != "train"]
        counts[kept_out] = counts[kept_out, ::-1]
    assert [one == other for one, other in zip(*found, strict=True)] == [True, False]
