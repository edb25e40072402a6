"""The recipes as shell scripts: clean, careful, and without effect when only asked what they would do."""

from __future__ import annotations

import fcntl
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
RECIPES = sorted((ROOT / "recipes").glob("*.sh"))
PROFILES = sorted((ROOT / "recipes" / "profiles").glob("*.sh"))
RUNNABLE = [path.stem for path in RECIPES if path.stem != "common"]
STAGES = ["prepare", "traces", "pretrain", "sft", "audit", "grpo", "rounds", "evaluate", "grpo_duality"]
SHELLCHECK = Path(sys.executable).with_name("shellcheck")

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A copy of the recipes, whose own root, runs and virtual environment are all inside it."""
    folder = tmp_path / "the project"
    shutil.copytree(ROOT / "recipes", folder / "recipes")
    shutil.copy(ROOT / "pyproject.toml", folder)
    return folder


@pytest.fixture
def run(project: Path) -> Run:
    """Return a function that runs a recipe of the copy, with nothing of this process's environment."""

    def run_recipe(
        recipe: str, *arguments: str, profile: str = "cpu", **variables: str
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["bash", str(project / "recipes" / f"{recipe}.sh"), *arguments],
            env={"PATH": os.defpath, "HOME": str(project.parent), "PROFILE": profile, **variables},
            cwd=project.parent,
            capture_output=True,
            text=True,
            timeout=60,
        )

    return run_recipe


@pytest.fixture
def installed(project: Path) -> Path:
    """The copy with an environment in which every stage succeeds at once, and writes down that it was called."""
    python = project / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\necho "$*" >>"{project}/calls"\n')
    python.chmod(0o755)
    return project


def content(folder: Path) -> dict[str, bytes | None]:
    return {str(path): path.read_bytes() if path.is_file() else None for path in sorted(folder.rglob("*"))}


@pytest.mark.parametrize("path", [*RECIPES, *sorted((ROOT / "tests").glob("*.sh"))], ids=lambda path: path.name)
def test_shellcheck_has_nothing_to_say(path):
    done = subprocess.run(
        [SHELLCHECK, "-x", str(path.relative_to(ROOT))], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("path", PROFILES, ids=lambda path: path.name)
def test_shellcheck_has_nothing_to_say_about_a_profile(path):
    unused = "SC2034"  # a profile sets what a recipe uses
    done = subprocess.run(
        [SHELLCHECK, "-x", "-s", "bash", "-e", unused, str(path.relative_to(ROOT))],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("name", RUNNABLE)
def test_a_recipe_stops_at_the_first_failure_and_says_how_it_is_used(name):
    lines = (ROOT / "recipes" / f"{name}.sh").read_text(encoding="utf-8").splitlines()
    assert lines[0] == "#!/usr/bin/env bash"
    code = [line for line in lines if line and not line.startswith("#")]
    assert code[0] == "set -euo pipefail"
    head = lines[: lines.index(code[0])]
    assert any(re.match(rf"#.*bash recipes/{name}\.sh", line) for line in head), "no usage example"


@pytest.mark.parametrize("name", RUNNABLE)
def test_an_unknown_profile_is_one_line_with_the_list(name, run):
    done = run(name, profile="laptop")
    assert (done.returncode, done.stdout) == (2, "")
    [line] = done.stderr.splitlines()
    assert line.startswith("error: no profile 'laptop': use one of: ")
    assert set(line.rpartition(": ")[2].split()) == {path.stem for path in PROFILES}


@pytest.mark.parametrize("profile", [path.stem for path in PROFILES])
@pytest.mark.parametrize("name", STAGES)
def test_a_dry_run_prints_commands_and_touches_nothing(name, profile, run, project):
    before = content(project.parent)
    done = run(name, profile=profile, DRY_RUN="1", PRETRAIN="1")
    assert done.returncode == 0, done.stderr
    assert "cellduality" in done.stdout
    assert content(project.parent) == before


def test_a_dry_run_of_everything_runs_the_stages_in_order(run):
    done = run("grpo_duality", DRY_RUN="1")
    torchrun, ray = "cellduality-cpu torchrun", "cellduality-cpu python"
    marks = ["data prepare", "traces sample", "traces filter", "small-llama"]
    marks += [f"cellduality doctor -- {torchrun}", f"\n{torchrun}"] * 2
    marks += ["cellduality audit", f"cellduality doctor -- {ray}", f"\n{ray}", "evaluate", "report"]
    at = 0
    for mark in marks:
        at = done.stdout.index(f"{mark} ", at) + 1


def test_a_model_made_from_nothing_sees_cells_before_labels_and_sft_goes_on_from_there(run):
    for profile, wanted, stages in (("cpu", "", 2), ("cpu", "0", 1), ("smollm2", "", 1), ("smollm2", "1", 2)):
        printed = run("grpo_duality", profile=profile, DRY_RUN="1", ROUNDS="1", PRETRAIN=wanted).stdout
        lines = [shlex.split(line) for line in printed.splitlines()]
        told: dict[str, list[str]] = {"--model.model_name_or_path": [], "--data.dataset": [], "--ckpt.output_dir": []}
        for words in (words for words in lines if words[:2] == ["cellduality-cpu", "torchrun"]):
            for flag, values in told.items():
                values.append(Path(words[words.index(flag) + 1]).name)
        assert list(told.values()) == [
            ["base", "pretrained"][:stages],
            ["pretrain.jsonl", "sft_traces.jsonl"][-stages:],
            ["pretrained.new", "sft.new"][-stages:],
        ]
        assert [words[1] for words in lines].count("model") == 1, "made where it is needed first"
        assert ("--pretrain-views" in printed) == (stages == 2)
        [evaluated] = [words for words in lines if "evaluate" in words]
        first = evaluated[evaluated.index("--model") + 1]
        assert first.partition("=")[0] == (
            "SFT" if profile == "cpu" else "base"
        )  # what has not learned a word is left out


def test_pretraining_can_be_set(run):
    settings = {"PRETRAIN_VIEWS": "7", "CLUSTERS": "9", "PRETRAIN_EPOCHS": "6", "PRETRAIN_LR": "8e-5"}
    prepared = run("prepare", DRY_RUN="1", **settings).stdout
    assert "--pretrain-views 7 --clusters 9 " in prepared
    trained = run("pretrain", "--train.seed", "5", DRY_RUN="1", **settings).stdout
    assert "--train.max_epochs 6 " in trained
    assert "--adam.lr 8e-5 " in trained
    assert trained.splitlines()[-1].endswith("--train.seed 5 ")


def test_without_the_audit_or_pretraining_there_is_a_stage_less(run, installed):
    """Every stage is told which it is of how many."""
    calls = installed / "calls"
    for wanted, pretraining, stages in (("1", "1", 8), ("0", "1", 7), ("0", "0", 6)):
        (installed / ".venv" / "bin" / "cellduality").write_text("#!/bin/sh\n")
        (installed / ".venv" / "bin" / "cellduality").chmod(0o755)
        run_dir = installed.parent / f"run {stages}"
        for name in ("pretrained.new", "sft.new", "grpo.new", "audit"):
            (run_dir / name).mkdir(parents=True)
        (run_dir / "audit" / "audit.md").write_text("## a task\n\n- **duality** (no signal): no signal: flat\n")
        calls.write_text("")
        done = run("grpo_duality", RUN_DIR=str(run_dir), AUDIT=wanted, REWARDS="*=duality", PRETRAIN=pretraining)
        assert done.returncode == 0, done.stderr
        numbers = re.findall(r"--stage \[(\d)/(\d)\]", calls.read_text())
        assert {int(of) for _, of in numbers} == {stages}
        assert {int(number) for number, _ in numbers} == set(range(2, stages + 1))
        assert ("a task\n  duality: no signal: flat\n" in done.stderr) == (wanted == "1")


class TestChoice:
    """With REWARDS=auto the audit decides; with anything else it reports."""

    @pytest.fixture
    def folder(self, installed: Path) -> Path:
        (installed / ".venv" / "bin" / "cellduality").write_text("#!/bin/sh\necho agent.py\n")
        (installed / ".venv" / "bin" / "cellduality").chmod(0o755)
        folder = installed.parent / "a run"
        for name in ("data", "audit", "grpo.new"):
            (folder / name).mkdir(parents=True)
        return folder

    @staticmethod
    def choose(folder: Path, rows: str) -> None:
        (folder / "data" / "chosen.json").write_text("{}")
        (folder / "data" / "rl_chosen.jsonl").write_text(rows)

    @pytest.mark.parametrize("profile", ["cpu", "gpu1", "a6000x8"])
    def test_training_takes_what_the_audit_chose_unless_it_is_told_what(self, run, profile):
        for variables, chosen in (({}, True), ({"REWARDS": "*=duality"}, False), ({"AUDIT": "0"}, False)):
            printed = run("grpo_duality", profile=profile, DRY_RUN="1", **variables).stdout
            [training] = [line for line in printed.splitlines() if "train_ppo_ray" in line and " doctor " not in line]
            config, rows = ("chosen", "rl_chosen") if chosen else ("cellduality", "rl")
            assert f"/data/{config}.agent.py" in training
            assert f"/data/{rows}.jsonl " in training
            assert ("--choose" in printed) == chosen

    def test_the_data_are_prepared_with_rewards_that_are_there(self, run):
        words = shlex.split(run("prepare", DRY_RUN="1").stdout)
        assert "drug_sensitivity_prediction=posterior" in words[words.index("--rewards") + 1].split(",")
        words = shlex.split(run("prepare", DRY_RUN="1", REWARDS="").stdout.splitlines()[-1])
        assert words[words.index("--rewards") + 1] == ""

    def test_what_was_chosen_is_told_and_an_older_choice_is_forgotten(self, run, folder):
        self.choose(folder, "{}\n")
        page = "## a task\n\n**Choice.** Stays out: nothing agrees\n\n- **duality** (no signal): flat\n"
        (folder / "audit" / "audit.md").write_text(page)
        done = run("audit", RUN_DIR=str(folder))
        assert done.returncode == 0, done.stderr
        assert "a task\n  Stays out: nothing agrees\n" in done.stderr
        assert "duality" not in done.stderr
        assert not list((folder / "data").iterdir())

    def test_an_audit_that_chose_nothing_yet_is_not_finished(self, run, folder, installed):
        (folder / ".finished-audit").touch()
        (folder / "audit" / "audit.md").write_text("")
        assert run("audit", RUN_DIR=str(folder), RESUME="1", REWARDS="*=duality").returncode == 0
        assert "--stage audit" not in (installed / "calls").read_text()
        assert run("audit", RUN_DIR=str(folder), RESUME="1").returncode == 0
        assert "--stage audit" in (installed / "calls").read_text()

    def test_where_nothing_is_left_training_is_skipped_and_the_rest_compared(self, run, folder, installed):
        self.choose(folder, "")
        done = run("grpo", RUN_DIR=str(folder))
        assert done.returncode == 0, done.stderr
        assert "there is nothing to train on" in done.stderr
        assert "train_ppo_ray" not in (installed / "calls").read_text()
        assert run("evaluate", RUN_DIR=str(folder)).returncode == 0
        calls = (installed / "calls").read_text()
        assert "--model SFT=" in calls
        assert "GRPO=" not in calls

    def test_without_a_choice_training_takes_the_prepared_rewards_and_says_so(self, run, folder, installed):
        done = run("grpo", RUN_DIR=str(folder), AUDIT="0")
        assert done.returncode == 0, done.stderr
        assert "training takes those of the prepared data" in done.stderr
        assert "/data/rl.jsonl" in (installed / "calls").read_text()

    def test_another_checkpoint_has_not_been_audited(self, run, folder):
        self.choose(folder, "{}\n")
        (folder / "sft.new").mkdir()
        assert run("sft", RUN_DIR=str(folder)).returncode == 0
        assert not list((folder / "data").iterdir())


def test_an_audit_that_fails_stops_nothing_and_one_that_is_stopped_stops_all(run, installed):
    python, run_dir = installed / ".venv" / "bin" / "python", installed.parent / "a run"
    for code, ends in ((1, 0), (2, 0), (130, 130), (75, 75)):
        python.write_text(f'#!/bin/sh\ncase "$*" in *"--stage audit"*) exit {code};; esac\n')
        done = run("audit", RUN_DIR=str(run_dir))
        assert done.returncode == ends
        assert ("training goes on" in done.stderr) == (ends == 0)
        assert not (run_dir / ".finished-audit").exists()


@pytest.mark.parametrize("folder", ["a run", "it's", 'a "quoted" run', "run;true", "$HOME", "*"])
def test_any_name_will_do_for_the_run_folder(folder, run, project):
    run_dir = project.parent / folder
    done = run("grpo_duality", DRY_RUN="1", RUN_DIR=str(run_dir))
    assert done.returncode == 0, done.stderr
    words = [word for line in done.stdout.splitlines() for word in shlex.split(line)]
    assert str(run_dir / "data" / "rl.jsonl") in words
    assert str(run_dir / "grpo.new") in words


def test_a_relative_run_folder_is_made_absolute_because_workers_run_elsewhere(run, project):
    done = run("grpo", DRY_RUN="1", RUN_DIR="runs/seed 1")
    assert str(project.parent / "runs" / "seed 1").replace(" ", "\\ ") in done.stdout


def test_a_benchmark_is_the_whole_pipeline_for_each_seed_in_a_folder_of_its_own(run, project):
    before = content(project.parent)
    done = run("benchmark_seeds", DRY_RUN="1", SEEDS="3 5", RUNS_DIR=str(project.parent / "seeds"))
    assert done.returncode == 0, done.stderr
    training = [line for line in done.stdout.splitlines() if "train_ppo_ray" in line and " doctor " not in line]
    assert [re.search(r"--train\.seed (\d+)", line)[1] for line in training] == ["3", "5"]  # type: ignore[index]
    assert all(f"seeds/{seed}/grpo.new" in line for seed, line in zip((3, 5), training, strict=True))
    assert content(project.parent) == before


def test_table_6_trains_every_arm_of_every_seed_from_one_sft_checkpoint(run, project):
    before = content(project.parent)
    arms, rewards = "oracle posterior-votes duality-frozen default", "*=likelihood"
    folder = str(project.parent / "six")
    done = run("benchmark_table6", DRY_RUN="1", SEEDS="3 5", ARMS=arms, REWARDS=rewards, RUNS_DIR=folder)
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stdout.splitlines() if " doctor " not in line]
    folders = [re.search(r"six/(\d)/arms/([a-z-]+)/grpo.new", line) for line in lines if "train_ppo_ray" in line]
    assert [found.groups() for found in folders if found] == [(seed, arm) for seed in "35" for arm in arms.split()]
    assert sum("train_sft" in line for line in lines) == 2 * 2
    configured = [shlex.split(line)[3:] for line in lines if line.startswith("cellduality configure")][:4]
    votes = "cell_type_annotation,drug_exposure_prediction,drug_sensitivity_prediction"
    frozen = ["--dual-url", "http://127.0.0.1:8424/v1", "--dual-model", "sft", "--dual-key-variable", "VLLM_API_KEY"]
    assert [words[:-2] for words in configured] == [
        ["--votes", "", "--rewards", "*=oracle"],
        ["--votes", votes, "--rewards", "*=posterior"],
        [*frozen, "--votes", "", "--rewards", "*=duality"],
        [],
    ]
    assert sum(f"--model {arm}=" in line for line in lines for arm in ("base", "SFT", *arms.split())) == 2 * 6
    assert content(project.parent) == before


def test_few_labels_are_drawn_anew_for_every_seed_and_every_arm_starts_from_the_same_checkpoint(run, project):
    before = content(project.parent)
    arms = "oracle default paper self-train"
    settings = {"LABELS": "20 40", "SEEDS": "3 5", "ARMS": arms, "ALL_RUNS": str(project.parent / "few")}
    done = run("benchmark_labels", DRY_RUN="1", **settings)
    assert done.returncode == 0, done.stderr
    lines = [shlex.split(line) for line in done.stdout.splitlines() if " doctor " not in line]

    def told(flag, words):
        return [words[place + 1] for place, word in enumerate(words) if word == flag]

    prepared = [words for words in lines if "prepare" in words]
    drawn = [told("--labelled", words) + told("--label-seed", words) + told("--seed", words) for words in prepared]
    assert drawn == [[labels, seed, "42"] for labels in ("20", "40") for seed in ("3", "5")]
    trained = [" ".join(words) for words in lines if "openrlhf.cli.train_ppo_ray" in words]
    found = [re.search(r"few/(\d+)/(\d)/arms/([a-z-]+)/grpo.new", line) for line in trained]
    assert {each.groups() for each in found if each} == {
        (labels, seed, arm) for labels in ("20", "40") for seed in "35" for arm in ("oracle", "default", "paper")
    }
    paid = [words for words in lines if words[:2] == ["cellduality", "configure"] and "*=duality" in words]
    assert [told("--hidden", words) for words in paid] == [["*=0.25"]] * 4
    refits = [words for words in lines if "pseudo-label" in words]
    assert [told("--judge", words) for words in refits] == [["none"]] * 4
    assert content(project.parent) == before


def test_the_default_reward_is_chosen_on_validation_cells_by_an_audit_and_by_training(run, project):
    before = content(project.parent)
    done = run("benchmark_default", DRY_RUN="1", SEEDS="3 5", RUNS_DIR=str(project.parent / "choice"))
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stdout.splitlines() if " doctor " not in line]
    kinds = ["duality", "likelihood", "posterior"]
    arms = re.findall(r"choice/3/arms/([a-z-]+)/grpo.new", "\n".join(lines))
    assert arms == ["oracle", *(f"{kind}{dual}" for kind in kinds for dual in ("", "-frozen"))]
    assert all("--split validation" in line for line in lines if " evaluate " in line)
    audits = [shlex.split(line) for line in lines if " audit " in line]
    assert [words[words.index("--out") + 1][-7:] for words in audits] == ["3/audit", "5/audit"]
    assert {words[words.index("--rewards") + 1] for words in audits} == {",".join([*kinds, "oracle"])}
    assert content(project.parent) == before


def test_the_papers_table_has_themes_and_tells_of_no_other(run, project):
    before = content(project.parent)
    done = run("reproduce_paper", profile="a6000x8", DRY_RUN="1", SEEDS="3", THEMES="dynamics")
    assert done.returncode == 0, done.stderr
    assert content(project.parent) == before
    done = run("reproduce_paper", profile="a6000x8", DRY_RUN="1", THEMES="spatial")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines() == ["error: no theme 'spatial': use identity, dynamics or both"]


class TestLock:
    @pytest.mark.parametrize("name", STAGES)
    def test_a_second_run_in_the_same_folder_ends_at_once(self, name, run, installed):
        run_dir = installed.parent / "a run"
        run_dir.mkdir()
        with (run_dir / ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            lock.write("process 4711 since 2001-01-01 00:00:00\n")
            lock.flush()
            done = run(name, RUN_DIR=str(run_dir))
        assert done.returncode == 2
        assert done.stdout == ""
        [line] = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
        assert f"another run is going in {run_dir} (process 4711 since 2001-01-01 00:00:00)" in line
        assert "RUN_DIR=" in line
        assert not any(word in (installed / "calls").read_text() for word in ("supervise", "prepare", "train"))
        assert [path.name for path in run_dir.iterdir()] == [".lock"]
        assert "4711" in (run_dir / ".lock").read_text()

    def test_the_lock_ends_with_the_run(self, run, installed):
        run_dir = installed.parent / "a run"
        for _ in range(2):
            done = run("prepare", RUN_DIR=str(run_dir))
            assert done.returncode == 0, done.stderr
        calls = (installed / "calls").read_text()
        assert calls.count("--run-dir") == 2
        assert re.fullmatch(r"process \d+ since [\d: -]+\n", (run_dir / ".lock").read_text())

    def test_the_stages_of_one_run_share_its_lock(self, run, installed):
        run_dir = installed.parent / "a run"
        done = run("prepare", RUN_DIR=str(run_dir), CELLDUALITY_LOCK_HELD=str(run_dir))
        assert done.returncode == 0, done.stderr

    def test_a_folder_nobody_can_make_is_one_line(self, run, installed):
        (installed.parent / "file").write_text("")
        done = run("prepare", RUN_DIR=str(installed.parent / "file" / "run"))
        assert done.returncode == 2
        [line] = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
        assert "cannot write to" in line
        assert "RUN_DIR" in line


class TestSetUp:
    def test_a_second_set_up_does_nothing(self, run, installed):
        assert run("setup").returncode == 0
        calls = installed / "calls"
        first = calls.read_text()
        assert "-m pip install" in first
        assert run("setup").returncode == 0
        assert calls.read_text() == first

    def test_a_changed_lock_file_installs_again(self, run, installed):
        assert run("setup").returncode == 0
        first = (installed / "calls").read_text()
        with (installed / "recipes" / "requirements" / "cpu.lock").open("a") as lock:
            lock.write("# changed\n")
        assert run("setup").returncode == 0
        assert len((installed / "calls").read_text()) > len(first)

    def test_an_installation_that_fails_leaves_no_mark(self, run, installed):
        python = installed / ".venv" / "bin" / "python"
        python.write_text("#!/bin/sh\nexit 1\n")
        done = run("setup")
        assert done.returncode != 0
        assert not (installed / ".venv" / ".cellduality-setup").exists()
        assert any(line.startswith("error: ") for line in done.stderr.splitlines())


def test_a_finished_stage_is_skipped_on_resume_and_redone_otherwise(run, installed):
    run_dir = installed.parent / "a run"
    run_dir.mkdir()
    (run_dir / ".finished-sft").touch()
    done = run("sft", RUN_DIR=str(run_dir), RESUME="1")
    assert done.returncode == 0, done.stderr
    assert "check-sft" not in (installed / "calls").read_text()
    assert (run_dir / ".finished-sft").exists()
    (run_dir / "sft.new").mkdir()
    done = run("sft", RUN_DIR=str(run_dir))
    assert done.returncode == 0, done.stderr
    assert "check-sft" in (installed / "calls").read_text()


def test_pretraining_again_unmarks_all_that_comes_of_it_and_is_skipped_on_resume(run, installed):
    run_dir = installed.parent / "a run"
    (run_dir / "pretrained.new").mkdir(parents=True)
    for mark in ("sft", "audit", "grpo"):
        (run_dir / f".finished-{mark}").touch()
    assert run("pretrain", RUN_DIR=str(run_dir)).returncode == 0
    assert (run_dir / "pretrained").is_dir()
    assert [path.name for path in run_dir.glob(".finished-*")] == [".finished-pretrain"]
    calls = (installed / "calls").read_text()
    assert "check-pretrain" in calls
    assert run("pretrain", RUN_DIR=str(run_dir), RESUME="1").returncode == 0
    assert run("pretrain", RUN_DIR=str(run_dir), PRETRAIN="0").returncode == 0
    assert (installed / "calls").read_text() == calls


def test_training_again_replaces_the_model_and_unmarks_what_came_of_it(run, installed):
    run_dir = installed.parent / "a run"
    for name in ("sft", "sft.new"):
        (run_dir / name).mkdir(parents=True)
        (run_dir / name / "config.json").write_text(name)
    for mark in ("sft", "grpo"):
        (run_dir / f".finished-{mark}").touch()
    done = run("sft", RUN_DIR=str(run_dir))
    assert done.returncode == 0, done.stderr
    assert (run_dir / "sft" / "config.json").read_text() == "sft.new"
    assert sorted(path.name for path in run_dir.iterdir()) == [".finished-sft", ".lock", "logs", "sft"]


def test_a_training_that_fails_keeps_the_old_model(run, installed):
    run_dir = installed.parent / "a run"
    (run_dir / "sft").mkdir(parents=True)
    python = installed / ".venv" / "bin" / "python"
    python.write_text('#!/bin/sh\ncase "$*" in *supervise*train_sft*) exit 3;; esac\n')
    done = run("sft", RUN_DIR=str(run_dir))
    assert done.returncode == 3
    assert (run_dir / "sft").is_dir()
    assert not (run_dir / ".finished-sft").exists()


def test_a_stage_leaves_its_command_for_the_report(run, installed):
    run_dir = installed / "runs" / "my run"
    assert run("evaluate", RUN_DIR=str(run_dir), SEED="7").returncode == 127  # the table: no cellduality is installed
    left = {path.stem: shlex.split(path.read_text()) for path in (run_dir / "logs").glob("*.command")}
    assert set(left) == {"evaluate", "report"}
    assert left["evaluate"][left["evaluate"].index("--seed") + 1] == "7"
    assert left["report"][left["report"].index("--out") + 1] == str(run_dir / "report.html")


def test_gold_is_asked_for_and_not_by_default(run):
    assert "--gold-for-monitoring" in run("prepare", DRY_RUN="1", GOLD="1").stdout
    assert "--gold-for-monitoring" not in run("prepare", DRY_RUN="1").stdout


class TestRounds:
    """Round 1 is GRPO from the SFT checkpoint; each further one labels cells, fits a fresh model, and does GRPO."""

    @pytest.fixture
    def trained(self, installed: Path) -> Path:
        """The copy with stages that leave a model which names its folder; of the rounds, the second is the best."""
        (installed / ".venv" / "bin" / "python").write_text(
            f"""#!/bin/bash
echo "$*" >>"{installed}/calls"
if [[ "$*" == *pseudo-label* ]]; then code="${{EXIT_OF_LABELS:-0}}"; else code=0; fi
while [[ $# -gt 0 ]]; do
  case "$1" in
    --log) mkdir -p "$(dirname "$2")"; echo "pseudo-labels of a task: 5 of 5 cells" >"$2" ;;
    --ckpt.output_dir) mkdir -p "$2"; echo "$2" >"$2/config.json" ;;
    --ckpt.path) mkdir -p "$2" ;;
    --logger.tensorboard_dir) mkdir -p "$2" ;;
  esac
  shift
done
exit "$code"
"""
        )
        command = installed / ".venv" / "bin" / "cellduality"
        command.write_text(
            """#!/bin/bash
if [[ "$1" == rounds ]]; then
  case "$*" in */rounds/3*) echo "2 stop" ;; */rounds/2*) echo "2 on" ;; *) echo "1 on" ;; esac
fi
"""
        )
        command.chmod(0o755)
        (installed.parent / "a run" / "sft").mkdir(parents=True)
        return installed.parent / "a run"

    @staticmethod
    def stages(project: Path) -> list[tuple[str, str]]:
        """Return (round, stage) of what ran."""
        return re.findall(r"--stage \[round (\d)\] ([\w-]+) ", (project / "calls").read_text())

    def test_the_best_becomes_the_policy_and_no_round_follows_one_that_does_not_help(self, run, trained, installed):
        done = run("rounds", RUN_DIR=str(trained), ROUNDS="5", RL="1", KEEP="best")
        assert done.returncode == 0, done.stderr
        first = [("1", "check-grpo"), ("1", "grpo"), ("1", "evaluate")]
        further = ["pseudo", "check-sft", "sft", "check-grpo", "grpo", "evaluate"]
        assert self.stages(installed) == [*first, *((number, stage) for number in "23" for stage in further)]
        assert (trained / "grpo" / "config.json").read_text() == f"{trained}/rounds/2/grpo.new\n"
        assert (trained / "tensorboard" / "grpo").resolve() == trained / "rounds" / "2" / "tensorboard" / "grpo"
        assert (trained / ".finished-grpo").exists()
        assert not (trained / "rounds" / "2" / "checkpoints").exists()
        assert done.stderr.count("pseudo-labels of a task: 5 of 5 cells") == 2
        assert "Kept: round 2." in done.stderr

    def test_rounds_go_on_where_they_were(self, run, trained, installed):
        assert run("rounds", RUN_DIR=str(trained), RL="1", KEEP="best", ROUNDS="2").returncode == 0
        (installed / "calls").write_text("")
        assert run("rounds", RUN_DIR=str(trained), RL="1", KEEP="best", ROUNDS="2", RESUME="1").returncode == 0
        assert self.stages(installed) == []
        assert run("rounds", RUN_DIR=str(trained), RL="1", KEEP="best", ROUNDS="3", RESUME="1").returncode == 0
        assert [found for found in self.stages(installed) if found[1] != "evaluate"] == [
            ("3", stage) for stage in ("pseudo", "check-sft", "sft", "check-grpo", "grpo")
        ]
        (installed / "calls").write_text("")
        os.utime(trained / "rounds" / ".begun", (0, 0))  # another SFT checkpoint has come since
        (trained / ".finished-sft").touch()
        assert run("rounds", RUN_DIR=str(trained), RL="1", KEEP="best", ROUNDS="2", RESUME="1").returncode == 0
        assert ("1", "grpo") in self.stages(installed)

    def test_self_training_is_pseudo_labels_and_sft_alone(self, run, trained, installed):
        done = run("rounds", RUN_DIR=str(trained), RL="0", JUDGE="none", KEEP="last", ROUNDS="2")
        assert done.returncode == 0, done.stderr
        assert self.stages(installed) == [("2", "pseudo"), ("2", "check-sft"), ("2", "sft")]
        asked = shlex.split((trained / "rounds" / "2" / "logs" / "pseudo.command").read_text())
        assert asked[asked.index("--model") + 1] == str(trained / "sft")
        assert asked[asked.index("--judge") + 1] == "none"
        assert (trained / "grpo" / "config.json").read_text() == f"{trained}/rounds/2/sft.new\n"

    def test_the_last_round_may_be_grpo_alone(self, run, trained, installed):
        done = run("rounds", RUN_DIR=str(trained), RL="last", ROUNDS="3", KEEP="last")
        assert done.returncode == 0, done.stderr
        refit = [("2", stage) for stage in ("pseudo", "check-sft", "sft")]
        assert self.stages(installed) == [*refit, ("3", "check-grpo"), ("3", "grpo")]
        assert (trained / "rounds" / "3" / "sft").resolve() == trained / "rounds" / "2" / "sft"

    def test_without_a_cell_to_label_grpo_goes_on_from_sft(self, run, trained, installed):
        how = {"RUN_DIR": str(trained), "RL": "last", "ROUNDS": "3", "KEEP": "last"}
        assert run("rounds", **how, EXIT_OF_LABELS="3").returncode == 0
        assert [stage for _, stage in self.stages(installed)] == ["pseudo", "check-grpo", "grpo"]
        assert not (trained / "rounds").exists()
        assert (trained / "grpo" / "config.json").read_text() == f"{trained}/grpo.new\n"
        assert run("rounds", **how, EXIT_OF_LABELS="2").returncode == 2

    def test_a_fresh_model_is_fitted_to_the_rows_of_the_round(self, run):
        assert self.refitted(run) == ("pretrained", "rounds/2/pseudo.jsonl")
        assert self.refitted(run, PRETRAIN="0")[0] == "base"
        assert self.refitted(run, REFIT_FROM="policy")[0] == "rounds/1/grpo"

    @staticmethod
    def refitted(run: Run, **variables: str) -> tuple[str, ...]:
        """Return the model that SFT starts from and its rows, in the run's folder."""
        lines = run("rounds", DRY_RUN="1", RL="1", ROUNDS="2", **variables).stdout.splitlines()
        words = shlex.split(next(line for line in lines if line.startswith("cellduality-cpu torchrun")))
        flags = ("--model.model_name_or_path", "--data.dataset")
        return tuple(words[words.index(flag) + 1].partition("/runs/cpu/")[2] for flag in flags)

    def test_one_round_is_grpo_as_it_was(self, run):
        one, plain = run("rounds", DRY_RUN="1", ROUNDS="1").stdout, run("grpo", DRY_RUN="1").stdout
        assert one == plain
        for rounds, refits in (("1", 0), ("2", 1), ("3", 2)):
            printed = run("grpo_duality", DRY_RUN="1", ROUNDS=rounds, RL="1").stdout
            assert printed.count(" pseudo-label ") == refits
        assert run("grpo_duality", DRY_RUN="1").stdout.count(" pseudo-label ") == 1

    @pytest.mark.parametrize(
        ("variables", "message"),
        [
            ({"RL": "0", "ROUNDS": "1"}, "give two rounds or more"),
            ({"REFIT_FROM": "sft"}, "use pretrained or policy"),
            ({"KEEP": "first"}, "use best or last"),
        ],
    )
    def test_mistakes_are_told_before_anything_runs(self, variables, message, run):
        done = run("rounds", DRY_RUN="1", **variables)
        assert (done.returncode, done.stdout) == (2, "")
        assert message in done.stderr
