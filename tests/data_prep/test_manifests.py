from __future__ import annotations

import pytest

import cellduality_plugin
from cellduality_plugin.errors import CellDualityError
from data_prep.manifests import code_sha256, manifest_path, read_manifest, up_to_date, write_manifest

ORIGIN = {"seed": 3, "settings": {"fractions": (0.6, 0.2, 0.2)}}


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text("{}\n")
    write_manifest(path, ORIGIN, counts={"rows": 1})
    return path


def test_up_to_date_means_same_origin_version_and_bytes(file, tmp_path, monkeypatch):
    told = {"file": "rows.jsonl", "counts": {"rows": 1}, "seed": 3, "package_version": cellduality_plugin.__version__}
    assert told.items() <= read_manifest(file).items()
    assert up_to_date([file], ORIGIN)
    assert not up_to_date([file], {**ORIGIN, "seed": 4})
    assert not up_to_date([file], {**ORIGIN, "source": "new"})
    assert not up_to_date([file, tmp_path / "gone.jsonl"], ORIGIN)
    with monkeypatch.context() as patch:
        patch.setattr(cellduality_plugin, "__version__", "999")
        assert not up_to_date([file], ORIGIN)
    file.write_text("{} \n")
    assert not up_to_date([file], ORIGIN)


@pytest.mark.parametrize(
    ("spoil", "what"),
    [
        (lambda path: path.unlink(), "no such file"),
        (lambda path: manifest_path(path).unlink(), "no such file"),
        (lambda path: path.write_text("[]\n"), "the file is not the one its manifest tells of"),
        (lambda path: manifest_path(path).write_text("{"), "unreadable manifest"),
        (lambda path: manifest_path(path).write_bytes(b"\xff"), "unreadable manifest"),
        (lambda path: manifest_path(path).write_text("[]"), "not a cellduality-data manifest"),
        (lambda path: manifest_path(path).write_text('{"format": "cellduality-data"}'), "of version 1"),
    ],
)
def test_spoilt_file_or_manifest_is_told(spoil, what, file, check_told):
    spoil(file)
    with pytest.raises(CellDualityError) as raised:
        read_manifest(file)
    check_told(raised, what, "prepare the data again")


def test_code_hash_sees_every_byte(tmp_path):
    one, two = tmp_path / "one.py", tmp_path / "two.py"
    one.write_text("a")
    two.write_text("b")
    before = code_sha256([one, two])
    assert code_sha256([two, one]) == before
    two.write_text("c")
    assert code_sha256([one, two]) != before
