"""Recorded rollouts under the same reward and under others."""

from __future__ import annotations

import contextlib
import math

import numpy as np
import pytest

from cellduality_plugin.errors import CellDualityError
from cellduality_plugin.files import read_jsonl
from cellduality_plugin.parsing import join_response
from cellduality_plugin.policies.base import PolicyError
from cellduality_plugin.records import Recorder
from cellduality_plugin.replay import RECORDED, Column, Replay, record_files
from cellduality_plugin.rewards import REWARDS
from cellduality_plugin.scoring import Scorer
from cellduality_plugin.tasks import TASKS
from tests.commands.conftest import invoke
from tests.play import Saying, roll, row
from tests.refused import refused

NAME = "cell_type_annotation"
KINDS = {
    **{name: name for name in REWARDS if "-" not in name}, "rbo": "duality-rbo", "own": "own.py:Mine",
    "sum": {"duality": 1.0, "likelihood": 2.0},
}  # fmt: skip
TRACES = {mean: {"hidden": 1.0, "traces": 2, "trace_mean": mean, "negatives": 2} for mean in ("log", "probability")}
OWN = """
from cellduality_plugin.rewards import Reward, Verdict

class Mine(Reward):
    async def judge(self, answer, dual):
        found = [len(read.value or ()) for read in await dual.rebuilt(answer)]
        return Verdict(sum(found) / (sum(found) + 7))
"""


def moody(vocabulary, seed):
    """Return a policy that says something else to every prompt, and something else each time; sometimes nothing."""
    rng = np.random.default_rng(seed)

    def say(*_):
        if rng.random() < 0.2:
            raise PolicyError("refused")
        return join_response(some_answer(vocabulary, rng))

    return Saying(say, log_prob=lambda *_: [math.nan] if rng.random() < 0.1 else list(-rng.exponential(size=4)))


def some_answer(vocabulary, rng, task=""):
    """Return a label, one of the task's if it answers in labels, or some genes."""
    kind = getattr(TASKS[task].answer, "kind", "perturbation") if task else rng.choice([*vocabulary.labels])
    if rng.random() < 0.5:
        return rng.choice(vocabulary.labels[kind])
    return " ".join(rng.choice(vocabulary.genes, size=rng.integers(2, 9)))


def texts_of(task, vocabulary, rng, count=12):
    """Return responses of which some name a label, some write a cell, and the last does neither."""
    return [join_response(some_answer(vocabulary, rng, task)) for _ in range(count - 1)] + [""]


@pytest.fixture
def config_of(make_config, tmp_path):
    """Return a function that makes the configuration of all pairs that a reward can judge."""

    def make(reward="duality", **settings):
        (tmp_path / "own.py").write_text(OWN)
        tasks = {}
        for name in TASKS:
            with contextlib.suppress(CellDualityError):
                Scorer(make_config(tasks={name: {"pair": name, "reward": reward}}))
                tasks[name] = {"pair": name, "reward": reward, **settings}
        return make_config(tasks=tasks, dual={"samples": 2, "temperature": 1.0})

    return make


@pytest.fixture
def recorded(vocabulary, cell, tmp_path):
    """Return a function that gives the rewards of three groups of every task of a configuration, and records them."""

    def record(config, labelled=True, kept=True):
        scorer, rng, rewards = Scorer(config), np.random.default_rng(7), []
        recorder = Recorder(tmp_path / "rollouts", every=1, limit=10_000) if kept else None
        for name in [*config.tasks] * 3:
            texts, policy = texts_of(name, vocabulary, rng), moody(vocabulary, len(rewards))
            scores = roll(scorer, row(name, cell, labelled=labelled), texts, policy, recorder=recorder)
            rewards += [score.reward for score in scores]
        return sorted(rewards)

    return record


@pytest.fixture
def replay(tmp_path):
    """Return a function that gives the replay of what was recorded, and its results."""

    def run(config, rewards=None):
        work = Replay(config, rewards or {})
        return work, [result for results in work.run(record_files([tmp_path / "rollouts"])) for result in results]

    return run


@pytest.mark.parametrize(("kind", "bound"), [*((kind, 0.5) for kind in (*KINDS, *TRACES)), ("posterior", 0.0)])
def test_the_recorded_reward_again_is_the_same_in_every_bit(kind, bound, config_of, recorded, replay):
    config = config_of(KINDS.get(kind, "posterior"), minimum_spread=bound, **TRACES.get(kind, {}))
    made = recorded(config)
    work, results = replay(config)
    assert all(result["reward"].hex() == float(result["recorded"]).hex() for result in results)
    assert sorted(result["reward"] for result in results) == made
    assert len(set(made)) > 1, "rewards that are all equal would show nothing"
    assert not sum(column.missing for column in work.columns.values())


def test_a_rollout_that_ends_early_tells_nothing_of_calls_that_others_wait_for(config_of, replay, cell, tmp_path):
    config, example = config_of("duality"), row(NAME, cell)
    slow = Saying(TASKS[NAME].rebuilt_response(example.unknown), delay=0.05)
    recorder = Recorder(tmp_path / "rollouts", every=1, limit=9)
    texts = ["nothing", "<answer>T</answer>", "<answer>CD19+ B</answer>"]
    assert [score.reward for score in roll(Scorer(config), example, texts, slow, recorder=recorder)] == [0.0, 1.0, 1.0]
    _, results = replay(config)
    assert sorted(result["reward"] for result in results) == [0.0, 1.0, 1.0]


def test_another_reward_of_the_same_questions_is_what_it_would_have_been(config_of, recorded, replay):
    """What was recorded under duality gives RBO the rewards that a run under RBO has had."""
    labels = [name for name in TASKS if name != "conditional_cell_generation" and "perturbation" not in name]
    config, others = config_of("duality"), dict.fromkeys(labels, "duality-rbo")
    recorded(config)
    work, results = replay(config, others)
    expected = recorded(config.with_each("reward", others, ""), kept=False)
    assert sorted(result["reward"] for result in results) == expected
    assert any(result["reward"] != result["recorded"] for result in results)
    assert {key for key in work.columns if key[0] == NAME} == {(NAME, RECORDED), (NAME, "duality-rbo")}


def test_what_was_not_recorded_is_counted_and_does_not_count(config_of, recorded, replay):
    recorded(config_of("duality"))
    work, results = replay(config_of("duality"), {NAME: "posterior"})
    mine = [result for result in results if result["task"] == NAME]
    column = work.columns[NAME, "posterior"]
    assert column.missing == sum(result["reward"] is None for result in mine) > 0
    assert column.summary()[0] + column.missing == len(mine)
    assert {result["failure"] for result in mine if result["reward"] is None} == {"not_recorded"}
    assert all(result["failure"] in ("no_answer", "unknown_label") for result in mine if result["reward"] is not None)


def test_the_command_prints_a_line_for_each_reward_writes_that_of_every_rollout_and_says_what_to_record(
    config_of, recorded, replay, tmp_path
):
    recorded(config := config_of("duality"))
    [path] = (tmp_path / "rollouts").glob("*.jsonl")
    path.write_bytes(path.read_bytes()[:-9])
    command = "replay", tmp_path / "rollouts", "--config", tmp_path / "cellduality.json"
    out = invoke(*command, "--rewards", f"{NAME}=2*posterior+duality", "--out", tmp_path / "again.jsonl")
    work, results = replay(config, {NAME: {"posterior": 2.0, "duality": 1.0}})
    assert list(read_jsonl(tmp_path / "again.jsonl")) == results
    lines = [line.split()[1:3] for line in out.splitlines() if line.strip().startswith(f"{NAME} ")]
    assert lines == [[name, str(column.summary()[0])] for (task, name), column in work.columns.items() if task == NAME]
    missing = work.columns[NAME, "2*posterior+duality"].missing
    assert f"2*posterior+duality asks what {missing} rollouts did not record" in out
    assert f"--rewards {NAME}=0.99*CONFIGURED+0.01*posterior+0.01*duality" in out
    assert f"{work.groups} groups; 1 of them not whole, 1 lines left out" in out
    assert f"--rewards {NAME}=0.99*CONFIGURED" not in invoke(*command)


@pytest.mark.parametrize(
    ("rewards", "code"),
    [("duality", "malformed"), (f"{NAME}=rwjs", "wrong-settings"), ("other=duality", "unknown-task")],
)
def test_a_slip_in_the_rewards_of_the_command_is_refused(rewards, code, config_of, recorded, tmp_path):
    recorded(config_of("oracle"))
    with refused(code):
        invoke("replay", tmp_path / "rollouts", "--config", tmp_path / "cellduality.json", "--rewards", rewards)


def test_gold_gives_the_correlation_with_the_truth(config_of, recorded, replay):
    recorded(config_of("oracle"))
    for column in replay(config_of("oracle"))[0].columns.values():
        lists = column.task in ("conditional_cell_generation", "perturbation_response_generation")
        # A list earns its truth times its validity, rounded to a 1024th.
        assert column.summary()[-1] == pytest.approx(1.0, abs=0.5 if lists else 1e-9)


def test_rows_without_gold_have_no_correlation_with_it_and_no_oracle(config_of, recorded, replay):
    recorded(config_of("duality"), labelled=False)
    work, results = replay(config_of("duality"))
    assert {column.summary()[-1] for column in work.columns.values()} == {None}
    assert {result["truth"] for result in results} == {None}
    with refused("needs-gold"):
        replay(config_of("duality"), {NAME: "oracle"})


def test_files_are_those_of_a_folder_or_named_each_once_and_places_without_any_are_refused(tmp_path):
    for name in ("b.jsonl", "a.jsonl", "notes.txt"):
        (tmp_path / name).write_text("")
    assert [path.name for path in record_files([tmp_path, tmp_path / "a.jsonl"])] == ["a.jsonl", "b.jsonl"]
    (tmp_path / "empty").mkdir()
    for place, code in (("gone", "missing-file"), ("empty", "no-records")):
        with refused(code):
            record_files([tmp_path / place])


def test_a_column_is_the_mean_over_rollouts_and_the_spread_within_groups():
    unknown = math.nan
    column = Column("t", "r", [np.array([[unknown, 0.5, unknown]])])
    assert column.summary() == (0, None, None, None, None, None)
    several = [[0.5, 0.5, unknown], [0.5, 0.25, unknown], [unknown, 0.0, unknown]]
    for group in ([[0.0, 0.5, unknown], [1.0, 0.5, 1.0]], several, [[1.0, 1.0, 1.0]]):
        column.groups.append(np.array(group))
    count, mean, spread, flat, _, true = column.summary()
    assert (count, column.missing, mean, spread, flat, true) == (5, 2, 0.6, 0.25, 0.5, None)
    column.groups.append(np.array([[0.0, 0.0, 0.5]]))
    assert column.summary()[-1] == pytest.approx(1.0)
