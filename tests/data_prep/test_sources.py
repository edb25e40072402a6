from __future__ import annotations

import hashlib

import pytest

from cellduality_plugin.errors import CellDualityError
from data_prep.download import fetching
from data_prep.sources import SOURCES, file_sha256, find_source


@pytest.mark.parametrize(
    ("name", "wanted", "found"),
    [
        ("pbmc68k_reduced", {}, ("pbmc68k_reduced", "bulk_labels", "raw", "log1p")),
        ("pbmc68k_reduced", {"label_column": "louvain"}, ("pbmc68k_reduced", "louvain", "raw", "log1p")),
        ("pbmc68k_reduced", {"matrix": "X"}, ("pbmc68k_reduced", "bulk_labels", "X", "auto")),
        ("pbmc68k_reduced", {"expression": "counts"}, ("pbmc68k_reduced", "bulk_labels", "raw", "counts")),
        ("some where/my cells.h5ad", {"label_column": "kind"}, ("my_cells", "kind", "X", "auto")),
    ],
)
def test_settings_override_what_a_source_is_known_for(name, wanted, found):
    source = find_source(name, **wanted)
    assert (source.name, source.label_column, source.matrix, source.expression) == found


@pytest.mark.parametrize(
    ("name", "what", "hint"),
    [
        ("pbmc", "no data set 'pbmc'", "pbmc68k_reduced"),
        ("mine.h5ad", "no label column given", "--label-column"),
    ],
)
def test_bad_source_is_told(name, what, hint, check_told):
    with pytest.raises(CellDualityError) as raised:
        find_source(name)
    check_told(raised, what, hint)


def test_an_installed_file_is_used_and_another_fetched(monkeypatch, tmp_path, check_told):
    source = SOURCES["pbmc68k_reduced"]
    assert source.path().is_file()
    monkeypatch.setattr(fetching, "installed_file", lambda source: None)
    monkeypatch.setenv("CELLDUALITY_CACHE", str(tmp_path))
    (tmp_path / source.name).mkdir()
    here = tmp_path / source.name / "10x_pbmc68k_reduced.h5ad"
    here.touch()
    assert source.path() == here
    with pytest.raises(CellDualityError) as raised:
        find_source("gone.h5ad", label_column="kind").path()
    check_told(raised, "no such file")


def test_file_sha256_is_the_digest_of_the_bytes(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"cells" * 500_000)
    assert file_sha256(path) == hashlib.sha256(path.read_bytes()).hexdigest()
