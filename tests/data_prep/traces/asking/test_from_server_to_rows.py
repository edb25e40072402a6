"""From a chat endpoint to SFT rows, as a user types it."""

from __future__ import annotations

from collections import Counter

from typer.testing import CliRunner

from cellduality_plugin import cli
from cellduality_plugin.files import read_jsonl
from data_prep.traces.candidates import read_candidates
from tests.data_prep.traces.filtering.planted import good, prepared, questions_in


def traces(*words: object) -> None:
    ended = CliRunner().invoke(cli.app, ["traces", *map(str, words)], catch_exceptions=False)
    assert ended.exit_code == 0, ended.output


def test_an_endpoint_is_asked_once_and_what_is_right_becomes_rows(server, key, body, said, tmp_path):
    data = prepared(tmp_path, cells=3)
    questions = questions_in(data)
    right = {question.prompt: good(question).text for question in questions}

    def usual(path, asked):
        # every second candidate has no answer tag
        text = "I would rather not say." if asked["seed"] % 2 else right[asked["messages"][-1]["content"]]
        return said(body=body(text))

    server.usual = usual
    server.script = [said(status=429, headers={"retry-after": "0"}), said(status=500)]
    for _ in range(2):
        flags = "--teacher", "toy", "--base-url", server.url, "--candidates", 2, "--seed", 0
        traces("sample", "--data", data, *flags)
        kept = Counter((each.key, each.candidate) for each in read_candidates(data / "traces" / "candidates.jsonl"))
        assert kept == {(question.key, number): 1 for question in questions for number in (0, 1)}
        assert len(server.asked) == 2 * len(questions) + 2  # and the two faults once more

    traces("filter", "--data", data)
    rows = list(read_jsonl(data / "sft_traces.jsonl"))
    assert Counter(row["output"] for row in rows) == Counter(right[question.prompt] for question in questions)
    assert {row["teacher"] for row in rows} == {"toy@127.0.0.1"}
    reasons = Counter(row["reason"] for row in read_jsonl(data / "traces" / "rejected.jsonl"))
    assert reasons == {"no_answer": len(questions)}
    assert not any(key in path.read_text(errors="replace") for path in data.rglob("*") if path.is_file())
