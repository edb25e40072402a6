"""Answers kept while a checkpoint is asked: an evaluation that was killed goes on where it was."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from cellduality_plugin.errors import CellDualityError
from cellduality_plugin.evaluation.decoding import Decoder, Request


def request_key(request: Request) -> str:
    """Return 32 hex digits that name what is asked; a greedy request has no randomness, so its seed does not count.

    Examples
    --------
    >>> request_key(Request("B?", 0.0, seed=1)) == request_key(Request("B?", 0.0, seed=2))
    True
    >>> request_key(Request("B?", 1.0, seed=1)) == request_key(Request("B?", 1.0, seed=2))
    False
    """
    content = [request.prompt, request.temperature, request.seed if request.temperature else None]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:32]


class KeptAnswers:
    """A file of answers, one batch a line, behind a first line that tells what they were made from.

    A batch is written in one piece and has reached the operating system before the next is asked, so that a killed
    process loses the batch it was waiting for and no other. A line that was torn is cut off, with all that follow.

    Parameters
    ----------
    path
        The file; made with its folder if need be, and removed again where nothing was kept.
    made_from
        Everything that can change an answer. A file that was made from anything else is started anew.

    Raises
    ------
    CellDualityError
        If another process writes to the file, or the file system refuses.
    """

    def __init__(self, path: Path, made_from: Mapping[str, Any]) -> None:
        self._path = path
        self._found: dict[str, str | None] = {}
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("a+b")
        except OSError as error:
            raise self._unwritten(error) from error
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._begin(_line(made_from))
        except BlockingIOError:
            self._file.close()
            raise CellDualityError(
                "another evaluation is asking this checkpoint",
                where=str(path),
                mend="wait for it, or choose another --out",
            ) from None
        except OSError as error:
            self._file.close()
            raise self._unwritten(error) from error

    def _begin(self, header: bytes) -> None:
        self._file.seek(0)
        if self._file.readline() != header:
            self._file.truncate(0)
            self._file.write(header)
            self._file.flush()
            return
        end = self._file.tell()
        for line in self._file:
            if (batch := _batch(line)) is None:
                break
            self._found.update(batch)
            end += len(line)
        self._file.truncate(end)

    def __contains__(self, key: str) -> bool:
        return key in self._found

    def __getitem__(self, key: str) -> str | None:
        return self._found[key]

    def __len__(self) -> int:
        return len(self._found)

    def add(self, batch: Mapping[str, str | None]) -> None:
        """Keep the answers of one batch, all or none.

        Raises
        ------
        CellDualityError
            If the file system refuses; no half line is left then.
        """
        end = os.fstat(self._file.fileno()).st_size
        try:
            self._file.write(_line(batch))
            self._file.flush()
        except OSError as error:
            os.ftruncate(self._file.fileno(), end)
            raise self._unwritten(error) from error
        self._found.update(batch)

    def discard(self) -> None:
        """Remove the file: what was kept is not needed any more."""
        self._found.clear()

    def __enter__(self) -> KeptAnswers:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._found:
            self._path.unlink(missing_ok=True)
        self._file.close()

    def _unwritten(self, error: OSError) -> CellDualityError:
        mend = (
            "free some space or choose another folder; what was answered stays, and the same command goes on from there"
        )
        return CellDualityError(f"cannot write: {error.strerror or error}", where=str(self._path), mend=mend)


def _line(content: Mapping[str, Any]) -> bytes:
    return json.dumps(content, separators=(",", ":")).encode() + b"\n"


def _batch(line: bytes) -> dict[str, str | None] | None:
    """Return the answers in a line, or None if it is torn or no batch."""
    try:
        content = json.loads(line) if line.endswith(b"\n") else None
    except ValueError:
        return None
    whole = isinstance(content, dict) and all(text is None or isinstance(text, str) for text in content.values())
    return content if whole else None


class KeepingDecoder:
    """A decoder that asks each thing once, in batches, and keeps what it was told.

    Which requests share a batch follows from the requests alone: they are sorted by their key and cut every ``batch``.
    Neither their order nor an interruption changes who is answered beside whom, and in bfloat16 that can matter.

    Parameters
    ----------
    decoder
        Who answers.
    kept
        What was answered already, and where the rest is kept.
    batch
        Requests at once.
    name
        The checkpoint, for the progress bar; empty for no bar.
    """

    def __init__(self, decoder: Decoder, kept: KeptAnswers, batch: int, name: str = "") -> None:
        self._decoder, self._kept, self._batch, self._name = decoder, kept, batch, name

    def generate(self, requests: Sequence[Request], title: str) -> list[str | None]:
        """Return one response a request, in order; None where the prompt leaves no room for one."""
        from tqdm import tqdm

        keys = [request_key(request) for request in requests]
        distinct = dict(zip(keys, requests, strict=True))
        order = sorted(distinct)
        # The supervisor of a recipe shows what stands behind a name in brackets.
        with tqdm(total=len(order), desc=f"[{self._name}] {title}", disable=not self._name) as bar:
            for start in range(0, len(order), self._batch):
                together = order[start : start + self._batch]
                missing = [key for key in together if key not in self._kept]
                if missing:
                    told = self._decoder.generate([distinct[key] for key in missing], title)
                    self._kept.add(dict(zip(missing, told, strict=True)))
                bar.update(len(together))
        return [self._kept[key] for key in keys]
