"""The file of candidates: every raw reply, one a line, written once and never changed."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

from pydantic import TypeAdapter, ValidationError

from cellduality_plugin.errors import CellDualityError
from data_prep.traces.candidates import Candidate

_LINE = TypeAdapter(Candidate)
_BLOCK = 1 << 16


def prompt_hash(prompt: str) -> str:
    """Return the 12 hex digits under which candidates name a prompt.

    Examples
    --------
    >>> prompt_hash("Name the type of a cell.")
    '0f83dbcf4831'
    """
    return hashlib.sha256(prompt.encode("utf-8", "replace")).hexdigest()[:12]


class Done:
    """Which candidates of one teacher there are, and what they cost.

    Of each only 16 bytes are held, so that a file of millions of lines takes some hundred megabytes of memory.
    """

    def __init__(self) -> None:
        self._digests: set[bytes] = set()
        self.prompt_tokens = self.completion_tokens = 0

    def claim(self, key: str, candidate: int, prompt: str) -> bool:
        """Return whether candidate ``candidate`` of this question and prompt is new here; from now on it is not."""
        name = json.dumps((key, candidate, prompt)).encode()
        digest = hashlib.blake2b(name, digest_size=16).digest()
        new = digest not in self._digests
        self._digests.add(digest)
        return new

    def __len__(self) -> int:
        return len(self._digests)


class CandidateLog:
    """A file of candidates that one process at a time appends to.

    Every line reaches the operating system in one write, so that a killed run loses nothing but the line it was
    writing; that torn line is cut off when the file is opened again. :meth:`sync` guards against a power cut.

    Parameters
    ----------
    path
        The file; it and its folder are made if need be. Beside it a ``.lock`` file tells who writes.

    Raises
    ------
    CellDualityError
        If another process appends to the file, or the file system refuses.
    """

    def __init__(self, path: Path) -> None:
        self.path = path = Path(path)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(path.with_name(path.name + ".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
            try:
                self._take_lock()
                self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o666)
                try:
                    self._end = self._mend_end()
                except BaseException:
                    os.close(self._file)
                    raise
            except BaseException:
                os.close(self._lock)
                raise
        except OSError as error:
            raise _unwritten(path, error) from error

    def _take_lock(self) -> None:
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(self._lock, 200, 0).decode("utf-8", "replace").strip() or "another process"
            raise CellDualityError(
                f"{holder} is appending to it",
                where=str(self.path),
                mend="wait until it ends, or stop it; nothing was asked",
            ) from None
        os.ftruncate(self._lock, 0)
        os.pwrite(self._lock, f"process {os.getpid()} on {socket.gethostname()}\n".encode(), 0)

    def _mend_end(self) -> int:
        """Return the length of the file after its last line is whole or gone."""
        size = os.fstat(self._file).st_size
        tail, start = b"", size
        while start and b"\n" not in tail:
            end, start = start, max(0, start - _BLOCK)
            tail = os.pread(self._file, end - start, start) + tail
        last = tail[tail.rfind(b"\n") + 1 :]
        if not last:
            return size
        if _parsed(last) is not None:  # whole but for its line end: it was paid for
            return size + os.write(self._file, b"\n")
        os.ftruncate(self._file, size - len(last))
        return size - len(last)

    def append(self, candidate: Candidate) -> None:
        """Write one line, whole or not at all.

        Raises
        ------
        CellDualityError
            If the file system refuses; no half line is left then.
        """
        text = json.dumps(
            {**vars(candidate), "reply": vars(candidate.reply)}, ensure_ascii=False, separators=(",", ":")
        )
        line = text.encode("utf-8", "replace") + b"\n"  # lone surrogates, which no reader takes, become "?"
        try:
            if os.write(self._file, line) < len(line):
                raise OSError(28, "the disk is full")
        except OSError as error:
            os.ftruncate(self._file, self._end)
            raise _unwritten(self.path, error) from error
        self._end += len(line)

    def done(self, teacher: str, version: str) -> Done:
        """Return what the file holds of one teacher in one version.

        Raises
        ------
        CellDualityError
            If a line is malformed; it is named.
        """
        done = Done()
        for candidate in read_candidates(self.path):
            theirs = (candidate.teacher, candidate.version) == (teacher, version)
            if theirs and done.claim(candidate.key, candidate.candidate, candidate.prompt):
                done.prompt_tokens += candidate.reply.prompt_tokens
                done.completion_tokens += candidate.reply.completion_tokens
        return done

    def sync(self) -> None:
        """Have the disk keep what was written.

        The end of a process, however it ends, costs nothing: the operating system holds the lines. A power cut could
        take those it has not yet written to disk, so this is called about once a second and at the end; to do so for
        every line would take longer than many a reply.
        """
        try:
            os.fsync(self._file)
        except OSError as error:
            raise _unwritten(self.path, error) from error

    def close(self) -> None:
        """Sync, and let other processes append."""
        try:
            self.sync()
        finally:
            os.close(self._file)
            os.close(self._lock)

    def __enter__(self) -> CandidateLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def read_candidates(path: Path) -> Iterator[Candidate]:
    """Yield the candidates of a file in the order they came; a torn last line is left out.

    Raises
    ------
    CellDualityError
        If the file is missing or any other line is malformed; it is named.
    """
    try:
        with Path(path).open("rb") as stream:
            for number, line in enumerate(stream, start=1):
                candidate = _parsed(line)
                if candidate is not None:
                    yield candidate
                elif line.endswith(b"\n"):
                    raise CellDualityError(
                        "not a candidate", where=f"{path}:{number}", mend="remove that line; it will be asked again"
                    )
    except FileNotFoundError:
        raise CellDualityError("no such file", where=str(path), mend="sample a teacher first") from None
    except OSError as error:
        raise CellDualityError(
            f"cannot read: {error.strerror or error}", where=str(path), mend="make the file readable"
        ) from error


def _parsed(line: bytes) -> Candidate | None:
    try:
        return _LINE.validate_json(line, strict=True)
    except ValidationError:
        return None


def _unwritten(path: Path, error: OSError) -> CellDualityError:
    mend = "free some space or choose another folder; what was written stays, and the same command goes on from there"
    return CellDualityError(f"cannot write: {error.strerror or error}", where=str(path), mend=mend)
