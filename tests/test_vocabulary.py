from __future__ import annotations

import pytest

from cellduality_plugin.vocabulary import Vocabulary
from tests.refused import refused


def test_names_that_differ_in_case_only_stay_two_genes():
    vocabulary = Vocabulary(genes=("Cd4", "CD4", "LYZ"), labels={})
    found = [vocabulary.gene(name) for name in ("Cd4", "CD4", "cd4", "lyz")]
    assert found == ["Cd4", "CD4", None, "LYZ"], "which of the two cd4 means cannot be known"


def test_saving_and_loading_keeps_everything(tmp_path, vocabulary):
    vocabulary.save(tmp_path / "v.json")
    loaded = Vocabulary.load(tmp_path / "v.json")
    assert loaded == vocabulary
    assert loaded.fingerprint == vocabulary.fingerprint
    assert Vocabulary(vocabulary.genes[:-1], vocabulary.labels).fingerprint != vocabulary.fingerprint


@pytest.mark.parametrize(
    ("genes", "labels", "code"),
    [
        (("A", "A"), {}, "duplicate-genes"),
        (("A B",), {}, "wrong-gene-name"),
        (("",), {}, "wrong-gene-name"),
        (("A",), {"cell_type": ("T cell", "t  CELL")}, "duplicate-labels"),
    ],
)
def test_ambiguous_vocabularies_are_refused(genes, labels, code):
    with refused(code):
        Vocabulary(genes=genes, labels=labels)


@pytest.mark.parametrize(
    ("content", "code"),
    [(None, "missing-file"), ("{", "unreadable-file"), ("[]", "wrong-format"), ('{"format": "x"}', "wrong-format")],
)
def test_a_bad_file_is_named(tmp_path, content, code):
    path = tmp_path / "v.json"
    if content is not None:
        path.write_text(content)
    with refused(code) as error:
        Vocabulary.load(path)
    assert error.value.where == str(path)
