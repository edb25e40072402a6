"""`cellduality data prepare` from the flags to the rows: who is asked what, about which cells, for which reward."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from cellduality_plugin.cli import app
from cellduality_plugin.commands.preparing import run_config
from cellduality_plugin.config import Config
from cellduality_plugin.errors import CellDualityError
from cellduality_plugin.examples import Example
from cellduality_plugin.files import read_jsonl
from cellduality_plugin.vocabulary import Vocabulary
from data_prep.manifests import read_manifest
from data_prep.questions_of_file import tasks_of_sources
from data_prep.sources import JOINED, file_sha256
from tests.refused import refused

ANNOTATION, GENERATION = "cell_type_annotation", "conditional_cell_generation"
EXPOSURE, RESPONSE = "drug_exposure_prediction", "perturbation_response_generation"
SENSITIVITY, IDENTIFICATION = "drug_sensitivity_prediction", "perturbation_identification"
KINDS = ("B cell", "NK", "T cell")
PAIR = """
from cellduality_plugin.tasks.cell_type_annotation import CellTypeAnnotation


class Mine(CellTypeAnnotation):
    name = "mine"
"""


def write_cells(path: Path, seed: int = 0) -> Path:
    """Write counts of 90 cells of three kinds in 12 genes, half of each kind treated."""
    counts = np.random.default_rng(seed).integers(1, 60, size=(90, 12)).astype(np.float32)
    treated = np.arange(90) % 2 == 1
    obs = pd.DataFrame(
        {
            "kind": [KINDS[place // 2 % 3] for place in range(90)],
            "condition": np.where(treated, "cytokine IFN-beta", "control"),
            "compound": "IFN-beta",
            "seen": np.where(treated, "exposed", "not exposed"),
            "donor": np.arange(90) // 30 + 1,
            "guide": [None if place % 9 == 4 else f"g{place % 9 % 3}" for place in range(90)],
        },
        index=[f"cell{place:02}" for place in range(90)],
    )
    genes = pd.DataFrame(index=[f"G{place}" for place in range(12)])
    anndata.AnnData(X=counts, obs=obs, var=genes).write_h5ad(path)
    return path


@pytest.fixture
def cells(tmp_path: Path) -> Path:
    return write_cells(tmp_path / "mine.h5ad")


@pytest.fixture
def prepare(tmp_path: Path, cells: Path) -> Callable[..., Path]:
    """Return a function that prepares the cells, or those named first, and gives the folder."""

    def prepared(*words: object, sources: tuple[Path, ...] = (cells,)) -> Path:
        folder = tmp_path / "data"
        given = ["--label-column", "kind", "--labelled", 12, "--rl-rows", 24, "--min-genes", 4, *words]
        done = CliRunner().invoke(app, ["data", "prepare", *map(str, sources), "--out", str(folder), *map(str, given)])
        if done.exception is not None:
            raise done.exception
        return folder

    return prepared


def rows_of(folder: Path, name: str) -> list[dict[str, Any]]:
    return list(read_jsonl(folder / f"{name}.jsonl"))


def asked(folder: Path, name: str) -> Counter[str]:
    return Counter(row["datasource"] for row in rows_of(folder, name))


BOTH = ["pbmc68k_reduced", "kang_2018_ifnb"]
EVERY = ("cell_type", "perturbation", "drug", "sensitivity", "exposure")


@pytest.mark.parametrize(
    ("sources", "wanted", "usable", "served"),
    [
        (BOTH, [], (), [(ANNOTATION, GENERATION), (RESPONSE, EXPOSURE)]),
        (BOTH, [RESPONSE, ANNOTATION], (), [(ANNOTATION,), (RESPONSE,)]),
        (BOTH, [ANNOTATION, IDENTIFICATION], (), [(ANNOTATION,), (IDENTIFICATION,)]),
        (BOTH, [ANNOTATION, "pair.py:Mine"], (), [(ANNOTATION, "pair.py:Mine"), ("pair.py:Mine",)]),
        (["a.h5ad"], [RESPONSE], (), [(RESPONSE,)]),
        (["a.h5ad"], [], ("cell_type", "sensitivity"), [(ANNOTATION, GENERATION)]),
        (["a.h5ad"], [], ("perturbation",), [(RESPONSE, IDENTIFICATION)]),
        (["a.h5ad"], [], EVERY, [(ANNOTATION, GENERATION, SENSITIVITY, EXPOSURE, RESPONSE, IDENTIFICATION)]),
    ],
)
def test_a_set_is_asked_what_it_serves_and_what_no_set_is_known_to_serve(sources, wanted, usable, served):
    found = tasks_of_sources(sources, wanted, {"a.h5ad": usable})
    assert found == dict(zip(sources, served, strict=True))


class TestRunConfig:
    def test_every_setting_arrives(self):
        config = run_config(
            [ANNOTATION, GENERATION],
            {ANNOTATION: "likelihood"},
            shaping={"validity_power": 2.0, "validity_share": 0.1},
            dual={"temperature": 0.5, "timeout_seconds": 9.0},
        )
        assert {name: task.reward for name, task in config.tasks.items()} == {
            ANNOTATION: "likelihood",
            GENERATION: "duality",
        }
        assert {(task.validity_power, task.validity_share) for task in config.tasks.values()} == {(2.0, 0.1)}
        assert (config.dual.temperature, config.dual.timeout_seconds) == (0.5, 9.0)

    def test_a_setting_for_built_in_pairs_of_other_runs_is_left_out(self):
        counts = {"*": "2", GENERATION: "4", RESPONSE: "8"}
        config = run_config([ANNOTATION, GENERATION], {RESPONSE: "likelihood"}, traces=counts)
        assert {name: (task.reward, task.traces) for name, task in config.tasks.items()} == {
            ANNOTATION: ("duality", 2), GENERATION: ("duality", 4),
        }  # fmt: skip

    @pytest.mark.parametrize(
        ("rewards", "traces"),
        [({}, {"anotation": "1"}), ({"anotation": "likelihood"}, {})],
    )
    def test_an_unknown_task_is_refused(self, rewards, traces):
        with refused("unknown-task") as error:
            run_config([ANNOTATION], rewards, traces=traces)
        assert "'anotation'" in error.value.what

    @pytest.mark.parametrize("reward", ["half*duality+oracle", "0*duality"])
    def test_an_unreadable_reward_is_refused(self, reward):
        with pytest.raises(CellDualityError) as error:
            run_config([ANNOTATION], {ANNOTATION: reward})
        assert reward.partition("*")[0] in error.value.what


def test_only_the_rows_of_a_task_that_the_ground_truth_judges_hold_it(prepare):
    words = ["--task", f"{ANNOTATION},{GENERATION}", "--rewards"]
    plain, gold = (rows_of(prepare(*words, f"{ANNOTATION}={kind}"), "rl") for kind in ("posterior", "oracle+duality"))
    assert [row["input"] for row in gold] == [row["input"] for row in plain], "the same questions in the same order"
    golds = {name: {Example.from_label(row["label"]).gold for row in gold if row["datasource"] == name} for name in (
        ANNOTATION, GENERATION,
    )}  # fmt: skip
    assert golds[GENERATION] == {None}
    assert golds[ANNOTATION] == {*KINDS}
    assert {Example.from_label(row["label"]).gold for row in plain} == {None}


def test_a_dual_may_rebuild_the_whole_cell_and_a_question_show_less_of_it(prepare):
    folder = prepare("--task", f"{ANNOTATION},{GENERATION}", "--hidden", "1,0.5", "--thin", "0.5", "--traces", "*=2")
    for name in ("rl", "audit", "eval_test"):
        rows = [Example.from_label(row["label"]) for row in rows_of(folder, name) if row["datasource"] == ANNOTATION]
        assert rows
        assert {(*row.known, len(row.unknown), row.masks) for row in rows} == {("length", 12, ())}
        assert {len(row.inputs["cell"]) for row in rows} == {6 if name == "rl" else 12}
    duals = [row for row in rows_of(folder, "sft") if (row["datasource"], row["direction"]) == (ANNOTATION, "dual")]
    assert {len(Example.from_label(row["label"]).unknown) for row in duals} == {6}, "writing cells is told by its task"
    assert {task.traces for task in Config.load(folder / "cellduality.json").tasks.values()} == {2}


def test_gold_for_monitoring_is_all_that_it_adds(prepare):
    words = ["--task", f"{ANNOTATION},{GENERATION}"]
    (plain, before), (gold, after) = (
        (rows_of(folder, "rl"), Config.load(folder / "cellduality.json"))
        for folder in (prepare(*words, *flag) for flag in ([], ["--gold-for-monitoring"]))
    )
    assert [row["input"] for row in gold] == [row["input"] for row in plain], "the same questions in the same order"
    examples = [[Example.from_label(row["label"]) for row in rows] for rows in (plain, gold)]
    assert {example.gold for example in examples[0]} == {None}, "it is off unless it is asked for"
    assert None not in {example.gold for example in examples[1]}
    assert [replace(example, gold=None) for example in examples[1]] == examples[0]
    assert after == before


def test_records_are_kept_where_paths_start_at_the_data(prepare, tmp_path):
    assert Config.load(prepare() / "cellduality.json").records is None
    flags = ["--records", tmp_path / "rollouts", "--records-every", 2, "--records-limit", 30]
    config = Config.load(prepare(*flags) / "cellduality.json")
    assert config.records.model_dump() == {"folder": "../rollouts", "every": 2, "limit": 30}
    assert config.record_folder().resolve() == (tmp_path / "rollouts").resolve()
    with pytest.raises(CellDualityError, match=r"records\.every"):
        prepare("--records", tmp_path / "rollouts", "--records-every", 0)


def test_a_reward_that_cannot_judge_its_task_is_refused_before_anything_is_written(prepare, tmp_path):
    with pytest.raises(CellDualityError, match=r"rwjs compares ranked lists.*conditional_cell_generation"):
        prepare("--task", GENERATION, "--rewards", f"{GENERATION}=duality-rwjs")
    assert not list(tmp_path.rglob("cellduality.json"))


def test_columns_decide_what_a_file_is_asked(prepare):
    folder = prepare(
        "--perturbation-column", "condition", "--drug-column", "compound", "--exposure-column", "seen",
    )  # fmt: skip
    tasks = {ANNOTATION, GENERATION, RESPONSE, EXPOSURE, IDENTIFICATION}
    assert set(Config.load(folder / "cellduality.json").tasks) == tasks
    for name in ("sft", "rl", "eval_validation", "eval_test"):
        assert set(asked(folder, name)) == tasks
    vocabulary = Vocabulary.load(folder / "vocabulary.json")
    assert vocabulary.labels == {
        "cell_type": KINDS,
        "exposure": ("exposed", "not exposed"),
        "perturbation": ("control", "cytokine IFN-beta"),
    }
    assert not (folder / "eval_ood.jsonl").exists()


def test_untreated_cells_may_be_called_otherwise(prepare, cells):
    adata = anndata.read_h5ad(cells)
    adata.obs["condition"] = adata.obs["condition"].astype(str).replace("control", "medium")
    adata.write_h5ad(cells)
    words = ["--task", RESPONSE, "--perturbation-column", "condition"]
    for wrong in (words, [*words, "--control", "PBS"], ["--task", ANNOTATION, "--control", "medium"]):
        with refused("no-control"):
            prepare(*wrong)
    folder = prepare(*words, "--control", "medium")
    assert Vocabulary.load(folder / "vocabulary.json").labels["perturbation"] == ("control", "cytokine IFN-beta")


@pytest.fixture
def screen(tmp_path: Path) -> Callable[..., Path]:
    """Return a function that prepares a screen of 120 cells in one line; ``obs`` adds to its columns."""
    path, folder = tmp_path / "screen.h5ad", tmp_path / "screen"

    def prepared(*words: object, layer: str = "", **obs: object) -> Path:
        counts = np.random.default_rng(0).integers(1, 60, size=(120, 12)).astype(np.float32)
        given = {"target": ["NT", "Non-Targeting", "TP53", "MYC"] * 30, "batch": ["a"] * 60 + ["b"] * 60, **obs}
        index = [f"cell{place:03}" for place in range(120)]
        columns = pd.DataFrame({name: value for name, value in given.items() if value is not None}, index=index)
        genes = pd.DataFrame(index=[f"G{place}" for place in range(12)])
        matrix = {"layers": {layer: counts}} if layer else {"X": counts}
        anndata.AnnData(**matrix, obs=columns, var=genes).write_h5ad(path)
        given = ["--labelled", 12, "--rl-rows", 24, "--min-genes", 4, *words]
        done = CliRunner().invoke(app, ["data", "prepare", str(path), "--out", str(folder), *map(str, given)])
        if done.exception is not None:
            raise done.exception
        (tmp_path / "said").write_text(done.output)
        return folder

    return prepared


class TestScreens:
    def test_of_one_line_need_no_cell_types_and_usual_names_are_controls(self, screen, tmp_path):
        folder = screen("--perturbation-column", "target")
        assert Vocabulary.load(folder / "vocabulary.json").labels == {"perturbation": ("MYC", "TP53", "control")}
        for name in ("rl", "eval_test"):
            assert set(asked(folder, name)) == {RESPONSE, IDENTIFICATION}
        assert "'NT', 'Non-Targeting'" in (tmp_path / "said").read_text()
        cells = {row["id"]: row for row in rows_of(folder, "cells")}
        for row in rows_of(folder, "rl"):
            example = Example.from_label(row["label"])
            assert example.gold is None
            if row["datasource"] == IDENTIFICATION:
                assert f'"{cells[example.id]["perturbation"]}"' not in row["label"].replace('"control":', "")

    def test_past_the_bound_a_question_says_how_labels_are_written(self, screen):
        words = ["--perturbation-column", "target"]
        usual, folder = rows_of(screen(*words), "rl"), screen(*words, "--list-labels", 2)
        assert Vocabulary.load(folder / "vocabulary.json").listed == 2
        for row, short in zip(usual, rows_of(folder, "rl"), strict=True):
            assert row["label"] == short["label"]
            is_asked = row["datasource"] == IDENTIFICATION
            assert ("The perturbations are:" in row["input"], "too many to list" in short["input"]) == (is_asked,) * 2

    def test_columns_of_our_names_need_no_flag(self, screen):
        folder = screen("--drug", "nutlin 3", perturbation=["control", "drug nutlin"] * 60, exposure=["no", "yes"] * 60)
        assert set(asked(folder, "rl")) == {RESPONSE, IDENTIFICATION, EXPOSURE}
        shown = {Example.from_label(r["label"]).inputs.get("drug") for r in rows_of(folder, "rl")}
        assert shown == {None, "nutlin 3"}

    def test_named_controls_are_the_only_ones(self, screen):
        folder = screen("--perturbation-column", "target", "--control", "NT, TP53")
        assert Vocabulary.load(folder / "vocabulary.json").labels["perturbation"] == ("MYC", "Non-Targeting", "control")
        with refused("no-control"):
            screen("--perturbation-column", "target", "--control", "NT,PBS")

    def test_controls_are_matched_by_any_column(self, screen):
        folder = screen("--perturbation-column", "target", "--match", "batch")
        cells = {row["id"]: row for row in rows_of(folder, "cells")}
        paired = [row for row in cells.values() if "control" in row]
        assert len(paired) == 120
        assert all(cells[row["control"]]["batch"] == row["batch"] for row in paired)

    def test_matching_that_leaves_no_treated_cell_a_control_is_refused(self, screen):
        words = ["--perturbation-column", "target", "--match", "plate"]
        with refused("no-control"):
            screen(*words, plate=["1", "1", "2", "3"] * 30)
        with refused("unknown-column"):
            screen(*words)
        with refused("settings-clash"):
            screen("--label-column", "batch", "--match", "target")

    def test_a_label_that_all_cells_share_is_no_task_and_is_said(self, screen, tmp_path):
        words = ["--perturbation-column", "target", "--label-column", "line"]
        folder = screen(*words, line="THP-1")
        assert set(asked(folder, "sft")) == {RESPONSE, IDENTIFICATION}
        [said] = [line for line in (tmp_path / "said").read_text().splitlines() if "'THP-1'" in line]
        assert ANNOTATION in said
        with refused("one-class"):
            screen(*words, "--task", f"{ANNOTATION},{RESPONSE}", line="THP-1")
        for lost in (["--label-column", "line"], ["--perturbation-column", "line"]):
            with refused("nothing-to-ask"):
                screen(*lost, line="control")

    def test_cells_are_held_out_by_any_column_of_the_file(self, screen):
        words = ["--perturbation-column", "target", "--held-out"]
        guides = ["NT-0", "NT-1", "TP53-0", "MYC-0", "NT-0", "NT-1", "TP53-1", "MYC-1"] * 15
        rows = rows_of(screen(*words, "batch=b"), "cells")
        assert {row["batch"] for row in rows if row["split"] == "ood"} == {"b"}
        folder = screen(*words, "guide=MYC-1", guide=guides)
        splits = {row["id"]: row["split"] for row in rows_of(folder, "cells")}
        controls = {splits[row["control"]] for row in rows_of(folder, "cells") if row["split"] == "ood"}
        assert controls == {"test"}, "no untreated cell was held out"
        assert asked(folder, "eval_ood") == {RESPONSE: 15, IDENTIFICATION: 15}
        folder = screen(*words, "target=MYC")
        assert Vocabulary.load(folder / "vocabulary.json").labels["perturbation"] == ("TP53", "control")
        with refused("nothing-to-ask"):
            screen(*words, "target=MYC", "--held-out", "target=TP53")

    def test_what_was_done_to_held_out_cells_alone_is_written_and_not_named(self, screen):
        guides = ["NT-0", "NT-1", "TP53-0", "MYC-0"] * 30
        folder = screen("--perturbation-column", "target", "--held-out", "guide=MYC-0", guide=guides)
        assert asked(folder, "eval_ood") == {RESPONSE: 30}

    @pytest.mark.parametrize("words", [[], ["--control", "ctrl,NT"]])
    def test_a_combination_loses_the_controls_that_are_named_or_usual(self, screen, words):
        done = ["ctrl", "NT", "TP53+ctrl", "TP53+MYC", "MYC+TP53", "NT+ctrl"] * 20
        folder = screen("--perturbation-column", "target", *words, target=done)
        labels = Vocabulary.load(folder / "vocabulary.json").labels
        assert labels == {"perturbation": ("MYC+TP53", "TP53", "control")}

    def test_columns_may_be_called_as_in_the_file_or_as_in_questions(self, screen):
        words = ["--perturbation-column", "target", "--label-column", "batch", "--held-out"]
        by_file, by_question = (
            rows_of(screen(*words, f"{held}=b", "--match", matched), "cells")
            for held, matched in (("batch", "batch"), ("cell_type", "cell_type"))
        )
        assert by_file == by_question

    def test_a_column_that_nobody_named_and_no_question_speaks_of_leaves_no_cell_out(self, screen):
        folder = screen(
            perturbation=["NT", "TP53", "MYC"] * 40, drug=["nutlin", None] * 60, exposure=np.full(120, np.nan)
        )
        assert len(rows_of(folder, "cells")) == 120

    def test_a_file_with_nothing_but_a_layer_is_read_by_its_layer(self, screen):
        assert (
            len(rows_of(screen("--perturbation-column", "target", "--layer", "counts", layer="counts"), "cells")) == 120
        )

    def test_one_drug_is_named_once(self, screen):
        with refused("settings-clash"):
            screen("--drug", "nutlin", "--drug-column", "target", "--exposure-column", "batch")
        with refused("needs-another"):
            screen("--drug", "nutlin", "--perturbation-column", "target")
        with refused("unusable-label"):
            screen("--drug", "<nutlin>", "--exposure-column", "batch")


def with_obs(path: Path, **columns: Any) -> None:
    """Add columns to the cells."""
    adata = anndata.read_h5ad(path)
    adata.obs = adata.obs.assign(**columns)
    adata.write_h5ad(path)


def test_a_combination_is_one_label_in_any_order_and_without_its_controls(prepare, cells):
    done = ["DMSO", "KRAS+TP53", "TP53 + KRAS", "TP53+DMSO", "DMSO+TP53"]
    with_obs(cells, condition=[done[place // 6 % 5] for place in range(90)])
    folder = prepare("--task", RESPONSE, "--perturbation-column", "condition", "--control", "DMSO")
    assert Vocabulary.load(folder / "vocabulary.json").labels["perturbation"] == ("KRAS+TP53", "TP53", "control")
    assert read_manifest(folder / "rl.jsonl")["drops"][JOINED] == 54


@pytest.mark.parametrize(
    "words",
    [
        ["--drug-column", "compound"],
        ["--exposure-column", "seen"],
        ["--sensitivity-column", "seen"],
        ["--task", ANNOTATION, "--perturbation-column", "condition"],
        ["--records-every", 4],
        ["--records-limit", 4],
        ["--clusters", 4],
        ["--dual-samples", 4],
    ],
)
def test_a_flag_that_says_nothing_without_another_is_refused(prepare, words, tmp_path):
    with refused("needs-another"):
        prepare(*words)
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    ("words", "sources", "code"),
    [
        (["--matrix", "X", "--layer", "counts"], ["mine.h5ad"], "settings-clash"),
        (["--variant", "corrected"], ["mine.h5ad"], "file-only"),
        (["--species", "mouse"], ["kang_2018_ifnb"], "file-only"),
        (["--perturbation-column", "condition"], ["kang_2018_ifnb"], "file-only"),
    ],
)
def test_a_flag_for_what_is_not_there_is_refused(prepare, cells, words, sources, code):
    with refused(code):
        prepare(*words, sources=tuple(cells.parent / name if "." in name else Path(name) for name in sources))


class TestFilesOfTheUser:
    def test_an_edited_configuration_is_kept_and_never_replaced(self, prepare, capsys):
        path = prepare() / "cellduality.json"
        edited = path.read_text().replace('"validity_power": 1.0', '"validity_power": 2.0')
        path.write_text(edited)
        prepare()
        assert path.read_text() == edited
        prepare("--seed", 3)
        assert path.read_text() == edited, "other rows, the same configuration"
        with refused("not-ours") as error:
            prepare("--validity-power", 0.5)
        assert error.value.where == str(path)
        assert path.read_text() == edited
        path.unlink()
        prepare("--validity-power", 0.5)
        assert {task.validity_power for task in Config.load(path).tasks.values()} == {0.5}
        prepare("--validity-power", 0.25)
        assert {task.validity_power for task in Config.load(path).tasks.values()} == {0.25}

    @pytest.mark.parametrize("name", ["sft.jsonl", "cells.jsonl", "cellduality.json", "eval_ood.jsonl"])
    def test_a_file_of_the_users_own_is_not_replaced(self, prepare, tmp_path, name):
        mine = tmp_path / "data" / name
        mine.parent.mkdir()
        mine.write_text("mine\n")
        with refused("not-ours"):
            prepare()
        assert [path.name for path in mine.parent.iterdir()] == [name]
        assert mine.read_text() == "mine\n"


def test_labels_that_differ_by_case_are_named(prepare, cells):
    with_obs(cells, kind=["T cell", "t cell", "NK"] * 30)
    with refused("duplicate-labels") as error:
        prepare()
    assert "'T cell', 't cell'" in error.value.what


def test_what_may_be_a_mistake_is_noted(prepare, cells):
    with_obs(cells, kind=["T cell", "Unknown", "NK"] * 30)
    folder = prepare()
    [note] = read_manifest(folder / "vocabulary.json")["notes"]
    assert "'Unknown'" in note
    with_obs(cells, kind=["T cell", "nan", "NK"] * 30)
    assert Vocabulary.load(prepare() / "vocabulary.json").labels == {"cell_type": ("NK", "T cell")}
    assert "notes" not in read_manifest(folder / "vocabulary.json")


def test_sets_that_share_no_gene_are_refused(prepare, cells, tmp_path):
    other = write_cells(tmp_path / "other.h5ad", seed=1)
    adata = anndata.read_h5ad(other)
    adata.var_names = [name.lower() for name in adata.var_names]
    adata.write_h5ad(other)
    with refused("mixed-species"):
        prepare(sources=(cells, other))


def test_a_file_under_two_names_is_refused(prepare, cells, tmp_path):
    with refused("same-file"):
        prepare(sources=(cells, Path(shutil.copy(cells, tmp_path / "copy.h5ad"))))


def test_the_ending_of_a_file_may_be_written_otherwise(prepare, cells):
    upper = cells.rename(cells.with_suffix(".H5AD"))
    assert len(rows_of(prepare(sources=(upper,)), "cells")) == 90


def test_a_preparation_that_is_ended_leaves_nothing_behind(cells, tmp_path):
    """SIGTERM comes while the files are written."""
    code = (
        "import os, signal, sys\n"
        "from cellduality_plugin import cli\n"
        "from data_prep import prepare\n"
        "prepare._write = lambda path, content: (path.touch(), os.kill(os.getpid(), signal.SIGTERM))\n"
        "cli.main()\n"
    )
    words = [
        "data",
        "prepare",
        str(cells),
        "--label-column",
        "kind",
        "--labelled",
        "12",
        "--min-genes",
        "4",
        "--rl-rows",
        "4",
    ]
    command = [sys.executable, "-c", code, *words, "--out", str(tmp_path / "out" / "data")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 128 + signal.SIGTERM, done.stderr
    assert list((tmp_path / "out").iterdir()) == []


def test_shares_of_a_task_go_before_weights_and_weights_before_one(prepare):
    words = ["--task", f"{ANNOTATION}=3", "--task", GENERATION, "--weights"]
    assert asked(prepare(*words, f"{ANNOTATION}=7"), "rl") == {ANNOTATION: 18, GENERATION: 6}
    assert asked(prepare(*words, f"{GENERATION}=9,{RESPONSE}=5"), "rl") == {ANNOTATION: 6, GENERATION: 18}
    assert asked(prepare("--task", f"{GENERATION},{ANNOTATION}"), "rl") == {ANNOTATION: 12, GENERATION: 12}


def test_the_order_of_tasks_on_the_command_line_changes_nothing(prepare):
    first = prepare("--task", f"{GENERATION},{ANNOTATION}")
    content = {path.name: path.read_bytes() for path in first.glob("*.jsonl")}
    second = prepare("--task", ANNOTATION, "--task", GENERATION, "--seed", 42)
    assert {path.name: path.read_bytes() for path in second.glob("*.jsonl")} == content


def test_several_values_and_columns_can_be_held_out_of_one_of_several_sets(prepare, cells, tmp_path):
    other = write_cells(tmp_path / "other.h5ad", seed=1)
    folder = prepare(
        "--task", ANNOTATION, "--held-out", f"{other}:cell_type=NK", "--held-out", f"{other}:exposure=exposed",
        "--exposure-column", "seen", sources=(cells, other),
    )  # fmt: skip
    rows = rows_of(folder, "cells")
    assert {row["id"] for row in rows if row["split"] == "ood"} == {
        row["id"]
        for row in rows
        if row["id"].startswith("other/") and (row["cell_type"] == "NK" or row["exposure"] == "exposed")
    }
    with refused("malformed"):
        prepare("--held-out", "cell_type=NK", sources=(cells, other))  # of which set?


def test_numbers_of_cells_are_by_set_or_for_all(prepare, cells, tmp_path):
    other = write_cells(tmp_path / "other.h5ad", seed=1)
    words = ["--max-cells", f"{other}=45,kang_2018_ifnb=800", "--labelled", f"{cells}=9,{other}=6,pbmc68k_reduced=140"]
    folder = prepare(*words, sources=(cells, other))
    rows = rows_of(folder, "cells")
    assert Counter(row["id"].partition("/")[0] for row in rows) == {"mine": 90, "other": 45}
    shown = Counter(row["id"].partition("/")[0] for row in rows if row["labelled"])
    assert shown == {"mine": 9, "other": 6}


def test_a_pair_of_ones_own_is_found_from_everywhere(prepare, tmp_path, monkeypatch):
    (tmp_path / "pair.py").write_text(PAIR)
    monkeypatch.chdir(tmp_path)
    words = ["--task", "pair.py:Mine=2", "--task", GENERATION, "--rewards", "mine=likelihood", "--genes", 7]
    folder = prepare(*words)
    assert asked(folder, "rl") == {"mine": 16, GENERATION: 8}
    mine = Config.load(folder / "cellduality.json").tasks["mine"]
    assert (mine.pair, mine.reward) == (f"{tmp_path / 'pair.py'}:Mine", "likelihood")
    assert len(Vocabulary.load(folder / "vocabulary.json").genes) == 7


def test_a_built_in_set_takes_the_flags_of_a_file(prepare):
    folder = prepare("--label-column", "phase", "--max-cells", 60, "--labelled", 9, sources=(Path("pbmc68k_reduced"),))
    assert Vocabulary.load(folder / "vocabulary.json").labels["cell_type"] == ("G1", "G2M", "S")


def write_ready(folder: Path, name: str, column: str, labels: list[str]) -> str:
    """Write a ready file of a published set with twelve cells of each label; return its hash."""
    kinds = sorted(labels * 12)
    counts = np.random.default_rng(len(kinds)).integers(1, 60, size=(len(kinds), 12)).astype(np.float32)
    obs = pd.DataFrame({column: kinds}, index=[f"cell{place:03}" for place in range(len(kinds))])
    genes = pd.DataFrame(index=[f"G{place}" for place in range(12)])
    path = folder / f"{name}.h5ad"
    anndata.AnnData(X=counts, obs=obs, var=genes).write_h5ad(path)
    return file_sha256(path)


def test_ready_files_stand_for_downloads(prepare, tmp_path, monkeypatch):
    monkeypatch.setenv("CELLDUALITY_DATA", str(tmp_path))
    sorted_, clustered, lines = "pbmc_zheng2017_facs", "pbmc_10x3k", "lung_lines_10x"
    hashes = {
        sorted_: write_ready(tmp_path, sorted_, "celltype", ["CD19+ B", "CD4+ T Helper2", "CD34+"]),
        lines: write_ready(tmp_path, lines, "cell_line", ["A549", "HCC827", "H1975", "H2228"]),
        clustered: write_ready(tmp_path, clustered, "classified", ["B", "CD8 T", "DC"]),
    }
    held_out = ["--held-out", f"{lines}:cell_line=H1975"]
    words = ["--foreign", clustered, *held_out, "--labelled", 6]
    folder = prepare(*words, sources=(Path(sorted_), Path(lines)))
    assert read_manifest(folder / "cells.jsonl")["sha256_by_source"] == hashes
    asked_about = Counter((row["datasource"], row["id"].partition("/")[0]) for row in rows_of(folder, "eval_ood"))
    assert asked_about == {(ANNOTATION, clustered): 24, (SENSITIVITY, lines): 12}
    lines_of = {row["id"]: row["cell_line"] for row in rows_of(folder, "cells") if "cell_line" in row}
    assert {lines_of[row["id"]] for row in rows_of(folder, "eval_ood") if row["id"] in lines_of} == {"H1975"}
    assert set(lines_of.values()) == {"A549", "HCC827", "H1975"}


@pytest.mark.parametrize(
    ("column", "value", "held", "tasks"),
    [
        ("donor", "2", 30, {ANNOTATION, GENERATION}),  # numbers
        ("guide", "g2", 30, {ANNOTATION, GENERATION}),  # which some cells lack, and are not lost for it
        ("kind", "NK", 30, set()),  # the file's own name of what the tasks call cell_type
        ("cell_type", "NK", 30, set()),
    ],
)
def test_cells_are_held_out_by_any_column_of_obs(prepare, column, value, held, tasks):
    folder = prepare("--held-out", f"{column}={value}")
    cells = rows_of(folder, "cells")
    assert len(cells) == 90
    out = {cell["id"] for cell in cells if cell["split"] == "ood"}
    name = "cell_type" if column == "kind" else column
    assert out == {cell["id"] for cell in cells if cell[name] == value}
    assert len(out) == held
    assert {row["datasource"] for row in rows_of(folder, "eval_ood")} == tasks
    for file in ("sft", "rl", "audit", "eval_validation", "eval_test"):
        assert not {row["id"] for row in rows_of(folder, file)} & out


def test_a_drug_that_is_held_out_is_asked_about_as_the_question_names_it(prepare, cells):
    adata = anndata.read_h5ad(cells)
    adata.obs["compound"] = ["IFN-beta", "IL-6", "TNF"] * 30
    adata.write_h5ad(cells)
    columns = ["--drug-column", "compound", "--exposure-column", "seen", "--task", EXPOSURE]
    folder = prepare(*columns, "--held-out", "compound=IL-6")
    drugs = {cell["id"]: cell["drug"] for cell in rows_of(folder, "cells")}
    assert {drugs[row["id"]] for row in rows_of(folder, "eval_ood")} == {"IL-6"}
    assert "Drug: IL-6" in rows_of(folder, "eval_ood")[0]["input"]


@pytest.mark.parametrize(
    ("held_out", "code", "hint"),
    [
        (["donor=9"], "unknown-value", "1, 2, 3"),
        (["batch=9"], "unknown-column", "donor"),
        (["donor=1", "donor=2", "donor=3"], "nothing-trains", "donor"),
    ],
)
def test_what_cannot_be_held_out_is_refused(prepare, held_out, code, hint):
    with refused(code) as error:
        prepare(*(word for item in held_out for word in ("--held-out", item)))
    assert hint in error.value.hint
