from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cellduality_plugin.cell_sentences import Cell
from cellduality_plugin.examples import Example
from cellduality_plugin.tasks import TASKS, get_task
from cellduality_plugin.tasks.cell_type_annotation import CellTypeAnnotation
from cellduality_plugin.vocabulary import Vocabulary
from data_prep.pseudo import label_tasks, question, served
from data_prep.rows import audit_rows, rl_rows, sft_rows
from tests.refused import refused

GENES = tuple(f"G{number}" for number in range(12))
# Labels that occur in no gene name, id or task name, so that a search for them finds leaks and nothing else.
KINDS = ("Qa", "Qb")
VOCABULARY = Vocabulary(genes=GENES, labels={"cell_type": KINDS})
IDENTITY = ("cell_type_annotation", "conditional_cell_generation")
ANNOTATION, GENERATION = TASKS["cell_type_annotation"], TASKS["conditional_cell_generation"]


def cells_of(count: int, start: int = 0) -> list[Cell]:
    rng = np.random.default_rng(start)
    return [
        Cell(f"toy/{number}", tuple(rng.permutation(GENES).tolist()), {"cell_type": KINDS[number % 3 == 0]})
        for number in range(start, start + count)
    ]


def make_rl(tasks, count, includes_labelled=True, seed=0, labelled=None, unlabelled=None, world=VOCABULARY, **how):
    shown = cells_of(6) if labelled is None else labelled
    others = cells_of(9, start=6) if unlabelled is None else unlabelled
    how = {"hidden": 0.25, "includes_labelled": includes_labelled, "rng": np.random.default_rng(seed), **how}
    return rl_rows(shown, others, tasks, world, count=count, **how)


def make_sft(cells, tasks=(ANNOTATION, GENERATION), hidden=0.25, views=1):
    return sft_rows(cells, tasks, VOCABULARY, hidden=hidden, views=views, rng=np.random.default_rng(0))


def test_sft_rows_are_primal_and_dual_of_every_task_and_read_back_as_gold():
    cells = {cell.id: cell for cell in cells_of(5)}
    rows = make_sft(list(cells.values()))
    counts = Counter((row["datasource"], row["direction"]) for row in rows)
    assert counts == {(name, direction): 5 for name in IDENTITY for direction in ("primal", "dual")}
    for row in rows:
        assert list(row) == ["input", "output", "direction", "datasource", "id", "view", "label"]
        task, cell = TASKS[row["datasource"]], cells[row["id"]]
        primal = row["direction"] == "primal"
        answer = (task.parse_answer if primal else task.parse_rebuilt)(row["output"], VOCABULARY)
        assert (answer.failure, answer.trace) == ("", "")
        if (task is ANNOTATION) == primal:
            assert answer.value == cell.obs["cell_type"]
        elif primal:
            assert answer.value == cell.genes
        else:
            assert len(answer.value) == 3
            assert not set(answer.value) & set(row["input"].split())


def duals_of(hidden, tasks=(ANNOTATION, GENERATION), views=1):
    rows = make_sft(cells_of(5), tasks, hidden, views)
    return rows, [row for row in rows if row["direction"] == "dual" and row["datasource"] == ANNOTATION.name]


def test_sft_tells_of_the_dual_at_every_share():
    plain, _ = duals_of(0.25)
    _, duals = duals_of((0.25, 1), tasks=[ANNOTATION])
    whole = Counter("observed" not in Example.from_label(row["label"]).known for row in duals)
    assert whole == {False: 5, True: 5}
    for row in duals:
        example = Example.from_label(row["label"])
        assert row["input"] == ANNOTATION.dual_prompt(example.known, example.gold, VOCABULARY)
        assert ANNOTATION.parse_rebuilt(row["output"], VOCABULARY).value == example.unknown
    both, _ = duals_of((0.25, 1))
    assert sorted(map(str, both)) == sorted(map(str, plain)), "the dual of a whole cell is a primal row already"


def test_a_whole_cell_is_hidden_of_every_view_and_written_once():
    rows, duals = duals_of((1,), views=3)
    assert not duals
    assert Counter(row["datasource"] for row in rows) == {ANNOTATION.name: 15, GENERATION.name: 30}
    _, duals = duals_of((1,), tasks=[ANNOTATION], views=3)
    assert sorted(Counter(len(ANNOTATION.parse_rebuilt(row["output"], VOCABULARY).value) for row in duals).items()) == [
        (9, 10), (12, 5),
    ]  # fmt: skip


def test_a_thinned_question_leaves_the_dual_the_whole_cell():
    both = {ANNOTATION: 1.0, GENERATION: 1.0}
    plain, thinned = (make_rl(both, 12, unlabelled=[], hidden=1.0, thin=thin) for thin in (0.0, 0.5))
    assert [row["id"] for row in plain] == [row["id"] for row in thinned]
    for before, after in zip(plain, thinned, strict=True):
        whole, shown = (Example.from_label(row["label"]) for row in (before, after))
        assert (shown.known, shown.unknown) == (whole.known, whole.unknown)
        if after["datasource"] == GENERATION.name:
            assert shown == whole
        else:
            assert shown.inputs["cell"] == tuple(gene for gene in whole.unknown if gene in shown.inputs["cell"])
            assert len(shown.inputs["cell"]) == 6
            assert after["input"] == ANNOTATION.primal_prompt(shown.inputs, VOCABULARY)
            assert ANNOTATION.whole(shown) == whole.unknown


class Odd(type(ANNOTATION)):
    """A pair that leaves nothing to rebuild, or whose question hangs on the split."""

    def __init__(self, name):
        self.name = name

    def example(self, cell, *, rng, **options):
        made = super().example(cell, rng=rng, **options)
        if self.name == "blank":
            return replace(made, unknown=())
        return replace(made, inputs={"cell": tuple(rng.permutation(list(cell.genes)).tolist())})


def test_a_pair_that_hides_nothing_is_refused_and_one_whose_question_hangs_on_the_split_has_one():
    with refused("nothing-hidden"):
        make_rl({Odd("blank"): 1.0}, 4)
    rows = make_rl({Odd("shuffles"): 1.0}, 4, masks=2)
    assert [len(Example.from_label(row["label"]).splits()) for row in rows] == [1] * 4


class Leaky(type(ANNOTATION)):
    """A pair that tells all it sees of a cell."""

    name = "leaky"

    def example(self, cell, *, hidden, labelled, rng):
        return replace(super().example(cell, hidden=hidden, labelled=labelled, rng=rng), known=dict(cell.obs))


@settings(max_examples=30)
@given(st.integers(0, 40), st.booleans(), st.integers(0, 9), st.sampled_from([ANNOTATION, Leaky()]))
def test_rl_rows_hold_no_label(count, includes_labelled, seed, task):
    rows = make_rl({task: 1.0}, count, includes_labelled, seed)
    assert len(rows) == count
    for row in rows:
        assert list(row) == ["input", "label", "datasource", "id"]
        assert json.loads(row["label"])["gold"] is None
        assert not any(kind in row["label"] or kind in row["id"] for kind in KINDS)


def test_cells_come_once_before_any_comes_twice():
    whole = Counter(row["id"] for row in make_rl({ANNOTATION: 1.0}, 15))
    assert set(whole.values()) == {1}
    assert len(whole) == 15
    counts = Counter(row["id"] for row in make_rl({ANNOTATION: 1.0}, 40))
    assert set(counts.values()) == {2, 3}


def test_conditions_come_from_the_labelled_cells_alone_in_their_proportions():
    labelled = [Cell(f"toy/{n}", GENES, {"cell_type": "Qa" if n < 3 else "Qb"}) for n in range(4)]
    rows = make_rl({GENERATION: 1.0}, 2000, labelled=labelled)
    assert {row["id"] for row in rows} == {cell.id for cell in labelled}
    counts = Counter(Example.from_label(row["label"]).unknown for row in rows)
    assert 1400 < counts["Qa"] < 1600
    assert all(Example.from_label(row["label"]).gold is None for row in rows)


def test_weights_share_out_the_rows_and_zero_makes_none():
    counts = Counter(row["datasource"] for row in make_rl({ANNOTATION: 3.0, GENERATION: 1.0}, 100))
    assert counts == {ANNOTATION.name: 75, GENERATION.name: 25}
    assert {row["datasource"] for row in make_rl({ANNOTATION: 0.0, GENERATION: 1.0}, 10)} == {GENERATION.name}
    with refused("no-cells"):
        make_rl({ANNOTATION: 1.0}, 5, includes_labelled=False, unlabelled=[])


RESPONSE, EXPOSURE = TASKS["perturbation_response_generation"], TASKS["drug_exposure_prediction"]
WORLD = Vocabulary(
    genes=GENES,
    labels={"cell_type": KINDS, "perturbation": ("control", "cytokine Qc"), "exposure": ("Qd", "Qe")},
)


def treated_cells(count: int, start: int = 0) -> list[Cell]:
    condition = {"perturbation": "cytokine Qc", "drug": "Qf"}
    return [
        replace(cell, obs={**cell.obs, "exposure": "Qd"}, condition=condition, control=cell.genes[::-1])
        for cell in cells_of(count, start)
    ]


def test_what_the_experimenter_set_is_asked_about_unlabelled_cells_and_stripped_of_the_rest():
    tasks = {RESPONSE: 1.0, EXPOSURE: 1.0}
    rows = make_rl(tasks, 20, labelled=treated_cells(2), unlabelled=treated_cells(8, start=2), world=WORLD)
    for task, words in ((RESPONSE, ("Qa", "Qb", "Qd", "Qf")), (EXPOSURE, ("Qa", "Qb", "Qc", "Qd"))):
        mine = [row for row in rows if row["datasource"] == task.name]
        assert {row["id"] for row in mine} == {f"toy/{number}" for number in range(10)}
        assert not [word for row in mine for word in words if word in row["label"]]


USER_PAIR = """
from cellduality_plugin.tasks.cell_type_annotation import CellTypeAnnotation


class Mine(CellTypeAnnotation):
    name = "mine"
    needs = {needs}

    def primal_prompt(self, inputs, vocabulary):
        return "Mine: " + str(vocabulary.labels[{kind!r}])
"""


@pytest.mark.parametrize(("needs", "kind"), [("('batch',)", "cell_type"), ("()", "tissue")])
def test_pair_that_needs_what_is_not_there_is_refused(needs, kind, tmp_path):
    (tmp_path / "pair.py").write_text(USER_PAIR.format(needs=needs, kind=kind))
    with refused("unknown-column") as error:
        make_rl({get_task("pair.py:Mine", folder=tmp_path): 1.0}, 4)
    assert error.value.where == "task mine"


def masked_rl(masks, seed=0):
    return make_rl({ANNOTATION: 1.0, GENERATION: 1.0}, 24, seed=seed, masks=masks)


@given(st.integers(1, 6), st.integers(0, 3))
@settings(max_examples=20)
def test_every_mask_of_a_row_parts_the_same_cell(masks, seed):
    for row in masked_rl(masks, seed):
        example = Example.from_label(row["label"])
        splits = example.splits()
        if row["datasource"] == GENERATION.name:
            assert len(splits) == 1  # it hides nothing
            continue
        assert len(splits) <= masks
        assert len(splits) > 1 or masks == 1
        cell = example.inputs["cell"]
        hidden = [split.unknown for split in splits]
        assert len(set(hidden)) == len(hidden)
        for split in splits:
            observed = split.known["observed"]
            assert sorted(observed + split.unknown) == sorted(cell)
            assert not set(observed) & set(split.unknown)
            for part in (observed, split.unknown):
                assert list(part) == [gene for gene in cell if gene in part]
            assert split.gold is None


def test_more_masks_change_nothing_else():
    one, several = masked_rl(1), masked_rl(4)
    for before, after in zip(one, several, strict=True):
        assert {**before, "label": ""} == {**after, "label": ""}
        first = Example.from_label(after["label"]).splits()[0]
        assert first == Example.from_label(before["label"])
        assert first.to_label() == before["label"]


def test_audit_rows_are_a_seeded_sample_with_gold_and_masks():
    def made(seed, count=5):
        rng = np.random.default_rng(seed)
        return audit_rows(
            cells_of(30), [ANNOTATION, GENERATION], VOCABULARY, count=count, hidden=0.25, masks=4, rng=rng
        )

    rows = made(0)
    assert Counter(row["datasource"] for row in rows) == {ANNOTATION.name: 5, GENERATION.name: 5}
    examples = [Example.from_label(row["label"]) for row in rows]
    kinds = {cell.id: cell.obs["cell_type"] for cell in cells_of(30)}
    assert all(e.gold == kinds[e.id] for e in examples if e.task == ANNOTATION.name)
    assert {len(e.splits()) for e in examples if e.task == ANNOTATION.name} == {4}
    assert [row["id"] for row in rows] != sorted(row["id"] for row in rows)
    assert made(0) == rows != made(1)
    assert len(made(0, count=99)) == 60


LABELS = ("cell_type_annotation", "drug_sensitivity_prediction", "drug_exposure_prediction")


class ShowsTheType(CellTypeAnnotation):
    """Its question shows what only labelled cells have."""

    needs = ("cell_type",)


@pytest.fixture
def row(cell) -> Mapping[str, object]:
    own = {"id": cell.id, "split": "train", "labelled": False, "genes": list(cell.genes)}
    return {**own, **cell.obs, **cell.condition, "control": "set/other"}


def test_tasks_whose_answer_is_a_label_are_asked_unless_they_show_one():
    assert set(label_tasks(TASKS)) == set(LABELS)
    assert label_tasks({"mine": ShowsTheType()}) == {}


def test_a_set_is_asked_what_its_labelled_cells_were():
    rows = [
        {"datasource": name, "id": cell}
        for name, cell in (("a", "one/1"), ("b", "two/1"), ("a", "one/2"), ("other", "one/1"), ("a", "two/1"))
    ]
    assert served(rows, {"a": TASKS[LABELS[0]], "b": TASKS[LABELS[1]]}) == ({"one": ["a"], "two": ["a", "b"]}, 5)


@pytest.mark.parametrize("name", LABELS)
def test_nothing_of_a_label_is_in_the_question(name, row, vocabulary):
    task = TASKS[name]
    asked = question(task, row, hidden=0.25, masks=3, rng=np.random.default_rng(1))
    assert asked.gold is None
    assert len(asked.splits()) == 3
    lies = {**row, "cell_type": "T", "exposure": "not exposed", "sensitivity": "resistant"}
    assert question(task, lies, hidden=0.25, masks=3, rng=np.random.default_rng(1)) == asked


def test_a_column_that_is_not_there_is_named(row):
    short = {key: value for key, value in row.items() if key != "drug"}
    with refused("unknown-column") as error:
        question(TASKS["drug_exposure_prediction"], short, hidden=0.25, masks=1, rng=np.random.default_rng(0))
    assert "'drug'" in error.value.what
