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
from cellduality_plugin.tasks import TASKS
from cellduality_plugin.vocabulary import Vocabulary
from data_prep.pseudo import label_tasks, question, served
from data_prep.rows import RowMaker
from data_prep.settings import PrepareSettings
from tests.refused import refused

GENES = tuple(f"G{number}" for number in range(12))
# Labels that occur in no gene name, id or task name, so that a search for them finds leaks and nothing else.
KINDS = ("Qa", "Qb")
VOCABULARY = Vocabulary(
    genes=GENES, labels={"cell_type": KINDS, "perturbation": ("control", "cytokine Qc"), "exposure": ("Qd", "Qe")}
)
ANNOTATION, GENERATION = TASKS["cell_type_annotation"], TASKS["conditional_cell_generation"]
RESPONSE, EXPOSURE = TASKS["perturbation_response_generation"], TASKS["drug_exposure_prediction"]


def cells_of(count: int, start: int = 0) -> list[Cell]:
    rng = np.random.default_rng(start)
    return [
        Cell(f"toy/{number}", tuple(rng.permutation(GENES).tolist()), {"cell_type": KINDS[number % 3 == 0]})
        for number in range(start, start + count)
    ]


CELLS = cells_of(15)


def make_rl(weights, count, shown=CELLS[:6], others=CELLS[6:], seed=0, **settings):
    made = RowMaker([*weights], VOCABULARY, PrepareSettings(n_rl=count, **settings))
    return made.rl(shown, others, weights.values(), np.random.default_rng(seed))


def make_sft(tasks=(ANNOTATION, GENERATION), **settings):
    made = RowMaker(tasks, VOCABULARY, PrepareSettings(**settings))
    return made.sft(CELLS[:5], np.random.default_rng(0))


def examples(rows, task=None):
    return [Example.from_label(row["label"]) for row in rows if task is None or row["datasource"] == task.name]


def test_sft_rows_are_primal_and_dual_of_every_task_and_read_back_as_gold():
    rows = make_sft()
    counts = Counter((row["datasource"], row["direction"]) for row in rows)
    assert counts == {(task.name, way): 5 for task in (ANNOTATION, GENERATION) for way in ("primal", "dual")}
    for row in rows:
        assert list(row) == ["input", "output", "direction", "datasource", "id", "view", "label"]
        task, primal = TASKS[row["datasource"]], row["direction"] == "primal"
        cell = next(cell for cell in CELLS if cell.id == row["id"])
        answer = (task.parse_answer if primal else task.parse_rebuilt)(row["output"], VOCABULARY)
        assert (answer.failure, answer.trace) == ("", "")
        if (task is ANNOTATION) == primal:
            assert answer.value == cell.obs["cell_type"]
        elif primal:
            assert answer.value == cell.genes
        else:
            assert len(answer.value) == 3
            assert not set(answer.value) & set(row["input"].split())


def duals(rows):
    return [row for row in rows if row["direction"] == "dual" and row["datasource"] == ANNOTATION.name]


def test_sft_tells_of_the_dual_at_every_share_and_of_a_whole_cell_once():
    both = duals(make_sft([ANNOTATION], hidden=(0.25, 1)))
    assert Counter("observed" not in example.known for example in examples(both)) == {False: 5, True: 5}
    for row, example in zip(both, examples(both), strict=True):
        assert row["input"] == ANNOTATION.dual_prompt(example.known, example.gold, VOCABULARY)
        assert ANNOTATION.parse_rebuilt(row["output"], VOCABULARY).value == example.unknown
    assert sorted(map(str, make_sft(hidden=(0.25, 1)))) == sorted(map(str, make_sft())), "it is a primal row already"
    rows = make_sft(hidden=1, sft_views=3)
    assert Counter(row["datasource"] for row in rows) == {ANNOTATION.name: 15, GENERATION.name: 30}
    assert not duals(rows)
    alone = duals(make_sft([ANNOTATION], hidden=1, sft_views=3))
    assert Counter(len(example.unknown) for example in examples(alone)) == {9: 10, 12: 5}


def test_a_thinned_question_leaves_the_dual_the_whole_cell():
    both = {ANNOTATION: 1.0, GENERATION: 1.0}
    plain, thinned = (make_rl(both, 12, others=[], hidden=1.0, thin=thin) for thin in (0.0, 0.5))
    for whole, shown, row in zip(examples(plain), examples(thinned), thinned, strict=True):
        assert (shown.id, shown.known, shown.unknown) == (whole.id, whole.known, whole.unknown)
        if row["datasource"] == GENERATION.name:
            assert shown == whole
        else:
            assert shown.inputs["cell"] == tuple(gene for gene in whole.unknown if gene in shown.inputs["cell"])
            assert len(shown.inputs["cell"]) == 6
            assert row["input"] == ANNOTATION.primal_prompt(shown.inputs, VOCABULARY)
            assert ANNOTATION.whole(shown) == whole.unknown


class Odd(type(ANNOTATION)):
    """A pair that has no answer, leaves nothing to rebuild, tells all it sees, or whose question hangs on the split."""

    def __init__(self, name):
        self.name = name

    def example(self, cell, *, rng, **options):
        made = super().example(cell, rng=rng, **options)
        shuffled = {"cell": tuple(rng.permutation(list(cell.genes)).tolist())}
        odd = {"no gold": {"gold": None}, "blank": {"unknown": ()}, "leaky": {"known": dict(cell.obs)}}
        return replace(made, **odd.get(self.name, {"inputs": shuffled}))


def test_a_pair_that_hides_nothing_is_refused_and_one_whose_question_hangs_on_the_split_has_one():
    with refused("nothing-hidden"):
        make_rl({Odd("blank"): 1.0}, 4)
    with refused("broken-pair"):
        make_sft([Odd("no gold")])
    rows = make_rl({Odd("shuffles"): 1.0}, 4, masks=2)
    assert [len(example.splits()) for example in examples(rows)] == [1] * 4


@settings(max_examples=30)
@given(st.integers(0, 40), st.booleans(), st.integers(0, 9), st.sampled_from([ANNOTATION, Odd("leaky")]))
def test_rl_rows_hold_no_label(count, includes_labelled, seed, task):
    rows = make_rl({task: 1.0}, count, seed=seed, rl_includes_labelled=includes_labelled)
    assert len(rows) == count
    for row in rows:
        assert list(row) == ["input", "label", "datasource", "id"]
        assert json.loads(row["label"])["gold"] is None
        assert not any(kind in row["label"] or kind in row["id"] for kind in KINDS)


def test_cells_come_once_before_any_comes_twice():
    for count, times in ((15, {1}), (40, {2, 3})):
        found = Counter(row["id"] for row in make_rl({ANNOTATION: 1.0}, count))
        assert (len(found), {*found.values()}) == (15, times)


def test_conditions_come_from_the_labelled_cells_alone_in_their_proportions():
    shown = [Cell(f"toy/{n}", GENES, {"cell_type": "Qa" if n < 3 else "Qb"}) for n in range(4)]
    rows = make_rl({GENERATION: 1.0}, 2000, shown)
    assert {row["id"] for row in rows} == {cell.id for cell in shown}
    assert 1400 < Counter(example.unknown for example in examples(rows))["Qa"] < 1600
    assert {example.gold for example in examples(rows)} == {None}


def test_weights_share_out_the_rows_and_zero_makes_none():
    for weights, counts in (((3.0, 1.0), (75, 25)), ((0.0, 1.0), (0, 100))):
        rows = make_rl(dict(zip((ANNOTATION, GENERATION), weights, strict=True)), 100)
        assert (len(examples(rows, ANNOTATION)), len(examples(rows, GENERATION))) == counts
    with refused("no-cells"):
        make_rl({ANNOTATION: 1.0}, 5, others=[], rl_includes_labelled=False)


def test_what_the_experimenter_set_is_asked_about_unlabelled_cells_and_stripped_of_the_rest():
    condition = {"perturbation": "cytokine Qc", "drug": "Qf"}
    cells = [
        replace(cell, obs={**cell.obs, "exposure": "Qd"}, condition=condition, control=cell.genes[::-1])
        for cell in CELLS[:10]
    ]
    rows = make_rl({RESPONSE: 1.0, EXPOSURE: 1.0}, 20, cells[:2], cells[2:])
    for task, words in ((RESPONSE, ("Qa", "Qb", "Qd", "Qf")), (EXPOSURE, ("Qa", "Qb", "Qc", "Qd"))):
        mine = [row for row in rows if row["datasource"] == task.name]
        assert {row["id"] for row in mine} == {cell.id for cell in cells}
        assert not [word for row in mine for word in words if word in row["label"]]


@pytest.mark.parametrize(
    "lacking", [{"needs": ("batch",)}, {"primal_prompt": lambda self, inputs, vocabulary: vocabulary.labels["tissue"]}]
)
def test_pair_that_needs_what_is_not_there_is_refused(lacking):
    mine = type("Mine", (type(ANNOTATION),), {"name": "mine", **lacking})()
    with refused("unknown-column") as error:
        make_rl({mine: 1.0}, 4)
    assert error.value.where == "task mine"


@given(st.integers(1, 6), st.integers(0, 3))
@settings(max_examples=20)
def test_every_mask_of_a_row_parts_the_same_cell_and_more_masks_change_nothing_else(masks, seed):
    one, several = (make_rl({ANNOTATION: 1.0, GENERATION: 1.0}, 24, seed=seed, masks=count) for count in (1, masks))
    for before, after, example in zip(one, several, examples(several), strict=True):
        splits = example.splits()
        assert {**before, "label": ""} == {**after, "label": ""}
        assert splits[0].to_label() == before["label"]
        if after["datasource"] == GENERATION.name:
            assert len(splits) == 1  # it hides nothing
            continue
        assert min(masks, 2) <= len(splits) <= masks
        assert len({split.unknown for split in splits}) == len(splits)
        for split in splits:
            observed, cell = split.known["observed"], example.inputs["cell"]
            assert sorted(observed + split.unknown) == sorted(cell)
            for part in (observed, split.unknown):
                assert list(part) == [gene for gene in cell if gene in part]
            assert split.gold is None


def test_audit_rows_are_a_seeded_sample_with_gold_and_masks():
    def made(seed, count=5):
        rows = RowMaker([ANNOTATION, GENERATION], VOCABULARY, PrepareSettings(n_audit=count))
        return rows.audit(CELLS, np.random.default_rng(seed))

    rows, kinds = made(0), {cell.id: cell.obs["cell_type"] for cell in CELLS}
    found = examples(rows, ANNOTATION)
    assert (len(found), len(examples(rows, GENERATION)), len(made(0, count=99))) == (5, 5, 30)
    assert [example.gold for example in found] == [kinds[example.id] for example in found]
    assert {len(example.splits()) for example in found} == {4}
    assert [row["id"] for row in rows] != sorted(row["id"] for row in rows)
    assert made(0) == rows != made(1)


LABELS = ("cell_type_annotation", "drug_sensitivity_prediction", "drug_exposure_prediction")


@pytest.fixture
def row(cell) -> Mapping[str, object]:
    own = {"id": cell.id, "split": "train", "labelled": False, "genes": list(cell.genes)}
    return {**own, **cell.obs, **cell.condition, "control": "set/other"}


def test_tasks_whose_answer_is_a_label_are_asked_unless_they_show_one_where_labelled_cells_were():
    shows_the_type = type("ShowsTheType", (type(ANNOTATION),), {"needs": ("cell_type",)})
    assert set(label_tasks({**TASKS, "mine": shows_the_type()})) == set(LABELS)
    asked = (("a", "one/1"), ("b", "two/1"), ("a", "one/2"), ("other", "one/1"), ("a", "two/1"))
    rows = [{"datasource": name, "id": cell} for name, cell in asked]
    assert served(rows, {"a": TASKS[LABELS[0]], "b": TASKS[LABELS[1]]}) == ({"one": ["a"], "two": ["a", "b"]}, 5)


@pytest.mark.parametrize("name", LABELS)
def test_nothing_of_a_label_is_in_the_question(name, row):
    def asked(row):
        return question(TASKS[name], row, hidden=0.25, masks=3, rng=np.random.default_rng(1))

    assert asked(row).gold is None
    assert len(asked(row).splits()) == 3
    assert asked({**row, "cell_type": "T", "exposure": "not exposed", "sensitivity": "resistant"}) == asked(row)
    for column in TASKS[name].needs:
        with refused("unknown-column") as error:
            asked({key: value for key, value in row.items() if key != column})
        assert repr(column) in error.value.what
