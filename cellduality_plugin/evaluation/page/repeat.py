"""What it takes to repeat a run: commands, seeds, versions, hashes; and the questions that an evaluation asked."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cellduality_plugin.errors import CellDualityError
from cellduality_plugin.evaluation.checkpoints import file_hash
from cellduality_plugin.evaluation.predictions import Rows
from cellduality_plugin.evaluation.sections import rows_by_section
from cellduality_plugin.tasks import DualTask


def questions_of(metrics: Mapping[str, Any], data: Path, tasks: Mapping[str, DualTask]) -> dict[str, Rows]:
    """Return the rows that ``metrics`` are about, by section.

    Raises
    ------
    CellDualityError
        If ``data`` is not the prepared folder that was evaluated, or one of its files is missing.
    """
    for name, known in metrics["provenance"]["data"].items():
        path = data / name
        if not path.is_file() or file_hash(path) != known:
            what = "not what was evaluated" if path.is_file() else "no such file"
            hint = "give the prepared folder of this evaluation with --data, or evaluate again"
            raise CellDualityError(what, where=str(path), hint=hint)
    return rows_by_section(data, metrics["split"], tasks, metrics["settings"]["rows"])


def needed_to_repeat(metrics: Mapping[str, Any], data: Path | None, commands: Path | None) -> dict[str, Any]:
    """Return commands, rewards, seeds, versions, hashes and whole settings, as the page shows them."""
    provenance = metrics["provenance"]
    manifest = _json(data / "cells.jsonl.manifest.json") if data else {}
    configured = _json(data / "cellduality.json") if data else {}
    seeds = {"evaluation": metrics["settings"]["seed"], "answers": metrics["settings"]["prediction"]["seed"]}
    if "seed" in manifest:
        seeds["data (split, labelled cells, masks)"] = manifest["seed"]
    settings = {
        "evaluation settings": metrics["settings"],
        "preparation of the data": manifest,
        "tasks and rewards (cellduality.json)": configured,
        "checkpoints": provenance["models"],
    }
    ran = sorted(commands.glob("*.command"), key=lambda path: (path.stat().st_mtime, path.name)) if commands else []
    stages = {path.stem: path.read_text(encoding="utf-8").strip() for path in ran}
    return {
        "commands": stages or {"evaluate": shlex.join(provenance["command"])},
        "rewards": {task: own["reward"] for task, own in configured.get("tasks", {}).items()},
        "seeds": seeds,
        "versions": provenance["versions"],
        "models": provenance["models"],
        "files": provenance["data"],
        "sources": [str(manifest[key]) for key in ("source", "source_sha256") if key in manifest],
        "settings": {name: json.dumps(told, indent=2, ensure_ascii=False) for name, told in settings.items() if told},
    }


def _json(path: Path) -> dict[str, Any]:
    """Return the object in ``path``, empty if there is none: what is not there is not shown."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise CellDualityError(f"not JSON: {error}", where=str(path), hint="prepare the data again") from error
    return content if isinstance(content, dict) else {}
