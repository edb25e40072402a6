"""What is put to the test: answers of known worth, how true the policy's own are, and ways to pay them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from cellduality_plugin.config import Config
from cellduality_plugin.evaluation.audit.answers import (
    NEIGHBOURS,
    AuditSettings,
    Contender,
    NearestCells,
    make_cases,
    read_audit_rows,
    truths,
)
from cellduality_plugin.evaluation.audit.run import contenders_for
from cellduality_plugin.examples import Example
from cellduality_plugin.similarity import rank_weighted_jaccard
from cellduality_plugin.tasks import TASKS
from tests.evaluation.audit.conftest import ANNOTATION, GENERATION
from tests.refused import refused


@pytest.fixture
def cases(data, vocabulary):
    """Return a function that makes the cases of a task."""
    rows = read_audit_rows(data, {name: TASKS[name] for name in (ANNOTATION, GENERATION)})

    def make(task, **settings):
        how = AuditSettings(cells=6, others=3, **settings)
        return make_cases(TASKS[task], rows[task], vocabulary, how, np.random.default_rng(0)), rows[task]

    return make


def test_every_label_is_an_answer_once_the_true_one_first(cases, vocabulary):
    made, rows = cases(ANNOTATION, masks=2)
    for case in made:
        kinds, (*labels, _) = zip(*case.candidates, strict=True)
        assert kinds == ("true", "wrong", "wrong", "another's")
        assert labels[0] == case.gold == case.example.gold
        assert set(labels) == set(vocabulary.labels["cell_type"])
        assert truths(case, [*labels, None]) == {"correct": [1.0, 0.0, 0.0, 0.0]}
    assert [len(case.splits) for case in made] == [2] * 6
    with refused("missing-gold"):
        make_cases(TASKS[ANNOTATION], [replace(rows[0], gold=None)], vocabulary, AuditSettings(), None)


def test_a_cell_is_compared_with_cells_of_other_types_and_its_own_genes_in_another_order(cases):
    made, rows = cases(GENERATION)
    types = {row.gold: row.unknown for row in rows}
    for case in made:
        kinds, (true, *wrong, reordered, another) = zip(*case.candidates, strict=True)
        assert kinds == ("true", *["wrong"] * 3, "reordered", "another's")
        assert all(types[cell] != case.example.unknown for cell in wrong)
        assert sorted(reordered) == sorted(true)
        assert another in types
        assert another != true
    found = truths(case, [true, wrong[0], None], NearestCells(rows))
    assert list(found) == ["knn", "rwjs"]  # the first is the headline
    assert found["rwjs"][:2] == found["knn"][:2] == [1.0, 0.0]
    assert np.isnan([found["rwjs"][2], found["knn"][2]]).all()


genes = st.lists(st.sampled_from([f"G{number}" for number in range(12)]), max_size=8).map(tuple)


@given(st.lists(st.tuples(genes.filter(bool), st.sampled_from("BT")), max_size=12), genes, genes)
def test_the_nearest_real_cells_are_those_by_rwjs_one_by_one(cells, answer, without):
    rows = [Example("t", str(number), {}, {}, kind, cell) for number, (cell, kind) in enumerate(cells)]
    others = [(round(rank_weighted_jaccard(cell, answer), 12), kind) for cell, kind in cells if cell != without]
    others.sort(key=lambda cell: -cell[0])
    assume(len({near for near, _ in others}) == len(others))  # equally near ones have no order
    near = [kind for _, kind in others[:NEIGHBOURS]]
    expected = near.count("B") / len(near) if near else 0.0
    assert NearestCells(rows).share_near(answer, "B", without) == pytest.approx(expected)


@pytest.fixture
def swept(data, config):
    """Return a function that lists the contenders for a task."""
    rows = read_audit_rows(data, {name: TASKS[name] for name in (ANNOTATION, GENERATION)})

    def sweep(task, *rewards, config=config, **settings):
        return contenders_for(TASKS[task], rows[task][0], config, rewards, **settings)

    return sweep


def test_by_default_the_configured_reward_and_the_built_in_ones_that_can_judge_as_configured(swept):
    assert [each.reward for each in swept(ANNOTATION)] == [
        "duality", "duality-ruzicka", "duality-rbo", "likelihood", "posterior", "profile", "oracle",
    ]  # fmt: skip
    assert [each.reward for each in swept(GENERATION)] == ["duality", "likelihood", "posterior", "profile", "oracle"]
    assert {(each.hidden, each.traces) for each in swept(ANNOTATION)} == {(None, 0)}
    assert swept(GENERATION, "oracle", "configured", "duality") == [Contender("oracle"), Contender("duality")]
    task = {"pair": ANNOTATION, "reward": {"posterior": 1, "oracle": 1}, "hidden": 0.5, "traces": 2}
    configured = Config.read({"tasks": {ANNOTATION: task}})
    assert swept(ANNOTATION, config=configured)[0] == Contender({"posterior": 1, "oracle": 1}, 0.5, 2)


def test_every_combination_that_makes_sense_once(swept):
    asked = {"hidden": (0.25, 1.0), "traces": (0, 4)}
    assert swept(ANNOTATION, "duality", "posterior", "posterior", "oracle", "profile", "consistency", **asked) == [
        *(Contender("duality", hidden) for hidden in (0.25, 1.0)),
        *(Contender("posterior", hidden, traces) for hidden in (0.25, 1.0) for traces in (0, 4)),
        *map(Contender, ("oracle", "profile", "consistency")),
    ]
    # The dual of a written cell names its type: nothing is hidden of it.
    assert swept(GENERATION, "posterior", **asked) == [Contender("posterior"), Contender("posterior", None, 4)]


def test_a_reward_whose_profiles_are_not_there_is_left_out_and_an_unknown_one_refused(swept, config):
    bare = config.model_copy(update={"profiles": None})
    assert swept(ANNOTATION, "posterior", "profile", "posterior*profile", config=bare) == [Contender("posterior")]
    with refused("unknown-name"):
        swept(ANNOTATION, "rwjs")
