"""One home of every setting: its names, its values, who wins, and the file that a run leaves."""

from __future__ import annotations

import re
import runpy
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[2]
OWN = {  # of one recipe: SEEDS, ARMS
    name
    for path in (ROOT / "recipes").glob("*.sh")
    for name in re.findall(r"\{([A-Z0-9_]+):?=", path.read_text(encoding="utf-8"))
}
PROFILES = sorted((ROOT / "recipes" / "profiles").glob("*.toml"))


@pytest.fixture(scope="module")
def home():
    """recipes/settings.py, which is no part of the package: recipes ask it before that is installed."""
    return SimpleNamespace(**runpy.run_path(str(ROOT / "recipes" / "settings.py")))


def flat(table, place=""):
    for name, value in table.items():
        if isinstance(value, dict):
            yield from flat(value, f"{place}{name}.")
        else:
            yield f"{place}{name}", str(int(value) if isinstance(value, bool) else value)


def places(path):
    """Return {place: text} as any reader of TOML finds them; numbers as they are written."""
    return dict(flat(tomllib.loads(path.read_text(encoding="utf-8"), parse_float=str)))


@pytest.mark.parametrize("path", PROFILES, ids=lambda path: path.stem)
def test_a_profile_is_toml_of_known_settings_and_each_of_its_values_is_one(path, home):
    assert home.read(path) == places(path)
    settings = {place: text for place, text in home.profile_of(path.stem).items() if not re.match("exp|back", place)}
    values = home.resolved({"PROFILE": path.stem}, home.checked("", settings, formulas=True))
    assert [name for name, setting in home.SETTINGS.items() if values[name] and not setting.takes(values[name])] == []


def test_what_is_set_wins_over_the_environment_the_run_file_the_profile_and_the_default(dry, project):
    path = project.parent / "my.toml"
    path.write_text("sft.epochs = 7\n[data]\nn_labelled = 50\nn_rl = 640  # two rollouts\n[sft]\nlr = 1e-4\n")
    given = {"RUN_FILE": str(path), "SFT_EPOCHS": "8", "N_RL": "960"}
    printed = dry("grpo_duality", "--set", "sft.epochs=9", "--set", "SEED=3", "--actor.max_norm", "0.5", **given)
    flags = "--train.max_epochs 9 --rl-rows 960 --labelled 50 --adam.lr 1e-4 --top-genes 48 --train.seed 3"
    for flag in re.findall(r"--\S+ \S+", f"{flags} --actor.max_norm 0.5"):
        assert flag in printed
    assert "--train.seed 42 " not in printed
    assert "--set " not in printed


@pytest.mark.parametrize(
    ("recipe", "variables", "told"),
    [
        ("grpo_duality", {"PROFILE": "laptop"}, r"no profile 'laptop': use one of: a6000x8 cpu gpu1 gpu24 .*"),
        ("grpo_duality", {"RUN_DIR": "a,b"}, r"RUN_DIR .*/a,b holds a comma or an @: .*"),
        ("reproduce_paper", {"THEMES": "spatial"}, r"no theme 'spatial': use identity, dynamics or both"),
        ("rounds", {"RL": "0", "ROUNDS": "1"}, r"nothing to do: .*: give two rounds or more"),
        ("rounds", {"REFIT_FROM": "sft"}, r"no REFIT_FROM=sft: use pretrained or policy"),
        ("prepare", {"HIDDEN": "abc"}, r"no HIDDEN=abc: use shares .*"),
        ("sft", {"NLABELLED": "200"}, r"NLABELLED is no setting: did you mean N_LABELLED\? .*"),
        ("grpo", {"RUN_FILE": "nowhere.toml"}, r"no file nowhere.toml: .*"),
        ("sft", "sft.epoch = 4", r"no setting sft.epoch .*my.toml.*: did you mean sft.epochs.*"),
        ("sft", "sft.epochs = 0", r"no sft.epochs=0 .*my.toml.*: use a whole number from 1"),
        ("sft", "[sft]\nepochs = four", r".*my.toml, line 2 is not NAME = VALUE.*"),
        ("sft", "sft.epochs = 4\n[sft]\nepochs = 5", r".*my.toml, line 3 has sft.epochs again.*"),
    ],
)
def test_a_mistake_is_one_line_before_anything_runs(recipe, variables, told, run, project):
    if isinstance(variables, str):
        (project.parent / "my.toml").write_text(variables)
        variables = {"RUN_FILE": "my.toml"}
    done = run(recipe, DRY_RUN="1", **variables)
    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch(rf"error: {told}\n", done.stderr)


def test_the_file_that_a_run_leaves_gives_the_same_run_again(run, dry, installed):
    given = {"SFT_EPOCHS": "9", "HELD_OUT": "my set:cell type=B \"naïve\" 'x' #1", "REWARDS": "", "OFFLOAD": ""}
    folder = installed.parent / "a run"
    assert run("prepare", "--set", "grpo.kl=0.5", RUN_DIR=str(folder), **given).returncode == 0
    left = folder / "run.toml"
    written = left.read_text(encoding="utf-8")
    assert places(left)["data.held_out"] == given["HELD_OUT"]
    assert dry("grpo_duality", profile="", RUN_FILE=str(left)) == dry("grpo_duality", KL="0.5", **given)
    assert run("traces", RUN_DIR=str(folder), SFT_EPOCHS="5").returncode == 0
    assert left.read_text(encoding="utf-8") == written, "a stage does not say what the whole run is"


def test_help_lists_every_setting_and_readmes_name_no_other(run, home):
    done = run("benchmark_labels", "--help", DRY_RUN="1")
    assert done.returncode == 0
    listed = re.findall(r"^([a-z0-9_.]+) = .* # ([A-Z0-9_]+) \(", done.stdout, re.MULTILINE)
    assert dict(listed) == {setting.place: name for name, setting in home.SETTINGS.items()}
    assert 'data.dataset = "pbmc_zheng2017_facs"' in done.stdout
    named = re.findall(r"\b([A-Z][A-Z0-9_]+)=", (ROOT / "recipes" / "README.md").read_text(encoding="utf-8"))
    assert {*named} <= home.SETTINGS.keys() | OWN
    assert not home.nearest("RAY_ADDRESS", 0.86), "another program's"
