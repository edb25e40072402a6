"""Which combinations are put to the test."""

from __future__ import annotations

import pytest

from cellduality_plugin.config import Config
from cellduality_plugin.errors import CellDualityError
from cellduality_plugin.evaluation.audit.answers import read_audit_rows
from cellduality_plugin.evaluation.audit.contenders import Contender, contenders_for
from cellduality_plugin.tasks import TASKS
from tests.evaluation.audit.conftest import ANNOTATION, GENERATION


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
    with pytest.raises(CellDualityError, match="rwjs"):
        swept(ANNOTATION, "rwjs")
