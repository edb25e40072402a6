"""What each kind of reward judges by, and how a wrong one is told before a run."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cellduality_plugin.duals import Dual
from cellduality_plugin.examples import Example
from cellduality_plugin.policies.base import PolicyError
from cellduality_plugin.profiles import Profile, Profiles
from cellduality_plugin.rewards.posterior import PosteriorReward
from cellduality_plugin.scoring import Scorer
from cellduality_plugin.tasks import TASKS
from tests.play import Saying, row
from tests.refused import refused
from tests.stack.my_pair import DropoutRecovery

TYPE, CELL, RESPONSE = "cell_type_annotation", "conditional_cell_generation", "perturbation_response_generation"


@given(scores=st.lists(st.floats(-50, 0), min_size=4, max_size=4), shift=st.floats(-1000, 0))
def test_a_posterior_is_the_share_of_the_label_in_all(scores, shift, vocabulary, cell):
    labels, odds = vocabulary.labels["cell_type"], np.exp(np.array(scores) - max(scores))
    table = dict(zip(labels, (score + shift for score in scores), strict=True))

    def likely(prompt, response, given):
        [label] = [label for label in labels if f"Type: {label}\n" in prompt or f">{label}<" in response]
        return [table[label], 0.0]

    async def judged(name, answers):
        dual = Dual(TASKS[name], row(name, cell), vocabulary, Saying(log_prob=likely))
        return [(await PosteriorReward().judge(answer, dual)).similarity for answer in answers], dual.requests

    found, requests = asyncio.run(judged(TYPE, labels))
    np.testing.assert_allclose(found, odds / odds.sum(), atol=1e-9)
    assert requests == len(labels), "the answers of a group share their prefills"
    found, requests = asyncio.run(judged(CELL, [cell.genes, cell.genes[::-1]]))
    np.testing.assert_allclose(found, odds[labels.index(cell.obs["cell_type"])] / odds.sum(), atol=1e-9)
    assert requests == 2, "each cell that was written is another question, about all labels at once"


def test_a_posterior_without_a_closed_set_or_of_a_label_that_is_not_in_it_is_refused(make_config, case_of):
    pair = {"pair": "tests.stack.my_pair:DropoutRecovery", "reward": "posterior"}
    with refused("needs-labels"):
        Scorer(make_config(tasks={DropoutRecovery.name: pair}))
    case = case_of(CELL, "posterior")
    with refused("unknown-label") as error:
        case.scorer.group(replace(case.example, unknown="Hepatocyte").to_label())
    assert error.value.where == "row set/AAAC-1"


def test_profiles_score_the_whole_cell_though_the_question_shows_less_and_one_that_is_written(
    case_of, cell, vocabulary
):
    case = case_of(TYPE, "profile", hidden=1.0)
    for example in (case.example, replace(case.example, inputs={"cell": ("CD3E", "GNLY")})):
        right, wrong = replace(case, example=example).answer(case.gold, "T")
        assert (right.reward, wrong.reward, right.logs["dual_requests"]) == (1.0, 0.0, 0)
    case = case_of(RESPONSE, "profile")
    by_kind = case.scorer._profiles.by_kind
    profile = by_kind["perturbation"]
    wide = np.hstack([profile.weights, 0 * profile.weights])
    by_kind["perturbation"] = replace(profile, weights=wide, paired=True)
    new, copied = case.answer(cell.genes, cell.control)
    assert new.reward == 1.0
    assert copied.similarity == 1 / len(vocabulary.labels["perturbation"]), "genes of the control tell nothing"


@pytest.mark.parametrize(
    ("profiles", "code"),
    [(None, "no-profiles"), ("gone.npz", "missing-file"), ("few.npz", "no-profiles"), ("none.npz", "no-profiles")],
)
def test_profiles_that_are_missing_are_found_before_a_run(profiles, code, make_config, tmp_path):
    few = Profile(("CD19+ B", "T"), np.zeros((2, 1), np.float32), np.zeros(2, np.float32))
    Profiles(("LYZ",), {"cell_type": few}).save(tmp_path / "few.npz")
    Profiles(("LYZ",), {}).save(tmp_path / "none.npz")
    config = make_config(tasks={TYPE: {"pair": TYPE, "reward": "posterior*profile"}}, profiles=profiles)
    with refused(code):
        Scorer(config)
        assert config.load_rewards(config.load_tasks(), prepared=False)
        assert Scorer(make_config(profiles=profiles)), "no other reward misses them"


def test_consistency_asks_the_question_again_about_the_whole_cell(case_of):
    whole = case_of(TYPE, "consistency", hidden=1.0)
    policy = whole.knowing()
    thinned = replace(whole, example=replace(whole.example, inputs={"cell": whole.example.unknown[:2]}))
    rewards = [score.reward for score in thinned.answer(*whole.labels, by=policy)]
    assert rewards == [float(label == whole.gold) for label in whole.labels]
    question = whole.task.primal_prompt(whole.example.inputs, whole.vocabulary)
    assert policy.prompts == [question], "asked once a group"


class TestNegatives:
    @pytest.mark.parametrize("reward", ["posterior", "profile", "consistency", "posterior*profile*consistency"])
    def test_hold_an_answer_against_some_of_the_others(self, reward, case_of):
        case = case_of(TYPE, reward, negatives=1)
        flat = case.knowing(log_prob=-1.0)
        [score] = case.answer("T", by=flat)
        assert score.similarity in (0.5, 0.0), "of two labels, or of one that the profile is sure of"
        assert len(flat.prompts) <= 3

    @given(negatives=st.integers(1, 5), number=st.integers(0, 50))
    def test_are_the_same_for_all_answers_of_a_row_and_of_every_process(self, negatives, number, vocabulary, cell):
        example = replace(row(TYPE, cell), id=str(number))
        dual = Dual(TASKS[TYPE], example, vocabulary, None, negatives=negatives)
        labels = vocabulary.labels["cell_type"]
        found = {label: dual.rivals(label) for label in labels}
        assert all(label in rivals and len(rivals) == min(4, negatives + 1) for label, rivals in found.items())
        assert len({label for rivals in found.values() for label in rivals}) == len(labels)
        both = [rival for rival in labels if sum(rival in rivals for rivals in found.values()) == len(labels)]
        assert len(both) >= min(4, negatives), "answers share all rivals but one"


class TestOracle:
    @pytest.mark.parametrize("reward", ["oracle", "oracle-exact", {"oracle": 1, "duality": 9}])
    def test_refuses_a_row_without_gold_before_it_is_rolled_out(self, reward, case_of):
        case = case_of(TYPE, reward, labelled=False)
        with refused("needs-gold"):
            case.scorer.group(case.example.to_label())

    def test_asks_nobody_and_compares_lists_as_it_is_told(self, case_of, cell):
        found = {}
        for kind in ("oracle", "oracle-rwjs", "oracle-ruzicka", "oracle-rbo", "oracle-exact"):
            case = case_of(CELL, kind)
            policy = case.knowing(fails=PolicyError("refused"))
            [score] = case.answer(cell.genes[::-1], by=policy)
            found[kind] = score.reward
            assert (score.logs["dual_requests"], policy.prompts) == (0.0, [])
        assert found["oracle"] == found["oracle-rwjs"] == 1.0, "blind to a reordering, as the paper has it"
        assert found["oracle-exact"] == 0.0 < found["oracle-ruzicka"] < 1.0
        assert 0.0 < found["oracle-rbo"] < 1.0


@pytest.mark.parametrize(
    ("reward", "code"),
    [
        ("gone.py:Mine", "cannot-load"),
        (":Mine", "cannot-load"),
        ("mine.py:Other", "wrong-class"),
        ("mine.py:Open", "abstract-class"),
        ({"duality": 1, "mine.py:Gone": 1}, "cannot-load"),
    ],
)
def test_a_wrong_reward_of_ones_own_is_refused_before_a_run(reward, code, case_of):
    with refused(code):
        case_of(TYPE, reward)


def test_a_random_reward_says_nothing_of_the_answer_and_the_same_for_the_same(case_of, vocabulary):
    case, paid = case_of(TYPE, "random"), []
    for number in range(200):
        example = Example(TYPE, str(number), {"cell": vocabulary.genes}, {"observed": ()}, vocabulary.genes, None)
        found = [score.reward for score in replace(case, example=example).answer(*case.labels, case.labels[0])]
        assert found[0] == found[-1]
        paid.append(found[:-1])
    assert np.abs(np.mean(paid, axis=0) - 0.5).max() < 0.1
    assert len(np.unique(paid)) > len(paid)
