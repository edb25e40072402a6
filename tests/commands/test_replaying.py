from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from cellduality_plugin.cli import app
from cellduality_plugin.errors import CellDualityError
from cellduality_plugin.records import Recorder
from cellduality_plugin.scoring import Scorer
from tests.play import Saying, roll, row
from tests.refused import refused

NAME = "cell_type_annotation"
TEXTS = ["<answer>T</answer>", "<answer>CD19+ B</answer>", "nothing", "<answer>T</answer>"]


@pytest.fixture
def replay(make_config, tmp_path, cell):
    """Return a function that runs the command on the records of four groups; gives what it prints."""
    scorer = Scorer(make_config(tasks={NAME: {"pair": NAME}}))
    recorder = Recorder(tmp_path / "rollouts", every=1, limit=100)
    for _ in range(4):
        roll(scorer, row(NAME, cell), TEXTS, Saying("<answer>MS4A1 CD74</answer>"), recorder=recorder)

    def run(*flags, folder=tmp_path / "rollouts"):
        words = ["replay", folder, "--config", tmp_path / "cellduality.json", *flags]
        return CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=False).stdout

    return run


def test_prints_a_line_for_each_reward_and_writes_that_of_every_rollout(replay, tmp_path):
    out = replay("--rewards", f"{NAME}=2*duality+duality-rbo", "--out", tmp_path / "again.jsonl")
    lines = [line.split() for line in out.splitlines() if line.strip().startswith(NAME)]
    assert [(line[1], line[2]) for line in lines] == [("recorded", "16"), ("2*duality+duality-rbo", "16")]
    assert out.splitlines()[-1] == "4 groups"
    rows = [json.loads(line) for line in (tmp_path / "again.jsonl").read_text().splitlines()]
    assert len(rows) == 16
    assert {line["truth"] for line in rows} == {0.0, 1.0}


def test_says_what_to_record_where_something_is_missing_and_counts_what_is_not_whole(replay, tmp_path):
    [path] = (tmp_path / "rollouts").glob("*.jsonl")
    path.write_bytes(path.read_bytes()[:-9])
    out = replay("--rewards", f"{NAME}=posterior")
    assert "posterior asks what 11 rollouts did not record" in out
    assert "--rewards cell_type_annotation=0.99*CONFIGURED+0.01*posterior" in out
    assert "4 groups; 1 of them not whole, 1 lines left out" in out


@pytest.mark.parametrize("rewards", ["duality", f"{NAME}=rwjs", "other=duality"])
def test_a_slip_is_refused(rewards, replay):
    with pytest.raises(CellDualityError) as error:
        replay("--rewards", rewards)
    assert any(repr(part) in error.value.what for part in rewards.split("="))


def test_places_without_records_are_refused(replay, tmp_path):
    with refused("missing-file"):
        replay(folder=tmp_path / "gone")
    (tmp_path / "empty").mkdir()
    with refused("no-records"):
        replay(folder=tmp_path / "empty")
