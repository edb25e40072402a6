"""A file of lines that is only ever appended to, and of which nobody sees half a line."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

from cellduality_plugin.errors import CellDualityError

Self = TypeVar("Self", bound="AppendLog")


class AppendLog:
    """A file of JSON lines that one process at a time appends to.

    Each line reaches the operating system in one write: a killed process loses the line it was writing and no other.
    That torn line is cut off when the file is opened again; :meth:`sync` guards against a power cut.

    The file and its folder are made if need be. A CellDualityError is raised if another process appends to the file, or
    the file system refuses.
    """

    def __init__(self, path: Path) -> None:
        self.path = path = Path(path)
        with self._writing():
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o666)
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                self._cut_torn_line()
            except BlockingIOError:
                os.close(self._file)
                what, hint = "another process is appending to it", "wait until it ends, or stop it; nothing was asked"
                raise CellDualityError(what, code="in-use", where=str(path), hint=hint) from None
            except OSError:
                os.close(self._file)
                raise

    def lines(self) -> Iterator[bytes]:
        with self.path.open("rb") as stream:
            yield from stream

    def append(self, line: bytes) -> None:
        """Write one line, given without its end: whole, or not at all and a CellDualityError."""
        end = os.fstat(self._file).st_size
        with self._writing():
            try:
                if os.write(self._file, line + b"\n") <= len(line):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            except OSError:
                os.ftruncate(self._file, end)
                raise

    def clear(self) -> None:
        os.ftruncate(self._file, 0)

    def sync(self) -> None:
        """Have the disk keep what was written: a matter of power cuts alone, and of milliseconds."""
        with self._writing():
            os.fsync(self._file)

    def close(self) -> None:
        """Sync, and let other processes append."""
        try:
            self.sync()
        finally:
            os.close(self._file)

    def __enter__(self: Self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _cut_torn_line(self) -> None:
        """Remove a last line that has no end, unless nothing but the end is missing."""
        start = size = os.fstat(self._file).st_size
        tail = b""
        while start and b"\n" not in tail:
            end, start = start, max(0, start - 65_536)
            tail = os.pread(self._file, end - start, start) + tail
        last = tail[tail.rfind(b"\n") + 1 :]
        if not last:
            return
        try:
            json.loads(last)
        except ValueError:
            os.ftruncate(self._file, size - len(last))
        else:
            os.write(self._file, b"\n")

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            what = f"cannot write: {error.strerror or error}"
            hint = "free some space or choose another folder; what was written stays, the same command goes on from it"
            raise CellDualityError(what, code="unwritable-file", where=str(self.path), hint=hint) from error
