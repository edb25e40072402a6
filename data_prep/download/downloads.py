"""Downloads that take up where they stopped, and are in place only when they are whole and right."""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TypeAlias

import httpx
import tenacity

from cellduality_plugin.errors import CellDualityError

Progress: TypeAlias = Callable[[str, int, "int | None"], None]
"""Called with a file's name, the bytes that are there, and the bytes there will be, if known."""

AGAIN = "run the same command again: it goes on where it stopped"


@dataclass(frozen=True)
class Patience:
    """How long a download is tried.

    Parameters
    ----------
    attempts
        How often, in all.
    first_wait, longest_wait
        Seconds between attempts; each wait is twice the one before, with jitter.
    timeout
        Seconds without a byte after which a connection counts as dead.
    """

    attempts: int = 6
    first_wait: float = 1.0
    longest_wait: float = 60.0
    timeout: float = 60.0


class _Passing(Exception):
    """A fault that may be gone at the next attempt."""


def download(
    url: str,
    target: Path,
    *,
    sha256: str = "",
    md5: str = "",
    progress: Progress | None = None,
    patience: Patience | None = None,
) -> str:
    """Download ``url`` to ``target`` and return the SHA-256 of what came.

    What has come stays in ``target`` + ``.part`` until it is whole and its checksum is right; then it is moved into
    place in one step. A later call goes on from the .part file if the server vouches that the file is still the same.

    Parameters
    ----------
    url
        An http or https address; redirects are followed.
    target
        Where the file goes.
    sha256, md5
        What it must hash to; empty: not known.
    progress
        Told of every block.
    patience
        How long to try.

    Raises
    ------
    CellDualityError
        If the address is unknown to the server, the server cannot be reached or keeps failing, the download stays
        cut off, the checksum is wrong (the .part file is removed then), or the disk is full.
    """
    patience = patience or Patience()
    part = _Part(target)
    retrying = tenacity.Retrying(
        stop=tenacity.stop_after_attempt(patience.attempts),
        wait=tenacity.wait_exponential_jitter(
            initial=patience.first_wait, max=patience.longest_wait, jitter=patience.first_wait
        ),
        retry=tenacity.retry_if_exception_type(_Passing),
        reraise=True,
    )
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with httpx.Client(follow_redirects=True, timeout=patience.timeout) as client:
            retrying(_attempt, client, url, part, progress)
        digest = part.check(url, sha256, md5)
        os.replace(part.path, target)
        part.forget_version()
    except _Passing as error:
        raise CellDualityError(str(error), where=url, mend=AGAIN) from error
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        raise CellDualityError(
            "the disk is full" if full else f"cannot write: {error.strerror or error}",
            where=str(part.path),
            mend=f"free some space; then {AGAIN}" if full else "choose another cache folder",
        ) from error
    return digest


class _Part:
    """The part of a file that has come, and the version of the file it is of."""

    def __init__(self, target: Path) -> None:
        self.name = target.name
        self.path = target.with_name(target.name + ".part")
        self.version_path = target.with_name(target.name + ".part.version")

    @property
    def size(self) -> int:
        return self.path.stat().st_size if self.path.exists() else 0

    def headers(self) -> dict[str, str]:
        """Return what asks the server for the rest, if it has still the same version."""
        headers = {"Accept-Encoding": "identity"}  # lengths and ranges are of the file itself
        if self.size and self.version_path.exists():
            headers |= {"Range": f"bytes={self.size}-", "If-Range": self.version_path.read_text()}
        return headers

    def note_version(self, response: httpx.Response) -> None:
        etag = response.headers.get("ETag", "")
        # A weak ETag says that two versions mean the same, not that their bytes are.
        version = etag if etag and not etag.startswith("W/") else response.headers.get("Last-Modified", "")
        if version:
            self.version_path.write_text(version)
        else:
            self.forget_version()

    def forget_version(self) -> None:
        self.version_path.unlink(missing_ok=True)

    def remove(self) -> None:
        self.path.unlink(missing_ok=True)
        self.forget_version()

    def check(self, url: str, sha256: str, md5: str) -> str:
        """Return the SHA-256 of the whole file; a file that is not the right one is removed."""
        digests = {"SHA-256": hashlib.sha256(), "MD5": hashlib.md5(usedforsecurity=False)}
        with self.path.open("rb") as stream:
            while block := stream.read(1 << 20):
                for digest in digests.values():
                    digest.update(block)
        for kind, wanted in (("SHA-256", sha256), ("MD5", md5)):
            found = digests[kind].hexdigest()
            if wanted and found != wanted.lower():
                self.remove()
                raise CellDualityError(
                    f"wrong {kind}: {found} in place of {wanted.lower()}",
                    where=url,
                    mend="the download was removed; fetch again, and report it if it stays wrong",
                )
        return digests["SHA-256"].hexdigest()


def _attempt(client: httpx.Client, url: str, part: _Part, progress: Progress | None) -> None:
    """Bring the .part file to its full length, or raise what stood in the way."""
    try:
        with client.stream("GET", url, headers=part.headers()) as response:
            if response.status_code == 416 and _total(response) == part.size > 0:
                return  # everything had come, and only the last step was missing
            if response.status_code == 416:
                part.remove()
                raise _Passing("the server has another file now than the one that was begun")
            _check_status(response, url)
            total = _start(response, part)
            if progress:
                progress(part.name, part.size, total)
            with part.path.open("ab") as out:
                _receive(response, out, part.name, total, progress)
            if total is not None and part.size != total:
                raise _Passing(f"cut off after {part.size:,} of {total:,} bytes")
    except httpx.TimeoutException as error:
        raise _Passing(f"the server is too slow or gone ({type(error).__name__})") from error
    except httpx.ConnectError as error:
        raise _Passing(f"no connection to {httpx.URL(url).host}: offline? ({error})") from error
    except httpx.TransportError as error:
        raise _Passing(f"the connection was cut after {part.size:,} bytes ({type(error).__name__})") from error
    except (httpx.InvalidURL, httpx.TooManyRedirects) as error:
        raise CellDualityError(f"unusable address ({error})", where=url, mend="report it") from error


def _receive(response: httpx.Response, out: IO[bytes], name: str, total: int | None, progress: Progress | None) -> None:
    for block in response.iter_raw():
        out.write(block)
        if progress:
            out.flush()
            progress(name, out.tell(), total)


def _check_status(response: httpx.Response, url: str) -> None:
    status = response.status_code
    if status in (200, 206):
        return
    if status >= 500 or status in (408, 425, 429):
        raise _Passing(f"the server fails with {status} {response.reason_phrase}")
    raise CellDualityError(
        f"the server answers {status} {response.reason_phrase}",
        where=url,
        mend="the publisher may have moved the file: look at the set's page, and report it",
    )


def _start(response: httpx.Response, part: _Part) -> int | None:
    """Make the .part file end where the response begins, and return the full length, if the server says it."""
    if response.status_code == 206:
        first = response.headers.get("Content-Range", "").removeprefix("bytes ").split("-")[0]
        if first == str(part.size):
            return _total(response)
        part.remove()
        raise _Passing("the server sent another range than the one asked for")
    with part.path.open("wb"):  # a whole file, from its beginning: the server does not know ranges, or it has changed
        pass
    part.note_version(response)
    length = response.headers.get("Content-Length")
    return int(length) if length and length.isdigit() else None


def _total(response: httpx.Response) -> int | None:
    total = response.headers.get("Content-Range", "").rpartition("/")[2]
    return int(total) if total.isdigit() else None
