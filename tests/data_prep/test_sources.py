from __future__ import annotations

import hashlib
import io
import json
import re
import subprocess
import sys

import pytest
from rich.console import Console

from cellduality_plugin.commands import data_sets
from data_prep import sources
from data_prep.datasets import DATASETS, find_dataset
from data_prep.download import fetching
from data_prep.loading.dataset import COLUMNS
from data_prep.settings import SourceSettings
from data_prep.sources import file_of, file_sha256, find
from tests.commands.conftest import invoke
from tests.refused import refused

EMBEDDED = "pbmc68k_reduced"


@pytest.fixture
def run(monkeypatch, tmp_path):
    """Return a function that runs one of the commands and gives what it prints on a wide screen."""
    monkeypatch.setenv("CELLDUALITY_CACHE", str(tmp_path))

    def ran(*words: str, width: int = 200) -> str:
        monkeypatch.setattr(data_sets, "out", Console(file=io.StringIO(), width=width))
        invoke("data", *words)
        return data_sets.out.file.getvalue()

    return ran


def by_name(shown: str) -> dict[str, str]:
    return {line.split()[0]: line for line in shown.splitlines() if line.split()}


@pytest.mark.parametrize("name", DATASETS)
def test_entry_is_complete(name):
    dataset = DATASETS[name]
    assert dataset.name == name
    assert re.search(r"doi:10\.\d{4,}/\S+", dataset.citation)
    assert all((dataset.sources, dataset.licence, dataset.tasks))
    assert set(dataset.tasks) <= set(data_sets.SHORT)
    assert set(dataset.columns) <= set(COLUMNS)
    assert len({source.name for source in dataset.sources}) == len(dataset.sources)
    assert not dataset.test_cells or dataset.test_cells < dataset.cells
    with refused("unknown-variant"):
        dataset.load({}, "repaired")


@pytest.mark.parametrize(("typed", "hint"), [("kang_2018", "did you mean kang_2018_ifnb"), ("zzz", "data list")])
def test_unknown_name_gets_the_nearest_ones(typed, hint):
    with refused("unknown-dataset") as error:
        find_dataset(typed)
    assert hint in error.value.hint


def test_list_has_a_line_for_every_set_and_can_be_narrowed(run):
    lines = by_name(run("list"))
    assert set(DATASETS) <= set(lines)
    for name, told in {EMBEDDED: "yes", "sciplex3": "no", "human_immune": "329,762"}.items():
        assert told in lines[name]
    assert max(map(len, run("list", width=80).splitlines())) <= 80
    shown = run("list", "--task", "cell_type_annotation", "--species", "mouse")
    assert {word for word in shown.split() if word in DATASETS} == {"ma_2020", "bastidas_ponce_2019"}
    assert "gse149383" in run("list", "--task", "sensitivity")
    with refused("unknown-dataset"):
        run("list", "--species", "zebrafish")


@pytest.mark.parametrize("name", DATASETS)
def test_info_shows_everything(run, name):
    dataset, shown = DATASETS[name], run("info", name, width=80)
    assert max(map(len, shown.splitlines())) <= 80
    flat = " ".join(re.sub(r"[│╭╮╰╯─]", " ", shown).split())
    for value in (dataset.notes, dataset.split.text(), dataset.correction):
        assert " ".join(value.split()) in flat
    for source in dataset.sources:
        assert source.name in flat.replace(" ", "")


def test_fetch_tells_where_the_files_are_and_which_are_lacking(run, tmp_path):
    shown = run("fetch", "pbmc68k_reduced", "gse149383", width=80)
    assert "10x_pbmc68k_reduced.h5ad" in shown
    assert "! gse149383  erl_total_data_2K.csv has to come from you" in shown
    for name in ("erl_total_data_2K.csv", "erl_total_2K_meta.csv"):
        (tmp_path / "gse149383" / name).write_text("x")
    assert "has to come from you" not in run("fetch", "gse149383")
    assert "yes" in by_name(run("list"))["gse149383"]


def test_a_ready_file_counts_as_cached_and_is_what_fetch_gives(run, tmp_path, monkeypatch):
    ready = tmp_path / "pbmc_10x3k.h5ad"
    ready.touch()
    (tmp_path / "ma_2020.h5ad").touch()  # of a set that is made of downloads alone
    assert "$CELLDUALITY_DATA/pbmc_10x3k.h5ad, counts with the column classified" in run("info", "pbmc_10x3k")
    monkeypatch.setenv("CELLDUALITY_DATA", str(tmp_path))
    lines = by_name(run("list"))
    assert [name for name in ("pbmc_10x3k", "ma_2020", "lung_lines_10x") if "yes" in lines[name]] == ["pbmc_10x3k"]
    assert f"yes ({ready})" in run("info", "pbmc_10x3k")
    assert str(ready) in run("fetch", "pbmc_10x3k")
    monkeypatch.setenv("CELLDUALITY_DATA", str(tmp_path / "nowhere"))
    with refused("missing-file"):
        run("list")


def test_sets_and_sources_are_found_without_importing_what_is_slow():
    code = """import sys, json, data_prep.datasets
first = sorted(sys.modules)
from data_prep.sources import file_of
file_of(data_prep.datasets.DATASETS["pbmc68k_reduced"])
import data_prep.prepare
print(json.dumps([first, sorted(sys.modules)]))"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    registry, everything = map(set, json.loads(run.stdout))
    assert not {"anndata", "pandas", "scipy", "torch", "httpx"} & registry
    assert not {"scanpy", "anndata", "scipy", "torch", "transformers"} & everything


@pytest.mark.parametrize(
    ("wanted", "read"),
    [
        ({"name": EMBEDDED}, (EMBEDDED, "bulk_labels", "raw", "log1p")),
        ({"name": EMBEDDED, "label_column": "louvain"}, (EMBEDDED, "louvain", "raw", "log1p")),
        ({"name": EMBEDDED, "matrix": "X"}, (EMBEDDED, "bulk_labels", "X", "auto")),
        ({"name": EMBEDDED, "expression": "counts"}, (EMBEDDED, "bulk_labels", "raw", "counts")),
        ({"name": "my cells.h5ad", "label_column": "kind"}, ("my_cells", "kind", "X", "auto")),
    ],
)
def test_settings_override_what_a_set_is_known_for(wanted, read, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my cells.h5ad").write_bytes(b"cells" * 500_000)
    monkeypatch.setattr(sources, "load_h5ad", lambda path, label, **how: (label, how["matrix"], how["expression"]))
    found = find(SourceSettings(**wanted))
    assert (found.name, *found.read()) == read
    path = file_of(DATASETS[EMBEDDED]) if found.name == EMBEDDED else tmp_path / "my cells.h5ad"
    assert found.sha256 == hashlib.sha256(path.read_bytes()).hexdigest() == file_sha256(path)


def test_a_file_that_is_not_installed_is_fetched(monkeypatch, tmp_path):
    monkeypatch.setattr(fetching, "installed_file", lambda source: None)
    monkeypatch.setenv("CELLDUALITY_CACHE", str(tmp_path))
    here = tmp_path / EMBEDDED / "10x_pbmc68k_reduced.h5ad"
    here.parent.mkdir()
    here.touch()
    assert file_of(DATASETS[EMBEDDED]) == here
