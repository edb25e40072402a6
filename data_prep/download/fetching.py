"""From a registry entry to its files, in a cache folder."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import platformdirs

from cellduality_plugin.errors import CellDualityError
from cellduality_plugin.files import write_text
from data_prep.download.archives import fetch_packaged, installed_file, unpack_gzip
from data_prep.download.downloads import Progress, download
from data_prep.loading.dataset import CollectionFile, Dataset, FileSource, PackageFile, RemoteFile, UserFile
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
            "no such folder", where=folder, hint="set CELLDUALITY_DATA to a folder of .h5ad files, or unset it"
        )
    path = Path(folder) / f"{dataset.name}.h5ad"
    return path if path.is_file() else None


def is_cached(dataset: Dataset, cache: str | Path | None = None) -> bool:
    """Return whether :func:`fetch` would give every file of the set without a download."""
    folder = cache_folder(cache) / dataset.name
    return ready_file(dataset) is not None or all(_at_hand(source, folder) for source in dataset.sources)


def missing_files(dataset: Dataset, cache: str | Path | None = None) -> tuple[UserFile, ...]:
    """Return the files of a set that the user has yet to bring."""
    folder = cache_folder(cache) / dataset.name
    return tuple(one for one in dataset.sources if isinstance(one, UserFile) and not _at_hand(one, folder))


def fetch(dataset: Dataset, cache: str | Path | None = None, progress: Progress | None = None) -> dict[str, Path]:
    """Return the files of a set by name, downloaded if they are not in the cache yet.

    Where there is a :func:`ready_file`, it is that alone. A file that only the user can bring is missing if it is not
    there: the loader says whether it can do without. Where the publisher states no checksum, the hash of the first
    download is recorded in ``hashes.json`` beside the files, and whatever comes later is checked against it.

    Raises
    ------
    CellDualityError
        If a file cannot be had, or is not what it was at its first download.
    """
    ready = ready_file(dataset)
    if ready is not None:
        return {ready.name: ready}
    folder = cache_folder(cache) / dataset.name
    files = {}
    with _alone(folder):
        for source in dataset.sources:
            path = _at_hand(source, folder)
            if isinstance(source, UserFile):
                if path:
                    files[source.name] = path
                continue
            if path is None:
                path = folder / source.name
                if isinstance(source, PackageFile):
                    fetch_packaged(_missing_of_release(dataset, source, folder), folder)
                else:
                    _bring(source, path, progress)
            if path.parent == folder:
                _check_hash(path)
            files[source.name] = path
    return files


def only_file(dataset: Dataset) -> Path:
    """Return the file of a set that has one; an installed one where it is, without a cache."""
    (source,) = dataset.sources
    installed = installed_file(source) if isinstance(source, PackageFile) else None
    return installed or fetch(dataset)[source.name]


def _at_hand(source: FileSource, folder: Path) -> Path | None:
    path = folder / source.name
    if path.is_file():
        return path
    return installed_file(source) if isinstance(source, PackageFile) else None


def _missing_of_release(dataset: Dataset, source: PackageFile, folder: Path) -> list[PackageFile]:
    """Return the files that come with the same download as ``source``, itself included."""
    packaged = [one for one in dataset.sources if isinstance(one, PackageFile) and not _at_hand(one, folder)]
    return [one for one in packaged if (one.distribution, one.version) == (source.distribution, source.version)]


def _bring(source: RemoteFile | CollectionFile, path: Path, progress: Progress | None) -> None:
    url, checksum = (
        (collection_url(source), "") if isinstance(source, CollectionFile) else (source.url, source.checksum)
    )
    gzipped = url.split("?")[0].endswith(".gz") and not source.name.endswith(".gz")
    packed = path.with_name(path.name + ".gz") if gzipped else path
    if not (gzipped and packed.is_file()):  # it is, if an earlier run stopped between download and unpacking
        known = _hashes(packed).get(packed.name, {}).get("sha256", "")
        digest = download(url, packed, checksum=checksum or (known and f"sha256:{known}"), progress=progress)
        _note_hash(packed, digest)
    if gzipped:
        try:
            unpack_gzip(packed, path)
        finally:
            packed.unlink()


def collection_url(source: CollectionFile) -> str:
    """Return today's address of a CELLxGENE data set's .h5ad file."""
    url = f"{CELLXGENE}/{source.collection}"
    with tempfile.TemporaryDirectory() as folder:
        answer = Path(folder) / f"{source.title}.json"
        download(url, answer)
        try:
            sets = json.loads(answer.read_text(encoding="utf-8"))["datasets"]
            assets = [asset for one in sets if one["title"] == source.title for asset in one["assets"]]
            return next(str(asset["url"]) for asset in assets if asset["filetype"] == "H5AD")
        except (ValueError, KeyError, TypeError, StopIteration) as error:
            raise CellDualityError(
                f"the collection names no .h5ad file of the data set {source.title!r}",
                where=url,
                hint="look at the collection's page, and report it",
            ) from error


def _hashes(path: Path) -> dict[str, dict[str, Any]]:
    """Return what the files beside ``path`` were when they first came: trusted then, checked from then on."""
    record = path.with_name(HASHES)
    try:
        return dict(json.loads(record.read_text(encoding="utf-8"))) if record.exists() else {}
    except (ValueError, OSError) as error:
        raise CellDualityError(
            f"unreadable record of hashes ({error})",
            where=str(record),
            hint="remove it: the files at hand are trusted again",
        ) from error


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
        raise CellDualityError(
            f"the file is not what was downloaded first (SHA-256 {digest[:12]}..., was {record['sha256'][:12]}...)",
            where=str(path),
            hint=f"remove it to fetch it again; if it changed for a good reason, remove {HASHES} too",
        )
    _note_hash(path, digest)


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
            hint="set CELLDUALITY_CACHE to a folder you may write to",
        ) from error
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
