"""A published model as the folder a run starts from."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

from cellduality_plugin.errors import CellDualityError
from cellduality_plugin.files import whole_folder
from cellduality_plugin.hub import local_model

# Llama's template tells the model what day it is: what was trained in July would be asked otherwise in August. The
# date is the one that the template itself has where there is no clock.
PINNED = "{%- macro strftime_now(format) %}26 Jul 2024{%- endmacro %}"


def fetch_model(name: str, out: Path) -> bool:
    """Write the model ``name``, a folder or a name of the hub, to ``out``; files are shared with the original where
    the file system can do so. Return whether its chat template had a date, which is then pinned.

    A CellDualityError is raised if there is no such model, or the folder cannot be written.
    """
    source = local_model(name)
    if not (source / "config.json").is_file():
        hint = "give a Hugging Face folder, or a name of the hub (owner/model)"
        raise CellDualityError("no model there", code="no-model", where=str(source), hint=hint)
    with whole_folder(out) as folder:
        for path in source.iterdir():
            if path.is_file():
                _share(path.resolve(), folder / path.name)
        template = _template(source)
        dated = "strftime_now" in template and not template.startswith(PINNED)
        if dated:
            (folder / "chat_template.jinja").unlink(missing_ok=True)
            (folder / "chat_template.jinja").write_text(PINNED + template, encoding="utf-8")
        kept = {path.name for path in folder.iterdir()}
    for path in out.iterdir():  # of another model: its weights would be read with these
        if path.is_file() and path.name not in kept:
            path.unlink()
    return dated


def _share(path: Path, copy: Path) -> None:
    try:
        os.link(path, copy)
    except OSError:  # another file system, or one that has no second names
        shutil.copyfile(path, copy)


def _template(folder: Path) -> str:
    """Return the chat template in the files of a tokenizer, empty if there is none."""
    if (folder / "chat_template.jinja").is_file():
        return (folder / "chat_template.jinja").read_text(encoding="utf-8")
    try:
        found = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8")).get("chat_template")
    except (OSError, ValueError, AttributeError):
        return ""
    return found if isinstance(found, str) else ""
