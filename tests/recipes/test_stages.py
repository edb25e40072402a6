"""The stages with stand-ins for every command: locks, set-up, marks of what is finished, the choice of rewards."""

from __future__ import annotations

import fcntl
import re
import shlex
import subprocess
from pathlib import Path

import pytest

from tests.recipes.conftest import value_of

STAGES = ["prepare", "traces", "pretrain", "sft", "audit", "grpo", "rounds", "evaluate", "grpo_duality"]


@pytest.fixture
def ok(run, installed, folder):
    """Return a function that runs a recipe in the folder, which has to succeed; gives what it says."""

    def succeed(recipe: str, **variables: str) -> str:
        done = run(recipe, RUN_DIR=str(folder), **variables)
        assert done.returncode == 0, done.stderr
        return done.stderr

    return succeed


@pytest.fixture
def marks(folder):
    """Return a function that marks stages as finished, and gives those that are."""

    def mark(*names: str) -> set[str]:
        for name in names:
            (folder / f".finished-{name}").touch()
        return {path.name.removeprefix(".finished-") for path in folder.glob(".finished-*")}

    return mark


def error(done: subprocess.CompletedProcess[str]) -> str:
    """Return the one line that says why nothing was done, and how to go on."""
    assert (done.returncode, done.stdout) == (2, "")
    [line] = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert "RUN_DIR" in line
    return line


@pytest.mark.parametrize(("pretraining", "wanted", "stages"), [("1", "1", 8), ("1", "0", 7), ("0", "0", 6)])
def test_every_stage_is_told_which_it_is_of_how_many(pretraining, wanted, stages, ok, folder, calls):
    (folder / "audit").mkdir()
    (folder / "audit" / "audit.md").write_text("## a task\n\n- **duality** (no signal): no signal: flat\n")
    said = ok("grpo_duality", AUDIT=wanted, REWARDS="*=duality", PRETRAIN=pretraining, ROUNDS="1")
    numbers = re.findall(r"--stage \[(\d)/(\d)\]", calls())
    assert {int(of) for _, of in numbers} == {stages}
    assert {int(number) for number, _ in numbers} == set(range(2, stages + 1))
    assert ("a task\n  duality: no signal: flat\n" in said) == (wanted == "1")


class TestChoice:
    """With REWARDS=auto the audit decides; with anything else it reports."""

    @pytest.fixture(autouse=True)
    def trained(self, folder):
        for name in ("data", "audit"):
            (folder / name).mkdir()

    @staticmethod
    def choose(folder: Path, rows: str) -> None:
        (folder / "data" / "chosen.json").write_text("{}")
        (folder / "data" / "rl_chosen.jsonl").write_text(rows)

    def test_what_was_chosen_is_told_and_an_older_choice_is_forgotten(self, ok, folder):
        self.choose(folder, "{}\n")
        page = "## a task\n\n**Choice.** Stays out: nothing agrees\n\n- **duality** (no signal): flat\n"
        (folder / "audit" / "audit.md").write_text(page)
        said = ok("audit")
        assert "a task\n  Stays out: nothing agrees\n" in said
        assert "duality" not in said
        assert not list((folder / "data").iterdir())

    def test_an_audit_that_chose_nothing_yet_is_not_finished(self, ok, folder, marks, calls):
        marks("audit")
        (folder / "audit" / "audit.md").write_text("")
        ok("audit", RESUME="1", REWARDS="*=duality")
        assert "--stage audit" not in calls()
        ok("audit", RESUME="1")
        assert "--stage audit" in calls()

    def test_where_nothing_is_left_training_is_skipped_and_the_rest_compared(self, ok, folder, calls):
        self.choose(folder, "")
        assert "there is nothing to train on" in ok("grpo")
        assert "train_ppo_ray --" not in calls(), "set-up imports it, as well"
        ok("evaluate")
        assert re.findall(r"--model (\w+)=", calls()) == ["SFT"]

    def test_without_a_choice_training_takes_the_prepared_rewards_and_says_so(self, ok, calls):
        assert "training takes those of the prepared data" in ok("grpo", AUDIT="0")
        assert "/data/rl.jsonl" in calls()

    def test_another_checkpoint_has_not_been_audited(self, ok, folder):
        self.choose(folder, "{}\n")
        ok("sft")
        assert not list((folder / "data").iterdir())


@pytest.mark.parametrize(("code", "ends"), [(1, 0), (2, 0), (130, 130), (75, 75)])
def test_an_audit_that_fails_stops_nothing_and_one_that_is_stopped_stops_all(code, ends, run, installed, folder, marks):
    done = run("audit", RUN_DIR=str(folder), FAILS=f"--stage audit={code}")
    assert done.returncode == ends
    assert ("training goes on" in done.stderr) == (ends == 0)
    assert not marks()


@pytest.mark.parametrize(("recipe", "stage"), [("grpo", "check-grpo"), ("sft", "check-sft"), ("sft", "sft")])
def test_what_is_refused_or_fails_ends_everything_and_keeps_the_old_model(recipe, stage, run, folder, calls, marks):
    (folder / recipe).mkdir()
    assert run(recipe, RUN_DIR=str(folder), FAILS=f"--stage {stage}=3").returncode == 3
    assert re.findall(r"--stage (\S+)", calls())[-1] == stage
    assert [*(folder / recipe).iterdir()] == []
    assert not marks()


class TestLock:
    @pytest.mark.parametrize("name", STAGES)
    def test_a_second_run_in_the_same_folder_ends_at_once(self, name, run, folder, calls):
        owner = "process 4711 since 2001-01-01 00:00:00"
        with (folder / ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            lock.write(f"{owner}\n")
            lock.flush()
            done = run(name, RUN_DIR=str(folder))
        assert f"another run is going in {folder} ({owner})" in error(done)
        assert not any(word in calls() for word in ("supervise", "prepare", "train"))
        assert [path.name for path in folder.iterdir()] == [".lock"]
        assert owner in (folder / ".lock").read_text()

    def test_ends_with_the_run_and_is_shared_by_its_stages(self, ok, folder, calls):
        for held in ({}, {}, {"CELLDUALITY_LOCK_HELD": str(folder)}):
            ok("prepare", **held)
        assert calls().count("--run-dir") == 3
        assert re.fullmatch(r"process \d+ since [\d: -]+\n", (folder / ".lock").read_text())

    def test_a_folder_nobody_can_make_is_one_line(self, run, installed):
        (installed.parent / "file").write_text("")
        assert "cannot write to" in error(run("prepare", RUN_DIR=str(installed.parent / "file" / "run")))


class TestSetUp:
    def test_is_done_once_and_again_when_a_lock_file_changes(self, run, installed, calls):
        def installs() -> bool:
            assert run("setup").returncode == 0
            return "-m pip install" in calls()

        assert [installs(), installs()] == [True, False]
        with (installed / "recipes" / "requirements" / "cpu.lock").open("a") as lock:
            lock.write("# changed\n")
        assert installs()

    def test_that_fails_leaves_no_mark(self, run, program, project):
        program("python", "exit 1")
        done = run("setup")
        assert done.returncode != 0
        assert not (project / ".venv" / ".cellduality-setup").exists()
        assert any(line.startswith("error: ") for line in done.stderr.splitlines())


class TestMarks:
    def test_of_a_finished_stage_skip_it_on_resume_and_not_otherwise(self, ok, folder, marks, calls):
        marks("sft")
        ok("sft", RESUME="1")
        assert "check-sft" not in calls()
        assert marks() == {"sft"}
        ok("sft")
        assert "check-sft" in calls()

    def test_of_all_that_comes_of_pretraining_go_with_it(self, ok, folder, marks, calls):
        marks("sft", "audit", "grpo")
        ok("pretrain")
        assert (folder / "pretrained").is_dir()
        assert marks() == {"pretrain"}
        assert "check-pretrain" in calls()
        for variables in ({"RESUME": "1"}, {"PRETRAIN": "0"}):
            ok("pretrain", **variables)
            assert "check-pretrain" not in calls()

    def test_of_what_came_of_a_model_go_when_it_is_replaced(self, ok, folder, marks):
        (folder / "sft").mkdir()
        marks("sft", "grpo")
        ok("sft")
        assert (folder / "sft" / "config.json").read_text() == f"{folder}/sft.new\n"
        left = [".finished-sft", ".lock", "checkpoints", "logs", "run.toml", "sft", "tensorboard"]
        assert sorted(path.name for path in folder.iterdir()) == left


def test_a_stage_leaves_its_command_for_the_report(ok, folder):
    ok("evaluate", SEED="7")
    left = {path.stem: shlex.split(path.read_text()) for path in (folder / "logs").glob("*.command")}
    assert set(left) == {"evaluate", "report"}
    assert value_of("--seed", left["evaluate"]) == "7"
    assert value_of("--out", left["report"]) == str(folder / "report.html")


def test_the_last_model_gets_a_card_and_evaluation_ends_well_where_one_is_refused(ok, program, folder, calls):
    for refused in ("", "card"):
        program("cellduality", f'test "$1" != "{refused}"')
        assert ("no new card" in ok("evaluate")) == bool(refused)
        cards = [line for line in calls().splitlines() if line.startswith("cellduality card ")]
        assert cards == [f"cellduality card {folder}/grpo --metrics {folder}/test/metrics.json"]
