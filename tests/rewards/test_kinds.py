"""What each kind of reward judges by, what is made of several of them, and how a wrong one is told before a run."""

from __future__ import annotations

import asyncio
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cellduality_plugin.duals import Dual
from cellduality_plugin.examples import Example
from cellduality_plugin.policies.base import PolicyError
from cellduality_plugin.profiles import Profile, Profiles
from cellduality_plugin.rewards import REWARDS, LabelProduct, LabelScores, Product, Verdict, WeightedSum, get_reward
from cellduality_plugin.rewards.posterior import PosteriorReward
from cellduality_plugin.scoring import Scorer
from cellduality_plugin.tasks import TASKS
from tests.play import Constant, Saying, roll, row
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


powers = st.floats(0.01, 4)


class Scores(LabelScores):
    """Gives the scores it was made of."""

    def __init__(self, scores):
        self.scores = scores

    async def log_scores(self, answer, dual):
        return self.scores, "T"


def verdict_of(reward):
    return asyncio.run(reward.judge("T", None))


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(1e-3, 1e3)), min_size=1))
def test_a_sum_is_the_weighted_mean_of_its_parts(parts):
    found = verdict_of(WeightedSum([(Constant(Verdict(value)), weight) for value, weight in parts])).similarity
    values, weights = np.array(parts).T
    assert math.isclose(found, np.average(values, weights=weights), abs_tol=1e-9)
    assert 0.0 <= found <= 1.0


def test_a_sum_asks_what_two_parts_ask_once(case_of):
    case = case_of(TYPE, dict.fromkeys(["posterior", "likelihood", "duality", "duality-rbo"], 0.25))
    case.answer(*case.labels, by=(policy := case.knowing()))
    assert len(policy.prompts) == 2 * len(case.labels)


@given(st.lists(st.tuples(st.floats(-60, 0), st.floats(-60, 0)), min_size=1, max_size=6), powers, powers)
def test_a_product_of_label_probabilities_is_normalised_once(scores, one, other):
    names = ["T", *(f"other {place}" for place in range(1, len(scores)))]
    parts = [Scores(dict(zip(names, each, strict=True))) for each in zip(*scores, strict=True)]
    found = verdict_of(LabelProduct([(parts[0], one), (parts[1], other)])).similarity
    probabilities = [np.exp(np.subtract(list(part.scores.values()), max(part.scores.values()))) for part in parts]
    odds = probabilities[0] ** one * probabilities[1] ** other
    assert math.isclose(found, odds[0] / odds.sum(), rel_tol=1e-6, abs_tol=1e-9)
    for alone in (LabelProduct([(parts[0], 1.0)]), Product([(parts[0], 1.0)])):
        assert verdict_of(alone) == verdict_of(parts[0])


@given(st.lists(st.tuples(st.floats(0, 1), powers), min_size=1, max_size=4))
def test_a_product_of_anything_else_multiplies_powers(parts):
    found = verdict_of(Product([(Constant(Verdict(value)), power) for value, power in parts])).similarity
    assert math.isclose(found, math.prod(value**power for value, power in parts), abs_tol=1e-12)


def test_a_product_fails_with_a_factor_and_is_of_labels_where_every_factor_is():
    verdict = verdict_of(Product([(Scores({"T": 0.0}), 1.0), (Constant(Verdict.none("unclosed")), 0.5)]))
    assert (verdict.similarity, verdict.failure, verdict.failed) == (0.0, "unclosed", 1.0)
    kinds = {text: type(get_reward(text)) for text in ("posterior^0.5", "posterior*profile", "posterior*duality")}
    assert [*kinds.values()] == [LabelProduct, LabelProduct, Product]
    assert get_reward("posterior^1") is REWARDS["posterior"]


@pytest.mark.parametrize(
    ("draws", "share", "reward", "failed"),
    [("rrwr", 0.0, 0.75, 0.0), ("r?", 0.0, 0.5, 0.5), ("?r", 0.5, 0.75, 0.5), ("???", 0.5, 0.0, 1.0)],
)
def test_the_mean_of_draws_counts_and_form_earns_its_share_if_one_can_be_read(draws, share, reward, failed, case_of):
    """Of draws that are right, wrong or unreadable; each is a request."""
    dual = {"samples": len(draws), "temperature": 1.0}
    case = case_of(CELL, "duality", dual=dual, validity_share=share)
    policy, said = case.knowing(), {"r": case.example.unknown, "w": "T"}
    texts = iter([case.task.rebuilt_response(said[draw]) if draw in said else "?" for draw in draws])
    policy.text = lambda *_: next(texts)
    [score] = case.answer(case.gold, by=policy)
    assert (score.reward, score.logs["dual_failed"], score.logs["dual_requests"]) == (reward, failed, len(draws))


@pytest.mark.parametrize(
    ("reward", "timeout", "pause"), [("posterior", 0.1, 0.05), ("posterior", 0.05, 0.0), ("mine.py:Hanging", 0.05, 0.0)]
)
def test_an_answer_that_gives_up_takes_no_other_with_it_and_leaves_nothing_running(reward, timeout, pause, case_of):
    """Two answers of a group share their prefills; the second comes ``pause`` seconds after the first."""
    case = case_of(TYPE, reward, dual={"timeout_seconds": timeout})
    policy = case.knowing(delay=60.0)

    async def late(group, label, seconds):
        await asyncio.sleep(seconds)
        return await case.scorer.score(case.task.answer_response(label), group, policy)

    async def two():
        group = case.scorer.group(case.example.to_label())
        scores = await asyncio.gather(late(group, "T", 0.0), late(group, "CD19+ B", pause))
        await asyncio.sleep(0.1)
        return scores, len(asyncio.all_tasks()) - 1

    scores, still_running = asyncio.run(two())
    assert [(score.reward, score.logs["dual_timeout"]) for score in scores] == [(0.0, 1.0)] * 2
    assert still_running == 0
    assert len(policy.prompts) == (len(case.labels) if reward == "posterior" else 0)


@pytest.mark.parametrize(("bound", "rewards"), [(0.0, [0.5, 1.0]), (0.5, [0.5, 1.0]), (0.75, [0.75, 0.75])])
def test_a_group_of_rewards_that_are_too_near_earns_their_mean(bound, rewards, case_of, cell):
    """A cell with repeats, and one without."""
    case = case_of(CELL, "duality", minimum_spread=bound)
    texts = [case.task.answer_response(genes) for genes in (cell.genes[:4] * 2, cell.genes)]
    scores = roll(case.scorer, case.example, texts, Saying(case.task.rebuilt_response(case.example.unknown)))
    assert [score.reward for score in scores] == rewards
    for score in scores:
        assert score.logs["dual_reward"] == score.logs[f"dual_reward/{CELL}"] == score.reward
        assert score.logs["dual_levelled"] == float(bound > 0.5)
