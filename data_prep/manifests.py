"""What stands beside every prepared file: what it holds, what it was made of, and its hash."""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cellduality_plugin
from cellduality_plugin.errors import CellDualityError
from cellduality_plugin.files import write_json
from cellduality_plugin.tasks import DualTask
from data_prep.sources import file_sha256

FORMAT, VERSION = "cellduality-data", 1


@dataclass(frozen=True)
class Summary:
    """What was made: the folder, whether it already was there, and each file's manifest by name."""

    out: Path
    up_to_date: bool
    manifests: Mapping[str, dict[str, Any]]


def manifest_path(path: Path) -> Path:
    """Return where the manifest of ``path`` stands: beside it, as ``NAME.manifest.json``."""
    return path.with_name(path.name + ".manifest.json")


def write_manifest(path: Path, origin: Mapping[str, Any], **content: Any) -> None:
    """Write the manifest of ``path``: what it holds (``content``), made of what (``origin``), its hash."""
    manifest = {
        "format": FORMAT,
        "schema_version": VERSION,
        "package_version": cellduality_plugin.__version__,
        "file": path.name,
        "sha256": file_sha256(path),
        **origin,
        **content,
    }
    write_json(manifest_path(path), manifest)


def read_manifest(path: Path) -> dict[str, Any]:
    """Return the manifest of ``path``; a CellDualityError if it is missing, or describes another file."""
    beside, wrong, where = manifest_path(path), "", path
    try:
        manifest = json.loads(beside.read_text(encoding="utf-8"))
        form = (manifest["format"], manifest["schema_version"], manifest["sha256"])
        if form[:2] != (FORMAT, VERSION):
            wrong, where = f"not a {FORMAT} manifest of version {VERSION}", beside
        elif form[2] != file_sha256(path):
            wrong = "the file is not the one its manifest describes"
        else:
            return dict(manifest)
    except FileNotFoundError as error:
        wrong, where = "no such file", error.filename
    except (OSError, ValueError, KeyError, TypeError) as error:
        wrong, where = f"unreadable manifest: {error!r}", beside
    hint = "prepare the data again (cellduality data prepare)"
    raise CellDualityError(wrong, code="stale-file", where=str(where), hint=hint)


def refuse_changed(files: Iterable[Path]) -> None:
    """Raise a CellDualityError if one of ``files`` is there and is not as it was written: it is not replaced."""
    for path in files:
        try:
            if path.exists():
                read_manifest(path)
        except CellDualityError as error:
            what = "not written here, or changed since, and would be replaced"
            hint = "move it away, or choose another folder (--out)"
            raise CellDualityError(what, code="not-ours", where=str(path), hint=hint) from error


def is_edited(path: Path, text: str) -> bool:
    """Return whether ``path``, written as ``text``, was changed by hand; a CellDualityError if both changed."""
    try:
        if not path.exists() or path.read_text(encoding="utf-8") == text:
            return False
        written = json.loads(manifest_path(path).read_text(encoding="utf-8"))["sha256"]
    except (OSError, ValueError, KeyError, TypeError):
        written = ""
    if written == file_sha256(path):
        return False
    if written == hashlib.sha256(text.encode()).hexdigest():
        return True
    refuse_changed([path])
    return False


def up_to_date(files: Sequence[Path], origin: Mapping[str, Any]) -> bool:
    """Return whether every file is there, unchanged, and made of ``origin`` by this version."""
    try:
        manifests = [read_manifest(path) for path in files]
    except CellDualityError:
        return False
    wanted = json.loads(json.dumps({**origin, "package_version": cellduality_plugin.__version__}))
    return all(manifest.get(key) == value for manifest in manifests for key, value in wanted.items())


def code_sha256(files: Sequence[Path]) -> str:
    """Return one SHA-256 over the content of source files, so that rows of an older wording are not kept."""
    digest = hashlib.sha256()
    for path in sorted(files, key=lambda path: path.name):
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def rows_code_sha256(tasks: Iterable[DualTask], files: Iterable[Path]) -> str:
    """Return the hash of the code that makes rows: the pairs, a user's own included, what they share, and ``files``."""
    core = Path(cellduality_plugin.__file__).parent
    kinds = {kind for task in tasks for kind in type(task).__mro__}
    made = {value.__code__.co_filename for kind in kinds for value in vars(kind).values() if inspect.isfunction(value)}
    code = {*files, *core.glob("*.py"), *core.glob("tasks/*.py"), *filter(Path.is_file, map(Path, made))}
    return code_sha256(sorted(code))
