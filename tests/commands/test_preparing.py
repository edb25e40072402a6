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

from cellduality_plugin.examples import Example
from data_prep.h5ad.loaders import MISSING_LABEL
from data_prep.sources import JOINED, file_sha256, tasks_of_sources
from tests.commands.conftest import invoke
from tests.data_prep.conftest import Prepared, toy_cells
from tests.refused import refused

ANNOTATION, GENERATION = "cell_type_annotation", "conditional_cell_generation"
EXPOSURE, RESPONSE = "drug_exposure_prediction", "perturbation_response_generation"
SENSITIVITY, IDENTIFICATION = "drug_sensitivity_prediction", "perturbation_identification"
KINDS = ("B cell", "NK", "T cell")
SCREEN = ["--perturbation-column", "target"]


def write_file(path: Path, obs: dict[str, Any], seed: int = 0, layer: str = "") -> Path:
    """Write counts of as many cells as ``obs`` says something of, in 12 genes."""
    size = (len(pd.DataFrame(obs)), 12)
    counts = np.random.default_rng(seed).integers(1, 60, size=size).astype(np.float32)
    return toy_cells(path, counts, layers={layer: counts} if layer else None, without_x=bool(layer), **obs)


def write_cells(path: Path, seed: int = 0, **obs: Any) -> Path:
    """Write 90 cells of three kinds, half of each kind treated; ``obs`` are other columns."""
    treated = np.arange(90) % 2 == 1
    columns: dict[str, Any] = {
        "labels": [KINDS[place // 2 % 3] for place in range(90)],
        "condition": np.where(treated, "cytokine IFN-beta", "control"), "compound": ["IFN-beta", "IL-6", "TNF"] * 30,
        "seen": np.where(treated, "exposed", "not exposed"), "donor": np.arange(90) // 30 + 1,
        "guide": [None if place % 9 == 4 else f"g{place % 9 % 3}" for place in range(90)], **obs,
    }  # fmt: skip
    return write_file(path, columns, seed)


@pytest.fixture
def cells(tmp_path: Path) -> Path:
    return write_cells(tmp_path / "mine.h5ad")


@pytest.fixture
def prepare(tmp_path: Path, cells: Path) -> Callable[..., Prepared]:
    """Return a function that prepares the cells, or other sources."""

    def prepared(*words: object, sources: tuple[Path, ...] = (cells,)) -> Prepared:
        folder, column = tmp_path / "data", ["--label-column", "kind"] if cells in sources else []
        usual = ["--labelled", 12, "--rl-rows", 24, "--min-genes", 4, *column]
        return Prepared(folder, said=invoke("data", "prepare", *sources, "--out", folder, *usual, *words))

    return prepared


@pytest.fixture
def screen(tmp_path: Path, prepare) -> Callable[..., Prepared]:
    """Return a function that prepares a screen of 120 cells in one line; ``obs`` adds to its columns."""

    def prepared(*words: object, layer: str = "", **obs: object) -> Prepared:
        columns = {"target": ["NT", "Non-Targeting", "TP53", "MYC"] * 30, "batch": ["a"] * 60 + ["b"] * 60, **obs}
        return prepare(*words, sources=(write_file(tmp_path / "screen.h5ad", columns, layer=layer),))

    return prepared


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


def test_rows_hold_the_truth_where_the_reward_reads_it_or_the_log_shall(prepare):
    def made(reward, *more):
        found = prepare("--task", f"{ANNOTATION},{GENERATION}", "--rewards", f"{ANNOTATION}={reward}", *more)
        golds = [{example.gold for example in found.examples("rl", task)} for task in (ANNOTATION, GENERATION)]
        questions = [row["input"] for row in found.rows("rl")]
        return golds, questions, found.config, [replace(example, gold=None) for example in found.examples("rl")]

    (plain, *same), (oracle, asked, *_), (monitored, *rest) = (
        made("duality"), made("oracle+duality"), made("duality", "--gold-for-monitoring"),
    )  # fmt: skip
    assert plain == [{None}, {None}]
    assert oracle == [{*KINDS}, {None}]
    assert asked == same[0], "the same questions in their order"
    assert not any(None in golds for golds in monitored)
    assert rest == same


def test_settings_reach_the_tasks_of_this_run_and_those_of_other_built_in_pairs_are_left_out(prepare):
    words = ["--task", f"{ANNOTATION},{GENERATION}", "--hidden", "1,0.5", "--thin", "0.5", "--validity-power", 2]
    words += ["--rewards", f"{ANNOTATION}=likelihood,{RESPONSE}=likelihood", "--dual-temperature", 0.5]
    made = prepare(*words, "--traces", f"*=2,{GENERATION}=4,{RESPONSE}=8")
    found = {name: (task.reward, task.traces, task.validity_power) for name, task in made.config.tasks.items()}
    assert found == {ANNOTATION: ("likelihood", 2, 2.0), GENERATION: ("duality", 4, 2.0)}
    assert made.config.dual.temperature == 0.5
    for name in ("rl", "audit", "eval_test"):
        rows = made.examples(name, ANNOTATION)
        assert {(*row.known, len(row.unknown), row.masks) for row in rows} == {("length", 12, ())}
        assert {len(row.inputs["cell"]) for row in rows} == {6 if name == "rl" else 12}
    duals = [row for row in made.rows("sft") if (row["datasource"], row["direction"]) == (ANNOTATION, "dual")]
    assert {len(Example.from_label(row["label"]).unknown) for row in duals} == {6}, "writing cells is told by its task"


def test_columns_decide_what_a_file_is_asked_and_records_go_where_paths_start_at_the_data(prepare, tmp_path):
    columns = ["--perturbation-column", "condition", "--drug-column", "compound", "--exposure-column", "seen"]
    made = prepare(*columns, "--records", tmp_path / "rollouts", "--records-every", 2, "--records-limit", 30)
    assert made.config.records.model_dump() == {"folder": "../rollouts", "every": 2, "limit": 30}
    tasks = {ANNOTATION, GENERATION, RESPONSE, EXPOSURE, IDENTIFICATION}
    assert set(made.config.tasks) == tasks
    for name in ("sft", "rl", "eval_validation", "eval_test"):
        assert set(made.asked(name)) == tasks
    perturbations, exposures = ("control", "cytokine IFN-beta"), ("exposed", "not exposed")
    assert made.vocabulary.labels == {"cell_type": KINDS, "exposure": exposures, "perturbation": perturbations}
    assert not (made.folder / "eval_ood.jsonl").exists()


class TestScreens:
    def test_of_one_line_need_no_cell_types_and_usual_names_are_controls(self, screen):
        made = screen(*SCREEN, "--list-labels", 2, "--layer", "counts", layer="counts")
        assert made.vocabulary.labels == {"perturbation": ("MYC", "TP53", "control")}
        assert (made.vocabulary.listed, made.config.records) == (2, None)
        for name in ("rl", "eval_test"):
            assert set(made.asked(name)) == {RESPONSE, IDENTIFICATION}
        assert "'NT', 'Non-Targeting'" in made.said
        for row in made.rows("rl"):
            example = Example.from_label(row["label"])
            assert example.gold is None
            assert ("too many to list" in row["input"]) == (row["datasource"] == IDENTIFICATION)
            if row["datasource"] == IDENTIFICATION:
                assert f'"{made.cells[example.id]["perturbation"]}"' not in row["label"].replace('"control":', "")

    def test_columns_of_our_names_need_no_flag_and_those_of_no_question_leave_no_cell_out(self, screen):
        done = {"perturbation": ["control", "drug nutlin"] * 60}
        made = screen("--drug", "nutlin 3", **done, exposure=["no", "yes"] * 60)
        assert set(made.asked("rl")) == {RESPONSE, IDENTIFICATION, EXPOSURE}
        assert {example.inputs.get("drug") for example in made.examples("rl")} == {None, "nutlin 3"}
        assert len(screen(**done, drug=["nutlin", None] * 60, exposure=np.full(120, np.nan)).cells) == 120

    def test_named_controls_are_the_only_ones_and_combinations_lose_them(self, screen):
        made = screen(*SCREEN, "--control", "NT, TP53")
        assert made.vocabulary.labels["perturbation"] == ("MYC", "Non-Targeting", "control")
        done = ["ctrl", "NT", "TP53+ctrl", "TP53+MYC", "MYC + TP53", "NT+ctrl"] * 20
        for words in ([], ["--control", "ctrl,NT"]):
            made = screen(*SCREEN, *words, target=done)
            assert made.vocabulary.labels == {"perturbation": ("MYC+TP53", "TP53", "control")}
        assert made.manifest("rl.jsonl")["drops"][JOINED] > 0

    def test_controls_are_matched_by_any_column_as_the_file_or_the_questions_call_it(self, screen):
        cells = screen(*SCREEN, "--match", "batch").cells
        assert [cells[cell["control"]]["batch"] for cell in cells.values()] == [c["batch"] for c in cells.values()]
        by_file, by_question = (
            screen(*SCREEN, "--label-column", "batch", "--held-out", f"{name}=b", "--match", name).cells
            for name in ("batch", "cell_type")
        )
        assert by_file == by_question

    def test_a_label_that_all_cells_share_is_no_task_and_is_said(self, screen):
        made = screen(*SCREEN, "--label-column", "line", line="THP-1")
        assert set(made.asked("sft")) == {RESPONSE, IDENTIFICATION}
        [said] = [line for line in made.said.splitlines() if "'THP-1'" in line]
        assert ANNOTATION in said

    def test_guides_and_perturbations_are_held_out(self, screen):
        words = [*SCREEN, "--held-out"]
        guides = ["NT-0", "NT-1", "TP53-0", "MYC-0", "NT-0", "NT-1", "TP53-1", "MYC-1"] * 15
        made = screen(*words, "guide=MYC-1", guide=guides)
        controls = {made.cells[cell["control"]]["split"] for cell in made.rows("cells") if cell["split"] == "ood"}
        assert controls == {"test"}, "no untreated cell was held out"
        assert made.asked("eval_ood") == {RESPONSE: 15, IDENTIFICATION: 15}
        made = screen(*words, "guide=MYC-0", guide=["NT-0", "NT-1", "TP53-0", "MYC-0"] * 30)
        assert made.asked("eval_ood") == {RESPONSE: 30}, "what no training cell went through cannot be named"
        assert screen(*words, "target=MYC").vocabulary.labels["perturbation"] == ("TP53", "control")


@pytest.mark.parametrize(
    ("code", "words", "of"),
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
        ("unknown-task", ["--rewards", "anotation=likelihood"], ""),
        ("unknown-task", ["--traces", "anotation=1"], ""),
        ("wrong-reward", ["--rewards", f"{ANNOTATION}=0*duality"], ""),
        ("needs-lists", ["--task", GENERATION, "--rewards", f"{GENERATION}=duality-rwjs"], ""),
        ("wrong-settings", ["--records", "rollouts", "--records-every", 0], ""),
        ("unknown-value", ["--held-out", "donor=9"], ""),
        ("unknown-column", ["--held-out", "batch=9"], ""),
        ("nothing-trains", [word for number in "123" for word in ("--held-out", f"donor={number}")], ""),
        ("duplicate-names", ["--task", f"{ANNOTATION},cellduality_plugin.tasks.{ANNOTATION}:CellTypeAnnotation"], ""),
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
        ("nothing-to-ask", ["--label-column", "kind"], {"labels": ["T cell", "#N/A", "not screened"] * 40}),
        ("duplicate-labels", ["--label-column", "kind"], {"labels": ["T cell", "t cell", "NK"] * 40}),
        ("told-by-question", ["--drug-column", "target", "--exposure-column", "seen"], {"seen": [*"nnyy"] * 30}),
    ],
)  # fmt: skip
def test_what_says_nothing_or_cannot_be_is_refused_and_nothing_is_written(prepare, screen, code, words, of, tmp_path):
    with refused(code):  # of the cells, or of a published set, or of a screen with these columns
        if isinstance(of, dict):
            screen(*words, **of)
        else:
            prepare(*words, **({"sources": (Path(of),)} if of else {}))
    assert not list(tmp_path.rglob("cellduality.json"))


def test_an_edited_configuration_is_kept_and_never_replaced(prepare):
    path = prepare().folder / "cellduality.json"
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
        assert {task.validity_power for task in prepare("--validity-power", power).config.tasks.values()} == {power}


@pytest.mark.parametrize("name", ["sft.jsonl", "cells.jsonl", "cellduality.json", "eval_ood.jsonl"])
def test_a_file_of_the_users_own_is_not_replaced(prepare, tmp_path, name):
    mine = tmp_path / "data" / name
    mine.parent.mkdir()
    mine.write_text("mine\n")
    with refused("not-ours"):
        prepare()
    assert {path.name: path.read_text() for path in mine.parent.iterdir()} == {name: "mine\n"}


@pytest.mark.parametrize(
    ("kinds", "labels", "lost", "noted"),
    [
        (["T cell", "T \u00a0cell\u200b", "NK"], ("NK", "T cell"), {}, 0),
        (["M\u00fcller", "Mu\u0308ller", "\ufeffNK"], ("M\u00fcller", "NK"), {}, 0),
        (["T cell", "?", "NK"], ("NK", "T cell"), {MISSING_LABEL: 30}, 0),
        (["T cell", "nan", "NK"], ("NK", "T cell"), {MISSING_LABEL: 30}, 0),
        (["T cell", "Unknown", "low-quality cells"], ("T cell", "Unknown", "low-quality cells"), {}, 2),
    ],
)
def test_a_label_is_what_is_seen_of_it_and_none_if_it_says_so(prepare, cells, kinds, labels, lost, noted):
    write_cells(cells, labels=kinds * 30)
    made = prepare()
    assert made.vocabulary.labels["cell_type"] == labels
    assert made.manifest("cells.jsonl")["drops"] == lost
    notes = made.manifest("vocabulary.json").get("notes", [])
    assert all(repr(label) in note for label, note in zip(labels[len(labels) - noted :], notes, strict=True))


def test_two_files_share_genes_and_are_two_whatever_their_ending(prepare, cells, tmp_path):
    adata = anndata.read_h5ad(write_cells(tmp_path / "other.h5ad", seed=1))
    adata.var_names = [name.lower() for name in adata.var_names]
    adata.write_h5ad(tmp_path / "other.h5ad")
    shutil.copy(cells, tmp_path / "copy.h5ad")
    for name, code in (("other", "mixed-species"), ("copy", "same-file")):
        with refused(code):
            prepare(sources=(cells, tmp_path / f"{name}.h5ad"))
    upper = cells.rename(cells.with_suffix(".H5AD"))
    assert len(prepare("--label-column", "kind", sources=(upper,)).cells) == 90


def test_a_preparation_that_is_ended_leaves_nothing_behind(cells, tmp_path):
    """SIGTERM comes while the files are written."""
    code = (
        "import os, signal, sys\n"
        "from cellduality_plugin import cli\n"
        "from data_prep import prepare\n"
        "prepare._write = lambda path, files, views: (path.touch(), os.kill(os.getpid(), signal.SIGTERM))\n"
        "cli.main()\n"
    )
    words = ["data", "prepare", cells, "--label-column", "kind", "--labelled", 12, "--min-genes", 4, "--rl-rows", 4]
    command = [sys.executable, "-c", code, *map(str, words), "--out", str(tmp_path / "out" / "data")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 128 + signal.SIGTERM, done.stderr
    assert list((tmp_path / "out").iterdir()) == []


def test_shares_of_a_task_go_before_weights_and_weights_before_one_in_any_order(prepare):
    words = ["--task", f"{ANNOTATION}=3", "--task", GENERATION, "--weights"]
    assert prepare(*words, f"{ANNOTATION}=7").asked("rl") == {ANNOTATION: 18, GENERATION: 6}
    assert prepare(*words, f"{GENERATION}=9,{RESPONSE}=5").asked("rl") == {ANNOTATION: 6, GENERATION: 18}
    contents = []
    for words in (["--task", f"{GENERATION},{ANNOTATION}"], ["--task", ANNOTATION, "--task", GENERATION, "--seed", 42]):
        made = prepare(*words)
        contents.append({path.name: path.read_bytes() for path in made.folder.glob("*.jsonl")})
        assert made.asked("rl") == {ANNOTATION: 12, GENERATION: 12}
    assert contents[0] == contents[1]


def test_values_and_numbers_are_given_by_set_or_for_all(prepare, cells, tmp_path):
    both = {"sources": (cells, write_cells(tmp_path / "other.h5ad", seed=1))}
    other = both["sources"][1]
    held = ["--held-out", f"{other}:cell_type=NK", "--held-out", f"{other}:exposure=exposed"]
    found = prepare("--task", ANNOTATION, *held, "--exposure-column", "seen", **both).cells
    out = [c for c in found.values() if c["cell_type"] == "NK" or c.get("exposure") == "exposed"]
    assert [c for c in found.values() if c["split"] == "ood"] == [c for c in out if c["id"].startswith("other/")] != []
    with refused("malformed"):
        prepare("--held-out", "cell_type=NK", **both)  # of which set?
    words = ["--max-cells", f"{other}=45,kang_2018_ifnb=800", "--labelled", f"{cells}=9,{other}=6,pbmc68k_reduced=140"]
    found = prepare(*words, **both).cells
    assert Counter(i.partition("/")[0] for i in found) == {"mine": 90, "other": 45}
    assert Counter(i.partition("/")[0] for i in found if found[i]["labelled"]) == {"mine": 9, "other": 6}


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
    made = prepare(*words, sources=(Path(sorted_), Path(lines)))
    assert made.manifest("cells.jsonl")["sha256_by_source"] == hashes
    asked_about = Counter((row["datasource"], row["id"].partition("/")[0]) for row in made.rows("eval_ood"))
    assert asked_about == {(ANNOTATION, clustered): 24, (SENSITIVITY, lines): 12}
    splits = {(cell["cell_line"], cell["split"] == "ood") for cell in made.rows("cells") if "cell_line" in cell}
    assert splits == {("A549", False), ("HCC827", False), ("H1975", True)}


@pytest.mark.parametrize(
    ("column", "value", "ours", "tasks"),
    [
        ("donor", "2", "donor", {ANNOTATION, GENERATION}),  # numbers
        ("guide", "g2", "guide", {ANNOTATION, GENERATION}),  # which some cells lack, and are not lost for it
        ("kind", "NK", "cell_type", set()),  # the file's own name of what the tasks call cell_type
        ("cell_type", "NK", "cell_type", set()),
        ("compound", "IL-6", "drug", {EXPOSURE}),
    ],
)
def test_cells_are_held_out_by_any_column_of_obs(prepare, column, value, ours, tasks):
    drugs = ["--drug-column", "compound", "--exposure-column", "seen", "--task", EXPOSURE] if ours == "drug" else []
    made = prepare("--held-out", f"{column}={value}", *drugs)
    out = {i for i, cell in made.cells.items() if cell["split"] == "ood"}
    assert out == {i for i, cell in made.cells.items() if cell[ours] == value}
    assert (len(made.cells), len(out)) == (90, 30)
    assert set(made.asked("eval_ood")) == tasks
    for file in ("sft", "rl", "audit", "eval_validation", "eval_test"):
        assert not {row["id"] for row in made.rows(file)} & out
