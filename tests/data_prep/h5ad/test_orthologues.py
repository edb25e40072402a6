from __future__ import annotations

import gzip
import hashlib
from pathlib import Path

import pytest

import data_prep
from cellduality_plugin.errors import CellDualityError
from data_prep.h5ad import orthologues
from data_prep.h5ad.orthologues import (
    NO_ORTHOLOGUE,
    SEVERAL_ORTHOLOGUES,
    SHARED_ORTHOLOGUE,
    TABLE,
    human_symbols,
    mouse_symbols,
    provenance,
    to_human,
)

FILE = Path(data_prep.__file__).parent / "h5ad" / "data" / TABLE


@pytest.mark.parametrize(
    ("mouse", "human"),
    [("Cd3e", "CD3E"), ("Trp53", "TP53"), ("Ptprc", "PTPRC"), ("mt-Nd1", "MT-ND1"), ("Tnfrsf13b", "TNFRSF13B")],
)
def test_one_to_one_orthologues_get_their_human_name(mouse, human):
    assert to_human([mouse]) == ([human], {})


def test_what_has_no_one_human_name_is_counted_by_reason():
    human, drops = to_human(["Ccl4", "Gzmb", "Gm10001", "CD3E", "Cd19"])
    assert human == [None, None, None, None, "CD19"]
    assert drops == {SEVERAL_ORTHOLOGUES: 2, NO_ORTHOLOGUE: 2}


def test_two_names_for_one_human_gene_are_both_left_out():
    human, drops = to_human(["Cd3e", "Cd3e", "Cd19"])
    assert human == [None, None, "CD19"]
    assert drops == {SHARED_ORTHOLOGUE: 2}


def test_the_mapping_is_one_to_one():
    human, _ = to_human(sorted(mouse_symbols()))
    mapped = [name for name in human if name is not None]
    assert len(mapped) == len(set(mapped)) > 17_000
    assert set(mapped) <= human_symbols()


def test_provenance_is_that_of_the_table_that_ships():
    told = provenance()
    content = FILE.read_bytes()
    assert len(content) < 1_000_000
    assert told["sha256"] == hashlib.sha256(content).hexdigest()
    lines = gzip.decompress(content).decode().splitlines()
    assert lines[0].split("\t") == ["mouse", "human", "type"]
    assert told["rows"] == len(lines) - 1
    assert told["one_to_one_rows"] == sum(line.endswith("\tone2one") for line in lines)
    assert {"origin", "taken_from", "taken_on", "changes", "licence", "cite"} <= told.keys()


def test_a_changed_table_is_told(tmp_path, monkeypatch, check_told):
    (tmp_path / TABLE).write_bytes(gzip.compress(b"mouse\thuman\ttype\nCd3e\tCD4\tone2one\n"))
    (tmp_path / "mouse_human_orthologues.json").write_bytes(FILE.with_name("mouse_human_orthologues.json").read_bytes())
    monkeypatch.setattr(orthologues, "_folder", lambda: tmp_path)
    orthologues._table.cache_clear()
    try:
        with pytest.raises(CellDualityError) as raised:
            to_human(["Cd3e"])
    finally:
        orthologues._table.cache_clear()
    check_told(raised, "the table of orthologues was changed", "install")
