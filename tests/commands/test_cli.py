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

import pytest
import typer.main

from cellduality_plugin import __version__, cli
from cellduality_plugin.config import Config
from cellduality_plugin.tasks import TASKS
from tests.commands.conftest import Ended, invoke
from tests.data_prep.conftest import toy_cells

CELLDUALITY = Path(sys.executable).with_name("cellduality")
SETTINGS = ("--label-column", "kind", "--labelled", 6, "--rl-rows", 8)
SHAPE = ("--hidden-size", 16, "--layers", 1, "--heads", 2)


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


def one_line(ended: Ended, where: object, what: str = "", hint: str = "") -> None:
    """Check that a command ended by one line on stderr: error: what [where]: hint."""
    assert ended.code == 2, ended
    found = re.fullmatch(r"error: (?P<what>.+?) \[(?P<where>[^\]]+\]?)\]: (?P<hint>.+)\n", ended.err)
    assert found, f"not one line `error: what [where]: hint`: {ended.err}"
    for name, part in {"where": str(where), "what": what, "hint": hint}.items():
        assert part in found[name]


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


def test_good_cells_are_prepared_for_the_pairs_that_a_file_of_cell_types_serves(toy, command):
    assert command("version").out.strip() == __version__
    assert Path(command("agent-path", "--config", toy.data / "cellduality.json").out.strip()).is_file()
    assert list(Config.load(toy.data / "cellduality.json").tasks) == list(TASKS)[:2]


@pytest.mark.parametrize(
    ("flags", "where", "what"),
    [
        ("--expression log1p", "", "declared"),
        ("--labelled 0", "n_labelled", ""),
        ("--task cell_type_annotation=many", "tasks.cell_type_annotation", "'many'"),
        ("--task drug_response", "tasks", "'drug_response'"),
        ("--task no.such.module:Pair=1", "tasks", ""),
        ("--task perturbation_response_generation", "source", "'perturbation'"),
        ("--weights drug_response=2", "--weights", "'drug_response'"),
        ("--dual-temperature -1", "dual.temperature", ""),
        ("--species yeast", "species", "'yeast'"),
    ],
)
def test_what_cannot_be_prepared_is_one_line_and_leaves_the_earlier_rows(flags, where, what, toy, command, untouched):
    ended = command("data", "prepare", toy.source, "--out", toy.data, *SETTINGS, *flags.split())
    one_line(ended, where, what)
    untouched()
    prepares = typer.main.get_command(cli.app).commands["data"].commands["prepare"]  # type: ignore[attr-defined]
    flags_there_are = {option for parameter in prepares.params for option in parameter.opts}
    assert {*re.findall(r"--[a-z][a-z-]+", ended.err)} <= flags_there_are


@pytest.mark.parametrize(
    ("words", "where"),
    [
        ("data prepare {source} --out {data} --top-genes 9", "data"),
        ("model small-llama --data {data} --out {base} --hidden-size 24", "base"),
        ("agent-path --config {data}/cellduality.json", "data"),
    ],
)
def test_a_full_disk_leaves_what_was_there(words, where, toy, command, untouched, monkeypatch):
    def refuse(handle: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", refuse)
    given = [word.format(**toy._asdict()) for word in words.split(" ")]
    ended = command(*given, *(SETTINGS if given[0] == "data" else ()))
    one_line(ended, getattr(toy, where), os.strerror(errno.ENOSPC))
    untouched()


@pytest.mark.parametrize(
    ("words", "where"),
    [
        ("data prepare {0}/gone.h5ad --label-column kind --out {0}/out", "{0}/gone.h5ad"),
        ("data prepare {toy.source} --out {0}/out", "{toy.source}"),
        ("agent-path --config {0}/gone.json", "{0}/gone.json"),
        ("model small-llama --data {0} --out {0}/out", "{0}"),
        ("table {0}/metrics.json", "{0}/metrics.json"),
        ("report --evaluation {0} --out {0}/out", "{0}"),
        ("report --evaluation {0} --data {0}/gone --out {0}/out", "{0}/gone"),
        ("figure2 --curves {0}/gone --out {0}/out.svg", "{0}/gone"),
        ("figure2 --curves {0}/train.log --out {0}/out.svg", "{0}/train.log"),
        ("evaluate --split train", "--split"),
        ("evaluate --decode beam", "--decode"),
        ("evaluate --samples 0", "--samples"),
        ("evaluate --batch 0", "--batch"),
        ("evaluate --model base", "--model"),
        ("evaluate --model SFT={0}/lr=1e-5/gone", "{0}/lr=1e-5/gone"),
        ("evaluate --data {0}/gone", "{0}/gone"),
    ],
)
def test_a_slip_or_nothing_to_work_on_is_one_line_and_writes_nothing(words, where, toy, command, tmp_path):
    (tmp_path / "train.log").write_text("Global step 1: {'reward': 0.5}")
    name, *flags = (word.format(tmp_path, toy=toy) for word in words.split(" "))
    usual = ("--data", toy.data, "--out", tmp_path / "out", "--model", f"SFT={toy.base}") if name == "evaluate" else ()
    one_line(command(name, *usual, *flags), where.format(tmp_path, toy=toy))
    assert [path.name for path in tmp_path.iterdir()] == ["train.log"]


def test_a_mistake_is_one_line_and_exit_code_2_in_a_process_of_its_own_too(tmp_path):
    words = [CELLDUALITY, "data", "prepare", "pbmc3k", "--out", str(tmp_path / "data")]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120)
    one_line(Ended(done.returncode, done.stdout, done.stderr), "source", "'pbmc3k'", "pbmc68k_reduced")
    assert list(tmp_path.iterdir()) == []
