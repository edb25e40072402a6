from __future__ import annotations

import hashlib

import pytest

from data_prep import sources
from data_prep.datasets import DATASETS
from data_prep.download import fetching
from data_prep.settings import SourceSettings
from data_prep.sources import file_of, file_sha256, find

EMBEDDED = "pbmc68k_reduced"


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
    path = file_of(DATASETS[EMBEDDED]) if wanted["name"] == EMBEDDED else tmp_path / "my cells.h5ad"
    assert found.sha256 == hashlib.sha256(path.read_bytes()).hexdigest() == file_sha256(path)


def test_a_file_that_is_not_installed_is_fetched(monkeypatch, tmp_path):
    monkeypatch.setattr(fetching, "installed_file", lambda source: None)
    monkeypatch.setenv("CELLDUALITY_CACHE", str(tmp_path))
    here = tmp_path / EMBEDDED / "10x_pbmc68k_reduced.h5ad"
    here.parent.mkdir()
    here.touch()
    assert file_of(DATASETS[EMBEDDED]) == here
