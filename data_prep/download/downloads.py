"""Downloads that take up where they stopped, and are in place only when they are whole and right."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import httpx
import tenacity

from cellduality_plugin.errors import CellDualityError
from data_prep.download.fetching import Progress
from data_prep.sources import file_sha256

ATTEMPTS = 6
FIRST_WAIT, LONGEST_WAIT = 1.0, 60.0  # seconds between attempts; each wait is twice the one before, with jitter
TIMEOUT = 60.0  # seconds without a byte after which a connection counts as dead

AGAIN = "run the same command again: it goes on where it stopped"


class _Passing(Exception):
    """A fault that may be gone at the next attempt."""


def download(url: str, target: Path, *, checksum: str = "", progress: Progress | None = None) -> str:
    """Download ``url`` to ``target`` and return the SHA-256 of what came.

    What has come stays in ``target`` + ``.part`` until it is whole and as ``checksum`` says (``"md5:d1f5..."``; empty:
    not known). A later call goes on from there if the server vouches that the file is still the same. A
    CellDualityError is raised if the server refuses or keeps failing, the checksum is wrong (the .part file is removed
    then), or the disk is full.
    """
    part = target.with_name(target.name + ".part")
    retrying = tenacity.Retrying(
        stop=tenacity.stop_after_attempt(ATTEMPTS),
        wait=tenacity.wait_exponential_jitter(initial=FIRST_WAIT, max=LONGEST_WAIT, jitter=FIRST_WAIT),
        retry=tenacity.retry_if_exception_type(_Passing),
        reraise=True,
    )
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with httpx.Client(follow_redirects=True, timeout=TIMEOUT) as client:
            retrying(_attempt, client, url, part, progress)
        kind, _, wanted = checksum.lower().partition(":")
        found = file_sha256(part, kind) if wanted else ""
        _version(part).unlink(missing_ok=True)
        if found != wanted:
            part.unlink()
            what = f"wrong {kind}: {found} in place of {wanted}"
            hint = "the download was removed; fetch again, and report it if it stays wrong"
            raise CellDualityError(what, code="wrong-checksum", where=url, hint=hint)
        os.replace(part, target)
        return found if kind == "sha256" else file_sha256(target)
    except _Passing as error:
        raise CellDualityError(str(error), code="download-fails", where=url, hint=AGAIN) from error
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        what = "the disk is full" if full else f"cannot write: {error.strerror or error}"
        hint = f"free some space; then {AGAIN}" if full else "choose another cache folder"
        raise CellDualityError(what, code="unwritable-file", where=str(part), hint=hint) from error


def _version(part: Path) -> Path:
    """Return the file that says of which version of the download the .part file is."""
    return part.with_name(part.name + ".version")


def _attempt(client: httpx.Client, url: str, part: Path, progress: Progress | None) -> None:
    """Bring the .part file to its full length, or raise what stood in the way."""
    begun = part.stat().st_size if part.exists() else 0
    headers = {"Accept-Encoding": "identity"}  # lengths and ranges are of the file itself
    if begun and _version(part).exists():
        headers |= {"Range": f"bytes={begun}-", "If-Range": _version(part).read_text()}
    try:
        with client.stream("GET", url, headers=headers) as response:
            _receive(response, url, part, begun, progress)
    except httpx.TransportError as error:
        raise _Passing(f"no connection to {httpx.URL(url).host}, or it was cut: {error!r}") from error
    except (httpx.InvalidURL, httpx.TooManyRedirects) as error:
        what = f"unusable address ({error})"
        raise CellDualityError(what, code="bad-address", where=url, hint="report it") from error


def _receive(response: httpx.Response, url: str, part: Path, begun: int, progress: Progress | None) -> None:
    status, span = response.status_code, response.headers.get("Content-Range", "").removeprefix("bytes ")
    if status == 416 and span == f"*/{begun}":
        return  # everything had come, and only the last step was missing
    if status == 416 or (status == 206 and not span.startswith(f"{begun}-")):
        part.unlink()
        raise _Passing("the server has another file now than the one that was begun")
    answer = f"the server answers {status} {response.reason_phrase}"
    if status >= 500 or status in (408, 425, 429):
        raise _Passing(answer)
    if status not in (200, 206):
        hint = "the publisher may have moved the file: look at the set's page, and report it"
        raise CellDualityError(answer, code="download-refused", where=url, hint=hint)
    if status == 200:  # from the beginning: the server does not know ranges, or the file has changed
        begun = 0
        etag = response.headers.get("ETag", "")
        # A weak ETag says that two versions mean the same, not that their bytes are.
        version = etag if etag and not etag.startswith("W/") else response.headers.get("Last-Modified", "")
        _version(part).write_text(version) if version else _version(part).unlink(missing_ok=True)
    length = response.headers.get("Content-Length", "")
    total = begun + int(length) if length.isdigit() else None
    with part.open("ab" if begun else "wb") as out:
        for block in response.iter_raw():
            out.write(block)
            if progress:
                progress(part.stem, out.tell(), total)
        if total not in (None, out.tell()):
            raise _Passing(f"cut off after {out.tell():,} of {total:,} bytes")
