from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cellduality_plugin.errors import CellDualityError
from cellduality_plugin.vocabulary import Vocabulary


def test_names_that_differ_in_case_only_stay_two_genes():
    vocabulary = Vocabulary(genes=("Cd4", "CD4", "LYZ"), labels={})
    assert vocabulary.gene("Cd4") == "Cd4"
    assert vocabulary.gene("CD4") == "CD4"
    assert vocabulary.gene("cd4") is None, "which of the two is meant cannot be known"
    assert vocabulary.gene("lyz") == "LYZ"


def test_saving_and_loading_keeps_everything(tmp_path, vocabulary):
    vocabulary.save(tmp_path / "v.json")
    loaded = Vocabulary.load(tmp_path / "v.json")
    assert loaded == vocabulary
    assert loaded.fingerprint == vocabulary.fingerprint


def test_the_fingerprint_follows_the_content(vocabulary):
    assert Vocabulary(vocabulary.genes[:-1], vocabulary.labels).fingerprint != vocabulary.fingerprint


@pytest.mark.parametrize(
    ("genes", "labels", "message"),
    [
        (("A", "A"), {}, "duplicate gene names"),
        (("A B",), {}, "white space"),
        (("",), {}, "empty"),
        (("A",), {"cell_type": ("T cell", "t  CELL")}, "differ only in case or spacing"),
    ],
)
def test_ambiguous_vocabularies_are_refused(genes, labels, message):
    with pytest.raises(CellDualityError, match=message):
        Vocabulary(genes=genes, labels=labels)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no vocabulary file"),
        ("{", "unreadable"),
        ("[]", "not a cellduality-vocabulary"),
        ('{"format": "x"}', "not a"),
    ],
)
def test_a_bad_file_is_one_line(tmp_path, content, message):
    path = tmp_path / "v.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(CellDualityError, match=message) as caught:
        Vocabulary.load(path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


@given(st.text())
def test_looking_up_any_text_never_raises(text):
    vocabulary = Vocabulary(genes=("LYZ",), labels={"cell_type": ("T",)})
    assert vocabulary.gene(text) in (None, "LYZ")
    assert vocabulary.label("cell_type", text) in (None, "T")
