from __future__ import annotations

import pytest

import cellduality_plugin
from data_prep.manifests import manifest_path, read_manifest, up_to_date, write_manifest
from tests.refused import refused

ORIGIN = {"seed": 3, "settings": {"fractions": (0.6, 0.2, 0.2)}}


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text("{}\n")
    write_manifest(path, ORIGIN, counts={"rows": 1})
    return path


def test_up_to_date_means_same_origin_version_and_bytes(file, tmp_path, monkeypatch):
    held = {"file": "rows.jsonl", "counts": {"rows": 1}, "seed": 3, "package_version": cellduality_plugin.__version__}
    assert held.items() <= read_manifest(file).items()
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
    "spoil",
    [
        lambda path: path.unlink(),
        lambda path: manifest_path(path).unlink(),
        lambda path: path.write_text("[]\n"),
        *(
            lambda path, content=content: manifest_path(path).write_bytes(content)
            for content in (b"{", b"\xff", b"[]", b'{"format": "cellduality-data"}')
        ),
    ],
)
def test_spoilt_file_or_manifest_is_refused(spoil, file):
    spoil(file)
    with refused("stale-file") as error:
        read_manifest(file)
    assert error.value.where in (str(file), str(manifest_path(file)))
