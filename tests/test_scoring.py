from __future__ import annotations

import asyncio
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cellduality_plugin.examples import Mask
from cellduality_plugin.parsing import Answer
from cellduality_plugin.policies.base import Memo, PolicyError, Question
from cellduality_plugin.scoring import Score, Scorer, quantise, votes_for
from cellduality_plugin.tasks import TASKS
from tests.play import Saying, member, roll, row
from tests.refused import refused

TYPE, CELL = "cell_type_annotation", "conditional_cell_generation"


def test_a_programming_error_is_a_crash(scorer, cell):
    with pytest.raises(KeyError, match="a bug"):
        roll(scorer, row(TYPE, cell), ["<answer>T</answer>"], Saying(fails=KeyError("a bug")))


@pytest.mark.parametrize(
    ("log_prob", "expected"), [(0.0, 1.0), (-math.log(13) / 2, 0.5), (-math.log(13), 0.0), (-100.0, 0.0)]
)
def test_the_likelihood_reward_runs_from_chance_to_certainty(make_config, cell, log_prob, expected):
    scorer = Scorer(make_config(tasks={TYPE: {"pair": TYPE, "reward": "likelihood"}}))
    [score] = roll(scorer, row(TYPE, cell), ["<answer>T</answer>"], Saying(log_prob=log_prob))
    assert score.reward == expected


@pytest.mark.parametrize(
    ("settings", "dual", "expected"),
    [
        ({"validity_power": 1}, "CD19+ B", 0.5),
        ({"validity_power": 3}, "CD19+ B", 0.125),
        ({"validity_power": 0}, "CD19+ B", 1.0),
        ({"validity_share": 0.25}, "CD19+ B", 0.5),
        ({"validity_share": 0.25}, "T", 0.5 * 0.25),
        ({"validity_share": 0.25}, "no such type", 0.0),
    ],
)
def test_repeats_cost_a_cell_its_share_and_form_alone_earns_one_where_a_dual_is_read(
    make_config, cell, settings, dual, expected
):
    scorer = Scorer(make_config(tasks={CELL: {"pair": CELL, **settings}}))
    text = TASKS[CELL].answer_response(cell.genes[:4] * 2)
    [score] = roll(scorer, row(CELL, cell), [text], Saying(f"<answer>{dual}</answer>"))
    assert (score.reward, score.logs["dual_repeated_genes"]) == (expected, 0.5)


def test_a_row_of_a_task_that_is_not_configured_is_refused(make_config, cell):
    scorer = Scorer(make_config(tasks={TYPE: {"pair": TYPE}}))
    with refused("unknown-task"):
        scorer.group(row(CELL, cell).to_label())


def test_the_reward_is_the_mean_over_the_masks_of_a_row(make_config, cell):
    """Each mask is asked about once for each distinct answer; a mask whose dual fails earns nothing."""
    task = TASKS[TYPE]
    first, second, third = (
        task.example(cell, hidden=0.25, labelled=False, rng=np.random.default_rng(seed)) for seed in range(3)
    )
    masks = tuple(Mask(example.known, example.unknown) for example in (second, third))

    def remember(prompt, _):
        """Rebuild what the first mask hides, give up on the second, and be wrong about the third."""
        if prompt.endswith(" ".join(second.known["observed"])):
            raise PolicyError("refused")
        right = prompt.endswith(" ".join(first.known["observed"]))
        return task.rebuilt_response(first.unknown if right else third.known["observed"])

    policy = Saying(remember)
    texts = [task.answer_response(answer) for answer in ("T", "T", "CD19+ B")]
    scores = roll(Scorer(make_config()), replace(first, masks=masks), texts, policy)
    assert {score.reward for score in scores} == {quantise(1 / 3)}
    assert [score.logs["dual_requests"] for score in scores] == [3, 0, 3]
    assert scores[0].logs["dual_failed"] == pytest.approx(1 / 3)
    assert len(policy.prompts) == len(set(policy.prompts)) == 6


def test_what_is_hidden_is_as_the_row_has_it_or_follows_the_settings(make_config, cell):
    example = replace(row(TYPE, cell), masks=(Mask({"observed": cell.genes[1:]}, cell.genes[:1]),))

    def group(hidden):
        return Scorer(make_config(tasks={TYPE: {"pair": TYPE, "hidden": hidden}})).group(example.to_label())

    assert group(None).example == example
    whole, half = group(1.0), group(0.5)
    assert (whole.example.unknown, whole.example.known, whole.example.masks) == (cell.genes, {"length": "8"}, ())
    assert "masks" in whole.label, "the row is recorded as it came"
    assert half.example == group(0.5).example, "the same for every group of a row"
    assert len(half.example.unknown) == 4
    for share in (0, -0.5, 1.5):
        with refused("wrong-settings"):
            group(share)


def reasons(fails=()):
    """Return a policy whose answer depends on the question alone, after a moment; first it raises all of ``fails``."""
    failures = list(fails)

    def say(_, seed):
        if failures:
            raise failures.pop()
        return f"<think>of {seed}</think><answer>LYZ</answer>"

    def likely(*texts):
        return [-(sum(ord(letter) * place for place, letter in enumerate("".join(texts))) % 97) / 97]

    return Saying(say, log_prob=likely, delay=0.001)


class TestGroupsInFlight:
    TEXTS = tuple(f"<answer>{label}</answer>" for label in ("T", "CD19+ B", "no such type", "CD56+ NK", "T"))

    @pytest.fixture
    def scorer(self, make_config):
        tasks = {TYPE: {"pair": TYPE, "reward": "posterior", "hidden": 1.0, "traces": 2}}
        return Scorer(make_config(tasks=tasks))

    def rows(self, cell, count=3):
        """Return rows of different cells with as many genes."""
        cells = [replace(cell, id=f"set/{n}", genes=cell.genes[n:] + cell.genes[:n]) for n in range(count)]
        return [row(TYPE, each) for each in cells]

    async def together(self, scorer, rows, policy, texts=TEXTS):
        groups = [scorer.group(example.to_label()) for example in rows]
        members = (member(scorer, group, text, policy) for group in groups for text in texts)
        return await asyncio.gather(*members, return_exceptions=True)

    def test_draw_the_traces_of_a_label_once_and_leave_nothing_behind(self, scorer, cell, vocabulary):
        policy, labels = reasons(), len(vocabulary.labels["cell_type"])

        async def twice():
            first = await self.together(scorer, self.rows(cell), policy)
            assert len(policy.drawn) == len(set(policy.drawn)) == 2 * labels
            assert len(policy.scored) == 3 * 2 * labels, "each is scored after every trace of every label"
            asked = len(policy.prompts)
            assert sum(score.logs["dual_requests"] for score in first) == asked
            assert not scorer._memo._calls
            again = await self.together(scorer, self.rows(cell), policy)
            assert len(policy.prompts) == 2 * asked, "by then the weights are others"
            assert [score.reward for score in first] == [score.reward for score in again]

        asyncio.run(twice())

    def test_wait_for_those_who_were_there_and_not_for_a_newcomer(self, scorer, cell):
        group, seen, begun = scorer.group(self.rows(cell, 1)[0].to_label()), [], asyncio.Event()

        async def member(own: str) -> None:
            with group.member():
                await begun.wait()
                seen.append(list(await group.all_of(group.answers, own, group.answered)))

        async def all_of_them() -> None:
            there = [asyncio.create_task(member(own)) for own in "abc"]
            await asyncio.sleep(0)
            begun.set()
            await asyncio.sleep(0)
            with group.member():  # joins when the last of the others is there, before they go on
                await asyncio.wait_for(asyncio.gather(*there), timeout=5)

        asyncio.run(all_of_them())
        assert len(seen) == 3
        assert all({*found} == {*"abc"} for found in seen)

    def test_that_crash_leave_nothing_behind(self, scorer, cell):
        broken = Saying(reasons().text, log_prob={"": 0}.__getitem__)
        found = asyncio.run(self.together(scorer, self.rows(cell), broken))
        assert sum(isinstance(score, TypeError) for score in found) == 12
        assert not scorer._memo._calls

    def test_ask_again_what_failed_for_another(self, scorer, cell):
        policy = reasons([PolicyError("refused")])

        async def one_after_another():
            first, second = (scorer.group(example.to_label()) for example in self.rows(cell, 2))
            with first.member(), second.member():
                return [await scorer.score(self.TEXTS[0], group, policy) for group in (first, second)]

        failed, fine = asyncio.run(one_after_another())
        assert (failed.failure, fine.failure) == ("refused", "")

    def test_rewards_depend_neither_on_the_order_of_members_nor_on_other_groups(self, scorer, cell):
        rows = self.rows(cell)

        @given(st.permutations(range(len(self.TEXTS))), st.permutations(range(len(rows))))
        def check(order, groups):
            texts = [self.TEXTS[place] for place in order]
            found = asyncio.run(self.together(scorer, [rows[place] for place in groups], reasons(), texts))
            for place, number in enumerate(groups):
                mine = found[place * len(texts) : (place + 1) * len(texts)]
                assert {text: score.reward for text, score in zip(texts, mine, strict=True)} == alone[number]

        alone = [
            dict(zip(self.TEXTS, (score.reward for score in roll(scorer, example, self.TEXTS, reasons())), strict=True))
            for example in rows
        ]
        assert len({reward for rewards in alone for reward in rewards.values()}) > 3
        check()

    def test_remember_no_more_than_there_is_room_for(self):
        async def fill():
            memo = Memo(limit=3)
            futures = [asyncio.get_running_loop().create_future() for _ in range(5)]
            with memo:
                made = [memo.once(Question(str(n)), lambda call=call: call) for n, call in enumerate(futures)]
                assert made == [(call, True) for call in futures]
                assert [memo.once(Question(str(n)), None) for n in (2, 3, 4)] == [(call, False) for call in futures[2:]]
                assert len(memo._calls) == 3

        asyncio.run(fill())


@given(st.lists(st.sampled_from("BTN"), min_size=1, max_size=16), st.lists(st.floats(1e-3, 1), min_size=3))
def test_of_votes_equal_answers_earn_the_same_and_the_different_ones_share_one(answers, evidence):
    by_label = dict(zip("BTN", evidence, strict=False))
    scores = [Score(0.0, {}, answer=Answer(label), similarity=by_label[label]) for label in answers]
    found = {score.answer.value: votes_for(score, scores) for score in scores}
    assert sum(found.values()) == pytest.approx(1)
    assert all(votes_for(score, scores) == found[score.answer.value] for score in scores)


def test_a_group_is_paid_by_votes_and_what_cannot_be_read_earns_nothing(make_config, cell):
    scorer = Scorer(make_config(tasks={TYPE: {"pair": TYPE, "reward": "oracle", "votes": True}}))
    texts = ["<answer>T</answer>", "<answer>CD19+ B</answer>", "nothing", "<answer>T</answer>"]
    for gold, rewards in (("T", [1.0, 0.0, 0.0, 1.0]), ("CD19+ B", [0.0, 1.0, 0.0, 0.0])):
        scores = roll(scorer, replace(row(TYPE, cell), gold=gold), texts)
        assert [score.reward for score in scores] == [score.logs["dual_reward"] for score in scores] == rewards
    with refused("needs-labels"):  # lists have no votes
        Scorer(make_config(tasks={CELL: {"pair": CELL, "votes": True}}))
