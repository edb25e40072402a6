"""What it takes to repeat a run: commands, seeds, versions, hashes; and the cells that an evaluation was about."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cellduality_plugin.errors import CellDualityError
from cellduality_plugin.evaluation.checkpoints import file_hash
from cellduality_plugin.evaluation.sections import Section, read_sections
from cellduality_plugin.tasks import DualTask
from cellduality_plugin.vocabulary import Vocabulary

MANIFEST = "cells.jsonl.manifest.json"
CONFIGURATION = "cellduality.json"


def sections_of(metrics: Mapping[str, Any], data: Path, tasks: Mapping[str, DualTask]) -> list[Section]:
    """Return the sections that ``metrics`` are about, with the real cells they were held against.

    Raises
    ------
    CellDualityError
        If ``data`` is not the prepared folder that was evaluated, or one of its files is missing.
    """
    for name, known in metrics["provenance"]["data"].items():
        path = data / name
        if not path.is_file() or file_hash(path) != known:
            raise CellDualityError(
                "not what was evaluated" if path.is_file() else "no such file",
                where=str(path),
                mend="give the prepared folder of this evaluation with --data, or evaluate again",
            )
    settings = metrics["settings"]
    return read_sections(
        data,
        metrics["split"],
        tasks,
        Vocabulary.load(data / "vocabulary.json"),
        components=settings["components"],
        neighbours=tuple(settings["neighbours"]),
        seed=settings["seed"],
        resamples=settings["resamples"],
        limit=settings["rows"],
        embedding=settings["embedding"],
    )


def needed_to_repeat(metrics: Mapping[str, Any], data: Path | None, commands: Path | None) -> dict[str, Any]:
    """Return commands, rewards, seeds, versions, hashes and whole settings, as the page shows them."""
    provenance = metrics["provenance"]
    manifest = _json(data / MANIFEST) if data else {}
    models = provenance["models"]
    seeds = {"evaluation": metrics["settings"]["seed"], "answers": metrics["settings"]["prediction"]["seed"]}
    if "seed" in manifest:
        seeds["data (split, labelled cells, masks)"] = manifest["seed"]
    told = {"evaluation settings": metrics["settings"]}
    configured = _json(data / CONFIGURATION) if data else {}
    told["preparation of the data"] = manifest
    told["tasks and rewards (cellduality.json)"] = configured
    told["checkpoints"] = models
    return {
        "commands": _commands(commands) or {"evaluate": shlex.join(provenance["command"])},
        "rewards": {task: own["reward"] for task, own in configured.get("tasks", {}).items()},
        "seeds": seeds,
        "versions": provenance["versions"],
        "models": {
            name: {
                "folder": str(made.get("folder", "–")),
                "hash": str(made.get("model", "–")),
                "engine": str(made.get("vllm", "–")),
            }
            for name, made in models.items()
        },
        "files": provenance["data"],
        "sources": [str(manifest[key]) for key in ("source", "source_sha256") if key in manifest],
        "settings": {
            name: json.dumps(content, indent=2, ensure_ascii=False) for name, content in told.items() if content
        },
    }


def _commands(folder: Path | None) -> dict[str, str]:
    """Return what each stage ran, the oldest first."""
    found = sorted(folder.glob("*.command"), key=lambda path: (path.stat().st_mtime, path.name)) if folder else []
    return {path.stem: path.read_text(encoding="utf-8").strip() for path in found}


def _json(path: Path) -> dict[str, Any]:
    """Return the object in ``path``, empty if there is none: what is not there is not shown."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise CellDualityError(f"not JSON: {error}", where=str(path), mend="prepare the data again") from error
    return content if isinstance(content, dict) else {}
