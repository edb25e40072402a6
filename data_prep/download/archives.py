"""Taking one file out of an archive, and never letting an archive choose where it goes."""

from __future__ import annotations

import gzip
import os
import tarfile
import zipfile
import zlib
from pathlib import Path, PurePosixPath
from typing import IO

from cellduality_plugin.errors import CellDualityError
from cellduality_plugin.files import whole_file

BROKEN = (zipfile.BadZipFile, tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile)


def leaves_folder(name: str) -> bool:
    """Return whether a member's name points out of the folder it would be unpacked into.

    Examples
    --------
    >>> [leaves_folder(name) for name in ("data/a.h5ad", "../a.h5ad", "data/../../a", "/etc/a", "C:/a", "a/..b")]
    [False, True, True, True, True, False]
    """
    path = PurePosixPath(name.replace("\\", "/"))
    return path.is_absolute() or ".." in path.parts or ":" in (path.parts or ("",))[0]


def take_member(archive: Path, member: str, target: Path) -> None:
    """Write one file of a zip, wheel or tar archive to ``target``, whole or not at all.

    Parameters
    ----------
    archive
        The archive; zip and tar (compressed or not) are told apart by their content.
    member
        The file's full path in it.
    target
        Where it goes, whatever it is called in the archive.

    Raises
    ------
    CellDualityError
        If the archive is truncated or of another kind, has no such regular file, or holds a name that leaves its
        folder: such an archive is refused as a whole.
    """
    try:
        if zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as pack:
                _check_names(pack.namelist(), member, archive)
                with pack.open(member) as stream:
                    _copy(stream, target)
            return
        with tarfile.open(archive) as pack:
            _check_names(pack.getnames(), member, archive)
            content = pack.extractfile(member) if pack.getmember(member).isreg() else None
            if content is None:
                raise CellDualityError(
                    f"{member!r} is no regular file", where=str(archive), mend="do not use this archive"
                )
            with content:
                _copy(content, target)
    except (*BROKEN, _Unreadable) as error:
        raise _broken(archive, error) from error


def unpack_gzip(archive: Path, target: Path) -> None:
    """Write the content of a .gz file to ``target``, whole or not at all.

    Raises
    ------
    CellDualityError
        If the file is truncated or no .gz file.
    """
    try:
        with gzip.open(archive) as stream:
            _copy(stream, target)
    except (*BROKEN, _Unreadable) as error:
        raise _broken(archive, error) from error


def _copy(stream: IO[bytes] | gzip.GzipFile, target: Path) -> None:
    with whole_file(target, "wb") as out:
        while block := _read(stream):
            out.write(block)


def _read(stream: IO[bytes] | gzip.GzipFile) -> bytes:
    try:
        return stream.read(1 << 20)
    except BROKEN as error:  # some are OSErrors, which would be told as a failure to write
        raise _Unreadable(f"{type(error).__name__}: {error}") from error


class _Unreadable(Exception):
    """The archive could not be read on."""


def _check_names(names: list[str], member: str, archive: Path) -> None:
    outside = [name for name in (*names, member) if leaves_folder(name)]
    if outside:
        raise CellDualityError(
            f"the member {outside[0]!r} would leave its folder",
            where=str(archive),
            mend="do not use this archive; nothing was unpacked",
        )
    if member not in names:
        near = [name for name in names if os.path.basename(name) == os.path.basename(member)]
        raise CellDualityError(
            f"the archive has no member {member!r}" + (f", but {near[0]!r}" if near else ""),
            where=str(archive),
            mend="another release may have been published in its place; report it",
        )


def _broken(archive: Path, error: BaseException) -> CellDualityError:
    return CellDualityError(
        f"truncated, or no archive ({str(error)[:100] or type(error).__name__})",
        where=str(archive),
        mend="fetch the data set again",
    )
