"""What is logged: the same keys whatever happens, and figures that mean what their names say."""

from __future__ import annotations

import asyncio
import math

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cellduality_plugin.alarms import BY_TASK, RATIOS, with_ratios
from cellduality_plugin.monitors import CAUSES, entropy
from cellduality_plugin.parsing import OneOf
from cellduality_plugin.rewards import REWARDS, Verdict
from cellduality_plugin.scoring import Scorer
from cellduality_plugin.tasks import TASKS
from tests.play import Constant, Saying, member, roll, row
from tests.stack.my_pair import DropoutRecovery

PIECES = ("<think>", "</think>", "<answer>", "</answer>", " ", "CD74", "LYZ", "CD19+ B", "T", "exposed", "control", "x")
COUNTS = {  # all others are shares
    "dual_distinct_answers", "dual_groups", "dual_label_entropy", "dual_label_groups", "dual_requests",
    "dual_rollout_seconds", "dual_seconds", "dual_zero_variance",
}  # fmt: skip


def mean(scores):
    """Return the means over rollouts, as OpenRLHF logs them."""
    return {key: math.fsum(score.logs[key] for score in scores) / len(scores) for key in scores[0].logs}


@pytest.fixture
def annotation():
    return TASKS["cell_type_annotation"]


class TestKeys:
    @given(
        text=st.text() | st.lists(st.sampled_from(PIECES), max_size=8).map("".join),
        rebuilt=st.text() | st.lists(st.sampled_from(PIECES), max_size=8).map("".join),
        log_prob=st.floats(),
        name=st.sampled_from(sorted(TASKS)),
        reward=st.sampled_from(["duality", "likelihood"]),
    )
    @settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
    def test_are_the_same_and_finite_for_any_text_and_any_number(
        self, text, rebuilt, log_prob, name, reward, scorer, cell
    ):
        scorer._rewards[name] = REWARDS[reward]
        scores = roll(scorer, row(name, cell), [text, rebuilt, text], Saying(rebuilt, log_prob=log_prob))
        [plain] = roll(scorer, row("cell_type_annotation", cell), [""])
        assert {part for pair in RATIOS.values() for part in pair} <= plain.logs.keys()
        assert {f"{part}/{task}" for pair in BY_TASK.items() for part in pair for task in TASKS} <= plain.logs.keys()
        for score in scores:
            assert list(score.logs) == list(plain.logs) == sorted(score.logs)
            assert all(math.isfinite(value) for value in score.logs.values())
            shares = {key: value for key, value in score.logs.items() if key not in COUNTS}
            assert {key: value for key, value in shares.items() if not 0.0 <= value <= 1.0} == {}
            assert score.logs["dual_failed"] <= score.logs["dual_answer_parsed"]

    @pytest.mark.parametrize("value", [math.nan, math.inf, -0.5, 1.5])
    def test_what_is_out_of_range_earns_nothing(self, value, scorer, annotation, cell, monkeypatch):
        """Said by a reward of one's own, or by a pair of one's own."""
        scorer._rewards[annotation.name] = Constant(Verdict(value))
        [of_reward] = roll(scorer, row(annotation.name, cell), ["<answer>T</answer>"])
        scorer._rewards[annotation.name] = Constant(Verdict(1.0))
        for method in ("validity", "truth"):
            monkeypatch.setattr(type(annotation), method, lambda *_: value)
        [of_pair] = roll(scorer, row(annotation.name, cell), ["<answer>T</answer>"])
        for score in (of_reward, of_pair):
            assert (score.reward, score.logs["dual_failed/out_of_range"]) == (0.0, 1.0)
        assert of_pair.logs[f"dual_truth/{annotation.name}"] == 0.0

    @pytest.mark.parametrize("verdict", [Verdict(np.float64(0.5)), Verdict(True), Verdict(1, "", np.float32(0.5))])
    def test_are_plain_numbers_whatever_a_reward_of_ones_own_returns(self, verdict, scorer, annotation, cell):
        scorer._rewards[annotation.name] = Constant(verdict)
        [score] = roll(scorer, row(annotation.name, cell), ["<answer>T</answer>"])
        assert {type(value) for value in [*score.logs.values(), score.reward]} == {float}


@given(causes=st.lists(st.sampled_from([*CAUSES, "", "unheard of"]), min_size=1, max_size=6))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_failed_share_has_one_cause(causes, scorer, annotation, cell):
    """Of a reward in several parts, of which each fails for a reason of its own or not at all."""

    verdicts = [Verdict.none(cause) if cause else Verdict(1.0) for cause in causes]
    scorer._rewards[annotation.name] = Constant(Verdict.mean(verdicts, [1.0] * len(causes)))
    [score] = roll(scorer, row(annotation.name, cell), ["<answer>T</answer>"])
    shares = [value for key, value in score.logs.items() if key.startswith("dual_failed/")]
    assert math.fsum(shares) == score.logs["dual_failed"]
    assert sum(value > 0 for value in shares) <= 1


@given(st.integers(2, 6).flatmap(lambda k: st.tuples(st.just(k), st.lists(st.integers(0, k - 1), min_size=2))))
def test_entropy_is_a_share_and_one_for_the_most_even_group_there_is(drawn):
    labels, answers = drawn
    found = entropy([str(answer) for answer in answers], labels)
    assert 0.0 <= found <= 1.0
    assert (found == 0.0) == (len(set(answers)) == 1)
    assert found == entropy([str(answer) for answer in reversed(answers)], labels)
    assert entropy([str(number % labels) for number in range(len(answers))], labels) == pytest.approx(1.0)


class TestGroup:
    def texts(self, *labels):
        return [f"<answer>{label}</answer>" for label in labels]

    def test_figures_are_logged_once_a_group_and_groups_weigh_by_their_rollouts(self, scorer, annotation, cell):
        example = row(annotation.name, cell)
        scores = roll(scorer, example, self.texts("T", "T", "CD19+ B", "nobody", "T", "t"))
        assert sum(score.logs["dual_groups"] > 0 for score in scores) == 1
        read = with_ratios(mean(scores))
        assert read["dual_label_entropy"] == pytest.approx(entropy(["T", "T", "B", "T", "T"], 4))
        assert read["dual_zero_variance"] == 1.0, "none of them earned anything"
        policy = Saying(annotation.rebuilt_response(example.unknown))
        flat = roll(scorer, example, self.texts("T", "T", "T"), policy)
        mixed = roll(scorer, example, self.texts("T", "nobody", "CD19+ B"), policy)
        read = with_ratios(mean(flat + mixed))
        assert (read["dual_zero_variance"], read["dual_distinct_answers"]) == (0.5, 1.5)

    def test_has_no_figure_that_does_not_exist(self, scorer, cell):
        figures = {"dual_zero_variance", "dual_distinct_answers", "dual_label_entropy"}
        one = with_ratios(mean(roll(scorer, row("cell_type_annotation", cell), self.texts("T"))))
        lists = self.texts("CD74 LYZ", "LYZ CD74")
        many = with_ratios(mean(roll(scorer, row("conditional_cell_generation", cell), lists)))
        assert (figures - one.keys(), figures - many.keys()) == (figures, {"dual_label_entropy"})

    @pytest.mark.parametrize(("bound", "place", "after"), [(0.0, 0, 9.0), (0.5, 0, 9.0), (0.5, 2, 9.0), (1.0, 0, 0.0)])
    def test_whose_member_is_cancelled_does_not_hang(self, bound, place, after, make_config, annotation, cell):
        """Before it is judged; or while it waits for the others, and takes its reward with it."""
        tasks = {annotation.name: {"pair": annotation.name, "minimum_spread": bound}}
        scorer, example = Scorer(make_config(tasks=tasks)), row(annotation.name, cell)
        policy = Saying(annotation.rebuilt_response((*example.unknown, "GNLY")))
        texts = self.texts("T", "CD19+ B", "T")
        texts[place] = "nobody"

        async def whole():
            group = scorer.group(example.to_label())
            members = [
                asyncio.ensure_future(member(scorer, group, text, policy, delay=after if n == place else 0.05 * n))
                for n, text in enumerate(texts)
            ]
            await asyncio.sleep(0.02)
            members[place].cancel()
            return await asyncio.wait_for(asyncio.gather(*members, return_exceptions=True), 1.0)

        found = asyncio.run(whole())
        assert isinstance(found.pop(place), asyncio.CancelledError)
        [alone] = roll(Scorer(make_config(tasks=tasks)), example, ["<answer>T</answer>"], policy)
        assert [score.reward for score in found] == [alone.reward] * 2


class TestTruth:
    def test_is_logged_beside_the_reward_where_a_row_has_gold(self, scorer, task, cell):
        example = row(task.name, cell)
        known = with_ratios(mean(roll(scorer, example, [task.answer_response(example.gold), "nothing"])))
        assert known[f"dual_truth/{task.name}"] == 0.5, "what cannot be read is wrong"
        blind = with_ratios(mean(roll(scorer, row(task.name, cell, labelled=False), ["nothing"])))
        assert not any(name.startswith("dual_truth") for name in blind)

    @pytest.mark.parametrize("kind", ["duality", "posterior", "consistency"])
    def test_changes_no_reward_in_any_bit(self, kind, make_config, task, cell, vocabulary):
        if kind == "consistency" and not isinstance(task.answer, OneOf):
            return  # refused, as a test of its own has it
        scorer = Scorer(make_config(tasks={task.name: {"pair": task.name, "reward": kind}}))
        with_gold, without = row(task.name, cell), row(task.name, cell, labelled=False)
        rng = np.random.default_rng(1)
        words = [*vocabulary.genes, *vocabulary.labels["cell_type"], *vocabulary.labels["exposure"]]
        texts = [f"<answer>{' '.join(rng.choice(words, size=n % 5 + 1))}</answer>" for n in range(60)]
        texts += [task.answer_response(with_gold.gold)]
        policy = Saying(task.rebuilt_response(with_gold.unknown), log_prob=-0.25)
        pairs = zip(roll(scorer, with_gold, texts, policy), roll(scorer, without, texts, policy), strict=True)
        rewards = [(known.reward, blind.reward) for known, blind in pairs]
        assert all(known.hex() == blind.hex() for known, blind in rewards)
        assert max(known for known, _ in rewards) > 0


class TestLeaks:
    def leaks(self, scorer, example, texts):
        return [(s.logs["dual_leak/answer"], s.logs["dual_leak/trace"]) for s in roll(scorer, example, texts)]

    def test_of_a_condition_are_its_name_in_the_cell_or_in_the_trace(self, scorer, cell):
        texts = {
            "<think>A cd19+ B cell.</think><answer>CD74 LYZ</answer>": (0.0, 1.0),
            "<think>Any cell.</think><answer>CD19+ B CD74 LYZ</answer>": (1.0, 0.0),
            "CD19+ B: <answer>CD74</answer>": (1.0, 0.0),
            "<answer>CD74 LYZ</answer>": (0.0, 0.0),
        }
        assert self.leaks(scorer, row("conditional_cell_generation", cell), texts) == [*texts.values()]

    def test_of_hidden_genes_are_the_share_that_is_named_but_where_genes_are_the_answer(
        self, scorer, annotation, make_config, cell
    ):
        example = row(annotation.name, cell)
        first, hidden = example.unknown[0], " ".join(example.unknown)
        texts = [
            f"<think>{first} is high, and so is {example.known['observed'][0]}.</think><answer>T</answer>",
            f"<answer>T {hidden}</answer>",
            "<answer>T</answer>",
        ]
        assert self.leaks(scorer, example, texts) == [(0.0, 1 / len(example.unknown)), (1.0, 0.0), (0.0, 0.0)]
        pair = DropoutRecovery()
        scorer = Scorer(make_config(tasks={pair.name: {"pair": "tests.stack.my_pair:DropoutRecovery"}}))
        example = pair.example(cell, hidden=0.25, labelled=True, rng=np.random.default_rng(0))
        hidden = " ".join(example.unknown)
        texts = [f"<answer>{hidden}</answer>", f"<think>{hidden}</think><answer>{hidden}</answer>"]
        assert self.leaks(scorer, example, texts) == [(0.0, 0.0), (0.0, 1.0)]


class TestCopies:
    def test_of_the_untreated_cell_have_its_genes_at_their_ranks(self, scorer, cell):
        example = row("perturbation_response_generation", cell)
        task = TASKS[example.task]
        texts = [task.answer_response(genes) for genes in (cell.control, cell.control[::-1], cell.genes)]
        found = [score.logs["dual_copied/response"] for score in roll(scorer, example, texts)]
        same = sum(a == b for a, b in zip(cell.genes, cell.control, strict=True))
        assert found == [1.0, 0.0, same / len(cell.genes)]

    def test_in_the_reconstruction_are_genes_that_were_shown(self, scorer, annotation, make_config, cell):
        example = row(annotation.name, cell)
        half = annotation.rebuilt_response((example.unknown[0], example.known["observed"][0]))
        read = with_ratios(mean(roll(scorer, example, ["<answer>T</answer>"] * 3 + ["?"], Saying(half))))
        assert read["dual_copied/rebuilt"] == 0.5
        assert "dual_copied/response" not in read, "no cell was shown"
        tasks = {annotation.name: {"pair": annotation.name, "reward": "likelihood"}}
        nothing = roll(Scorer(make_config(tasks=tasks)), example, ["<answer>T</answer>"])
        assert not any(key.startswith("dual_copied") for key in with_ratios(mean(nothing))), "nothing was decoded"


def test_success_failures_and_time_are_shares_of_what_was_asked(scorer, annotation, cell):
    example = row(annotation.name, cell)
    policy = Saying(annotation.rebuilt_response(example.unknown))
    good = roll(scorer, example, ["<answer>T</answer>", "?", "?"], policy, truncated=True)
    bad = roll(scorer, example, ["<answer>T</answer>"], Saying("no tags"))
    read = with_ratios(mean(good + bad))
    assert (read["dual_success"], read["dual_failures"], read["dual_failed/no_answer"]) == (0.5, 0.5, 0.25)
    assert (read["dual_truncated"], read["dual_consistency"]) == (0.75, 0.5)
    assert 0.0 <= read["dual_time_share"] <= 1.0
