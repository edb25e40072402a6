"""What every kind of reward must obey; a new kind in REWARDS is tested without a new line here."""

from __future__ import annotations

import itertools
import math

import pytest

from cellduality_plugin.parsing import OneOf
from cellduality_plugin.policies.base import PolicyError
from cellduality_plugin.rewards import REWARDS
from cellduality_plugin.scoring import QUANTUM
from cellduality_plugin.tasks import TASKS, DualTask
from tests.refused import refused

KINDS = {
    **{name: name for name in REWARDS}, "sum": {"posterior": 1, "duality": 3}, "file": "mine.py:Mine",
    "power": "posterior^0.5", "experts": "posterior*profile^0.3", "product": "0.5*posterior*duality^2+profile",
}  # fmt: skip


def refusal(kind: str, task: DualTask) -> str:
    """Return the code of the error if a kind of reward does not judge a task; empty where it does."""
    field = task.unknown if kind.startswith("duality") else task.answer
    if kind.endswith(("-rwjs", "-ruzicka", "-rbo")) and isinstance(field, OneOf):
        return "needs-lists"
    if kind == "consistency" and isinstance(task.unknown, OneOf):
        return "needs-labels"
    return ""


@pytest.fixture(scope="module", params=sorted(KINDS.keys() - {"random"}))
def cases(request, case_of):
    """A kind of reward on every task that it judges."""
    return [case_of(name, KINDS[request.param]) for name in TASKS if not refusal(request.param, TASKS[name])]


def test_only_the_right_answer_and_a_knowing_dual_earn_the_best_value(cases):
    for case in cases:
        right, wrong = case.answer(case.gold, case.wrong, by=case.knowing())
        assert right.reward == right.logs["dual_reward"] == 1.0, case
        assert right.logs["dual_failed"] == 0.0, case
        assert 0.0 <= wrong.reward < 1.0, case


def test_rewards_are_multiples_of_the_quantum_in_0_to_1(cases):
    for case, log_prob in itertools.product(cases, [0.0, -1e-9, -0.5, -700.0, -1e6]):
        for score in case.answer(case.gold, case.wrong, by=case.knowing(log_prob=log_prob)):
            assert 0.0 <= score.reward <= 1.0, case
            assert (score.reward / QUANTUM).is_integer(), case
            assert all(math.isfinite(value) for value in score.logs.values()), case


def test_equal_answers_have_equal_rewards_and_cost_no_second_question(cases):
    for case, log_prob in itertools.product(cases, [None, -0.7]):
        group, alone = case.knowing(log_prob=log_prob), case.knowing(log_prob=log_prob)
        scores = case.answer(*[case.gold] * 3, by=group)
        case.answer(case.gold, by=alone)
        assert len({score.reward for score in scores}) == 1, case
        assert sum(score.logs["dual_requests"] for score in scores) == len(group.prompts), case
        assert len(group.prompts) == len(alone.prompts), case


def test_an_unreadable_answer_earns_nothing_and_asks_nobody(cases):
    for case in cases:
        revealing = f"{case.task.answer_response(case.gold)}{case.example.unknown}{case.example.to_label()}"
        policy = case.knowing()
        for score in case.say("", "<answer></answer>", "<answer>no such thing</answer>", revealing, by=policy):
            assert score.reward == score.logs["dual_failed"] == score.logs["dual_requests"] == 0.0, case
        assert not policy.prompts, case


def test_what_is_smuggled_into_a_response_earns_nothing_more(cases):
    """What the row hides, written into the trace of a wrong answer, changes no prompt and no reward."""
    for case in cases:
        whisper, policy = f"whispered {case.example.unknown} {case.gold}", case.knowing()
        texts = (case.task.answer_response(case.wrong, trace=trace) for trace in ("", whisper))
        clean, smuggled = case.say(*texts, by=policy)
        assert smuggled.reward == clean.reward, case
        assert not [prompt for prompt in policy.prompts if "whispered" in prompt], case


def test_a_policy_that_fails_is_counted_and_logs_the_same_keys(cases):
    for case, fault in itertools.product(cases, [PolicyError("refused"), math.nan, -math.inf, math.inf]):
        silent = isinstance(fault, PolicyError)
        policy = case.knowing(fails=fault) if silent else case.knowing(log_prob=fault)
        [good], [bad] = (case.answer(case.gold, by=asked) for asked in (case.knowing(), policy))
        assert list(bad.logs) == list(good.logs), case
        assert all(math.isfinite(value) for value in bad.logs.values()), case
        hurt = bool(policy.prompts and (silent or policy.scored))
        assert hurt == bool(policy.prompts and bad.reward < good.reward), case
        assert bad.reward == (0.0 if hurt else good.reward), case
        assert bad.logs["dual_failed"] == float(hurt), case


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_judges_a_task_or_refuses_it_before_a_run(kind, case_of):
    for name, task in TASKS.items():
        if code := refusal(kind, task):
            with refused(code) as error:
                case_of(name, KINDS[kind])
            assert error.value.where == f"tasks.{name}.reward"
        else:
            case_of(name, KINDS[kind])
