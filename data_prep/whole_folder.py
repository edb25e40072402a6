"""Folders whose files are replaced together, or not at all."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from cellduality_plugin.errors import CellDualityError


@contextlib.contextmanager
def whole_folder(out: Path) -> Iterator[Path]:
    """Yield an empty folder beside ``out`` and move its files into ``out`` when the block ends well.

    A failure inside the block leaves ``out`` as it was. Files are moved in alphabetical order, one atomic step each;
    files of ``out`` with other names stay. A CellDualityError is raised if the file system refuses (full disk, no
    permission, a file in the folder's place).
    """
    out = Path(os.path.abspath(out))
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as name:
            yield Path(name)
            out.mkdir(exist_ok=True)
            umask = os.umask(0)
            os.umask(umask)
            for path in sorted(Path(name).iterdir()):
                path.chmod(0o666 & ~umask)  # some writers leave their files private
                os.replace(path, out / path.name)
    except OSError as error:
        raise _unwritten(f"cannot write: {error.strerror or error}", out) from error
    except CellDualityError as error:
        if not error.where.startswith(str(out.parent / f".{out.name}.")):
            raise
        raise _unwritten(error.what, out) from error  # the folder beside it is gone: name the one that was asked for


def _unwritten(what: str, out: Path) -> CellDualityError:
    hint = "free some space or choose another folder; earlier outputs are untouched"
    return CellDualityError(what, code="unwritable-file", where=str(out), hint=hint)
