"""`cellduality traces` from the flags to the rows, with the rule as teacher."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path

import pytest

from cellduality_plugin.commands import tracing
from cellduality_plugin.files import read_jsonl
from cellduality_plugin.tasks import TASKS
from data_prep.manifests import read_manifest
from data_prep.traces.asking.sampling import SampleSettings, SampleSummary
from data_prep.traces.candidates import read_candidates
from data_prep.traces.filtering.curation import CANDIDATES, QUESTIONS, REJECTED, ROWS, CurationSettings
from tests.commands.conftest import invoke
from tests.data_prep.traces.planted import prepared
from tests.refused import refused


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six labelled cells, prepared, with the candidates of the rule."""
    folder = prepared(tmp_path_factory.mktemp("traces"), cells=6)
    run("sample", folder, "--teacher", "rule")
    return folder


@pytest.fixture
def data(world, tmp_path) -> Path:
    return Path(shutil.copytree(world, tmp_path / "data"))


def run(command: str, data: Path, *words: object) -> str:
    """Return what a command prints, in one line."""
    return " ".join(invoke("traces", command, "--data", data, *words).split())


def keys_in(data: Path) -> Counter[str]:
    return Counter(candidate.key for candidate in read_candidates(data / CANDIDATES))


def settings_of(data: Path) -> dict:
    return read_manifest(data / ROWS)["settings"]


def test_four_candidates_of_every_question_are_asked_for_once(data):
    asked, before = keys_in(data), (data / CANDIDATES).read_bytes()
    assert len(asked) == sum(1 for _ in read_jsonl(data / QUESTIONS)) == 12 * len(TASKS)
    assert set(asked.values()) == {4}
    again = run("sample", data, "--teacher", "rule")
    assert "0 new candidates" in again
    assert f"{48 * len(TASKS)} were there" in again
    assert (data / CANDIDATES).read_bytes() == before


def test_a_limit_takes_questions_with_their_duals(data):
    (data / CANDIDATES).unlink()
    run("sample", data, "--teacher", "rule", "--limit", 10, "--candidates", 2)
    keys = keys_in(data)
    assert set(keys.values()) == {2}
    assert Counter("/primal/" in key for key in keys) == {True: 5, False: 5}


def test_well_posed_asks_about_every_different_answer_too(data):
    run("sample", data, "--teacher", "rule", "--well-posed")
    extra = [key for key in keys_in(data) if "@" in key.rpartition("#")[2]]
    assert extra
    assert all("/dual/" in key for key in extra)
    run("filter", data, "--well-posed", "--threshold", 0)
    assert "not_unique" in {row["reason"] for row in read_jsonl(data / REJECTED)}


def test_no_key_no_price_or_an_endpoint_that_fails_is_an_error(data, monkeypatch):
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    before = (data / CANDIDATES).read_bytes()
    with refused("no-key"):
        run("sample", data, "--teacher", "gpt-4o", "--api-key-env", "NO_SUCH_KEY")
    with refused("wrong-settings"):
        run("sample", data, "--teacher", "rule", "--budget-usd", 1)
    assert (data / CANDIDATES).read_bytes() == before
    did = SampleSummary(9, 2, 3, Counter(http_429=3), {"http_429": "slow down"}, stopped_by="faults")
    with refused("endpoint-fails"):
        tracing._print_summary(did, "model@host", SampleSettings())


def test_rows_and_reasons_are_written_and_all_is_counted(data):
    run("filter", data)
    assert {row["teacher"] for row in read_jsonl(data / ROWS)} == {"rule"}
    assert all(row["reason"] for row in read_jsonl(data / REJECTED))
    assert settings_of(data) == CurationSettings().model_dump(mode="json")
    assert all(name in run("stats", data) for name in TASKS)


def test_flags_reach_the_settings(data):
    flags = ["--keep", 2, "--threshold", "0.4,dual=0.1", "--threshold", "cell_type_annotation/dual=0.2", "--fill"]
    flags += ["--share", "dual=0.5", "--share", "primal=2", "--duals", "all", "--min-trace-words", 1]
    flags += ["--max-trace-words", 99, "--seed", 3, "--no-traces", "--directions", "both"]
    run("filter", data, *flags)
    thresholds = {"threshold": 0.4, "thresholds": {"dual": 0.1, "cell_type_annotation/dual": 0.2}}
    filters = {"keep": 2, "traces": False, "min_trace_words": 1, "max_trace_words": 99, **thresholds}
    expected = {"duals": "all", "shares": {"dual": 0.5, "primal": 2.0}, "fill": True, "seed": 3, "filters": filters}
    assert settings_of(data) == CurationSettings.read(expected).model_dump(mode="json")


def test_a_slip_is_refused_and_writes_nothing(data):
    slips = {"--threshold": "high", "--directions": "up", "--keep": "0", "--share": "dual"}
    for flag, value in slips.items():
        with refused("malformed" if flag == "--share" else "wrong-settings"):
            run("filter", data, flag, value)
    assert not (data / ROWS).exists()
