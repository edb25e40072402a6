from __future__ import annotations

import errno
import os
import stat

import pytest

from cellduality_plugin.files import read_jsonl, whole_file, whole_folder, write_jsonl, write_text
from tests.refused import refused


@pytest.fixture
def path(tmp_path):
    """A file that was written before, alone in its folder."""
    path = tmp_path / "rows.jsonl"
    write_text(path, "old")
    yield path
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["rows.jsonl"]


def test_a_full_disk_leaves_the_old_file_and_nothing_else(path, monkeypatch):
    def no_space(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", no_space)
    with refused("unwritable-file") as error:
        write_text(path, "new")
    assert "No space left" in error.value.what


def test_a_crash_half_way_leaves_the_old_file(path):
    with pytest.raises(KeyboardInterrupt), whole_file(path) as stream:
        stream.write("half")
        raise KeyboardInterrupt


def test_rows_come_back(tmp_path):
    rows = [{"a": "é"}, {"b": [1, 2]}]
    assert write_jsonl(tmp_path / "r.jsonl", rows) == 2
    assert list(read_jsonl(tmp_path / "r.jsonl")) == rows


@pytest.mark.parametrize(
    ("content", "code", "place"),
    [
        (b"{}\n{", "not-json", ":2"),
        (b"{}\n[]\n", "not-json", ":2"),
        (b"\xff", "unreadable-file", ""),
        (None, "missing-file", ""),
    ],
)
def test_a_bad_row_is_named_by_its_line(tmp_path, content, code, place):
    path = tmp_path / "r.jsonl"
    if content is not None:
        path.write_bytes(content)
    with refused(code) as error:
        list(read_jsonl(path))
    assert error.value.where == f"{path}{place}"


def test_files_arrive_together_and_others_stay(tmp_path):
    out = tmp_path / "deep" / "out"
    out.mkdir(parents=True)
    (out / "old").write_text("old")
    with whole_folder(out) as folder:
        (folder / "new").write_text("new")
        os.chmod(folder / "new", 0o600)
        assert not (out / "new").exists()
    assert sorted(path.name for path in out.iterdir()) == ["new", "old"]
    umask = os.umask(0)
    os.umask(umask)
    assert stat.S_IMODE((out / "new").stat().st_mode) == 0o666 & ~umask
    with pytest.raises(KeyboardInterrupt), whole_folder(out) as folder:
        (folder / "old").write_text("new")
        raise KeyboardInterrupt
    assert (out / "old").read_text() == "old"
    assert list(out.parent.iterdir()) == [out]


def test_file_in_the_place_of_the_folder_is_refused(tmp_path):
    (tmp_path / "out").write_text("a file")
    with refused("unwritable-file"), whole_folder(tmp_path / "out") as folder:
        (folder / "rows").write_text("new")
    assert (tmp_path / "out").read_text() == "a file"
