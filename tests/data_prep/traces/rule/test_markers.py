from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cellduality_plugin.cell_sentences import Cell
from cellduality_plugin.vocabulary import Vocabulary
from data_prep.traces.rule.markers import find_markers, rank_scores

GENES = tuple(f"G{number:02}" for number in range(40))
LABELS = ("alpha", "beta", "gamma")
VOCABULARY = Vocabulary(genes=GENES, labels={"cell_type": LABELS, "sensitivity": ("resistant", "sensitive")})
PLANTED = {label: frozenset(GENES[4 * place : 4 * place + 4]) for place, label in enumerate(LABELS)}
COMMON = GENES[12:]


def planted_cells(**counts: int) -> list[Cell]:
    """Return cells whose label's own four genes stand among twelve common ones, each left out of a tenth of cells."""
    rng = np.random.default_rng(0)
    cells = []
    for label, count in counts.items():
        for number in range(count):
            own = [gene for gene in sorted(PLANTED[label]) if rng.random() < 0.9]
            genes = [*own, *rng.permutation(COMMON)[:12].tolist()]
            cells.append(Cell(f"toy/{label}{number}", tuple(rng.permutation(genes).tolist()), {"cell_type": label}))
    return cells


@pytest.fixture(scope="module")
def cells() -> list[Cell]:
    return planted_cells(alpha=20, beta=12, gamma=5)


def test_planted_markers_are_the_strongest_and_what_is_absent_are_those_of_other_labels(cells):
    found = find_markers(cells, VOCABULARY)
    assert found.keys() == {"cell_type"}, "kinds are those that some cell has a label of"
    markers = found["cell_type"]
    assert markers.labels == LABELS
    for label, genes in PLANTED.items():
        assert {gene for gene, _ in markers.present[label][:4]} == genes
        for evidence in (markers.present[label], markers.absent[label]):
            weights = [weight for _, weight in evidence]
            assert weights == sorted(weights, reverse=True)
            assert min(weights) > 0
        absent = {gene for gene, _ in markers.absent[label]}
        assert not absent & genes
        assert absent <= {gene for other in LABELS if other != label for gene, _ in markers.present[other]}


def test_labels_of_another_data_set_are_not_counted(cells):
    other = Cell("other/1", (*sorted(PLANTED["alpha"]), "G39"), {"cell_type": "Alpha cells, as others call them"})
    without, beside = (find_markers(some, VOCABULARY)["cell_type"] for some in (cells, [*cells, other]))
    assert without.present == beside.present
    assert np.array_equal(without.if_absent, beside.if_absent)


@pytest.mark.parametrize(
    "counts", [{"alpha": 1}, {"alpha": 4}, {"alpha": 1, "beta": 1, "gamma": 1}, {"alpha": 12, "beta": 12, "gamma": 1}]
)
def test_too_few_cells_for_a_test_are_no_error_and_a_single_cell_has_its_own_genes(counts):
    cells = planted_cells(**counts)
    found = find_markers(cells, VOCABULARY)["cell_type"]
    assert np.isfinite(found.if_present).all()
    assert np.isfinite(found.if_absent).all()
    for row, label in enumerate(LABELS):
        assert bool(found.present[label]) == (label in counts)
        assert found.if_present[row].any() <= (label in counts)
        if counts.get(label) == 1:
            [own] = [set(cell.genes) for cell in cells if cell.obs["cell_type"] == label]
            assert {gene for gene, _ in found.present[label]} <= own


def test_weights_are_log_ratios():
    genes_of = [("alpha", ("G00", "G01")), ("alpha", ("G00",)), ("beta", ("G01",)), ("beta", ("G01", "G02"))]
    # A condition counts as an annotation does.
    cells = [Cell(f"toy/{n}", genes, condition={"cell_type": label}) for n, (label, genes) in enumerate(genes_of)]
    found = find_markers(cells, VOCABULARY)["cell_type"]
    assert found.if_present[0, 0] == pytest.approx(np.log((2.5 / 3) / (0.5 / 3)))
    assert found.if_absent[0, 1] == pytest.approx(np.log((1.5 / 3) / (0.5 / 3)))


@settings(max_examples=5)
@given(order=st.permutations(range(20)))
def test_the_order_of_cells_does_not_matter(order):
    cells = planted_cells(alpha=10, beta=10)
    ours, theirs = (find_markers(some, VOCABULARY)["cell_type"] for some in (cells, [cells[n] for n in order]))
    assert (ours.present, ours.absent) == (theirs.present, theirs.absent)


@given(st.lists(st.sampled_from([*GENES, "unknown"]), unique=True, max_size=40))
def test_rank_scores_fall_evenly_and_leave_unknown_genes_out(genes):
    place = {gene: column for column, gene in enumerate(GENES)}
    row = rank_scores([Cell("toy/1", tuple(genes))], place).toarray()[0]
    known = [gene for gene in genes if gene in place]
    assert [GENES[column] for column in np.argsort(-row, kind="stable")[: len(known)]] == known
    assert np.count_nonzero(row) == len(known)
    assert row.max() <= 1
