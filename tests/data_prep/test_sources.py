from __future__ import annotations

import hashlib
import subprocess
import sys
from dataclasses import replace

import pytest

from cellduality_plugin.errors import CellDualityError
from data_prep.sources import SOURCES, file_sha256, find_source


@pytest.mark.parametrize("name", SOURCES)
def test_registered_source_is_named_as_its_key_and_its_file_is_there(name):
    assert SOURCES[name].name == name
    assert SOURCES[name].path().is_file()


def test_source_is_found_without_importing_what_is_slow():
    code = (
        "import sys, data_prep.prepare\n"
        "from data_prep.sources import SOURCES\n"
        "[source.path() for source in SOURCES.values()]\n"
        "print({'scanpy', 'anndata', 'scipy', 'torch', 'transformers'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_settings_override_what_a_source_is_known_for():
    source = find_source("pbmc68k_reduced", label_column="louvain")
    assert (source.label_column, source.matrix, source.expression) == ("louvain", "raw", "log1p")
    assert find_source("pbmc68k_reduced", matrix="X").expression == "auto"
    assert find_source("pbmc68k_reduced", expression="counts").expression == "counts"


def test_path_becomes_a_source_whose_name_fits_in_an_id():
    source = find_source("some where/my cells.h5ad", label_column="kind")
    assert (source.name, source.matrix, source.expression) == ("my_cells", "X", "auto")


@pytest.mark.parametrize(
    ("name", "what", "mend"),
    [
        ("pbmc", "no data set 'pbmc'", "pbmc68k_reduced"),
        ("mine.h5ad", "no label column given", "--label-column"),
    ],
)
def test_bad_source_is_told(name, what, mend, check_told):
    with pytest.raises(CellDualityError) as raised:
        find_source(name)
    check_told(raised, what, mend)


def test_missing_package_and_missing_file_are_told(check_told):
    with pytest.raises(CellDualityError) as raised:
        replace(SOURCES["pbmc68k_reduced"], package="no_such_package_here").path()
    check_told(raised, "is not installed", "pip install")
    with pytest.raises(CellDualityError) as raised:
        replace(SOURCES["pbmc68k_reduced"], file="datasets/gone.h5ad").path()
    check_told(raised, "no such file")


def test_file_sha256_is_the_digest_of_the_bytes(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"cells" * 500_000)
    assert file_sha256(path) == hashlib.sha256(path.read_bytes()).hexdigest()
