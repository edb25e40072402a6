"""Files that are written whole or not at all."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from cellduality_plugin.errors import CellDualityError


@contextlib.contextmanager
def whole_file(path: Path, mode: str = "w") -> Iterator[IO[Any]]:
    """Open a file beside ``path`` and move it into place only when the block ends well.

    A reader therefore sees the old content or the new, never half of it; a full disk leaves the old content.

    Raises
    ------
    CellDualityError
        If the file system refuses (full disk, no permission).
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    except OSError as error:
        raise CellDualityError(f"cannot write: {error.strerror}", where=str(path), hint=_MEND) from error
    try:
        try:
            with os.fdopen(handle, mode, encoding=None if "b" in mode else "utf-8") as stream:
                yield stream
                stream.flush()
                os.fsync(stream.fileno())
            umask = os.umask(0)
            os.umask(umask)
            os.chmod(name, 0o666 & ~umask)
            os.replace(name, path)
        except OSError as error:
            raise CellDualityError(f"cannot write: {error.strerror}", where=str(path), hint=_MEND) from error
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)


_MEND = "free some space or choose another folder; earlier outputs are untouched"


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
    """Yield the object of each line of ``path``.

    Raises
    ------
    CellDualityError
        If the file is missing or a line is not a JSON object; the line's number is named.
    """
    try:
        with path.open(encoding="utf-8") as stream:
            for number, line in enumerate(stream, start=1):
                try:
                    row = json.loads(line)
                except json.JSONDecodeError as error:
                    raise CellDualityError(
                        f"not JSON: {error.msg}", where=f"{path}:{number}", hint="prepare the data again"
                    ) from error
                if not isinstance(row, dict):
                    raise CellDualityError("not a JSON object", where=f"{path}:{number}", hint="prepare the data again")
                yield row
    except FileNotFoundError:
        raise CellDualityError("no such file", where=str(path), hint="prepare the data first") from None
    except (OSError, UnicodeDecodeError) as error:
        raise CellDualityError(f"cannot read: {error}", where=str(path), hint="prepare the data again") from error


def read_versioned(path: Path, form: str, version: int, *, what: str, hint: str) -> dict[str, Any]:
    """Return the JSON object in ``path``, which names its ``format`` and ``version``.

    Raises
    ------
    CellDualityError
        If the file is missing, is not JSON, or has another format or version.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CellDualityError(f"no {what}", where=str(path), hint=hint) from None
    except (OSError, ValueError) as error:
        raise CellDualityError(f"unreadable {what}: {error}", where=str(path), hint=hint) from error
    if not isinstance(content, dict) or (content.get("format"), content.get("version")) != (form, version):
        raise CellDualityError(f"not a {form} file of version {version}", where=str(path), hint=hint)
    return content
