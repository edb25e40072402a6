from __future__ import annotations

import gzip
import hashlib
import json
from pathlib import Path

import pytest

import data_prep
from data_prep.h5ad.genes import (
    NO_ORTHOLOGUE,
    SEVERAL_ORTHOLOGUES,
    SHARED_ORTHOLOGUE,
    TABLE,
    check_species,
    human_symbols,
    mouse_symbols,
    symbol_columns,
    to_human,
)
from tests.refused import refused

HUMAN = sorted(human_symbols() - mouse_symbols())[::100]
MOUSE = sorted(mouse_symbols() - human_symbols())[::100]
STRANGE = [f"G{number}" for number in range(500)]
ENSEMBL = [f"ENSG{number:011}" for number in range(100)]


@pytest.mark.parametrize("declared", [None, "human"])
@pytest.mark.parametrize("names", [HUMAN, [*HUMAN, "EGFP", MOUSE[0]], ["G1"], [*HUMAN[:20], *STRANGE[:150]]])
def test_names_of_one_species_and_names_that_tell_nothing_pass(names, declared):
    check_species(names, declared)


@pytest.mark.parametrize(
    ("names", "declared", "code", "hint"),
    [
        (ENSEMBL, None, "ensembl-ids", "--gene-symbols with one of: name"),
        ([*HUMAN, *MOUSE], None, "mixed-species", "one species"),
        ([*HUMAN, *MOUSE], "human", "mixed-species", "one species"),
        (["GRCh38_A", "hg19_B", "mm10_a"], None, "mixed-species", "one genome"),
        (["mm10___a", "mm10___b"], None, "genome-prefix", "removeprefix('mm10___')"),
        (MOUSE, "human", "wrong-species", "--species mouse"),
        (HUMAN, "mouse", "wrong-species", "--species human"),
        ([str(number) for number in range(30)], None, "no-symbols", "--gene-symbols with one of: name"),
        (["178.0", "43.0", "49.0"], "human", "no-symbols", ""),  # Entrez ids that pandas has made fractions
        (STRANGE, None, "no-symbols", ""),
        ([f"{number}_s_at" for number in range(1000, 1200)], None, "no-symbols", ""),  # probes of an array
        ([f"chr1:{number}-{number + 500}" for number in range(1000, 1200)], None, "no-symbols", ""),  # peaks
        ([f"NM_{number:06}" for number in range(200)], None, "no-symbols", ""),  # transcripts
        ([f"ENST{number:011}" for number in range(200)], None, "no-symbols", ""),
    ],
)
def test_names_that_would_be_misread_are_refused(names, declared, code, hint):
    with refused(code) as error:
        check_species(names, declared, where="my.h5ad", columns=["name"])
    assert error.value.where == "my.h5ad"
    assert hint in error.value.hint


def test_columns_of_symbols_are_found():
    table = {"id": ENSEMBL, "feature_name": [*HUMAN[:40], *ENSEMBL[:60]], "biotype": ["protein_coding"] * 100}
    assert symbol_columns(table) == ["feature_name"]


@pytest.mark.parametrize(
    ("mouse", "human", "drops"),
    [
        (["Cd3e", "Trp53", "Ptprc", "mt-Nd1"], ["CD3E", "TP53", "PTPRC", "MT-ND1"], {}),
        (
            ["Ccl4", "Gzmb", "Gm10001", "CD3E", "Cd19"],
            [None, None, None, None, "CD19"],
            {SEVERAL_ORTHOLOGUES: 2, NO_ORTHOLOGUE: 2},
        ),
        (["Cd3e", "Cd3e", "Cd19"], [None, None, "CD19"], {SHARED_ORTHOLOGUE: 2}),
    ],
)
def test_only_one_to_one_orthologues_get_their_human_name(mouse, human, drops):
    assert to_human(mouse) == (human, drops)


def test_the_mapping_is_one_to_one():
    human, _ = to_human(sorted(mouse_symbols()))
    mapped = [name for name in human if name is not None]
    assert len(mapped) == len({*mapped} & human_symbols()) > 17_000


def test_provenance_is_that_of_the_table_that_ships():
    file = Path(data_prep.__file__).parent / "h5ad" / "data" / TABLE
    stated = json.loads(file.with_name("mouse_human_orthologues.json").read_text())
    content = file.read_bytes()
    assert stated["sha256"] == hashlib.sha256(content).hexdigest()
    lines = gzip.decompress(content).decode().splitlines()
    assert lines[0].split("\t") == ["mouse", "human", "type"]
    assert stated["rows"] == len(lines) - 1
    assert stated["one_to_one_rows"] == sum(line.endswith("\tone2one") for line in lines)
    assert {"origin", "taken_from", "taken_on", "changes", "licence", "cite"} <= stated.keys()
