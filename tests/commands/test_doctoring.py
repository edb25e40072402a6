"""`cellduality doctor` from the outside: what it prints, and how it ends."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from cellduality_plugin import cli
from cellduality_plugin.openrlhf_hooks.doctor.checks import CHECKS, FLAGS
from cellduality_plugin.openrlhf_hooks.doctor.command import SFT

ROOT = Path(__file__).parents[2]
Doctor = Callable[..., tuple[int, str, str]]


@pytest.fixture
def doctor(monkeypatch, capsys) -> Doctor:
    """Return a function that runs the command in this process and gives (exit code, stdout, stderr)."""

    def run(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["cellduality", "doctor", *map(str, words)])
        code = 0
        try:
            cli.main()
        except SystemExit as end:
            code = int(end.code or 0)
        return code, *capsys.readouterr()

    return run


@pytest.fixture
def good(small_world, tmp_path) -> list[str]:
    """The command of a good SFT run, in a folder that is no other test's."""
    shutil.copytree(small_world.data, tmp_path / "data")
    return [
        "cellduality-cpu", "python", "-m", SFT, "--model.model_name_or_path", str(small_world.model),
        "--data.dataset", str(tmp_path / "data" / "sft.jsonl"), "--data.output_key", "output",
        "--data.apply_chat_template", "--data.max_len", "256", "--train.batch_size", "2",
        "--train.micro_batch_size", "2", "--ds.zero_stage", "0",
        "--ds.attn_implementation", "sdpa", "--ckpt.save_steps", "10",
        "--ckpt.path", str(tmp_path / "checkpoints"), "--ckpt.output_dir", str(tmp_path / "new"),
    ]  # fmt: skip


def test_a_good_run_ends_in_0_and_shows_its_memory(good, doctor):
    code, out, err = doctor("--", *good)
    assert (code, err) == (0, "")
    assert "0 errors, 0 warnings, 0 notes" in out
    assert "optimiser" in out
    assert "12 P" in out


def test_an_error_ends_in_1_and_stands_first(good, doctor):
    code, out, err = doctor("--", *good, "--train.micro_batch_size", "3", "--eval.steps", "5")
    assert (code, err) == (1, "")
    assert "1 error, 1 warning, 0 notes" in out
    assert out.index("error ") < out.index("warning ")
    assert "--train.micro_batch_size" in out


def test_a_warning_alone_ends_in_0(good, doctor):
    assert doctor("--", *good, "--eval.steps", "5")[0] == 0


def test_json_is_one_object_that_holds_all(good, doctor):
    code, out, _ = doctor("--json", "--", *good, "--train.micro_batch_size", "3")
    found = json.loads(out)
    assert code == 1
    assert found["trainer"] == SFT
    assert [finding["check"] for finding in found["findings"]] == ["batches_fill_devices"]
    assert found["findings"][0].keys() == {"severity", "what", "where", "mend", "check"}
    assert {part["name"] for part in found["memory"]} >= {"weights", "gradients", "optimiser"}


def test_memory_that_is_given_counts(good, doctor):
    code, out, _ = doctor("--host-memory", "0.0001", "--json", "--", *good)
    assert code == 0
    assert [finding["check"] for finding in json.loads(out)["findings"]] == ["host_memory"]


def test_flags_that_cannot_be_read_are_told_alone(good, doctor):
    code, out, _ = doctor("--", *good, "--data.max_len", "long")
    assert code == 1
    assert "invalid int value: 'long'" in out
    assert "optimiser" not in out


def test_square_brackets_are_no_markup(good, doctor):
    _, out, _ = doctor("--", *good, "--data.dataset", "/gone/[bold]/rows.jsonl")
    assert "/gone/[bold]/rows.jsonl" in out


@pytest.mark.parametrize("words", [[], ["--"], ["--", "python", "train.py"]])
def test_no_run_at_all_is_one_line(words, doctor):
    code, out, err = doctor(*words)
    assert (code, out) == (2, "")
    [line] = err.splitlines()
    assert line.startswith("error: the command runs no trainer that can be examined")
    assert "cellduality doctor -- python -m openrlhf.cli.train_ppo_ray" in line


def test_the_list_is_the_one_in_the_documentation(doctor):
    code, out, _ = doctor("--list")
    assert code == 0
    rows = [line for line in out.splitlines() if line.startswith("| `")]
    assert len(rows) == len(FLAGS) + len(CHECKS)
    assert all(len(line.split(" | ")) == 4 for line in rows)
    assert out in (ROOT / "cellduality_plugin/openrlhf_hooks/doctor/CHECKS.md").read_text(encoding="utf-8"), (
        "cellduality doctor --list > cellduality_plugin/openrlhf_hooks/doctor/CHECKS.md"
    )


def test_help_shows_how_it_is_used(doctor):
    code, out, _ = doctor("--help")
    assert code == 0
    assert "cellduality doctor -- python -m openrlhf.cli.train_ppo_ray" in " ".join(out.replace("│", " ").split())
