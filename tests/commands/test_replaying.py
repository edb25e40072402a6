from __future__ import annotations

import json
import sys

import pytest

from cellduality_plugin import cli
from cellduality_plugin.records import Recorder
from cellduality_plugin.scoring import Scorer
from tests.play import Saying, roll, row

NAME = "cell_type_annotation"
TEXTS = ["<answer>T</answer>", "<answer>CD19+ B</answer>", "nothing", "<answer>T</answer>"]


@pytest.fixture
def recorded(make_config, tmp_path, cell):
    """A folder of records of four groups, and the configuration they were made with."""
    scorer = Scorer(make_config(tasks={NAME: {"pair": NAME}}))
    recorder = Recorder(tmp_path / "rollouts", every=1, limit=100)
    for _ in range(4):
        roll(scorer, row(NAME, cell), TEXTS, Saying("<answer>MS4A1 CD74</answer>"), recorder=recorder)
    return tmp_path / "rollouts", tmp_path / "cellduality.json"


@pytest.fixture
def replay(monkeypatch, capsys, recorded):
    """Return a function that runs the command on the records; gives exit code, output and complaints."""

    def run(*flags, folder=recorded[0], config=recorded[1]):
        words = ["cellduality", "replay", folder, "--config", config, *flags]
        monkeypatch.setattr(sys, "argv", [str(word) for word in words])
        with pytest.raises(SystemExit) as end:
            cli.main()
        return (end.value.code or 0, *capsys.readouterr())

    return run


def test_prints_a_line_for_each_reward_and_writes_that_of_every_rollout(replay, tmp_path):
    code, out, _ = replay("--rewards", f"{NAME}=2*duality+duality-rbo", "--out", tmp_path / "again.jsonl")
    assert code == 0
    lines = [line.split() for line in out.splitlines() if line.strip().startswith(NAME)]
    assert [(line[1], line[2]) for line in lines] == [("recorded", "16"), ("2*duality+1*duality-rbo", "16")]
    assert out.splitlines()[-1] == "4 groups"
    rows = [json.loads(line) for line in (tmp_path / "again.jsonl").read_text().splitlines()]
    assert len(rows) == 16
    assert {line["truth"] for line in rows} == {0.0, 1.0}


def test_says_what_to_record_where_something_is_missing(replay):
    code, out, _ = replay("--rewards", f"{NAME}=posterior")
    assert code == 0
    assert "posterior asks what 12 rollouts did not record" in out
    assert "--rewards cell_type_annotation=0.99*CONFIGURED+0.01*posterior" in out


def test_counts_what_is_not_whole(replay, recorded):
    [path] = recorded[0].glob("*.jsonl")
    path.write_bytes(path.read_bytes()[:-9])
    code, out, _ = replay()
    assert code == 0
    assert "4 groups; 1 of them not whole, 1 lines left out" in out


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--rewards", "duality"], "'duality' is not name=value"),
        (["--rewards", f"{NAME}=rwjs"], "no reward 'rwjs'"),
        (["--rewards", "other=duality"], "no task 'other'"),
    ],
)
def test_a_slip_is_one_line_and_exit_code_2(flags, message, replay):
    code, _, complaint = replay(*flags)
    assert code == 2
    assert message in complaint
    assert complaint.count("\n") == 1


def test_places_without_records_are_told(replay, tmp_path):
    assert "no such file or folder" in replay(folder=tmp_path / "gone")[2]
    (tmp_path / "empty").mkdir()
    assert "no records there" in replay(folder=tmp_path / "empty")[2]
    assert "cannot read the configuration" in replay(config=tmp_path / "gone.json")[2]
