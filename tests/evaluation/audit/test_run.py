"""An audit from rows to findings, on a policy whose probabilities are known."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cellduality_plugin.config import Config
from cellduality_plugin.evaluation.audit import answers
from cellduality_plugin.evaluation.audit.answers import AuditSettings, Contender
from cellduality_plugin.evaluation.audit.run import audit, contenders_for, masks_in_training
from cellduality_plugin.examples import Example, Mask
from cellduality_plugin.files import write_jsonl
from cellduality_plugin.tasks import TASKS
from tests.evaluation.audit.conftest import ANNOTATION, GENERATION, NAMES, players
from tests.refused import refused


@pytest.fixture
def rows(data):
    return answers.read_audit_rows(data, {name: TASKS[name] for name in NAMES})


def cases_of(task, rows, vocabulary, **settings):
    how = AuditSettings(cells=6, others=3, **settings)
    return answers.make_cases(TASKS[task], rows, vocabulary, how, np.random.default_rng(0))


def test_every_label_is_an_answer_once_the_true_one_first(rows, vocabulary):
    rows = rows[ANNOTATION]
    made = cases_of(ANNOTATION, rows, vocabulary, masks=2)
    for case in made:
        kinds, (*labels, _) = zip(*case.candidates, strict=True)
        assert kinds == ("true", "wrong", "wrong", "another's")
        assert labels[0] == case.gold == case.example.gold
        assert set(labels) == set(vocabulary.labels["cell_type"])
        assert answers.truths(case, [*labels, None]) == {"correct": [1.0, 0.0, 0.0, 0.0]}
    assert [len(case.splits) for case in made] == [2] * 6
    with refused("missing-gold"):
        cases_of(ANNOTATION, [replace(rows[0], gold=None)], vocabulary)


def test_a_cell_is_compared_with_cells_of_other_types_and_its_own_genes_in_another_order(rows, vocabulary):
    rows = rows[GENERATION]
    types = {row.gold: row.unknown for row in rows}
    for case in cases_of(GENERATION, rows, vocabulary):
        kinds, (true, *wrong, reordered, another) = zip(*case.candidates, strict=True)
        assert kinds == ("true", *["wrong"] * 3, "reordered", "another's")
        assert all(types[cell] != case.example.unknown for cell in wrong)
        assert sorted(reordered) == sorted(true)
        assert another in types.keys() - {true}
    found = answers.truths(case, [true, wrong[0], None], answers.NearestCells(rows))
    assert list(found) == ["knn", "rwjs"]  # the first is the headline
    assert found["rwjs"][:2] == found["knn"][:2] == [1.0, 0.0]
    assert np.isnan([found["rwjs"][2], found["knn"][2]]).all()
    nearest = sorted(rows, key=lambda row: row.gold != true)[: answers.NEIGHBOURS - 2]  # itself among two others
    share = np.mean([row.unknown == types[true] for row in nearest])
    assert answers.NearestCells(nearest).share_near(true, types[true], ()) == share
    assert answers.NearestCells([]).share_near(true, types[true], ()) == 0


@pytest.fixture
def swept(rows, config):
    """Return a function that lists the contenders for a task."""

    def sweep(task, *rewards, config=config, **settings):
        return contenders_for(TASKS[task], rows[task][0], config, AuditSettings(rewards, **settings))

    return sweep


def test_by_default_the_configured_reward_and_the_built_in_ones_that_can_judge_as_configured(swept):
    labels = ["duality", "duality-ruzicka", "duality-rbo", "likelihood", "posterior", "profile", "oracle"]
    assert swept(ANNOTATION) == [*map(Contender, labels)]
    assert [each.reward for each in swept(GENERATION)] == ["duality", *labels[3:]]
    assert swept(GENERATION, "oracle", "configured", "duality") == [Contender("oracle"), Contender("duality")]
    task = {"pair": ANNOTATION, "reward": {"posterior": 1, "oracle": 1}, "hidden": 0.5, "traces": 2}
    configured = Config.read({"tasks": {ANNOTATION: task}})
    assert swept(ANNOTATION, config=configured)[0] == Contender({"posterior": 1, "oracle": 1}, 0.5, 2)


def test_every_combination_that_makes_sense_and_can_judge_once_and_an_unknown_reward_is_refused(swept, config):
    asked = {"hidden": (0.25, 1.0), "traces": (0, 4)}
    assert swept(ANNOTATION, "duality", "posterior", "posterior", "oracle", "profile", "consistency", **asked) == [
        *(Contender("duality", hidden) for hidden in (0.25, 1.0)),
        *(Contender("posterior", hidden, traces) for hidden in (0.25, 1.0) for traces in (0, 4)),
        *map(Contender, ("oracle", "profile", "consistency")),
    ]
    # The dual of a written cell names its type: nothing is hidden of it.
    assert swept(GENERATION, "posterior", **asked) == [Contender("posterior"), Contender("posterior", None, 4)]
    bare = config.model_copy(update={"profiles": None})
    assert swept(ANNOTATION, "posterior", "profile", "posterior*profile", config=bare) == [Contender("posterior")]
    with refused("unknown-name"):
        swept(ANNOTATION, "rwjs")


CONSTANT, CONTRARY, DUALS = "mine.py:Constant", "mine.py:Contrary", ("likelihood", "posterior", "duality")


@pytest.fixture(scope="module")
def found(data):
    """Return a function that audits and gives {(task, reward): finding}, and what the dual was asked."""

    def run(*rewards, skill=0.8, **settings):
        settings, opened = AuditSettings(rewards=rewards, cells=12, resamples=100, **settings), players(skill)
        content = audit(data, Config.load(data / "cellduality.json"), opened, settings)
        json.dumps(content, allow_nan=False)
        return {(each["task"], each["reward"]): each for each in content["findings"]}, opened().enter_result.dual.asked

    return run


@pytest.fixture(scope="module")
def skilled(found):
    """The findings on a policy that is right four times of five, and what its dual was asked."""
    return found("oracle", CONSTANT, CONTRARY, "likelihood", "posterior", "duality", "duality-rbo", samples=4)


def values(finding, *names):
    return [finding[name]["value"] for name in names]


FLAT = {"auc": 0.5, "zero_variance": 1.0, "gain_over_shuffled": 0.0, "gain_over_observed_only": 0.0}
GRADES = [
    (ANNOTATION, "oracle", "agrees", {"auc": 1.0, "choice_accuracy": 1.0, "choice_macro_f1": 1.0}),
    (ANNOTATION, "Constant", "no signal", FLAT | {"product_gain": 0.0}),
    (GENERATION, "Constant", "no signal", FLAT),
    (ANNOTATION, "Contrary", "harmful", {"auc": 0.0, "choice_accuracy": 0.0}),
    # Of generated cells none is the true one to the last gene: all of a group are paid the same.
    (GENERATION, "Contrary", "no signal", {"auc": 0.0, "zero_variance": 1.0}),
    *((ANNOTATION, reward, "agrees", {"auc": 1.0, "choice_accuracy": 1.0}) for reward in DUALS),
    (GENERATION, "duality", "agrees", {"auc": 1.0}),
]


def test_the_truth_agrees_a_skilled_dual_with_it_lies_are_harmful_and_a_constant_says_nothing(skilled):
    for task, reward, grade, numbers in GRADES:
        finding = skilled[0][task, reward]
        found = finding["verdict"]["grade"], {name: finding[name]["value"] for name in numbers}
        assert found == (grade, numbers), (task, reward)
        if reward in DUALS and task == ANNOTATION:
            paid, bare, gain = values(finding, "true_reward", "observed_only_reward", "gain_over_shuffled")
            assert (paid > bare, gain > 0) == (True, True)


def test_an_ignorant_policy_s_dual_is_no_signal_and_written_cells_are_compared_with_the_true_one(skilled, found):
    ignorant = found("likelihood", skill=1 / 3)[0][ANNOTATION, "likelihood"]
    assert (ignorant["auc"]["value"], ignorant["verdict"]["grade"]) == (0.5, "no signal")
    oracle, made = skilled[0][ANNOTATION, "oracle"], skilled[0][GENERATION, "duality"]
    best, mean, gain = values(oracle, "best_of_group", "mean_of_group", "group_gain")
    assert (best > mean > 0.5, gain) == (True, pytest.approx(best - mean))
    # The type of a cell does not depend on the order of its genes.
    assert values(made["auc_against"], "reordered", "copied") == [0.5, None]
    assert min(values(made, "group_agreement", "group_agreement_rwjs")) > 0.5
    assert (made["truth"], made["masks"], "choice_accuracy" in made) == ("knn", 1, False)


def test_costs_are_those_of_a_rollout_in_a_group_and_nothing_is_asked_twice(skilled):
    made, asked = skilled
    cost = made[ANNOTATION, "likelihood"]["cost"]
    # One prefill for each distinct answer of the group, whatever other rewards have asked before.
    assert 0.25 <= cost["requests"] == cost["decoded"] <= 0.75
    assert made[ANNOTATION, "posterior"]["cost"]["requests"] == 0.75  # three labels for four rollouts
    assert cost["seconds"] > 0
    assert len(asked) == len(set(asked))


def test_the_same_seed_gives_the_same_findings_and_masks_are_averaged_as_a_rollout_is_paid(found):
    [one, again, four] = [found("likelihood", masks_of_a_rollout=masks)[0] for masks in (1, 1, 4)]
    for each in (*one.values(), *again.values()):
        each["cost"]["seconds"] = 0
    assert one == again
    one, four = one[ANNOTATION, "likelihood"], four[ANNOTATION, "likelihood"]
    assert one["auc_all_masks"] == four["auc"] == four["auc_all_masks"]
    assert (one["masks"], one["masks_of_a_rollout"], four["masks_of_a_rollout"]) == (4, 1, 4)


def test_a_contender_is_judged_as_it_would_be_paid_and_traces_are_drawn_once_and_charged_to_all(found):
    swept, _ = found("likelihood", "posterior", hidden=(0.25, 1.0), traces=(0, 2))
    part, whole = (swept[ANNOTATION, f"posterior, {share} hidden"] for share in ("25 %", "all"))
    assert [each["masks"] for each in (swept[GENERATION, "posterior"], part, whole)] == [1, 1, 1]
    # Six genes more of the right type are known: the more is hidden, the surer is a posterior of it.
    assert whole["true_reward"]["value"] > part["true_reward"]["value"] > 0.5
    assert whole["contender"] == {"reward": "posterior", "hidden": 1.0, "traces": 0}
    bare, reasoned = part["cost"], swept[ANNOTATION, "posterior, 25 % hidden, 2 traces"]["cost"]
    # A label takes two traces, and is scored once after them, for this policy writes the same one twice.
    assert reasoned["requests"] == pytest.approx(3 * bare["requests"])
    assert reasoned["decoded"] > 2 * bare["requests"]


def test_votes_times_reward_are_better_than_votes_where_the_reward_knows(found):
    """A policy that is right for half of its answers is corrected by the truth, and led astray by its contrary."""
    made, _ = found("oracle", CONTRARY, "profile", skill=0.5, samples=6)
    oracle, contrary = made[ANNOTATION, "oracle"], made[ANNOTATION, "Contrary"]
    assert oracle["majority_accuracy"] == contrary["majority_accuracy"]
    right, majority, gain = values(oracle, "product_accuracy", "majority_accuracy", "product_gain")
    assert right > majority > 0.3
    assert gain == pytest.approx(right - majority)
    assert oracle["product_gain_macro_f1"]["value"] > 0
    assert contrary["product_accuracy"]["value"] == pytest.approx(0, abs=0.1)
    assert np.mean(oracle["score_of_cells"]) == pytest.approx(right)
    for profile in (made[task, "profile"] for task in (ANNOTATION, GENERATION)):  # asks nobody
        assert (profile["auc"]["value"], profile["cost"]["requests"]) == (1.0, 0)
        assert profile["verdict"]["grade"] == "agrees"


def test_the_labels_that_were_read_are_counted_and_what_cannot_be_audited_is_refused(data, config, tmp_path):
    folder, settings = shutil.copytree(data, tmp_path / "data"), AuditSettings(("oracle",), cells=5, resamples=20)
    # A written cell is compared with all cells there are.
    assert audit(folder, config, players(), settings)["labels_used"] == {"made": 24}
    written = config.model_copy(update={"tasks": {GENERATION: config.tasks[GENERATION]}})
    del config.tasks[GENERATION]
    assert audit(folder, config, players(), settings)["labels_used"] == {"made": 5}
    with refused("unfit-reward"):
        audit(folder, written, players(), AuditSettings(rewards=("duality-rbo",)))
    for code, change in {
        "empty-audit-rows": lambda path: path.write_text(""),
        "missing-audit-rows": Path.unlink,
    }.items():
        change(folder / "audit.jsonl")
        with refused(code):
            audit(folder, config, players(), settings)


def test_the_masks_of_training_are_read_from_its_rows(tmp_path):
    assert masks_in_training(tmp_path / "rl.jsonl") == 1
    row = Example("t", "1", {}, {"observed": ("A",)}, ("B",), None, (Mask({"observed": ("B",)}, ("A",)),))
    bare = Example("u", "1", {}, {}, "B", None)
    write_jsonl(tmp_path / "rl.jsonl", [{"label": bare.to_label()}, {"label": row.to_label()}])
    assert masks_in_training(tmp_path / "rl.jsonl") == 2
