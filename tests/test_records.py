"""What is kept of rollouts, and what is left of it after a full disk or a sudden end."""

from __future__ import annotations

import asyncio
import errno
import json
import math
import os
from pathlib import Path

import pytest

from cellduality_plugin.errors import CellDualityError
from cellduality_plugin.examples import Example
from cellduality_plugin.policies.base import PolicyError
from cellduality_plugin.records import MAX_TEXT, Reading, RecordedPolicy, Recorder, prompt_key, read_groups
from cellduality_plugin.scoring import Scorer
from cellduality_plugin.tasks import TASKS
from tests.play import Saying, member, roll, row
from tests.refused import refused

NAME = "cell_type_annotation"
TEXTS = ["<answer>T</answer>", "<think>CD19+ B?</think><answer>CD19+ B</answer>", "<answer>T</answer>", "nothing"]


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "rollouts"


def lines(folder: Path) -> list[dict]:
    [path] = folder.glob("*.jsonl")
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def groups(path: Path) -> tuple[list[list[dict]], Reading]:
    reading = Reading()
    return list(read_groups(path, reading)), reading


def test_a_line_a_rollout_holds_what_it_takes_to_score_it_again(scorer, folder, cell, vocabulary):
    example, recorder = row(NAME, cell), Recorder(folder, every=1, limit=100)
    scores = roll(scorer, example, TEXTS, Saying("<answer>MS4A1</answer>"), recorder=recorder)
    kept = lines(folder)
    assert [line["last"] for line in kept] == [False, False, False, True]
    kept.sort(key=lambda line: TEXTS.index(line["response"]))
    for line, place, answer in zip(kept, (0, 0, 1, 3), ("T", "T", "CD19+ B", None), strict=True):
        assert (line["response"], line["answer"]) == (TEXTS[place], answer)
        assert line["reward"] == scores[place].reward
        assert Example.from_label(line["label"]) == example
    assert [line["logs"] for line in kept if line["last"]] == [s.logs for s in scores if s.logs["dual_groups"]]
    assert kept[3]["failure"] == "no_answer"
    calls = [call for line in kept for call in line["calls"]]
    asked = {call["text"]: call["response"] for call in calls}
    assert asked == {
        TASKS[NAME].dual_prompt(example.known, label, vocabulary): "<answer>MS4A1</answer>"
        for label in ("T", "CD19+ B")
    }
    assert {call["prompt"] for call in calls} == {prompt_key(prompt) for prompt in asked}


def test_a_prompt_is_written_once_a_group(make_config, folder, cell, vocabulary):
    tasks = {NAME: {"pair": NAME, "reward": {"posterior": 1, "duality": 1}}}
    scorer = Scorer(make_config(tasks=tasks, dual={"samples": 2, "temperature": 1.0}))
    for _ in range(2):
        roll(scorer, row(NAME, cell), TEXTS, Saying("<answer>MS4A1</answer>"), recorder=Recorder(folder, 1, 100))
    for path in folder.glob("*.jsonl"):
        [group], _ = groups(path)
        calls = [call for line in group for call in line["calls"]]
        labels = len(vocabulary.labels["cell_type"])
        assert len(calls) == labels + 2 * 2
        assert sum("text" in call for call in calls) == len({call["prompt"] for call in calls}) == labels


def test_a_failed_call_its_cause_and_bounded_texts_are_kept(scorer, make_config, folder, cell):
    for policy, cause in ((Saying(fails=PolicyError("refused")), "refused"), (Saying(delay=9.0), "timeout")):
        roll(scorer, row(NAME, cell), TEXTS[:1], policy, recorder=Recorder(folder / cause, 1, 100))
        [line] = lines(folder / cause)
        assert [call["error"] for call in line["calls"]] == [cause]
        assert line["failure"] == cause
    huge = "<answer>T</answer>" + "x" * 1_000_000
    roll(scorer, row(NAME, cell), [huge, TEXTS[0]], Saying(huge), recorder=Recorder(folder / "huge", 1, 9))
    first, second = lines(folder / "huge")
    assert (len(first["response"]), first["failure"]) == (MAX_TEXT, "too_long")
    assert len(second["calls"][0]["response"]) == MAX_TEXT
    likely = Scorer(make_config(tasks={NAME: {"pair": NAME, "reward": "likelihood"}}))
    roll(likely, row(NAME, cell), TEXTS[:1], Saying(log_prob=math.nan), recorder=Recorder(folder / "nan", 1, 9))
    [line] = lines(folder / "nan")
    assert line["calls"][0]["log_probs"] == [None] * 3


def test_every_so_many_groups_are_kept_whole_until_there_are_enough(scorer, folder, cell):
    recorder = Recorder(folder, every=3, limit=10)
    for _ in range(20):
        roll(scorer, row(NAME, cell), TEXTS, recorder=recorder)
    kept = lines(folder)
    assert sorted({line["group"] for line in kept}) == [0, 3, 6]
    assert len(kept) == 12, "the group that passes the limit is kept to its end"
    assert not recorder._written_of, "nothing is held of what is over"


def test_groups_under_way_at_the_same_time_are_kept_apart(scorer, folder, cell):
    recorder = Recorder(folder, every=1, limit=100)
    rows = [row(name, cell) for name in TASKS]

    async def all_at_once():
        found = [scorer.group(example.to_label()) for example in rows]
        both = [(place, text, group) for place, text in enumerate(TEXTS) for group in found]
        how = {"recorder": recorder}
        await asyncio.gather(*(member(scorer, g, text, Saying(), delay=0.01 * n, **how) for n, text, g in both))

    asyncio.run(all_at_once())
    [path] = folder.glob("*.jsonl")
    found, reading = groups(path)
    assert sorted([line["task"] for line in group] for group in found) == sorted([name] * len(TEXTS) for name in TASKS)
    assert (reading.skipped, reading.incomplete) == (0, 0)


class TestDamage:
    def test_a_partial_last_line_is_left_out_and_counted(self, scorer, folder, cell, tmp_path):
        recorder = Recorder(folder, every=1, limit=100)
        for name in (NAME, "conditional_cell_generation"):
            roll(scorer, row(name, cell), TEXTS, recorder=recorder)
        [path] = folder.glob("*.jsonl")
        whole = path.read_bytes()
        start = whole[:-1].rindex(b"\n") + 1
        for end in (start + 1, (start + len(whole)) // 2, len(whole) - 2):
            cut = tmp_path / "cut.jsonl"
            cut.write_bytes(whole[:end])
            found, reading = groups(cut)
            assert [len(group) for group in found] == [4, 3]
            assert (reading.skipped, reading.incomplete) == (1, 1)

    @pytest.mark.parametrize("line", ["{}", "[]", "3", '{"schema": 2}', '{"schema": 1}', '{"schema": 1, "group": "a"}'])
    def test_a_file_of_something_else_is_refused(self, line, tmp_path):
        (tmp_path / "other.jsonl").write_text(line + "\n")
        with pytest.raises(CellDualityError) as error:
            groups(tmp_path / "other.jsonl")
        assert error.value.code in ("wrong-format", "malformed-row")
        assert error.value.where == f"{tmp_path / 'other.jsonl'}:1"
        with refused("unreadable-file"):
            groups(tmp_path / "gone.jsonl")

    def test_a_full_disk_ends_the_recording_and_not_the_run(self, scorer, folder, cell, monkeypatch, caplog):
        recorder, write = Recorder(folder, every=1, limit=100), os.write
        room = [2]

        def full(handle, line):
            room[0] -= 1
            if room[0] < 0:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return write(handle, line)

        monkeypatch.setattr(os, "write", full)
        scores = roll(scorer, row(NAME, cell), TEXTS * 2, recorder=recorder)
        monkeypatch.undo()
        assert (len(scores), len(lines(folder)), len(caplog.records)) == (8, 2, 1)
        assert f"not recorded any more: {folder}: cannot write: No space left on device" in caplog.text


KEY = {"prompt": prompt_key("p")}


@pytest.mark.parametrize(
    "call",
    [
        {}, KEY, KEY | {"draw": 0}, {"prompt": 3, "draw": []}, KEY | {"draw": 0, "response": 7},
        KEY | {"response": "r", "log_probs": "many"}, KEY | {"response": "r", "log_probs": ["many"]}, None, 3, "call",
    ],
)  # fmt: skip
def test_a_malformed_call_was_not_recorded(call):
    policy = RecordedPolicy([{"calls": [call]}])
    for unasked in (policy.generate("p"), policy.log_probs("p", "r")):
        with pytest.raises(PolicyError, match="not_recorded"):
            asyncio.run(unasked)
