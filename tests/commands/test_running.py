"""`cellduality doctor` and `reward-path` from the outside; `serve-reward` is tested where the server is."""

from __future__ import annotations

import io
import json
import shlex
from functools import partial
from pathlib import Path

import pytest

from cellduality_plugin.agent_file import REWARD_FILE, bound_reward_file
from cellduality_plugin.openrlhf_hooks.doctor.flags import SFT
from tests.refused import refused

CHECKS = Path(__file__).parents[2] / "cellduality_plugin/openrlhf_hooks/doctor/CHECKS.md"


@pytest.fixture
def doctor(command):
    return partial(command, "doctor")


@pytest.fixture
def good(small_world, tmp_path) -> list[str]:
    """The command of a good SFT run."""
    flags = (
        "--data.output_key output --data.apply_chat_template --data.max_len 256 --train.batch_size 2 "
        "--train.micro_batch_size 2 --ds.zero_stage 0 --ds.attn_implementation sdpa --ckpt.save_steps 10"
    )
    return [
        "cellduality-cpu", "python", "-m", SFT, *flags.split(), "--model.model_name_or_path", str(small_world.model),
        "--data.dataset", str(small_world.data / "sft.jsonl"), "--ckpt.path", str(tmp_path / "checkpoints"),
        "--ckpt.output_dir", str(tmp_path / "new"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("more", "code", "summary"),
    [
        ([], 0, "0 errors, 0 warnings, 0 notes"),
        (["--eval.steps", "5"], 0, "0 errors, 1 warning, 0 notes"),
        (["--train.micro_batch_size", "3", "--eval.steps", "5"], 1, "1 error, 1 warning, 0 notes"),
        (["--data.dataset", "/gone/[bold]/rows.jsonl"], 1, "/gone/[bold]/rows.jsonl"),
    ],
)
def test_it_ends_in_1_if_there_is_an_error_and_shows_the_memory(more, code, summary, good, doctor):
    ended, out, err = doctor("--", *good, *more)
    assert (ended, err) == (code, "")
    assert summary in out
    assert "12 P" in out


def test_json_is_one_object_that_holds_all_and_memory_that_is_given_counts(good, doctor):
    code, out, _ = doctor("--host-memory", "0.0001", "--json", "--", *good, "--train.micro_batch_size", "3")
    found = json.loads(out)
    assert (code, found["trainer"]) == (1, SFT)
    assert [finding["check"] for finding in found["findings"]] == ["batches_fill_devices", "host_memory"]
    assert found["findings"][0].keys() == {"severity", "what", "where", "hint", "check"}
    assert found["memory"][0].keys() == {"name", "where", "loading", "generating", "training", "formula"}
    assert {part["name"] for part in found["memory"]} >= {"weights", "gradients", "optimiser"}


def test_of_flags_that_cannot_be_read_and_of_no_run_nothing_else_is_shown(good, doctor):
    code, out, _ = doctor("--", *good, "--data.max_len", "long")
    assert (code, "optimiser" in out) == (1, False)
    assert "1 error, 0 warnings, 0 notes" in out
    for words in ([], ["--", "python", "train.py"]):
        code, out, err = doctor(*words)
        assert (code, out, err.count("\n")) == (2, "", 1)


def test_a_plan_is_of_one_command_or_of_all_that_come_in_and_says_what_it_rests_on(good, doctor, monkeypatch):
    options = ("--plan", "--gpu-memory", "48", "--assume", "teraflops=100")
    code, out, err = doctor(*options, "--", *good[1:])
    assert (code, err) == (0, "")
    assert all(part in out for part in ("hours", "teraflops = 100.0  (given)", "data sheet", "assumed"))
    monkeypatch.setattr("sys.stdin", io.StringIO(f"bash recipes/setup.sh\n{shlex.join(good[1:])}\n"))
    found = json.loads(doctor(*options, "--json")[1])
    assert [stage["name"] for stage in found["stages"]] == ["SFT (new)"]
    assert found["rates"]["teraflops"] == {"value": 100.0, "source": "given"}
    code, out, err = doctor(*options, "--", *good)
    assert (code, out, err.count("\n")) == (2, "", 1), "on a CPU"


def test_the_list_is_the_one_in_the_documentation(doctor):
    code, out, _ = doctor("--list")
    assert code == 0
    assert out in CHECKS.read_text(encoding="utf-8"), "append to its head: cellduality doctor --list"


@pytest.fixture
def printed(command):
    """Return a function that gives what the command prints."""
    return lambda *words: "".join(command("reward-path", *words)[1:])


def test_the_reward_file_is_that_of_the_package_or_one_for_a_configuration_or_for_servers(
    printed, make_config, tmp_path
):
    assert Path(printed().strip()) == REWARD_FILE
    assert REWARD_FILE.is_file()
    assert printed("--server", "http://a:5000/").count("\n") == 1, "no configuration: no place for a file"
    make_config(dual={"endpoint": {"urls": ["http://127.0.0.1:8000/v1"], "model": "toy"}})
    config = str(tmp_path / "cellduality.json")
    file = Path(printed("--config", config).strip())
    assert file == tmp_path / "cellduality.reward.py"
    assert repr(config) in file.read_text()
    file = Path(printed("--config", config, "--server", "http://a:5000/", "--server", "https://b/").strip())
    assert file == tmp_path / "cellduality.servers.py"
    assert repr(["http://a:5000/", "https://b/"]) in file.read_text()


def test_without_an_endpoint_or_an_address_that_can_be_written_down_there_is_none(make_config, tmp_path):
    make_config()
    config = tmp_path / "cellduality.json"
    with refused("no-endpoint"):
        bound_reward_file(config)
    with refused("token-in-address") as error:
        bound_reward_file(config, ["http://any:a-secret@a:5000/"])
    assert "a-secret" not in str(error.value)
    with refused("no-address"):
        bound_reward_file(config, ["a:5000"])
    assert not list(tmp_path.glob("*.py"))
