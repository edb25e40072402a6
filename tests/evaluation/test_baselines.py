from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from cellduality_plugin.evaluation.baselines import (
    CLASS_MEAN,
    MEAN_SHIFT,
    NO_CHANGE,
    RESAMPLED,
    cell_baselines,
    logistic_labels,
    majority_labels,
    moved_cell,
    plackett_luce,
    response_baselines,
    transferred_labels,
)
from cellduality_plugin.evaluation.embedding import cell_matrix
from cellduality_plugin.evaluation.metrics import cells
from cellduality_plugin.evaluation.metrics.given import Cells, RealCells
from cellduality_plugin.examples import Example
from cellduality_plugin.perturbations import CONTROL
from cellduality_plugin.profiles import Profile, Profiles
from tests.refused import refused

TASK, RESPONSE, PERTURBED = "conditional_cell_generation", "perturbation_response_generation", "cytokine IFN-beta"
CELL_OF = {"B": ("G0", "G1"), "NK": ("G20", "G21"), "T": ("G30", "G31")}
KINDS = ("B", "B", "B", "NK", "NK", *["T"] * 9)
GENES = tuple(f"G{number}" for number in range(12))


@pytest.fixture
def train() -> RealCells:
    """T is commonest, but nobody saw its labels."""
    return RealCells(tuple(CELL_OF[kind] for kind in KINDS), KINDS, tuple(kind != "T" for kind in KINDS))


def asked(*kinds: str, length: int = 8):
    return {
        (TASK, f"made/{n}"): Example(TASK, f"made/{n}", {"cell_type": kind, "length": str(length)}, {}, kind, None)
        for n, kind in enumerate(kinds)
    }


def test_a_class_profile_names_what_has_changed_in_a_cell():
    gained = np.array([[-1, 0, 0, 0], [1, 0, 0, 0]], np.float32)  # G0, where the control cell lacks it
    paired = Profile((CONTROL, PERTURBED), gained, np.zeros(2, np.float32), paired=True)
    profiles = Profiles(("G0", "G1"), {"perturbation": paired})
    assert profiles.likeliest("perturbation", ("G0",), ("G1",)) == PERTURBED
    assert profiles.likeliest("perturbation", ("G1", "G9"), ("G1",)) == CONTROL


def test_labels_are_learned_from_labelled_cells_only(train, vocabulary) -> None:
    def space(cells):
        return cell_matrix(cells, vocabulary.genes, 2).toarray()

    assert majority_labels(train, 2) == ["B", "B"]
    shown = [("G0", "G1"), ("G21", "G20"), ("G30", "G31")]
    for named in (logistic_labels(train, shown, vocabulary.genes), transferred_labels(train, shown, space, 1)):
        assert named[:2] == ["B", "NK"]
        assert "T" not in named
    assert transferred_labels(train, [("G20", "G21")], space, 100) == ["B"], "all vote: three of five"
    assert transferred_labels(train, [], space, 3) == []
    one_type = RealCells(train.genes[:2], KINDS[:2], (True, True))
    assert logistic_labels(one_type, [("G30",)], vocabulary.genes) == ["B"]
    with refused("no-labels"):
        majority_labels(RealCells(train.genes[:1], ("B",), (False,)), 1)


def test_cells_come_from_labelled_training_cells_of_the_type_or_state_alone(train, vocabulary) -> None:
    def made(train, rows, count=20):
        return cell_baselines(train, rows, vocabulary.genes, count, seed=0)

    rows = asked("B", "NK", "T")
    every, fewer = made(train, rows, 3), made(train, dict([*rows.items()][:0:-1]), 3)
    assert all([p for p in own if p.id != "made/0"] == fewer[name] for name, own in every.items()), "row by row"
    assert Counter(p.id for p in every[RESAMPLED]) == {"made/0": 3, "made/1": 3, "made/2": 3}
    assert {(p.unknown, p.answer, p.failure, p.validity, p.listed) for p in every[RESAMPLED]} == {
        ("B", CELL_OF["B"], "", 1.0, 2), ("NK", CELL_OF["NK"], "", 1.0, 2), ("T", None, "no_training_cell", 0.0, 0),
    }  # fmt: skip
    genes = (("G0", "G1", "G2"), ("G0", "G1", "G3"), ("G5", "G6", "G7"))
    of_mean = made(RealCells(genes, ("B", "B", "T"), (True, True, False)), asked("B", "T", length=3), 200)[CLASS_MEAN]
    drawn = [p.answer for p in of_mean if p.unknown == "B"]
    assert all(len(set(cell)) == 3 and set(cell) <= {"G0", "G1", "G2", "G3"} for cell in drawn)
    first = Counter(cell[0] for cell in drawn)
    assert first["G0"] > first["G1"] > first["G2"]
    assert {(p.answer, p.failure) for p in of_mean if p.unknown == "T"} == {(None, "no_training_cell")}
    treated = RealCells((("G8", "G9"), *genes[1:]), ("B",) * 3, (True,) * 3, (), ("control", "treated", "treated"))
    found = made(treated, {("own", "1"): Example("own", "1", {"state": "treated"}, {}, "treated", None)})
    assert {p.answer for p in found[RESAMPLED]} == set(genes[1:])
    drawn = [p.answer for p in found[CLASS_MEAN]]
    assert all(len(cell) == 3 and set(cell) <= {*genes[1], *genes[2]} for cell in drawn), "of full length if not told"


def test_plackett_luce_draws_in_proportion_to_worth() -> None:
    rng, worth = np.random.default_rng(0), np.array([1.0, 3.0, 0.0, 6.0])
    drawn = [plackett_luce(worth, 2, "ABCD", rng) for _ in range(20_000)]
    first, second = Counter(cell[0] for cell in drawn), Counter(cell[1] for cell in drawn if cell[0] == "D")
    assert {gene: count / len(drawn) for gene, count in first.items()} == pytest.approx(
        {"A": 0.1, "B": 0.3, "D": 0.6}, abs=0.015
    )
    assert second["B"] / first["D"] == pytest.approx(0.75, abs=0.015), "3 of the 4 that are left"


@pytest.mark.parametrize("key", [RESPONSE, f"{RESPONSE}@ood"])
def test_baselines_of_responses_answer_every_row_with_a_whole_cell_of_its_own(key: str, sections) -> None:
    section = sections[key]
    baselines = response_baselines(section.rows, section.reference)
    assert list(baselines) == [NO_CHANGE, MEAN_SHIFT]
    for name, made in baselines.items():
        assert [(p.task, p.id) for p in made] == list(section.rows)
        for p in made:
            control = section.rows[p.task, p.id].inputs["control"]
            assert len(set(p.answer)) == len(p.answer) == p.listed == len(control)
            assert p.answer == control if name == NO_CHANGE else ("R0" in p.answer) == (p.unknown == PERTURBED)
        agreement = cells.measure(Cells.of(made, section.reference))["knn_agreement_5"].value
        assert agreement == 0.5 if name == NO_CHANGE else agreement > 0.5, "type and state both count"


def test_the_mean_shift_comes_from_labelled_training_cells_of_other_types(sections) -> None:
    section = sections[RESPONSE]
    train = section.reference.train

    def moved(held_out=section.reference.held_out, **changed) -> dict[str, tuple[str, ...]]:
        reference = replace(section.reference, held_out=held_out, train=replace(train, **changed))
        return {p.id: p.answer for p in response_baselines(section.rows, reference)[MEAN_SHIFT]}

    def changed(answers) -> list[bool]:
        return [answers[row] != e.inputs["control"] for (_, row), e in section.rows.items() if e.unknown == PERTURBED]

    known = moved()
    genes = tuple(own if shown else ("G0", "G1") for own, shown in zip(train.genes, train.labelled, strict=True))
    assert moved(genes=genes) == known, "unlabelled cells could hold anything"
    genes = tuple(("G0", "G1") if kind == "T cell" else own for own, kind in zip(train.genes, train.types, strict=True))
    spoiled, kinds = moved(genes=genes), section.reference.held_out.type_of
    others = {kinds[name] for name, answer in spoiled.items() if answer != known[name]}
    assert others == {"NK cell"}, "and so could the cells of the very type: only the other type's answers change"
    one = replace(section.reference.held_out, types=("cell",) * len(section.reference.held_out))
    assert any(changed(moved(one, types=("cell",) * len(train)))), "of one line there is no other type: its own counts"
    assert not any(changed(moved(states=(CONTROL,) * len(train)))), "nothing known leaves the cell as it was"


def test_a_shift_of_nothing_leaves_a_cell_as_it_is_and_a_strong_one_leads_it() -> None:
    cell, shift = ("G4", "G2", "G9"), np.zeros(12)
    assert moved_cell(cell, shift, GENES, top=5) == cell
    shift[[7, 2]] = 2.0, -2.0
    assert moved_cell(cell, shift, GENES, top=5) == ("G7", "G4", "G9")
