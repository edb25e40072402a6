"""Files and folders that are written whole or not at all, files of lines that only grow, and how both are read."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any, TypeVar

from cellduality_plugin.errors import CellDualityError

Self = TypeVar("Self", bound="AppendLog")


@contextlib.contextmanager
def whole_file(path: Path, mode: str = "w") -> Iterator[IO[Any]]:
    """Open a file beside ``path`` and move it into place only when the block ends well.

    A reader therefore sees the old content or the new, never half of it; a full disk leaves the old content. A
    CellDualityError says that the file system refuses.
    """
    temporary = ""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(handle, mode, encoding=None if "b" in mode else "utf-8") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        _publish(temporary, path)
    except OSError as error:
        raise _unwritten(f"cannot write: {error.strerror}", path) from error
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)


@contextlib.contextmanager
def whole_folder(out: Path) -> Iterator[Path]:
    """Yield an empty folder beside ``out`` and move its files into ``out`` when the block ends well.

    A failure inside the block leaves ``out`` as it was. Files are moved in alphabetical order, one atomic step each;
    files of ``out`` with other names stay. A CellDualityError says that the file system refuses.
    """
    out = Path(os.path.abspath(out))
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as name:
            yield Path(name)
            out.mkdir(exist_ok=True)
            for path in sorted(Path(name).iterdir()):
                _publish(path, out / path.name)
    except OSError as error:
        raise _unwritten(f"cannot write: {error.strerror or error}", out) from error
    except CellDualityError as error:
        if not error.where.startswith(str(out.parent / f".{out.name}.")):
            raise
        raise _unwritten(error.what, out) from error  # the folder beside it is gone: name the one that was asked for


def _publish(temporary: str | Path, path: Path) -> None:
    """Move a file into place, readable by whoever the user's umask lets; temporary files are private."""
    umask = os.umask(0)
    os.umask(umask)
    os.chmod(temporary, 0o666 & ~umask)
    os.replace(temporary, path)


def _unwritten(what: str, where: Path) -> CellDualityError:
    hint = "free some space or choose another folder; earlier outputs are untouched"
    return CellDualityError(what, code="unwritable-file", where=str(where), hint=hint)


def write_text(path: Path, text: str) -> None:
    """Write ``text`` to ``path``, whole or not at all."""
    with whole_file(path) as stream:
        stream.write(text)


def write_jsonl(path: Path, rows: Iterable[Mapping[str, Any]]) -> int:
    """Write one JSON object a line and return how many; whole or not at all."""
    count = 0
    with whole_file(path) as stream:
        for row in rows:
            stream.write(json.dumps(row, ensure_ascii=False) + "\n")
            count += 1
    return count


def read_jsonl(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the object of each line of ``path``; a CellDualityError names the line that is none, or a missing file."""
    number, again = 0, "prepare the data again"
    try:
        with path.open(encoding="utf-8") as stream:
            for number, line in enumerate(stream, start=1):
                row = json.loads(line)
                if not isinstance(row, dict):
                    raise CellDualityError("not a JSON object", code="not-json", where=f"{path}:{number}", hint=again)
                yield row
    except FileNotFoundError:
        hint = "prepare the data first"
        raise CellDualityError("no such file", code="missing-file", where=str(path), hint=hint) from None
    except json.JSONDecodeError as error:
        what = f"not JSON: {error.msg}"
        raise CellDualityError(what, code="not-json", where=f"{path}:{number}", hint=again) from error
    except (OSError, UnicodeDecodeError) as error:
        raise CellDualityError(f"cannot read: {error}", code="unreadable-file", where=str(path), hint=again) from error


def read_versioned(path: Path, form: str, version: int, *, what: str, hint: str) -> dict[str, Any]:
    """Return the JSON object in ``path``; a CellDualityError if it is not of this ``format`` and ``version``."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CellDualityError(f"no {what}", code="missing-file", where=str(path), hint=hint) from None
    except (OSError, ValueError) as error:
        what = f"unreadable {what}: {error}"
        raise CellDualityError(what, code="unreadable-file", where=str(path), hint=hint) from error
    if not isinstance(content, dict) or (content.get("format"), content.get("version")) != (form, version):
        problem = f"not a {form} file of version {version}"
        raise CellDualityError(problem, code="wrong-format", where=str(path), hint=hint)
    return content


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write ``content`` to ``path`` as indented JSON, whole or not at all."""
    write_text(path, json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


class AppendLog:
    """A file of JSON lines that one process at a time appends to.

    Each line reaches the operating system in one write: a killed process loses the line it was writing and no other.
    That torn line is cut off when the file is opened again; :meth:`sync` guards against a power cut. The file and its
    folder are made if need be. A CellDualityError says that another process appends to it, or the file system refuses.
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
