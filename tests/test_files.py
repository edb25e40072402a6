"""Files are whole or not there; whatever ends a process, a log holds whole lines."""

from __future__ import annotations

import errno
import json
import os
import stat
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cellduality_plugin.files import AppendLog, read_jsonl, whole_file, whole_folder, write_text
from tests.refused import refused


def test_a_full_disk_or_a_crash_half_way_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    def no_space(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    write_text(tmp_path / "rows", "old")
    with pytest.raises(KeyboardInterrupt), whole_file(tmp_path / "rows") as stream:
        stream.write("half")
        raise KeyboardInterrupt
    monkeypatch.setattr(os, "fsync", no_space)
    with refused("unwritable-file") as error:
        write_text(tmp_path / "rows", "new")
    assert "No space left" in error.value.what
    assert (tmp_path / "rows").read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["rows"]


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
    with refused("unwritable-file") as error:
        AppendLog(tmp_path / "out" / "log")
    assert error.value.where.startswith(str(tmp_path / "out"))
    assert (tmp_path / "out").read_text() == "a file"


rows = st.lists(st.fixed_dictionaries({"text": st.text(max_size=9), "number": st.integers()}), max_size=5)


@settings(max_examples=60)
@given(rows, st.data())
def test_a_file_torn_anywhere_keeps_every_whole_line(tmp_path_factory, rows, data):
    path, written = tmp_path_factory.mktemp("log") / "folder" / "log.jsonl", [json.dumps(row).encode() for row in rows]
    with AppendLog(path) as log:
        for line in written:
            log.append(line)
    content = path.read_bytes()
    assert content == b"".join(line + b"\n" for line in written)
    cut = data.draw(st.integers(0, len(content)))
    path.write_bytes(content[:cut])
    whole = content[:cut].count(b"\n") + (content[cut : cut + 1] == b"\n")
    with AppendLog(path) as log:
        log.append(b"{}")
        assert list(log.lines()) == [line + b"\n" for line in [*written[:whole], b"{}"]]


def test_one_process_at_a_time(tmp_path):
    program = f"from cellduality_plugin.files import AppendLog\nlog = AppendLog({str(tmp_path / 'log')!r})\n"
    command = [sys.executable, "-c", program + "print('open', flush=True)\ninput()"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "open\n"
        with refused("in-use"):
            AppendLog(tmp_path / "log")
        other.kill()  # the lock goes with the process
        other.wait()
    AppendLog(tmp_path / "log").close()


def test_a_full_disk_leaves_no_half_line(tmp_path, monkeypatch):
    write = os.write
    with AppendLog(tmp_path / "log") as log:
        log.append(b"{}")
        monkeypatch.setattr(os, "write", lambda file, line: write(file, line[:3]))
        with refused("unwritable-file"):
            log.append(b'{"text": "long"}')
        monkeypatch.undo()
        log.append(b"[]")
        assert list(log.lines()) == [b"{}\n", b"[]\n"]
