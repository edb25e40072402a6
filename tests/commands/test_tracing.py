"""`cellduality traces` from the flags to the rows, with the rule as teacher."""

from __future__ import annotations

import json
import shutil
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from cellduality_plugin import cli
from cellduality_plugin.commands import tracing
from cellduality_plugin.errors import CellDualityError
from cellduality_plugin.files import read_jsonl, write_jsonl
from data_prep.manifests import read_manifest
from data_prep.traces.candidates import Tokens
from data_prep.traces.asking.sampling import SampleSettings, SampleSummary
from data_prep.traces.filtering.curation import CANDIDATES, QUESTIONS, REJECTED, ROWS
from data_prep.traces.candidates import read_candidates
from tests.data_prep.traces.filtering.planted import make_cells, prepared


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six labelled cells, prepared, with the candidates of the rule."""
    folder = prepared(tmp_path_factory.mktemp("traces"), cells=6)
    write_jsonl(
        folder / "cells.jsonl",
        (
            {
                "id": cell.id, "split": "train", "labelled": True, "genes": list(cell.genes),
                **cell.obs, **cell.condition, "control": list(cell.control),
            }
            for cell in make_cells(6)
        ),
    )  # fmt: skip
    assert run("sample", "--data", folder, "--teacher", "rule").exit_code == 0
    return folder


@pytest.fixture
def data(world, tmp_path) -> Path:
    return Path(shutil.copytree(world, tmp_path / "data"))


def run(*words: object) -> Result:
    return CliRunner().invoke(cli.app, ["traces", *map(str, words)])


def settings_of(folder: Path) -> dict:
    return read_manifest(folder / ROWS)["settings"]


def test_alone_prints_help():
    told = run().output
    assert all(command in told for command in ("sample", "filter", "stats"))


@pytest.mark.parametrize("command", ["sample", "filter", "stats"])
def test_help_shows_an_example(command):
    told = run(command, "--help").output
    assert f"cellduality traces {command} --data data" in " ".join(told.split())


class TestSample:
    def test_asks_four_candidates_of_every_question_once(self, data):
        asked = Counter(candidate.key for candidate in read_candidates(data / CANDIDATES))
        assert len(asked) == sum(1 for _ in read_jsonl(data / QUESTIONS)) == 60
        assert set(asked.values()) == {4}
        before = (data / CANDIDATES).read_bytes()
        again = run("sample", "--data", data, "--teacher", "rule")
        assert "0 new candidates" in again.output
        assert "240 were there" in again.output
        assert (data / CANDIDATES).read_bytes() == before

    def test_a_limit_takes_questions_with_their_duals(self, data):
        (data / CANDIDATES).unlink()
        run("sample", "--data", data, "--teacher", "rule", "--limit", 10, "--candidates", 2)
        keys = Counter(candidate.key for candidate in read_candidates(data / CANDIDATES))
        assert len(keys) == 10
        assert set(keys.values()) == {2}
        assert Counter("/primal/" in key for key in keys) == {True: 5, False: 5}

    def test_well_posed_asks_about_every_different_answer_too(self, data):
        run("sample", "--data", data, "--teacher", "rule", "--well-posed")
        extra = [
            candidate for candidate in read_candidates(data / CANDIDATES) if "@" in candidate.key.rpartition("#")[2]
        ]
        assert extra
        assert all("/dual/" in candidate.key for candidate in extra)
        ended = run("filter", "--data", data, "--well-posed", "--threshold", 0)
        assert ended.exit_code == 0, ended.output
        reasons = Counter(row["reason"] for row in read_jsonl(data / REJECTED))
        assert reasons["not_unique"]

    def test_a_model_without_a_key_is_an_error_and_asks_nothing(self, data, monkeypatch):
        monkeypatch.delenv("NO_SUCH_KEY", raising=False)
        monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
        before = (data / CANDIDATES).read_bytes()
        error = run("sample", "--data", data, "--teacher", "gpt-4o", "--api-key-env", "NO_SUCH_KEY").exception
        assert isinstance(error, CellDualityError)
        assert "NO_SUCH_KEY" in str(error)
        assert (data / CANDIDATES).read_bytes() == before

    def test_a_budget_without_prices_is_an_error(self, data):
        error = run("sample", "--data", data, "--teacher", "rule", "--budget-usd", 1).exception
        assert isinstance(error, CellDualityError)
        assert "price" in str(error)


class TestWhatSamplingTells:
    @pytest.fixture
    def summary(self) -> SampleSummary:
        return SampleSummary(
            asked=9, present=2, left=3, failed={"429": 3}, said={"429": "slow down"}, retried={},
            tokens=Tokens(1000, 500), cost=0.25, spent=Tokens(1000, 500), seconds=2.0, stopped_by="",
        )  # fmt: skip

    def test_what_is_wanting_and_why(self, summary, capsys):
        assert tracing._told(summary, "model@host", SampleSettings(price_in=1)) == ""
        told = capsys.readouterr().out
        for part in (
            "9 new candidates in 2.0 s",
            "2 were there",
            "3 are wanting",
            "1,500 tokens",
            "$0.25",
            "slow down",
        ):
            assert part in told

    def test_an_empty_budget(self, summary, capsys):
        assert tracing._told(replace(summary, stopped_by="budget"), "model@host", SampleSettings()) == "budget"
        assert "a larger one" in capsys.readouterr().out

    def test_faults_are_an_error(self, summary):
        with pytest.raises(CellDualityError, match="the last 200 questions were all given up"):
            tracing._told(replace(summary, stopped_by="faults"), "model@host", SampleSettings())


class TestFilter:
    def test_writes_rows_and_reasons_and_finds_them_again(self, data):
        ended = run("filter", "--data", data)
        assert ended.exit_code == 0, ended.output
        assert "written" in ended.output
        assert {row["teacher"] for row in read_jsonl(data / ROWS)} == {"rule"}
        assert all(row["reason"] for row in read_jsonl(data / REJECTED))
        assert "up to date" in " ".join(run("filter", "--data", data).output.split())  # a title folds like its table

    def test_flags_reach_the_settings(self, data):
        flags = ["--keep", 2, "--threshold", "0.4,dual=0.1", "--threshold", "cell_type_annotation/dual=0.2", "--fill"]
        flags += ["--share", "dual=0.5", "--share", "primal=2", "--duals", "all", "--min-trace-words", 1]
        flags += ["--max-trace-words", 99, "--seed", 3, "--no-traces", "--directions", "both"]
        assert run("filter", "--data", data, *flags).exit_code == 0
        found = settings_of(data)
        filters = found.pop("filters")
        assert found == {
            "directions": "both", "duals": "all", "shares": {"dual": 0.5, "primal": 2.0}, "fill": True,
            "well_posed": False, "seed": 3,
        }  # fmt: skip
        assert (filters["keep"], filters["traces"], filters["threshold"]) == (2, False, 0.4)
        assert filters["thresholds"] == {"dual": 0.1, "cell_type_annotation/dual": 0.2}
        assert (filters["min_trace_words"], filters["max_trace_words"]) == (1, 99)

    def test_a_bare_run_has_the_defaults_of_the_settings(self, data):
        from data_prep.traces.filtering.curation import CurationSettings

        run("filter", "--data", data)
        assert settings_of(data) == CurationSettings().model_dump(mode="json")

    @pytest.mark.parametrize(
        ("flags", "what"),
        [
            (["--threshold", "high"], "'high' is not a number"),
            (["--share", "dual"], "is not name=value"),
            (["--share", "duel=1"], "no group 'duel'"),
            (["--directions", "up"], "directions"),
            (["--keep", "0"], "filters.keep"),
        ],
    )
    def test_a_slip_is_told_in_one_line(self, data, monkeypatch, capsys, flags, what):
        monkeypatch.setattr(sys, "argv", ["cellduality", "traces", "filter", "--data", str(data), *flags])
        with pytest.raises(SystemExit) as end:
            cli.main()
        assert end.value.code == 2
        lines = capsys.readouterr().err.splitlines()
        assert len(lines) == 1
        assert what in lines[0]
        assert not (data / ROWS).exists()

    def test_before_sampling_says_so(self, data):
        (data / CANDIDATES).unlink()
        assert "traces sample" in str(run("filter", "--data", data).exception)
        assert "traces sample" in str(run("stats", "--data", data).exception)


class TestStats:
    def test_prints_tables_and_draws(self, data):
        ended = run("stats", "--data", data)
        assert ended.exit_code == 0, ended.output
        for title in ("candidates", "why candidates are no rows", "RWJS", "words of a trace", "by candidate number"):
            assert title in ended.output
        assert "by rule" in ended.output
        assert (data / "traces" / "stats.png").is_file()

    def test_need_not_draw(self, data):
        assert run("stats", "--data", data, "--no-plot").exit_code == 0
        assert not (data / "traces" / "stats.png").exists()


def test_a_pair_of_ones_own_is_asked_filtered_and_counted(data):
    """Its questions are those of the annotation pair, under another name and from a file beside the configuration."""
    (data / "mine.py").write_text(
        "from cellduality_plugin.tasks.cell_type_annotation import CellTypeAnnotation\n\n\n"
        'class Mine(CellTypeAnnotation):\n    name = "mine"\n'
    )
    (data / "cellduality.json").write_text(json.dumps({"tasks": {"mine": {"pair": "mine.py:Mine"}}}))
    rows = []
    for row in read_jsonl(data / QUESTIONS):
        if row["datasource"] == "cell_type_annotation":
            label = {**json.loads(row["label"]), "task": "mine"}
            rows.append({**row, "datasource": "mine", "label": json.dumps(label)})
    write_jsonl(data / QUESTIONS, rows)
    for command, *flags in (
        ("sample", "--teacher", "rule"),
        ("filter", "--share", "mine/dual=0.5"),
        ("stats", "--no-plot"),
    ):
        ended = run(command, "--data", data, *flags)
        assert ended.exit_code == 0, (command, ended.output, ended.exception)
    assert {row["datasource"] for row in read_jsonl(data / ROWS)} == {"mine"}
