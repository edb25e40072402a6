from __future__ import annotations

import errno
import os

import pytest

from cellduality_plugin.errors import CellDualityError
from cellduality_plugin.files import read_jsonl, whole_file, write_jsonl, write_text


def test_a_full_disk_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "rows.jsonl"
    write_text(path, "old")

    def no_space(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", no_space)
    with pytest.raises(CellDualityError, match=r"No space left.*free some space"):
        write_text(path, "new")
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["rows.jsonl"]


def test_a_crash_half_way_leaves_the_old_file(tmp_path):
    path = tmp_path / "rows.jsonl"
    write_text(path, "old")

    def stop_half_way() -> None:
        with whole_file(path) as stream:
            stream.write("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stop_half_way()
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["rows.jsonl"]


def test_rows_come_back(tmp_path):
    rows = [{"a": "é"}, {"b": [1, 2]}]
    assert write_jsonl(tmp_path / "r.jsonl", rows) == 2
    assert list(read_jsonl(tmp_path / "r.jsonl")) == rows


@pytest.mark.parametrize(("content", "message"), [("{}\n{", "r.jsonl:2"), ("{}\n[]\n", "not a JSON object")])
def test_a_bad_row_is_named_by_its_line(tmp_path, content, message):
    (tmp_path / "r.jsonl").write_text(content)
    with pytest.raises(CellDualityError, match=message):
        list(read_jsonl(tmp_path / "r.jsonl"))


def test_a_missing_file_is_one_line(tmp_path):
    with pytest.raises(CellDualityError, match="no such file"):
        list(read_jsonl(tmp_path / "none.jsonl"))
