"""What every kind of reward must obey; a new kind in REWARDS is tested without a new line here."""

from __future__ import annotations

import asyncio
import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cellduality_plugin.config import Config
from cellduality_plugin.duals import Dual
from cellduality_plugin.errors import CellDualityError
from cellduality_plugin.examples import Example
from cellduality_plugin.parsing import OneOf
from cellduality_plugin.policies.base import PolicyError
from cellduality_plugin.profiles import Profile, Profiles
from cellduality_plugin.rewards import (
    REWARDS,
    LabelProduct,
    LabelScores,
    PosteriorReward,
    Product,
    Reward,
    Verdict,
    WeightedSum,
    get_reward,
)
from cellduality_plugin.scoring import QUANTUM, Scorer
from cellduality_plugin.tasks import TASKS
from tests.play import Choosing
from tests.stack.my_pair import DropoutRecovery

KINDS = {
    **{name: name for name in REWARDS}, "sum": {"posterior": 1, "duality": 3}, "file": "mine.py:Mine",
    "power": "posterior^0.5", "experts": "posterior*profile^0.3", "product": "0.5*posterior*duality^2+profile",
}  # fmt: skip

MINE = """
import asyncio

from cellduality_plugin.rewards import Reward, Verdict

class Mine(Reward):
    async def judge(self, answer, dual):
        [rebuilt] = await dual.rebuilt(answer)
        return Verdict(float(rebuilt.value == dual.example.unknown))

class Nan(Reward):
    async def judge(self, answer, dual):
        return Verdict(float("nan"))

class Hanging(Reward):
    async def judge(self, answer, dual):
        await asyncio.sleep(60)

class Open(Reward):
    pass

class Other:
    pass
"""

ASKING = ["duality", "likelihood", "posterior", "sum", "file", "power", "experts", "product"]


class Knowing:
    """Plays the dual as one who knows the row: sure of what is hidden where the answer is right, else of nothing."""

    def __init__(self, task, example, vocabulary, *, delay=0.0, fails=None, log_prob=None):
        self.right = task.dual_prompt(example.known, example.gold, vocabulary)
        self.asked = task.primal_prompt(example.inputs, vocabulary), task.answer_response(example.gold)
        self.rebuilt, self.delay, self.fails, self.log_prob = (
            task.rebuilt_response(example.unknown),
            delay,
            fails,
            log_prob,
        )
        self.prompts, self.asked_for = [], set()

    async def _ask(self, prompt, what):
        self.prompts.append(prompt)
        self.asked_for.add(what)
        await asyncio.sleep(self.delay)
        if self.fails:
            raise self.fails

    async def generate(self, prompt, *, seed=None, temperature=None):
        await self._ask(prompt, "generate")
        return self.rebuilt if prompt == self.right else "I cannot tell."

    async def log_probs(self, prompt, response, *, given=""):
        await self._ask(prompt, "log_probs")
        return self._said(prompt, response)

    async def choice_log_probs(self, prompt, responses):
        await self._ask(prompt, "log_probs")
        return [sum(self._said(prompt, response)) for response in responses]

    def _said(self, prompt, response):
        value = 0.0 if (prompt, response) in [(self.right, self.rebuilt), self.asked] else -10.0
        return [value if self.log_prob is None else self.log_prob] * 3


@pytest.fixture(autouse=True)
def _rewards_of_ones_own(tmp_path):
    (tmp_path / "mine.py").write_text(MINE)


@pytest.fixture
def scorer_of(make_config):
    def make(task, reward, *, dual=None, **settings):
        tasks = {name: {"pair": name} for name in TASKS} | {
            task.name: {"pair": task.name, "reward": reward, **settings}
        }
        return Scorer(make_config(tasks=tasks, dual=dual or {}))

    return make


@pytest.fixture(params=sorted(KINDS.keys() - {"random"}))
def scorer(request, task, scorer_of):
    """Every kind of reward that judges, on every task it can judge; that it refuses others is a test of its own."""
    reward = KINDS[request.param]
    try:
        return scorer_of(task, reward)
    except CellDualityError:
        return scorer_of(task, {"consistency": "posterior"}.get(request.param, request.param.partition("-")[0]))


def run(scorer, example, texts, policy):
    async def group():
        members = scorer.group(example.to_label())
        return await asyncio.gather(*(scorer.score(text, members, policy) for text in texts))

    return asyncio.run(group())


def other_answer(task, example, vocabulary):
    """Return a readable answer that is as far from the right one as there is."""
    if isinstance(task.answer, OneOf):
        return next(label for label in vocabulary.labels[task.answer.kind] if label != example.gold)
    return tuple(gene for gene in vocabulary.genes if gene not in example.gold)


class TestLaws:
    def test_the_right_answer_and_a_knowing_dual_earn_the_best_value(self, scorer, task, example, vocabulary):
        [score] = run(scorer, example, [task.answer_response(example.gold)], Knowing(task, example, vocabulary))
        assert score.reward == score.logs["dual_reward"] == 1.0
        assert score.logs["dual_failed"] == 0.0

    def test_a_wrong_answer_earns_less_than_the_right_one(self, scorer, task, example, vocabulary):
        wrong = task.answer_response(other_answer(task, example, vocabulary))
        right, other = run(
            scorer, example, [task.answer_response(example.gold), wrong], Knowing(task, example, vocabulary)
        )
        assert 0.0 <= other.reward < right.reward

    @pytest.mark.parametrize("log_prob", [0.0, -1e-9, -0.5, -700.0, -1e6])
    def test_rewards_are_multiples_of_the_quantum_in_0_to_1(self, scorer, task, example, vocabulary, log_prob):
        policy = Knowing(task, example, vocabulary, log_prob=log_prob)
        for value in (example.gold, other_answer(task, example, vocabulary)):
            [score] = run(scorer, example, [task.answer_response(value)], policy)
            assert 0.0 <= score.reward <= 1.0
            assert (score.reward / QUANTUM).is_integer()
            assert all(math.isfinite(value) for value in score.logs.values())

    @pytest.mark.parametrize("size", [2, 3, 16])
    def test_equal_answers_have_equal_rewards_and_cost_no_second_question(
        self, scorer, task, example, vocabulary, size
    ):
        text, policy = task.answer_response(example.gold), Knowing(task, example, vocabulary)
        scores = run(scorer, example, [text] * size, policy)
        assert len({score.reward for score in scores}) == 1
        assert sum(score.logs["dual_requests"] for score in scores) == len(policy.prompts)
        alone = Knowing(task, example, vocabulary)
        run(scorer, example, [text], alone)
        assert len(policy.prompts) == len(alone.prompts)

    @pytest.mark.parametrize(
        "text", ["", "<answer></answer>", "<answer>no such thing</answer>", "{trace}{genes}{label}"]
    )
    def test_an_unreadable_answer_earns_nothing_and_asks_nobody(self, scorer, task, example, vocabulary, text):
        told = {"trace": task.answer_response(example.gold), "genes": example.unknown, "label": example.to_label()}
        policy = Knowing(task, example, vocabulary)
        [score] = run(scorer, example, [text.format(**told)], policy)
        assert score.reward == score.logs["dual_failed"] == score.logs["dual_requests"] == 0.0
        assert not policy.prompts

    def test_what_is_smuggled_into_a_response_earns_nothing_more(self, scorer, task, example, vocabulary):
        """What the row hides, written into the trace of a wrong answer, changes no prompt and no reward."""
        wrong, whisper = other_answer(task, example, vocabulary), f"whispered {example.unknown} {example.gold}"
        texts = [task.answer_response(wrong), task.answer_response(wrong, trace=whisper)]
        policy = Knowing(task, example, vocabulary)
        clean, smuggled = run(scorer, example, texts, policy)
        assert smuggled.reward == clean.reward
        assert not [prompt for prompt in policy.prompts if "whispered" in prompt]

    @pytest.mark.parametrize("fault", ["refused", "nan", "-inf"])
    def test_a_policy_that_fails_is_counted_and_logs_the_same_keys(self, scorer, task, example, vocabulary, fault):
        policy = Knowing(
            task,
            example,
            vocabulary,
            fails=PolicyError("refused") if fault == "refused" else None,
            log_prob=float(fault) if fault != "refused" else None,
        )
        good, bad = (
            run(scorer, example, [task.answer_response(example.gold)], asked)[0]
            for asked in (Knowing(task, example, vocabulary), policy)
        )
        assert list(bad.logs) == list(good.logs)
        assert all(math.isfinite(value) for value in bad.logs.values())
        hurt = bool(policy.prompts) and bad.reward < good.reward
        assert bad.logs["dual_failed"] == float(hurt)
        assert bad.reward == (0.0 if hurt else good.reward)
        assert hurt == bool(policy.prompts and (fault == "refused" or "log_probs" in policy.asked_for))


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_a_kind_judges_a_task_or_refuses_it_before_a_run_in_one_line(kind, task, scorer_of):
    field = task.unknown if kind.startswith("duality") else task.answer
    lists = kind.endswith(("-rwjs", "-ruzicka", "-rbo"))
    if lists and isinstance(field, OneOf):
        with pytest.raises(CellDualityError, match=rf"compares ranked lists.*tasks\.{task.name}\.reward.*use exact"):
            scorer_of(task, KINDS[kind])
    elif kind == "consistency" and isinstance(task.unknown, OneOf):
        with pytest.raises(CellDualityError, match=rf"asks for the label of a whole cell, and {task.name} names none"):
            scorer_of(task, kind)
    else:
        scorer_of(task, KINDS[kind])


@pytest.mark.parametrize("kind", ASKING)
def test_a_dual_that_hangs_is_given_up(kind, task, scorer_of, example, vocabulary):
    scorer = scorer_of(task, KINDS[kind], dual={"timeout_seconds": 0.05})
    answers = [example.gold, other_answer(task, example, vocabulary)]
    policy = Knowing(task, example, vocabulary, delay=60.0)
    for score in run(scorer, example, [task.answer_response(answer) for answer in answers], policy):
        assert (score.reward, score.logs["dual_failed"], score.logs["dual_timeout"]) == (0.0, 1.0, 1.0)


class TestSharedCalls:
    """The answers of a group share the prefills of a posterior, and what becomes of them."""

    def both(self, scorer, task, example, policy, pause):
        """Return the scores of two answers, the second ``pause`` seconds after the first, and what still runs then."""

        async def late(group, label, seconds):
            await asyncio.sleep(seconds)
            return await scorer.score(task.answer_response(label), group, policy)

        async def two():
            group = scorer.group(example.to_label())
            scores = await asyncio.gather(late(group, "T", 0.0), late(group, "CD19+ B", pause))
            await asyncio.sleep(0.2)
            return scores, len(asyncio.all_tasks()) - 1

        return asyncio.run(two())

    @pytest.fixture
    def task(self):
        return TASKS["cell_type_annotation"]

    def test_one_that_gives_up_takes_no_other_with_it(self, scorer_of, task, example, vocabulary):
        scorer = scorer_of(task, "posterior", dual={"timeout_seconds": 0.1})
        policy = Knowing(task, example, vocabulary, delay=60.0)
        for score in self.both(scorer, task, example, policy, pause=0.05)[0]:
            assert (score.reward, score.logs["dual_timeout"]) == (0.0, 1.0)
        assert len(policy.prompts) == len(vocabulary.labels["cell_type"])

    def test_a_call_that_nobody_waits_for_any_more_does_not_go_on(self, scorer_of, task, example, vocabulary):
        scorer = scorer_of(task, "posterior", dual={"timeout_seconds": 0.05})
        _, still_running = self.both(scorer, task, example, Knowing(task, example, vocabulary, delay=60.0), pause=0.0)
        assert still_running == 0

    def test_a_reward_that_hangs_by_itself_is_given_up(self, scorer_of, task, example, vocabulary):
        scorer = scorer_of(task, "mine.py:Hanging", dual={"timeout_seconds": 0.05})
        for score in self.both(scorer, task, example, Knowing(task, example, vocabulary), pause=0.0)[0]:
            assert (score.reward, score.logs["dual_timeout"]) == (0.0, 1.0)


class TestPosterior:
    LABELS = "cell_type_annotation", "conditional_cell_generation"

    def judged(self, name, cell, vocabulary, log_prob, answers):
        """Return the verdict on each answer if the policy says log_prob(label) of the response, and its requests."""
        task = TASKS[name]
        example = task.example(cell, hidden=0.25, labelled=True, rng=np.random.default_rng(0))

        class Table(Choosing):
            async def log_probs(self, prompt, response, *, given=""):
                for label in vocabulary.labels["cell_type"]:
                    if f"Type: {label}\n" in prompt or f">{label}<" in response:
                        return [log_prob[label], 0.0]
                raise AssertionError("asked about no label")

        dual = Dual(task, example, vocabulary, Table())

        async def all_of_them():
            return [await PosteriorReward().judge(answer, dual) for answer in answers]

        return [verdict.similarity for verdict in asyncio.run(all_of_them())], dual.requests

    @given(scores=st.lists(st.floats(-50, 0), min_size=4, max_size=4), shift=st.floats(-1000, 0))
    def test_of_the_answered_label_is_its_share_of_all(self, scores, shift, vocabulary, cell):
        labels = vocabulary.labels["cell_type"]
        table = dict(zip(labels, (score + shift for score in scores), strict=True))
        found, requests = self.judged(self.LABELS[0], cell, vocabulary, table, labels)
        odds = np.exp(np.array(scores) - max(scores))
        np.testing.assert_allclose(found, odds / odds.sum(), atol=1e-9)
        assert math.isclose(sum(found), 1.0)
        assert requests == len(labels), "the answers of a group share their prefills"

    @given(scores=st.lists(st.floats(-50, 0), min_size=4, max_size=4))
    def test_of_the_hidden_label_is_its_share_of_all(self, scores, vocabulary, cell):
        labels = vocabulary.labels["cell_type"]
        found, requests = self.judged(
            self.LABELS[1], cell, vocabulary, dict(zip(labels, scores, strict=True)), [cell.genes, cell.genes[::-1]]
        )
        odds = np.exp(np.array(scores) - max(scores))
        true = labels.index(cell.obs["cell_type"])
        np.testing.assert_allclose(found, odds[true] / odds.sum(), atol=1e-9)
        assert requests == 2, "each cell that was written is another question, about all labels at once"

    def test_without_a_closed_set_is_refused_before_a_run(self, make_config):
        pair = {"pair": "tests.stack.my_pair:DropoutRecovery", "reward": "posterior"}
        with pytest.raises(CellDualityError, match=r"dropout_recovery has none.*use duality or likelihood"):
            Scorer(make_config(tasks={DropoutRecovery.name: pair}))

    def test_of_a_label_that_is_not_in_the_vocabulary_is_refused(self, scorer_of, cell):
        task = TASKS["conditional_cell_generation"]
        strange = {**cell.obs, "cell_type": "Hepatocyte"}
        row = task.example(
            type(cell)(cell.id, cell.genes, strange), hidden=0.25, labelled=True, rng=np.random.default_rng(0)
        )
        with pytest.raises(CellDualityError, match=r"'Hepatocyte' is not in the vocabulary \[row set/AAAC-1\]"):
            scorer_of(task, "posterior").group(row.to_label())


class TestDraws:
    class Fickle:
        def __init__(self, *texts):
            self.texts = itertools.cycle(texts)

        async def generate(self, prompt, *, seed=None, temperature=None):
            return next(self.texts)

    @pytest.fixture
    def task(self):
        return TASKS["conditional_cell_generation"]

    @pytest.fixture
    def draw(self, scorer_of, task, example):
        def score(*texts, samples, share=0.0):
            dual = {"samples": samples, "temperature": 1.0}
            scorer = scorer_of(task, "duality", dual=dual, validity_share=share)
            return run(scorer, example, [task.answer_response(example.gold)], self.Fickle(*texts))[0]

        return score

    def test_the_mean_counts_and_every_draw_is_a_request(self, draw, task, example):
        right, wrong = task.rebuilt_response(example.unknown), task.rebuilt_response("T")
        score = draw(right, right, wrong, right, samples=4)
        assert (score.reward, score.logs["dual_requests"], score.logs["dual_failed"]) == (0.75, 4, 0)

    def test_one_that_cannot_be_read_counts_as_nothing_and_is_counted(self, draw, task, example):
        score = draw(task.rebuilt_response(example.unknown), "?", samples=2)
        assert (score.reward, score.logs["dual_failed"]) == (0.5, 0.5)

    def test_form_earns_its_share_if_one_can_be_read(self, draw, task, example):
        assert draw("?", task.rebuilt_response(example.unknown), samples=2, share=0.5).reward == 0.5 * 0.5 + 0.5

    def test_none_that_can_be_read_is_a_failed_dual(self, draw):
        score = draw("?", samples=3, share=0.5)
        assert (score.reward, score.logs["dual_failed"]) == (0.0, 1.0)

    def test_at_temperature_0_are_refused(self, make_config):
        with pytest.raises(CellDualityError, match="2 samples at temperature 0 are all the same"):
            make_config(dual={"samples": 2})


class TestSums:
    @given(st.lists(st.tuples(st.floats(0, 1), st.floats(1e-3, 1e3)), min_size=1))
    def test_are_the_weighted_mean_of_their_parts(self, parts):
        class Constant(Reward):
            def __init__(self, value):
                self.value = value

            async def judge(self, answer, dual):
                return Verdict(self.value)

        verdict = asyncio.run(WeightedSum([(Constant(value), weight) for value, weight in parts]).judge("T", None))
        values, weights = np.array(parts).T
        assert math.isclose(verdict.similarity, np.average(values, weights=weights), abs_tol=1e-9)
        assert 0.0 <= verdict.similarity <= 1.0

    def test_ask_what_two_parts_ask_once(self, scorer_of, vocabulary, cell):
        task = TASKS["cell_type_annotation"]
        example = task.example(cell, hidden=0.25, labelled=True, rng=np.random.default_rng(0))
        policy, labels = Knowing(task, example, vocabulary), vocabulary.labels["cell_type"]
        parts = dict.fromkeys(["posterior", "likelihood", "duality", "duality-rbo"], 0.25)
        texts = [task.answer_response(label) for label in labels]
        scores = run(scorer_of(task, parts), example, texts, policy)
        assert sum(score.logs["dual_requests"] for score in scores) == len(policy.prompts) == 2 * len(labels)

    def test_need_the_gold_that_a_part_needs(self):
        assert get_reward({"oracle": 1, "duality": 1}).needs_gold
        assert not get_reward({"posterior": 1, "duality": 1}).needs_gold


class Scores(LabelScores):
    """Scores that are told."""

    def __init__(self, scores, label="T"):
        self.scores, self.label = scores, label

    async def log_scores(self, answer, dual):
        return self.scores, self.label


def similarity_of(reward, answer="T", dual=None):
    return asyncio.run(reward.judge(answer, dual)).similarity


class TestProducts:
    labels = st.lists(st.tuples(st.floats(-60, 0), st.floats(-60, 0)), min_size=1, max_size=6)
    powers = st.floats(0.01, 4)

    @given(labels, powers, powers)
    def test_of_label_probabilities_are_normalised_once(self, scores, one, other):
        names = ["T", *(f"other {place}" for place in range(1, len(scores)))]
        parts = [Scores(dict(zip(names, each, strict=True))) for each in zip(*scores, strict=True)]
        found = similarity_of(LabelProduct([(parts[0], one), (parts[1], other)]))
        probabilities = [np.exp(np.subtract(list(part.scores.values()), max(part.scores.values()))) for part in parts]
        odds = probabilities[0] ** one * probabilities[1] ** other
        assert math.isclose(found, odds[0] / odds.sum(), rel_tol=1e-6, abs_tol=1e-9)

    @given(labels)
    def test_of_one_factor_are_that_factor(self, scores):
        part = Scores({"T": scores[0][0], **{str(place): score for place, (_, score) in enumerate(scores)}})
        for product in (LabelProduct([(part, 1.0)]), Product([(part, 1.0)])):
            assert similarity_of(product) == similarity_of(part)

    @given(st.lists(st.tuples(st.floats(0, 1), powers), min_size=1, max_size=4))
    def test_of_anything_else_multiply_powers(self, parts):
        class Constant(Reward):
            def __init__(self, value):
                self.value = value

            async def judge(self, answer, dual):
                return Verdict(self.value)

        found = similarity_of(Product([(Constant(value), power) for value, power in parts]))
        assert math.isclose(found, math.prod(value**power for value, power in parts), abs_tol=1e-12)

    def test_fail_with_a_factor(self):
        class Failing(Reward):
            async def judge(self, answer, dual):
                return Verdict.none("unclosed")

        verdict = asyncio.run(Product([(Scores({"T": 0.0}), 1.0), (Failing(), 0.5)]).judge("T", None))
        assert (verdict.similarity, verdict.failure, verdict.failed) == (0.0, "unclosed", 1.0)

    def test_are_of_labels_where_every_factor_is(self):
        assert isinstance(get_reward("posterior^0.5"), LabelProduct)
        assert isinstance(get_reward("posterior*profile"), LabelProduct)
        assert isinstance(get_reward("posterior*duality"), Product)
        assert get_reward("posterior^1") is REWARDS["posterior"]


class TestProfiles:
    def test_score_the_whole_cell_though_the_question_shows_less(self, scorer_of, cell, vocabulary):
        task = TASKS["cell_type_annotation"]
        example = task.example(cell, hidden=1.0, labelled=True, rng=np.random.default_rng(0))
        thinned = replace(example, inputs={"cell": ("CD3E", "GNLY")})
        for row in (example, thinned):
            texts = [task.answer_response(label) for label in (example.gold, "T")]
            right, wrong = run(scorer_of(task, "profile"), row, texts, None)
            assert (right.reward, wrong.reward) == (1.0, 0.0)
            assert right.logs["dual_requests"] == 0

    def test_score_the_cell_that_is_written_and_what_it_was_written_from(self, scorer_of, cell, vocabulary):
        """Against a control the genes that it shares with the cell tell nothing."""
        task = TASKS["perturbation_response_generation"]
        example = task.example(cell, hidden=0.25, labelled=True, rng=np.random.default_rng(0))
        scorer = scorer_of(task, "profile")
        profile = scorer._profiles.by_kind["perturbation"]
        wide = np.hstack([profile.weights, 0 * profile.weights])
        scorer._profiles.by_kind["perturbation"] = replace(profile, weights=wide, paired=True)
        texts = [task.answer_response(genes) for genes in (cell.genes, cell.control)]
        new, copied = run(scorer, example, texts, None)
        assert new.reward == 1.0
        assert copied.similarity == 1 / len(vocabulary.labels["perturbation"])

    @pytest.mark.parametrize(
        ("profiles", "message"),
        [
            (None, r"reads class profiles, and the configuration names no file of them \[profiles\].*profiles\.npz"),
            ("gone.npz", r"no profiles \[.*gone\.npz\]"),
            ("few.npz", r"no profile of 2 of 4 labels of 'cell_type': CD14\+ Monocyte, CD56\+ NK.*leave profile out"),
            ("none.npz", r"no profile of 4 of 4 labels of 'cell_type'"),
        ],
    )
    def test_that_are_missing_are_told_before_a_run(self, profiles, message, make_config, tmp_path):
        name = "cell_type_annotation"
        few = Profile(("CD19+ B", "T"), np.zeros((2, 1), np.float32), np.zeros(2, np.float32))
        Profiles(("LYZ",), {"cell_type": few}).save(tmp_path / "few.npz")
        Profiles(("LYZ",), {}).save(tmp_path / "none.npz")
        config = make_config(tasks={name: {"pair": name, "reward": "posterior*profile"}}, profiles=profiles)
        with pytest.raises(CellDualityError, match=message) as raised:
            Scorer(config)
        assert "\n" not in str(raised.value)
        assert config.load_rewards(config.load_tasks(), prepared=False)

    def test_without_a_reward_that_reads_them_are_not_missed(self, make_config):
        assert Scorer(make_config(profiles="gone.npz"))


class TestConsistency:
    def test_asks_the_question_again_about_the_whole_cell(self, scorer_of, cell, vocabulary):
        task = TASKS["cell_type_annotation"]
        example = task.example(cell, hidden=1.0, labelled=True, rng=np.random.default_rng(0))
        thinned = replace(example, inputs={"cell": example.unknown[:2]})
        policy = Knowing(task, example, vocabulary)
        texts = [task.answer_response(label) for label in vocabulary.labels["cell_type"]]
        rewards = [score.reward for score in run(scorer_of(task, "consistency"), thinned, texts, policy)]
        assert rewards == [float(label == example.gold) for label in vocabulary.labels["cell_type"]]
        assert policy.prompts == [task.primal_prompt(example.inputs, vocabulary)], "asked once a group"


class TestNegatives:
    @pytest.mark.parametrize("reward", ["posterior", "profile", "consistency", "posterior*profile*consistency"])
    def test_hold_an_answer_against_some_of_the_others(self, reward, scorer_of, cell, vocabulary):
        task = TASKS["cell_type_annotation"]
        example = task.example(cell, hidden=0.25, labelled=True, rng=np.random.default_rng(0))
        flat = Knowing(task, example, vocabulary, log_prob=-1.0)
        text = task.answer_response("T")
        scorer = scorer_of(task, reward, negatives=1)
        [score] = run(scorer, example, [text], flat)
        assert score.similarity in (0.5, 0.0), "of two labels, or of one that the profile is sure of"
        assert len(flat.prompts) <= 3

    @given(negatives=st.integers(1, 5), number=st.integers(0, 50))
    def test_are_the_same_for_all_answers_of_a_row_and_of_every_process(self, negatives, number, vocabulary, cell):
        task = TASKS["cell_type_annotation"]
        example = task.example(cell, hidden=1.0, labelled=True, rng=np.random.default_rng(0))
        dual = Dual(task, replace(example, id=str(number)), vocabulary, None, negatives=negatives)
        labels = vocabulary.labels["cell_type"]
        found = {label: dual.rivals(label) for label in labels}
        assert all(label in rivals and len(rivals) == min(4, negatives + 1) for label, rivals in found.items())
        assert len({label for rivals in found.values() for label in rivals}) == len(labels)
        both = [rival for rival in labels if sum(rival in rivals for rivals in found.values()) == len(labels)]
        assert len(both) >= min(4, negatives), "answers share all rivals but one"


class TestOracle:
    @pytest.mark.parametrize("reward", ["oracle", "oracle-exact", {"oracle": 1, "duality": 9}])
    def test_refuses_a_row_without_gold_before_it_is_rolled_out(self, reward, scorer_of, task, cell):
        row = task.example(cell, hidden=0.25, labelled=False, rng=np.random.default_rng(0))
        with pytest.raises(CellDualityError, match=r"needs the true answer.*row set/AAAC-1 of .*--rewards"):
            scorer_of(task, reward).group(row.to_label())

    def test_asks_nobody(self, scorer_of, task, example, vocabulary):
        policy = Knowing(task, example, vocabulary, fails=PolicyError("refused"))
        [score] = run(scorer_of(task, "oracle"), example, [task.answer_response(example.gold)], policy)
        assert (score.reward, score.logs["dual_requests"], policy.prompts) == (1.0, 0.0, [])

    def test_compares_lists_as_it_is_told(self, scorer_of, cell, vocabulary):
        task = TASKS["conditional_cell_generation"]
        example = task.example(cell, hidden=0.25, labelled=True, rng=np.random.default_rng(0))
        reverse, policy = task.answer_response(cell.genes[::-1]), Knowing(task, example, vocabulary)
        found = {
            kind: run(scorer_of(task, kind), example, [reverse], policy)[0].reward
            for kind in ("oracle", "oracle-rwjs", "oracle-ruzicka", "oracle-rbo", "oracle-exact")
        }
        assert found["oracle"] == found["oracle-rwjs"] == 1.0, "blind to a reordering, as the paper has it"
        assert found["oracle-exact"] == 0.0 < found["oracle-ruzicka"] < 1.0
        assert 0.0 < found["oracle-rbo"] < 1.0


class TestOnesOwn:
    def test_a_number_that_is_none_earns_nothing_and_is_counted(self, scorer_of, task, example, vocabulary):
        policy = Knowing(task, example, vocabulary)
        [score] = run(scorer_of(task, "mine.py:Nan"), example, [task.answer_response(example.gold)], policy)
        assert (score.reward, score.logs["dual_failed"]) == (0.0, 1.0)

    @pytest.mark.parametrize(
        ("reward", "message"),
        [
            ("mine.py:Gone", "cannot load the reward 'mine.py:Gone'"),
            ("gone.py:Mine", "cannot load the reward"),
            (":Mine", "cannot load the reward"),
            ("no.such.module:Mine", "cannot load the reward"),
            ("mine.py:Other", "is not a Reward.*subclass cellduality_plugin.rewards.Reward"),
            ("mine.py:Open", "lacks judge"),
            ({"duality": 1, "mine.py:Gone": 1}, "cannot load the reward"),
        ],
    )
    def test_a_wrong_one_is_told_before_a_run(self, reward, message, scorer_of):
        with pytest.raises(CellDualityError, match=message) as raised:
            scorer_of(TASKS["cell_type_annotation"], reward)
        assert "\n" not in str(raised.value)


class TestLevelling:
    """Rewards of 0.5 and 1 in one group: a cell with repeats, and one without."""

    @pytest.fixture
    def task(self):
        return TASKS["conditional_cell_generation"]

    @pytest.fixture
    def level(self, scorer_of, task, example, vocabulary, cell):
        def run_group(bound, texts=None):
            scorer = scorer_of(task, "duality", minimum_spread=bound, validity_power=1)
            half = task.answer_response(cell.genes[:4] * 2)
            policy = Knowing(task, example, vocabulary)
            policy.generate = self.always_right(policy)

            async def member(text, group, delay):
                with group.member():
                    await asyncio.sleep(delay)
                    if text == "crash":
                        raise RuntimeError("an engine died")
                    return await scorer.level(await scorer.score(text, group, policy), group)

            async def members():
                group = scorer.group(example.to_label())
                asked = enumerate(texts or [half, task.answer_response(example.gold)])
                return await asyncio.gather(
                    *(member(text, group, 0.01 * n) for n, text in asked), return_exceptions=True
                )

            return asyncio.run(members())

        return run_group

    def always_right(self, policy):
        async def generate(prompt, *, seed=None, temperature=None):
            return policy.rebuilt

        return generate

    @pytest.mark.parametrize("bound", [0.0, 0.25, 0.5])
    def test_leaves_a_group_with_spread_as_it_is(self, level, bound):
        scores = level(bound)
        assert [score.reward for score in scores] == [0.5, 1.0]
        assert [score.logs["dual_levelled"] for score in scores] == [0.0, 0.0]

    def test_gives_all_the_mean_where_they_are_too_near(self, level, task):
        scores = level(0.75)
        assert [score.reward for score in scores] == [0.75, 0.75]
        for score in scores:
            assert score.logs["dual_reward"] == score.logs[f"dual_reward/{task.name}"] == 0.75
            assert score.logs["dual_levelled"] == 1.0
        assert list(scores[0].logs) == list(level(0.0)[0].logs)

    def test_does_not_wait_for_a_rollout_that_crashed(self, level, task, example):
        right = task.answer_response(example.gold)
        first, crashed, last = level(0.75, [right, "crash", right])
        assert isinstance(crashed, RuntimeError)
        assert first.reward == last.reward == 1.0


class TestConfiguration:
    @pytest.mark.parametrize(
        "reward",
        [*REWARDS, {"posterior": 0.5, "duality": 0.5}, "a.b:C", "x.py:C", {"a:B": 2.0}, "posterior*profile^0.3"],
    )
    def test_goes_to_the_file_and_back(self, reward, tmp_path):
        task = {"pair": "cell_type_annotation", "reward": reward, "minimum_spread": 0.01}
        dual = {"samples": 4, "temperature": 0.7, "max_new_tokens": 9}
        config = Config.read({"tasks": {"cell_type_annotation": task}, "dual": dual})
        config.save(tmp_path / "c.json")
        again = Config.load(tmp_path / "c.json")
        assert again.tasks == config.tasks
        assert again.tasks["cell_type_annotation"].reward == reward
        assert again.dual == config.dual

    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            (
                {"reward": "rwjs"},
                r"no reward 'rwjs': use one of duality, likelihood, posterior, .*oracle.* \[tasks\.t\.reward\]",
            ),
            ({"reward": {}}, "a sum needs one reward at least"),
            ({"reward": {"duality": 0}}, "weights above 0"),
            ({"reward": {"duality": -1, "posterior": 2}}, "weights above 0"),
            ({"reward": {"duality": float("nan")}}, "weights above 0"),
            ({"reward": {"magic": 1}}, "no reward 'magic'"),
            ({"reward": "posterior*magic^2"}, "no reward 'magic'"),
            ({"reward": "posterior*"}, r"is no reward.* \[tasks\.t\.reward\]"),
            ({"reward": {"posterior^0": 1.0}}, r"'0' in 'posterior\^0' is no number above 0"),
            ({"traces": -1}, "traces"),
            ({"trace_mean": "median"}, "trace_mean"),
            ({"negatives": 0}, "negatives"),
            ({"reward": 3}, r"tasks\.t\.reward"),
            ({"minimum_spread": -1}, "minimum_spread"),
        ],
    )
    def test_a_slip_is_one_line(self, settings, message):
        with pytest.raises(CellDualityError, match=message) as raised:
            Config.read({"tasks": {"t": {"pair": "t", **settings}}})
        assert "\n" not in str(raised.value)


def test_a_random_reward_says_nothing_of_the_answer_and_the_same_for_the_same(scorer_of, vocabulary):
    task = TASKS["cell_type_annotation"]
    scorer, paid = scorer_of(task, "random"), []
    for number in range(200):
        row = Example(task.name, str(number), {"cell": vocabulary.genes}, {"observed": ()}, vocabulary.genes, None)
        texts = [task.answer_response(label) for label in vocabulary.labels["cell_type"]]
        found = [score.reward for score in run(scorer, row, [*texts, texts[0]], policy=None)]
        assert found[0] == found[-1]
        paid.append(found[:-1])
    assert np.abs(np.mean(paid, axis=0) - 0.5).max() < 0.1
    assert len(np.unique(paid)) > len(paid)
