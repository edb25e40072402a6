from __future__ import annotations

import errno
import os

import pytest

from cellduality_plugin.files import read_jsonl, whole_file, write_jsonl, write_text
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
