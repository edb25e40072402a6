"""The command line on bad input: exit code 2, one line that says what, where and how to mend it, nothing lost."""

from __future__ import annotations

import errno
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import typer.main

from cellduality_plugin import __version__, cli
from cellduality_plugin.config import Config
from cellduality_plugin.tasks import TASKS
from tests.commands.conftest import invoke
from tests.data_prep.conftest import toy_cells, toy_counts

CELLDUALITY = Path(sys.executable).with_name("cellduality")
SETTINGS = ("--label-column", "kind", "--labelled", 6, "--rl-rows", 8)
SHAPE = ("--hidden-size", 16, "--layers", 1, "--heads", 2)


def with_value(values: np.ndarray, value: float) -> np.ndarray:
    values[3, 4] = value
    return values


TWICE, PAIRS = ["G0", *(f"G{n}" for n in range(11))], [f"type {n // 2}" for n in range(24)]


class Ended(NamedTuple):
    code: int
    out: str
    err: str


@pytest.fixture
def cellduality(command) -> Callable[..., Ended]:
    """Return a function that runs the command in this process."""
    return lambda *words: Ended(*command(*words))


class Toy(NamedTuple):
    """A good file, what was prepared from it, and the model made for that, all by the command line."""

    source: Path
    data: Path
    base: Path


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Toy:
    folder = tmp_path_factory.mktemp("toy cells")
    made = Toy(toy_cells(folder / "toy.h5ad"), folder / "data", folder / "base")
    invoke("data", "prepare", made.source, "--out", made.data, *SETTINGS)
    invoke("model", "small-llama", "--data", made.data, "--out", made.base, *SHAPE)
    return made


@pytest.fixture
def prepare(toy, cellduality) -> Callable[..., Ended]:
    """Return a function that prepares another file over the folder of the toy cells."""

    def run(source: object, *words: object) -> Ended:
        return cellduality("data", "prepare", source, "--out", toy.data, *SETTINGS, *words)

    return run


def one_line(ended: Ended, what: str, where: object = "", hint: str = "") -> None:
    """Check that a command ended by one line on stderr: error: what [where]: hint."""
    assert ended.code == 2, ended
    found = re.fullmatch(r"error: (?P<what>.+?) \[(?P<where>[^\]]+\]?)\]: (?P<hint>.+)\n", ended.err)
    assert found, f"not one line `error: what [where]: hint`: {ended.err}"
    assert what in found["what"]
    assert str(where) in found["where"]
    assert hint in found["hint"]


@pytest.fixture
def untouched(toy) -> Callable[[], None]:
    """Return a check that the earlier outputs are what they were, with nothing beside them."""

    def content() -> dict[str, bytes]:
        folders = (toy.data, toy.base)
        return {str(path): path.read_bytes() for folder in folders for path in folder.iterdir()}

    before, around = content(), sorted(toy.data.parent.iterdir())

    def check_content() -> None:
        assert content() == before
        assert sorted(toy.data.parent.iterdir()) == around

    return check_content


def test_good_cells_are_prepared_for_the_pairs_that_a_file_of_cell_types_serves(toy, cellduality):
    assert cellduality("version").out.strip() == __version__
    ended = cellduality("agent-path", "--config", toy.data / "cellduality.json")
    assert Path(ended.out.strip()).is_file()
    assert list(Config.load(toy.data / "cellduality.json").tasks) == list(TASKS)[:2]
    rewards = ("agent-path", "reward-path", "serve-reward")
    shown = cellduality("--help").out
    assert all(name in shown for name in ("data", "model", "doctor", *rewards, "evaluate", "report", "table"))


BAD_CELLS: dict[str, tuple[Callable[[Path], object], str, str]] = {
    "missing file": (lambda path: path, "", "no such file"),
    "corrupt file": (lambda path: path.write_text("not an .h5ad file"), "", "unreadable .h5ad file"),
    "no cells": (lambda path: toy_cells(path, toy_counts()[:0]), "", "is empty: 0 cells"),
    "NaN": (lambda path: toy_cells(path, with_value(toy_counts(), np.nan)), "", "1 values of the matrix are NaN"),
    "counts for log1p": (toy_cells, "--expression log1p", "log1p values are declared"),
    "log1p for counts": (lambda path: toy_cells(path, np.log1p(toy_counts())), "--expression counts", "counts are d"),
    "neither": (lambda path: toy_cells(path, toy_counts() + 0.5), "", "cannot tell counts from log1p"),
    "duplicate genes": (lambda path: toy_cells(path, toy_counts(), genes=TWICE), "", "1 duplicate gene names (G0)"),
    "unknown label column": (toy_cells, "--label-column type", "no column 'type' in obs"),
    "no label": (lambda path: toy_cells(path, toy_counts(), labels=[" "] * 24), "", "every label is missing"),
    "one class": (lambda path: toy_cells(path, toy_counts(), labels=["B"] * 24), "", "no question follows"),
    "few cells of a class": (lambda path: toy_cells(path, toy_counts(), labels=PAIRS), "", "12 of 12 classes have"),
    "few labelled cells": (toy_cells, "--labelled 2", "2 labelled cells"),
}


class TestBadCells:
    @pytest.mark.parametrize("case", BAD_CELLS)
    def test_are_refused_in_one_line_and_leave_the_earlier_rows(self, case, prepare, tmp_path, untouched):
        write, flags, what = BAD_CELLS[case]
        path = tmp_path / "bad.h5ad"
        write(path)
        ended = prepare(path, *flags.split())
        one_line(ended, what)
        untouched()
        prepares = typer.main.get_command(cli.app).commands["data"].commands["prepare"]  # type: ignore[attr-defined]
        flags_there_are = {option for parameter in prepares.params for option in parameter.opts}
        assert {*re.findall(r"--[a-z][a-z-]+", ended.err)} <= flags_there_are

    def test_a_file_of_ones_own_needs_its_label_column(self, toy, cellduality, tmp_path):
        ended = cellduality("data", "prepare", toy.source, "--out", tmp_path / "data")
        one_line(ended, "no label column", toy.source, "--label-column")
        assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    ("flags", "what", "where"),
    [
        ("--task cell_type_annotation=many", "'many'", "tasks.cell_type_annotation"),
        ("--task drug_response", "no dual pair 'drug_response'", "tasks"),
        ("--task no.such.module:Pair=1", "cannot load the dual pair", "tasks"),
        ("--task perturbation_response_generation", "no column 'perturbation'", "source"),
        ("--weights drug_response=2", "no task 'drug_response'", "--weights"),
        ("--dual-temperature -1", "greater than or equal to 0", "dual.temperature"),
        ("--species yeast", "'yeast'", "species"),
        ("--labelled 0", "greater than or equal to 1", "n_labelled"),
        ("--held-out other:cell_type=NK", "is not SET:COLUMN=VALUE", "--held-out"),
    ],
)
def test_bad_settings_are_refused_and_change_nothing(flags, what, where, toy, prepare, untouched):
    one_line(prepare(toy.source, *flags.split()), what, where)
    untouched()


class TestFullDisk:
    @pytest.fixture(autouse=True)
    def full_disk(self, monkeypatch):
        def refuse(handle: int) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        monkeypatch.setattr(os, "fsync", refuse)

    @pytest.mark.parametrize(
        ("words", "where", "hint"),
        [
            ("data prepare {source} --out {data} --top-genes 9", "data", "earlier outputs are untouched"),
            ("model small-llama --data {data} --out {base} --hidden-size 24", "base", ""),
            ("agent-path --config {data}/cellduality.json", "data", ""),
        ],
    )
    def test_leaves_what_was_there(self, words, where, hint, toy, cellduality, untouched):
        given = [word.format(**toy._asdict()) for word in words.split(" ")]
        ended = cellduality(*given, *(SETTINGS if given[0] == "data" else ()))
        one_line(ended, "No space left on device", getattr(toy, where), hint)
        untouched()


class TestOtherCommands:
    @pytest.mark.parametrize(
        ("words", "what", "where", "hint"),
        [
            ("agent-path --config {0}/gone.json", "cannot read", "{0}/gone.json", ""),
            ("model small-llama --data {0} --out {0}/out", "no such file", "{0}", "prepare the data first"),
            ("table {0}/metrics.json", "", "{0}/metrics.json", ""),
            ("report --evaluation {0} --out {0}/out", "", "{0}", ""),
            ("report --evaluation {0} --data {0}/gone --out {0}/out", "cannot read the configuration", "{0}/gone", ""),
            ("figure2 --curves {0}/gone --out {0}/out.svg", "no training curves", "{0}/gone", ""),
            ("figure2 --curves {0}/train.log --out {0}/out.svg", "no dual_reward/TASK", "{0}/train.log", ""),
        ],
    )
    def test_of_nothing_is_one_line_and_writes_nothing(self, words, what, where, hint, cellduality, tmp_path):
        (tmp_path / "train.log").write_text("Global step 1: {'reward': 0.5}")
        ended = cellduality(*(word.format(tmp_path) for word in words.split(" ")))
        one_line(ended, what, where.format(tmp_path), hint)
        assert [path.name for path in tmp_path.iterdir()] == ["train.log"]

    @pytest.mark.parametrize(
        ("flags", "what", "where"),
        [
            (["--split", "train"], "no split 'train'", "--split"),
            (["--decode", "beam"], "no decode 'beam'", "--decode"),
            (["--samples", 0], "0 is none", "--samples"),
            (["--batch", 0], "0 is none", "--batch"),
            (["--model", "base"], "'base' is not ", "--model"),
            (["--data", "gone"], "cannot read the configuration", "gone"),
        ],
    )
    def test_evaluation(self, flags, what, where, toy, cellduality, tmp_path):
        settings = ["--data", toy.data, "--out", tmp_path / "out", "--model", f"SFT={toy.base}"]
        one_line(cellduality("evaluate", *settings, *flags), what, where)
        assert not (tmp_path / "out").exists()

    def test_evaluation_of_a_model_that_is_not_there_under_any_name(self, toy, cellduality, tmp_path):
        gone = tmp_path / "lr=1e-5, a b" / "gone"
        words = ["--data", toy.data, "--out", tmp_path / "out", "--model", f"SFT={gone}"]
        one_line(cellduality("evaluate", *words), "", gone)


def test_a_mistake_is_one_line_and_exit_code_2_in_a_process_of_its_own_too(tmp_path):
    words = [CELLDUALITY, "data", "prepare", "pbmc3k", "--out", str(tmp_path / "data")]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120)
    one_line(Ended(done.returncode, done.stdout, done.stderr), "no data set 'pbmc3k'", "source", "pbmc68k_reduced")
    assert list(tmp_path.iterdir()) == []
