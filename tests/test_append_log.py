"""Whatever ends a process, the file holds whole lines."""

from __future__ import annotations

import json
import os
import subprocess
import sys

from hypothesis import given, settings
from hypothesis import strategies as st

from cellduality_plugin.files import AppendLog
from tests.refused import refused

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


def test_a_torn_line_may_be_longer_than_a_block(tmp_path):
    (tmp_path / "log").write_bytes(b"{}\n" + b'{"text": "' + b"x" * 300_000)
    with AppendLog(tmp_path / "log") as log:
        assert list(log.lines()) == [b"{}\n"]


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


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with refused("unwritable-file") as error:
        AppendLog(tmp_path / "file" / "log")
    assert error.value.where.startswith(str(tmp_path / "file"))
