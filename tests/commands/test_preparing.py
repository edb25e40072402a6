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

from cellduality_plugin.commands.preparing import run_config
from cellduality_plugin.config import Config
from cellduality_plugin.examples import Example
from cellduality_plugin.files import read_jsonl
from cellduality_plugin.vocabulary import Vocabulary
from data_prep.h5ad.loaders import MISSING_LABEL
from data_prep.manifests import read_manifest
from data_prep.sources import JOINED, file_sha256, tasks_of_sources
from tests.commands.conftest import invoke
from tests.refused import refused

ANNOTATION, GENERATION = "cell_type_annotation", "conditional_cell_generation"
EXPOSURE, RESPONSE = "drug_exposure_prediction", "perturbation_response_generation"
SENSITIVITY, IDENTIFICATION = "drug_sensitivity_prediction", "perturbation_identification"
KINDS = ("B cell", "NK", "T cell")
OURS = ["--label-column", "kind"]
SCREEN = ["--perturbation-column", "target"]


def write_file(path: Path, obs: dict[str, Any], seed: int = 0, layer: str = "") -> Path:
    """Write counts of as many cells as ``obs`` says something of, in 12 genes."""
    columns = pd.DataFrame({name: values for name, values in obs.items() if values is not None})
    columns.index = [f"cell{place:03}" for place in range(len(columns))]
    counts = np.random.default_rng(seed).integers(1, 60, size=(len(columns), 12)).astype(np.float32)
    genes = pd.DataFrame(index=[f"G{place}" for place in range(12)])
    matrix = {"layers": {layer: counts}} if layer else {"X": counts}
    anndata.AnnData(**matrix, obs=columns, var=genes).write_h5ad(path)
    return path


def write_cells(path: Path, seed: int = 0, **obs: Any) -> Path:
    """Write 90 cells of three kinds, half of each kind treated; ``obs`` are other columns."""
    treated = np.arange(90) % 2 == 1
    columns: dict[str, Any] = {
        "kind": [KINDS[place // 2 % 3] for place in range(90)],
        "condition": np.where(treated, "cytokine IFN-beta", "control"), "compound": "IFN-beta",
        "seen": np.where(treated, "exposed", "not exposed"), "donor": np.arange(90) // 30 + 1,
        "guide": [None if place % 9 == 4 else f"g{place % 9 % 3}" for place in range(90)], **obs,
    }  # fmt: skip
    return write_file(path, columns, seed)


@pytest.fixture
def cells(tmp_path: Path) -> Path:
    return write_cells(tmp_path / "mine.h5ad")


@pytest.fixture
def prepare(tmp_path: Path, cells: Path) -> Callable[..., Path]:
    """Return a function that prepares the cells, or other sources, and gives the folder."""

    def prepared(*words: object, sources: tuple[Path, ...] = (cells,)) -> Path:
        folder = tmp_path / "data"
        usual = ["--labelled", 12, "--rl-rows", 24, "--min-genes", 4, *(OURS if cells in sources else [])]
        (tmp_path / "said").write_text(invoke("data", "prepare", *sources, "--out", folder, *usual, *words))
        return folder

    return prepared


@pytest.fixture
def screen(tmp_path: Path, prepare) -> Callable[..., Path]:
    """Return a function that prepares a screen of 120 cells in one line; ``obs`` adds to its columns."""

    def prepared(*words: object, layer: str = "", **obs: object) -> Path:
        columns = {"target": ["NT", "Non-Targeting", "TP53", "MYC"] * 30, "batch": ["a"] * 60 + ["b"] * 60, **obs}
        return prepare(*words, sources=(write_file(tmp_path / "screen.h5ad", columns, layer=layer),))

    return prepared


def rows_of(folder: Path, name: str) -> list[dict[str, Any]]:
    return list(read_jsonl(folder / f"{name}.jsonl"))


def examples_of(folder: Path, name: str, task: str = "") -> list[Example]:
    rows = rows_of(folder, name)
    return [Example.from_label(row["label"]) for row in rows if task in ("", row["datasource"])]


def asked(folder: Path, name: str) -> Counter[str]:
    return Counter(row["datasource"] for row in rows_of(folder, name))


def labels_of(folder: Path) -> dict[str, tuple[str, ...]]:
    return dict(Vocabulary.load(folder / "vocabulary.json").labels)


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
        (["a.h5ad"], [], EVERY, [(ANNOTATION, GENERATION, SENSITIVITY, EXPOSURE, RESPONSE, IDENTIFICATION)]),
    ],
)
def test_a_set_is_asked_what_it_serves_and_what_no_set_is_known_to_serve(sources, wanted, usable, served):
    found = tasks_of_sources(sources, wanted, {"a.h5ad": usable})
    assert found == dict(zip(sources, served, strict=True))


def test_settings_reach_the_tasks_of_this_run_and_those_of_other_built_in_pairs_are_left_out():
    counts, shaping = {"*": "2", GENERATION: "4", RESPONSE: "8"}, {"validity_power": 2.0, "validity_share": 0.1}
    rewards = {ANNOTATION: "likelihood", RESPONSE: "likelihood"}
    config = run_config([ANNOTATION, GENERATION], rewards, traces=counts, shaping=shaping, dual={"temperature": 0.5})
    found = {name: (task.reward, task.traces, task.validity_power) for name, task in config.tasks.items()}
    assert found == {ANNOTATION: ("likelihood", 2, 2.0), GENERATION: ("duality", 4, 2.0)}
    assert config.dual.temperature == 0.5
    for slip in ({"rewards": {"anotation": "likelihood"}}, {"rewards": {}, "traces": {"anotation": "1"}}):
        with refused("unknown-task"):
            run_config([ANNOTATION], **slip)
    with refused("wrong-reward"):
        run_config([ANNOTATION], {ANNOTATION: "0*duality"})


def test_rows_hold_the_truth_where_the_reward_reads_it_or_the_log_shall(prepare):
    words = ["--task", f"{ANNOTATION},{GENERATION}", "--rewards"]
    plain, oracle, monitored = (
        (rows_of(folder, "rl"), examples_of(folder, "rl"), Config.load(folder / "cellduality.json"))
        for folder in (
            prepare(*words, f"{ANNOTATION}={reward}", *more)
            for reward, more in (("duality", []), ("oracle+duality", []), ("duality", ["--gold-for-monitoring"]))
        )
    )
    for rows, *_ in (oracle, monitored):
        assert [row["input"] for row in rows] == [row["input"] for row in plain[0]], "the same questions in their order"
    assert {example.gold for example in plain[1]} == {None}
    assert {example.gold for example in oracle[1] if example.task == GENERATION} == {None}
    assert {example.gold for example in oracle[1] if example.task == ANNOTATION} == {*KINDS}
    assert None not in {example.gold for example in monitored[1]}
    assert [replace(example, gold=None) for example in monitored[1]] == plain[1]
    assert monitored[2] == plain[2]


def test_a_dual_may_rebuild_the_whole_cell_and_a_question_show_less_of_it(prepare):
    folder = prepare("--task", f"{ANNOTATION},{GENERATION}", "--hidden", "1,0.5", "--thin", "0.5", "--traces", "*=2")
    for name in ("rl", "audit", "eval_test"):
        rows = examples_of(folder, name, ANNOTATION)
        assert {(*row.known, len(row.unknown), row.masks) for row in rows} == {("length", 12, ())}
        assert {len(row.inputs["cell"]) for row in rows} == {6 if name == "rl" else 12}
    duals = [row for row in rows_of(folder, "sft") if (row["datasource"], row["direction"]) == (ANNOTATION, "dual")]
    assert {len(Example.from_label(row["label"]).unknown) for row in duals} == {6}, "writing cells is told by its task"
    assert {task.traces for task in Config.load(folder / "cellduality.json").tasks.values()} == {2}


def test_records_are_kept_where_paths_start_at_the_data(prepare, tmp_path):
    assert Config.load(prepare() / "cellduality.json").records is None
    flags = ["--records", tmp_path / "rollouts", "--records-every", 2, "--records-limit", 30]
    config = Config.load(prepare(*flags) / "cellduality.json")
    assert config.records.model_dump() == {"folder": "../rollouts", "every": 2, "limit": 30}


def test_columns_decide_what_a_file_is_asked(prepare):
    folder = prepare("--perturbation-column", "condition", "--drug-column", "compound", "--exposure-column", "seen")
    tasks = {ANNOTATION, GENERATION, RESPONSE, EXPOSURE, IDENTIFICATION}
    assert set(Config.load(folder / "cellduality.json").tasks) == tasks
    for name in ("sft", "rl", "eval_validation", "eval_test"):
        assert set(asked(folder, name)) == tasks
    perturbations, exposures = ("control", "cytokine IFN-beta"), ("exposed", "not exposed")
    assert labels_of(folder) == {"cell_type": KINDS, "exposure": exposures, "perturbation": perturbations}
    assert not (folder / "eval_ood.jsonl").exists()


class TestScreens:
    def test_of_one_line_need_no_cell_types_and_usual_names_are_controls(self, screen, tmp_path):
        folder = screen(*SCREEN)
        assert labels_of(folder) == {"perturbation": ("MYC", "TP53", "control")}
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
        folder = screen(*SCREEN, "--list-labels", 2)
        assert Vocabulary.load(folder / "vocabulary.json").listed == 2
        for row in rows_of(folder, "rl"):
            assert ("too many to list" in row["input"]) == (row["datasource"] == IDENTIFICATION)

    def test_columns_of_our_names_need_no_flag_and_those_of_no_question_leave_no_cell_out(self, screen):
        done = {"perturbation": ["control", "drug nutlin"] * 60}
        folder = screen("--drug", "nutlin 3", **done, exposure=["no", "yes"] * 60)
        assert set(asked(folder, "rl")) == {RESPONSE, IDENTIFICATION, EXPOSURE}
        assert {example.inputs.get("drug") for example in examples_of(folder, "rl")} == {None, "nutlin 3"}
        folder = screen(**done, drug=["nutlin", None] * 60, exposure=np.full(120, np.nan))
        assert len(rows_of(folder, "cells")) == 120

    def test_named_controls_are_the_only_ones_and_combinations_lose_them(self, screen):
        folder = screen(*SCREEN, "--control", "NT, TP53")
        assert labels_of(folder)["perturbation"] == ("MYC", "Non-Targeting", "control")
        done = ["ctrl", "NT", "TP53+ctrl", "TP53+MYC", "MYC + TP53", "NT+ctrl"] * 20
        for words in ([], ["--control", "ctrl,NT"]):
            folder = screen(*SCREEN, *words, target=done)
            assert labels_of(folder) == {"perturbation": ("MYC+TP53", "TP53", "control")}
        assert read_manifest(folder / "rl.jsonl")["drops"][JOINED] > 0

    def test_controls_are_matched_by_any_column_as_the_file_or_the_questions_call_it(self, screen):
        cells = {row["id"]: row for row in rows_of(screen(*SCREEN, "--match", "batch"), "cells")}
        paired = [row for row in cells.values() if "control" in row]
        assert len(paired) == 120
        assert all(cells[row["control"]]["batch"] == row["batch"] for row in paired)
        by_file, by_question = (
            rows_of(screen(*SCREEN, "--label-column", "batch", "--held-out", f"{name}=b", "--match", name), "cells")
            for name in ("batch", "cell_type")
        )
        assert by_file == by_question

    def test_a_label_that_all_cells_share_is_no_task_and_is_said(self, screen, tmp_path):
        words = [*SCREEN, "--label-column", "line"]
        assert set(asked(screen(*words, line="THP-1"), "sft")) == {RESPONSE, IDENTIFICATION}
        [said] = [line for line in (tmp_path / "said").read_text().splitlines() if "'THP-1'" in line]
        assert ANNOTATION in said

    def test_guides_and_perturbations_are_held_out(self, screen):
        words = [*SCREEN, "--held-out"]
        guides = ["NT-0", "NT-1", "TP53-0", "MYC-0", "NT-0", "NT-1", "TP53-1", "MYC-1"] * 15
        folder = screen(*words, "guide=MYC-1", guide=guides)
        splits = {row["id"]: row["split"] for row in rows_of(folder, "cells")}
        controls = {splits[row["control"]] for row in rows_of(folder, "cells") if row["split"] == "ood"}
        assert controls == {"test"}, "no untreated cell was held out"
        assert asked(folder, "eval_ood") == {RESPONSE: 15, IDENTIFICATION: 15}
        folder = screen(*words, "guide=MYC-0", guide=["NT-0", "NT-1", "TP53-0", "MYC-0"] * 30)
        assert asked(folder, "eval_ood") == {RESPONSE: 30}, "what no training cell went through cannot be named"
        assert labels_of(screen(*words, "target=MYC"))["perturbation"] == ("TP53", "control")

    def test_a_file_with_nothing_but_a_layer_is_read_by_its_layer(self, screen):
        assert len(rows_of(screen(*SCREEN, "--layer", "counts", layer="counts"), "cells")) == 120

    @pytest.mark.parametrize(
        ("code", "words", "obs"),
        [
            ("no-control", [*SCREEN, "--control", "NT,PBS"], {}),
            ("no-control", [*SCREEN, "--match", "plate"], {"plate": ["1", "1", "2", "3"] * 30}),
            ("unknown-column", [*SCREEN, "--match", "plate"], {}),
            ("settings-clash", ["--label-column", "batch", "--match", "target"], {}),
            ("one-class", [*SCREEN, "--label-column", "line", "--task", f"{ANNOTATION},{RESPONSE}"], {"line": "THP-1"}),
            ("nothing-to-ask", ["--label-column", "line"], {"line": "control"}),
            ("nothing-to-ask", ["--perturbation-column", "line"], {"line": "control"}),
            ("nothing-to-ask", [*SCREEN, "--held-out", "target=MYC", "--held-out", "target=TP53"], {}),
            ("settings-clash", ["--drug", "nutlin", "--drug-column", "target", "--exposure-column", "batch"], {}),
            ("needs-another", ["--drug", "nutlin", *SCREEN], {}),
            ("unusable-label", ["--drug", "<nutlin>", "--exposure-column", "batch"], {}),
            ("unusable-label", SCREEN, {"target": ["NT", "x" * 501] * 60}),
            ("told-by-question", ["--drug-column", "target", "--exposure-column", "seen"], {"seen": [*"nnyy"] * 30}),
        ],
    )
    def test_that_cannot_be_prepared_so_are_refused(self, screen, code, words, obs):
        with refused(code):
            screen(*words, **obs)


@pytest.mark.parametrize(
    ("code", "words", "source"),
    [
        *(
            ("needs-another", words, "")
            for words in (
                ["--drug-column", "compound"], ["--exposure-column", "seen"], ["--sensitivity-column", "seen"],
                ["--task", ANNOTATION, "--perturbation-column", "condition"], ["--records-every", 4],
                ["--records-limit", 4], ["--clusters", 4], ["--dual-samples", 4],
            )
        ),
        ("settings-clash", ["--matrix", "X", "--layer", "counts"], ""),
        ("file-only", ["--variant", "corrected"], ""),
        ("file-only", ["--species", "mouse"], "kang_2018_ifnb"),
        ("file-only", ["--perturbation-column", "condition"], "kang_2018_ifnb"),
        ("no-control", ["--task", RESPONSE, "--perturbation-column", "guide"], ""),
        ("no-control", ["--task", ANNOTATION, "--control", "medium"], ""),
        ("needs-lists", ["--task", GENERATION, "--rewards", f"{GENERATION}=duality-rwjs"], ""),
        ("wrong-settings", ["--records", "rollouts", "--records-every", 0], ""),
        ("unknown-value", ["--held-out", "donor=9"], ""),
        ("unknown-column", ["--held-out", "batch=9"], ""),
        ("nothing-trains", [word for number in "123" for word in ("--held-out", f"donor={number}")], ""),
    ],
)  # fmt: skip
def test_what_says_nothing_or_cannot_be_is_refused_and_nothing_is_written(prepare, code, words, source, tmp_path):
    with refused(code):
        prepare(*words, **({"sources": (Path(source),)} if source else {}))
    assert not list(tmp_path.rglob("cellduality.json"))


class TestFilesOfTheUser:
    def test_an_edited_configuration_is_kept_and_never_replaced(self, prepare):
        path = prepare() / "cellduality.json"
        edited = path.read_text().replace('"validity_power": 1.0', '"validity_power": 2.0')
        path.write_text(edited)
        for words in ([], ["--seed", 3]):  # other rows, the same configuration
            prepare(*words)
            assert path.read_text() == edited
        with refused("not-ours"):
            prepare("--validity-power", 0.5)
        assert path.read_text() == edited
        path.unlink()
        for power in (0.5, 0.25):
            prepare("--validity-power", power)
            assert {task.validity_power for task in Config.load(path).tasks.values()} == {power}

    @pytest.mark.parametrize("name", ["sft.jsonl", "cells.jsonl", "cellduality.json", "eval_ood.jsonl"])
    def test_a_file_of_the_users_own_is_not_replaced(self, prepare, tmp_path, name):
        mine = tmp_path / "data" / name
        mine.parent.mkdir()
        mine.write_text("mine\n")
        with refused("not-ours"):
            prepare()
        assert [path.name for path in mine.parent.iterdir()] == [name]
        assert mine.read_text() == "mine\n"


@pytest.mark.parametrize(
    ("kinds", "labels", "lost"),
    [
        (["T cell", "T \u00a0cell\u200b", "NK"], ("NK", "T cell"), 0),
        (["M\u00fcller", "Mu\u0308ller", "\ufeffNK"], ("M\u00fcller", "NK"), 0),
        (["T cell", "?", "NK"], ("NK", "T cell"), 30),
        (["T cell", "#N/A", "not screened"], (), 60),
    ],
)
def test_a_label_is_what_is_seen_of_it_and_what_says_that_there_is_none_is_none(prepare, tmp_path, kinds, labels, lost):
    write_cells(tmp_path / "mine.h5ad", kind=kinds * 30)
    if labels:
        folder = prepare()
        assert labels_of(folder)["cell_type"] == labels
        assert read_manifest(folder / "cells.jsonl")["drops"] == ({MISSING_LABEL: lost} if lost else {})
    else:
        with refused("nothing-to-ask"):
            prepare()


def test_what_may_be_a_mistake_is_noted_and_labels_that_differ_by_case_are_named(prepare, tmp_path):
    def notes(*kinds: str) -> list[str]:
        write_cells(tmp_path / "mine.h5ad", kind=[*kinds] * 30)
        return read_manifest(prepare() / "vocabulary.json").get("notes", [])

    for unknown in ("Unknown", "low-quality cells"):
        [note] = notes("T cell", unknown, "NK")
        assert repr(unknown) in note
    assert notes("T cell", "nan", "NK") == []
    assert labels_of(tmp_path / "data") == {"cell_type": ("NK", "T cell")}
    with refused("duplicate-labels") as error:
        notes("T cell", "t cell", "NK")
    assert "'T cell', 't cell'" in error.value.what


def test_two_files_share_genes_and_are_two_whatever_their_ending(prepare, cells, tmp_path):
    other = write_cells(tmp_path / "other.h5ad", seed=1)
    adata = anndata.read_h5ad(other)
    adata.var_names = [name.lower() for name in adata.var_names]
    adata.write_h5ad(other)
    with refused("mixed-species"):
        prepare(sources=(cells, other))
    with refused("same-file"):
        prepare(sources=(cells, Path(shutil.copy(cells, tmp_path / "copy.h5ad"))))
    upper = cells.rename(cells.with_suffix(".H5AD"))
    assert len(rows_of(prepare(*OURS, sources=(upper,)), "cells")) == 90


def test_a_preparation_that_is_ended_leaves_nothing_behind(cells, tmp_path):
    """SIGTERM comes while the files are written."""
    code = (
        "import os, signal, sys\n"
        "from cellduality_plugin import cli\n"
        "from data_prep import prepare\n"
        "prepare._write = lambda path, content: (path.touch(), os.kill(os.getpid(), signal.SIGTERM))\n"
        "cli.main()\n"
    )
    words = ["data", "prepare", cells, *OURS, "--labelled", 12, "--min-genes", 4, "--rl-rows", 4]
    command = [sys.executable, "-c", code, *map(str, words), "--out", str(tmp_path / "out" / "data")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 128 + signal.SIGTERM, done.stderr
    assert list((tmp_path / "out").iterdir()) == []


def test_shares_of_a_task_go_before_weights_and_weights_before_one_in_any_order(prepare):
    words = ["--task", f"{ANNOTATION}=3", "--task", GENERATION, "--weights"]
    assert asked(prepare(*words, f"{ANNOTATION}=7"), "rl") == {ANNOTATION: 18, GENERATION: 6}
    assert asked(prepare(*words, f"{GENERATION}=9,{RESPONSE}=5"), "rl") == {ANNOTATION: 6, GENERATION: 18}
    folder = prepare("--task", f"{GENERATION},{ANNOTATION}")
    assert asked(folder, "rl") == {ANNOTATION: 12, GENERATION: 12}
    content = {path.name: path.read_bytes() for path in folder.glob("*.jsonl")}
    prepare("--task", ANNOTATION, "--task", GENERATION, "--seed", 42)
    assert {path.name: path.read_bytes() for path in folder.glob("*.jsonl")} == content


def test_values_and_numbers_are_given_by_set_or_for_all(prepare, cells, tmp_path):
    other = write_cells(tmp_path / "other.h5ad", seed=1)
    held = ["--held-out", f"{other}:cell_type=NK", "--held-out", f"{other}:exposure=exposed"]
    rows = rows_of(prepare("--task", ANNOTATION, *held, "--exposure-column", "seen", sources=(cells, other)), "cells")
    out = [row for row in rows if row["id"].startswith("other/")]
    out = [row for row in out if row["cell_type"] == "NK" or row["exposure"] == "exposed"]
    assert [row for row in rows if row["split"] == "ood"] == out != []
    with refused("malformed"):
        prepare("--held-out", "cell_type=NK", sources=(cells, other))  # of which set?
    words = ["--max-cells", f"{other}=45,kang_2018_ifnb=800", "--labelled", f"{cells}=9,{other}=6,pbmc68k_reduced=140"]
    rows = rows_of(prepare(*words, sources=(cells, other)), "cells")
    assert Counter(row["id"].partition("/")[0] for row in rows) == {"mine": 90, "other": 45}
    shown = Counter(row["id"].partition("/")[0] for row in rows if row["labelled"])
    assert shown == {"mine": 9, "other": 6}


def test_ready_files_stand_for_downloads(prepare, tmp_path, monkeypatch):
    monkeypatch.setenv("CELLDUALITY_DATA", str(tmp_path))
    sorted_, clustered, lines = "pbmc_zheng2017_facs", "pbmc_10x3k", "lung_lines_10x"
    ready = {
        sorted_: {"celltype": ["CD19+ B", "CD34+", "CD4+ T Helper2"] * 12},
        lines: {"cell_line": ["A549", "H1975", "H2228", "HCC827"] * 12},
        clustered: {"classified": ["B", "CD8 T", "DC"] * 12},
    }
    hashes = {name: file_sha256(write_file(tmp_path / f"{name}.h5ad", obs, len(name))) for name, obs in ready.items()}
    words = ["--foreign", clustered, "--held-out", f"{lines}:cell_line=H1975", "--labelled", 6]
    folder = prepare(*words, sources=(Path(sorted_), Path(lines)))
    assert read_manifest(folder / "cells.jsonl")["sha256_by_source"] == hashes
    asked_about = Counter((row["datasource"], row["id"].partition("/")[0]) for row in rows_of(folder, "eval_ood"))
    assert asked_about == {(ANNOTATION, clustered): 24, (SENSITIVITY, lines): 12}
    lines_of = {row["id"]: row["cell_line"] for row in rows_of(folder, "cells") if "cell_line" in row}
    assert {lines_of[row["id"]] for row in rows_of(folder, "eval_ood") if row["id"] in lines_of} == {"H1975"}
    assert set(lines_of.values()) == {"A549", "HCC827", "H1975"}


@pytest.mark.parametrize(
    ("column", "value", "tasks"),
    [
        ("donor", "2", {ANNOTATION, GENERATION}),  # numbers
        ("guide", "g2", {ANNOTATION, GENERATION}),  # which some cells lack, and are not lost for it
        ("kind", "NK", set()),  # the file's own name of what the tasks call cell_type
        ("cell_type", "NK", set()),
    ],
)
def test_cells_are_held_out_by_any_column_of_obs(prepare, column, value, tasks):
    folder = prepare("--held-out", f"{column}={value}")
    cells = rows_of(folder, "cells")
    out = {cell["id"] for cell in cells if cell["split"] == "ood"}
    assert out == {cell["id"] for cell in cells if cell["cell_type" if column == "kind" else column] == value}
    assert (len(cells), len(out)) == (90, 30)
    assert {row["datasource"] for row in rows_of(folder, "eval_ood")} == tasks
    for file in ("sft", "rl", "audit", "eval_validation", "eval_test"):
        assert not {row["id"] for row in rows_of(folder, file)} & out


def test_a_drug_that_is_held_out_is_asked_about_as_the_question_names_it(prepare, tmp_path):
    write_cells(tmp_path / "mine.h5ad", compound=["IFN-beta", "IL-6", "TNF"] * 30)
    columns = ["--drug-column", "compound", "--exposure-column", "seen", "--task", EXPOSURE]
    folder = prepare(*columns, "--held-out", "compound=IL-6")
    drugs = {cell["id"]: cell["drug"] for cell in rows_of(folder, "cells")}
    assert {drugs[row["id"]] for row in rows_of(folder, "eval_ood")} == {"IL-6"}
    assert "Drug: IL-6" in rows_of(folder, "eval_ood")[0]["input"]
