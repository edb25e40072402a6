"""An audit from rows to findings, on a policy whose probabilities are known."""

from __future__ import annotations

import json

import numpy as np
import pytest

from cellduality_plugin.config import Config
from cellduality_plugin.errors import CellDualityError
from cellduality_plugin.evaluation.audit.run import AuditSettings, audit, masks_in_training, read_audit
from cellduality_plugin.examples import Example, Mask
from cellduality_plugin.files import write_jsonl

ANNOTATION, GENERATION = "cell_type_annotation", "conditional_cell_generation"
OWN = ("mine.py:Constant", "mine.py:Contrary")


@pytest.fixture
def found(data, config, players):
    """Return a function that audits and gives {(task, reward): finding}."""

    def run(*rewards, skill=0.8, dual=None, **settings):
        settings = AuditSettings(rewards=rewards, cells=12, resamples=100, **settings)
        content = audit(data, config, players(skill, dual), settings)
        json.dumps(content, allow_nan=False)
        return {(each["task"], each["reward"]): each for each in content["findings"]}

    return run


def values(finding, *names):
    return [finding[name]["value"] for name in names]


def test_the_truth_is_always_preferred_by_the_ground_truth(found):
    oracle = found("oracle", samples=3)[ANNOTATION, "oracle"]
    assert oracle["auc"] == {"value": 1.0, "n": 12, "interval": (1.0, 1.0)}
    assert values(oracle, "choice_accuracy", "choice_macro_f1") == [1.0, 1.0]
    best, mean, gain = values(oracle, "best_of_group", "mean_of_group", "group_gain")
    assert best > mean > 0.5
    assert gain == pytest.approx(best - mean)
    assert oracle["verdict"]["grade"] == "agrees"
    assert oracle["cost"]["requests"] == 0


@pytest.mark.parametrize("task", [ANNOTATION, GENERATION])
def test_a_constant_reward_is_no_signal_and_one_that_pays_lies_is_harmful(task, found):
    made = found(*OWN)
    flat, contrary = made[task, "Constant"], made[task, "Contrary"]
    assert values(flat, "auc", "zero_variance", "gain_over_shuffled", "gain_over_observed_only") == [0.5, 1.0, 0.0, 0.0]
    assert flat["signal_to_noise"] is None
    assert flat["verdict"]["grade"] == "no signal"
    assert flat["verdict"]["words"].startswith("no signal: zero-variance groups 100 %")
    assert contrary["auc"]["value"] == 0.0
    # Of generated cells none is the true one to the last gene: all of a group are paid the same.
    assert contrary["verdict"]["grade"] == ("harmful" if task == ANNOTATION else "no signal")
    if task == ANNOTATION:
        assert contrary["choice_accuracy"]["value"] == 0.0
        assert flat["product_accuracy"] == flat["majority_accuracy"]
        assert flat["product_gain"]["interval"] == (0.0, 0.0)


@pytest.mark.parametrize("reward", ["likelihood", "posterior", "duality"])
def test_a_skilled_policy_s_duals_agree_with_the_truth(reward, found):
    skilled = found(reward)[ANNOTATION, reward]
    assert values(skilled, "auc", "choice_accuracy") == [1.0, 1.0]
    assert skilled["gain_over_shuffled"]["value"] > 0
    assert skilled["true_reward"]["value"] > skilled["observed_only_reward"]["value"]
    assert skilled["verdict"]["grade"] == "agrees"


def test_an_ignorant_policy_s_likelihood_is_no_signal(found):
    ignorant = found("likelihood", skill=1 / 3)[ANNOTATION, "likelihood"]
    assert (ignorant["auc"]["value"], ignorant["verdict"]["grade"]) == (0.5, "no signal")


def test_generated_cells_are_held_against_the_true_one(found):
    made = found("duality")[GENERATION, "duality"]
    # The type of a cell does not hang on the order of its genes.
    assert values(made["auc_against"] | made, "auc", "reordered", "copied") == [1.0, 0.5, None]
    assert min(values(made, "group_agreement", "group_agreement_rwjs")) > 0.5
    assert (made["truth"], made["verdict"]["grade"], made["masks"]) == ("knn", "agrees", 1)
    assert "choice_accuracy" not in made


def test_costs_are_those_of_a_rollout_in_a_group(found):
    made = found("likelihood", "posterior", samples=4)
    cost = made[ANNOTATION, "likelihood"]["cost"]
    # One prefill for each distinct answer of the group, whatever other rewards have asked before.
    assert 0.25 <= cost["requests"] == cost["decoded"] <= 0.75
    assert made[ANNOTATION, "posterior"]["cost"]["requests"] == 0.75  # three labels for four rollouts
    assert cost["seconds"] > 0


def test_nothing_is_asked_twice(found, planted):
    dual = planted(0.8)
    found("likelihood", "posterior", "duality", "duality-rbo", dual=dual)
    assert len(dual.asked) == len(set(dual.asked))


def test_the_same_seed_gives_the_same_findings(found):
    first, again = found(seed=3), found(seed=3)
    for each in (*first.values(), *again.values()):
        each["cost"]["seconds"] = 0
    assert first == again


def test_the_mean_over_masks_is_what_a_rollout_is_paid_where_rows_hold_several(found):
    one, four = (found("likelihood", masks_of_a_rollout=masks)[ANNOTATION, "likelihood"] for masks in (1, 4))
    assert one["auc_all_masks"] == four["auc"] == four["auc_all_masks"]
    assert (one["masks"], one["masks_of_a_rollout"], four["masks_of_a_rollout"]) == (4, 1, 4)


def test_a_contender_is_judged_as_it_would_be_paid(found):
    swept = found("posterior", hidden=(0.25, 1.0))
    part, whole = (swept[ANNOTATION, f"posterior, {share} hidden"] for share in ("25 %", "all"))
    assert [each["masks"] for each in (swept[GENERATION, "posterior"], part, whole)] == [1, 1, 1]
    # Six genes more of the right type are told: the more is hidden, the surer is a posterior of it.
    assert whole["true_reward"]["value"] > part["true_reward"]["value"] > 0.5
    assert whole["contender"] == {"reward": "posterior", "hidden": 1.0, "traces": 0}


def test_traces_are_drawn_once_and_charged_to_all(found, planted):
    swept = found("likelihood", "posterior", traces=(0, 2), dual=planted(0.8))
    bare, reasoned = (swept[ANNOTATION, f"posterior{traces}"]["cost"] for traces in ("", ", 2 traces"))
    # A label takes two traces, and is scored once after them, for this policy writes the same one twice.
    assert reasoned["requests"] == pytest.approx(3 * bare["requests"])
    assert reasoned["decoded"] > 2 * bare["requests"]


def test_a_profile_asks_nobody_and_follows_what_cells_are_made_of(found):
    made = found("profile", "posterior*profile", skill=0.6)
    for told in (made[task, "profile"] for task in (ANNOTATION, GENERATION)):
        assert (told["auc"]["value"], told["verdict"]["grade"], told["cost"]["requests"]) == (1.0, "agrees", 0)


def test_votes_times_reward_are_better_than_votes_where_the_reward_knows(found):
    """A policy that is right for half of its answers is corrected by the truth, and led astray by its contrary."""
    told = found("oracle", OWN[1], skill=0.5, samples=6)
    oracle, contrary = told[ANNOTATION, "oracle"], told[ANNOTATION, "Contrary"]
    assert oracle["majority_accuracy"] == contrary["majority_accuracy"]
    right, majority, gain = values(oracle, "product_accuracy", "majority_accuracy", "product_gain")
    assert right > majority > 0.3
    assert gain == pytest.approx(right - majority)
    assert oracle["product_gain_macro_f1"]["value"] > 0
    assert contrary["product_accuracy"]["value"] == pytest.approx(0, abs=0.1)
    assert np.mean(oracle["score_of_cells"]) == pytest.approx(right)


def test_the_labels_that_were_read_are_counted_by_set(data, config, players):
    settings = AuditSettings(rewards=("oracle",), cells=5, resamples=20)
    # A written cell is held against all cells there are.
    assert audit(data, config, players(), settings)["labels_used"] == {"made": 24}
    del config.tasks[GENERATION]
    assert audit(data, config, players(), settings)["labels_used"] == {"made": 5}


def test_a_reward_that_can_judge_nothing_and_a_folder_without_cells_are_told(data, players):
    (data / "cellduality.json").write_text(json.dumps({"tasks": {GENERATION: {"pair": GENERATION}}}))
    config = Config.load(data / "cellduality.json")
    with pytest.raises(CellDualityError, match=r"duality-rbo can judge none of conditional_cell_generation"):
        audit(data, config, players(), AuditSettings(rewards=("duality-rbo",)))
    (data / "audit.jsonl").write_text("")
    with pytest.raises(CellDualityError, match=r"--audit-cells above 0"):
        audit(data, config, players(), AuditSettings())
    (data / "audit.jsonl").unlink()
    with pytest.raises(CellDualityError, match="no cells to audit"):
        audit(data, config, players(), AuditSettings())


def test_the_masks_of_training_are_read_from_its_rows(tmp_path):
    assert masks_in_training(tmp_path / "rl.jsonl") == 1
    row = Example("t", "1", {}, {"observed": ("A",)}, ("B",), None, (Mask({"observed": ("B",)}, ("A",)),))
    bare = Example("u", "1", {}, {}, "B", None)
    write_jsonl(tmp_path / "rl.jsonl", [{"label": bare.to_label()}, {"label": row.to_label()}])
    assert masks_in_training(tmp_path / "rl.jsonl") == 2


@pytest.mark.parametrize("content", [None, b"{", b"[]", b'{"format": "cellduality-audit", "version": 0}', b"\xff"])
def test_what_is_no_audit_is_told(content, tmp_path):
    if content is not None:
        (tmp_path / "audit.json").write_bytes(content)
    with pytest.raises(CellDualityError, match="audit again"):
        read_audit(tmp_path / "audit.json")
