from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from sklearn.neighbors import KNeighborsClassifier

from cellduality_plugin.errors import CellDualityError
from cellduality_plugin.evaluation import measures
from cellduality_plugin.evaluation.baselines import (
    class_mean_cells,
    logistic_labels,
    majority_labels,
    plackett_luce,
    resampled_cells,
    transferred_labels,
)
from cellduality_plugin.evaluation.embedding import cell_matrix
from cellduality_plugin.evaluation.real_cells import RealCells
from cellduality_plugin.examples import Example

TASK = "conditional_cell_generation"
CELL_OF = {"B": ("G0", "G1"), "NK": ("G20", "G21"), "T": ("G30", "G31")}
KINDS = ("B", "B", "B", "NK", "NK", *["T"] * 9)


@pytest.fixture
def train() -> RealCells:
    """T is commonest, but nobody saw its labels."""
    return RealCells(tuple(CELL_OF[kind] for kind in KINDS), KINDS, tuple(kind != "T" for kind in KINDS))


@pytest.fixture
def space(vocabulary):
    return lambda cells: cell_matrix(cells, vocabulary.genes, 2).toarray()


def asked(*kinds: str, length: int = 8):
    return {
        (TASK, f"made/{place}"): Example(
            TASK, f"made/{place}", {"cell_type": kind, "length": str(length)}, {}, kind, None
        )
        for place, kind in enumerate(kinds)
    }


def test_labels_are_learned_from_labelled_cells_only(train, space, vocabulary) -> None:
    assert majority_labels(train, 2) == ["B", "B"]
    cells = [("G0", "G1"), ("G21", "G20"), ("G30", "G31")]
    for named in (logistic_labels(train, cells, vocabulary.genes), transferred_labels(train, cells, space, 1)):
        assert named[:2] == ["B", "NK"]
        assert "T" not in named
    one_type = RealCells(train.genes[:2], KINDS[:2], (True, True))
    assert logistic_labels(one_type, [("G30",)], vocabulary.genes) == ["B"]
    nobody = RealCells(train.genes[:1], ("B",), (False,))
    for learn in (lambda: majority_labels(nobody, 1), lambda: transferred_labels(nobody, cells, space, 1)):
        with pytest.raises(CellDualityError, match="no labelled training cell"):
            learn()


def test_fewer_labelled_cells_than_neighbours_all_vote(train, space) -> None:
    assert transferred_labels(train, [("G20", "G21")], space, 100) == ["B"], "three of five"
    assert transferred_labels(train, [], space, 3) == []


def test_transfer_is_scikit_learns() -> None:
    rng = np.random.default_rng(0)
    cells = [(f"G{place}",) for place in range(80)]
    point_of = {cell: rng.normal(size=3) for cell in cells}
    kinds = tuple(rng.choice(["B", "T"], 60).tolist())
    train = RealCells(tuple(cells[:60]), kinds, (True,) * 60)

    def points(which):
        return np.array([point_of[cell] for cell in which])

    theirs = KNeighborsClassifier(7).fit(points(cells[:60]), kinds).predict(points(cells[60:]))
    assert transferred_labels(train, cells[60:], points, 7) == theirs.tolist()


def test_resampled_cells_are_labelled_training_cells_of_the_type(train) -> None:
    rows = asked("B", "NK", "T")
    made = resampled_cells(train, rows, 3, seed=0)
    assert Counter(p.id for p in made) == {"made/0": 3, "made/1": 3, "made/2": 3}
    assert {(p.unknown, p.answer, p.failure, p.validity) for p in made} == {
        ("B", CELL_OF["B"], "", 1.0),
        ("NK", CELL_OF["NK"], "", 1.0),
        ("T", None, "no_training_cell", 0.0),
    }


def test_class_means_draw_the_genes_of_the_type_in_ranks_of_their_weight(vocabulary) -> None:
    genes = (("G0", "G1", "G2"), ("G0", "G1", "G3"), ("G5", "G6", "G7"))
    train = RealCells(genes, ("B", "B", "T"), (True, True, False))
    made = class_mean_cells(train, asked("B", "T", length=3), vocabulary.genes, 200, seed=0)
    cells = [p.answer for p in made if p.unknown == "B"]
    assert all(len(set(cell)) == 3 and set(cell) <= {"G0", "G1", "G2", "G3"} for cell in cells)
    first = Counter(cell[0] for cell in cells)
    assert first["G0"] > first["G1"] > first["G2"]
    assert {(p.answer, p.failure) for p in made if p.unknown == "T"} == {(None, "no_training_cell")}
    assert all(p.listed == 3 for p in made if p.answer)


def test_rows_that_ask_for_a_state_and_no_length_get_cells_of_the_state_of_full_length(vocabulary) -> None:
    genes = (("G0", "G1"), ("G2", "G3", "G4"), ("G5", "G6", "G7"))
    train = RealCells(genes, ("B",) * 3, (True,) * 3, (), ("control", "treated", "treated"))
    rows = {("own", "1"): Example("own", "1", {"state": "treated"}, {}, "treated", None)}
    assert {p.answer for p in resampled_cells(train, rows, 20, 0)} == set(genes[1:])
    drawn = [p.answer for p in class_mean_cells(train, rows, vocabulary.genes, 20, 0)]
    assert all(len(cell) == 3 and set(cell) <= {*genes[1], *genes[2]} for cell in drawn)


def test_plackett_luce_draws_in_proportion_to_worth() -> None:
    rng = np.random.default_rng(0)
    worth = np.array([1.0, 3.0, 0.0, 6.0])
    drawn = [plackett_luce(worth, 2, "ABCD", rng) for _ in range(20_000)]
    first = Counter(cell[0] for cell in drawn)
    for gene, share in zip("ABD", (0.1, 0.3, 0.6), strict=True):
        assert first[gene] / len(drawn) == pytest.approx(share, abs=0.015)
    second = Counter(cell[1] for cell in drawn if cell[0] == "D")
    assert second["B"] / first["D"] == pytest.approx(0.75, abs=0.015), "3 of the 4 that are left"


def test_what_a_row_gets_depends_on_no_other_row(train, vocabulary) -> None:
    rows = asked("B", "NK", "B", "NK")
    for make in (
        lambda rows, seed: resampled_cells(train, rows, 2, seed),
        lambda rows, seed: class_mean_cells(train, rows, vocabulary.genes, 2, seed),
    ):
        made = make(rows, 0)
        assert made == make(dict(reversed(rows.items())), 0)
        assert [p for p in made if p.id != "made/0"] == make({k: r for k, r in rows.items() if k[1] != "made/0"}, 0)
    assert class_mean_cells(train, rows, vocabulary.genes, 2, 0) != class_mean_cells(
        train, rows, vocabulary.genes, 2, 1
    )


def test_real_training_cells_are_as_good_as_real_cells_and_class_means_are_not(sections, vocabulary) -> None:
    section = sections[TASK]
    rows, yardstick = section.rows, section.yardstick
    resampled = measures.cell_metrics(resampled_cells(yardstick.train, rows, 2, 0), yardstick)
    drawn = measures.cell_metrics(class_mean_cells(yardstick.train, rows, vocabulary.genes, 2, 0), yardstick)
    assert resampled["knn_agreement_5"].value == drawn["knn_agreement_5"].value == 1
    assert resampled["validity"].value == drawn["validity"].value == 1
    assert resampled["distinct"].value < drawn["distinct"].value == 1
