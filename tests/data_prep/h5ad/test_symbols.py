from __future__ import annotations

import pytest

from cellduality_plugin.errors import CellDualityError
from data_prep.h5ad.orthologues import human_symbols, mouse_symbols
from data_prep.h5ad.symbols import check_species, guess_species, symbol_columns, symbol_kind

HUMAN = sorted(human_symbols() - mouse_symbols())[::100]
MOUSE = sorted(mouse_symbols() - human_symbols())[::100]
ENSEMBL = [f"ENSG{number:011}" for number in range(100)]


@pytest.mark.parametrize("name", ["ENSG00000198851", "ENSG00000198851.12", "ENSMUSG00000032093", "ENSDARG00000000001"])
def test_ensembl_ids_are_known(name):
    assert symbol_kind(name) == "ensembl"


@pytest.mark.parametrize("name", ["mm10_Cd3e", "mm10___Cd3e", "GRCh38_CD3E", "GRCm39_Cd3e", "hg19_CD3E"])
def test_names_of_genomes_are_known(name):
    assert symbol_kind(name) == "prefixed"


@pytest.mark.parametrize("name", ["G17", "C3", "", "ENSG1", "GRCh38_"])
def test_other_names_tell_nothing(name):
    assert symbol_kind(name) == "other"


def test_species_is_told_by_nearly_all_names_or_not_at_all():
    assert guess_species(HUMAN) == "human"
    assert guess_species([*MOUSE, "EGFP", HUMAN[0]]) == "mouse"
    assert guess_species([*HUMAN, *MOUSE]) is None
    assert guess_species([f"G{number}" for number in range(500)]) is None


def test_a_species_that_cannot_be_told_is_the_declared_one():
    assert check_species(["G1", "G2"]) is None
    assert check_species(["G1", "G2"], "mouse") == "mouse"
    assert check_species(HUMAN) == check_species(HUMAN, "human") == "human"


@pytest.mark.parametrize(
    ("names", "declared", "what", "mend"),
    [
        (ENSEMBL, None, "100 of 100 gene names are Ensembl ids (ENSG00000000000)", "--gene-symbols with one of: name"),
        (
            [*HUMAN, *MOUSE],
            None,
            f"mixed species: {len(HUMAN)} human and {len(MOUSE)} mouse gene symbols",
            "one species",
        ),
        ([*HUMAN, *MOUSE], "human", "mixed species", "one species"),
        (
            ["GRCh38_A", "GRCh38_B", "mm10_a"],
            None,
            "mixed species: gene names start with GRCh38_ and mm10_",
            "one genome",
        ),
        (["mm10___a", "mm10___b"], None, "start with the name of a genome, mm10___", "removeprefix('mm10___')"),
        (MOUSE, "human", f"human genes are declared, but {len(MOUSE)} of {len(MOUSE)} are mouse", "--species mouse"),
        (HUMAN, "mouse", "mouse genes are declared", "--species human"),
    ],
)
def test_names_that_would_be_misread_are_told(names, declared, what, mend, check_told):
    with pytest.raises(CellDualityError) as raised:
        check_species(names, declared, where="my.h5ad", columns=["name"])
    check_told(raised, what, mend)
    assert raised.value.where == "my.h5ad"


def test_ids_without_any_column_of_symbols_are_told(check_told):
    with pytest.raises(CellDualityError) as raised:
        check_species(ENSEMBL)
    check_told(raised, "Ensembl ids", "none here looks like it")


def test_columns_of_symbols_are_found():
    table = {"id": ENSEMBL, "feature_name": [*HUMAN[:40], *ENSEMBL[:60]], "biotype": ["protein_coding"] * 100}
    assert symbol_columns(table) == ["feature_name"]
