"""A model's folder that holds all its use needs: vocabulary, dual pairs, rewards, and how cells become sentences."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from cellduality_plugin.config import Config
from cellduality_plugin.errors import CellDualityError
from cellduality_plugin.evaluation.predictions import file_hash, versions
from cellduality_plugin.files import read_jsonl, read_versioned, write_json
from cellduality_plugin.policies.offline import check_checkpoint
from cellduality_plugin.tasks import DualTask
from data_prep.manifests import read_manifest
from data_prep.pseudo import hidden_share, read_sft, served
from data_prep.views import source_of

FORMAT, VERSION = "cellduality-checkpoint", 1
FOLDER = "cellduality"  # Inside the model's folder. Its weights and tokenizer stay those of any Hugging Face model

_NOTES = "checkpoint.json"


@dataclass(frozen=True)
class Checkpoint:
    """A model and what it was trained on.

    Its ``notes`` are ``top_genes`` (K of a cell sentence), ``genes`` (by task, those of its questions), ``min_genes``,
    ``hidden`` (the share that duals rebuild), ``max_len`` and ``max_new_tokens`` (of training), ``labelled`` (how many
    cells showed their label, by set), ``sources`` (their hashes), ``versions``; ``line`` (by task, from rank to
    expression; not for data of an earlier version); once calibrated, ``calibration``.
    """

    model: Path  # the Hugging Face folder
    config: Config  # the dual pairs with their rewards; its folder is inside the model's
    notes: dict[str, Any]
    backend: str = "transformers"  # what asks it, see :meth:`.model.Model.load`

    @property
    def hash(self) -> str:
        """The first 12 hex digits of the SHA-256 of all that stands beside the weights."""
        return file_hash(*sorted(path for path in (self.model / FOLDER).glob("*") if path.is_file()))

    def genes_of(self, task: str) -> frozenset[str]:
        """Return the genes that the questions of ``task`` showed in training; a CellDualityError if there were none."""
        if found := self.notes["genes"].get(task):
            return frozenset(found)
        what = f"the model was not trained on {task!r}"
        hint = f"it was on {', '.join(self.notes['genes'])}; or pack it with the data of its training"
        raise CellDualityError(what, code="task-not-packed", where=str(self.model), hint=hint)

    def task(self, name: str) -> DualTask:
        """Return the pair called ``name``; a CellDualityError lists those there are."""
        tasks = self.config.load_tasks()
        if name in tasks:
            return tasks[name]
        hint = f"use one of: {', '.join(tasks)}"
        what = f"the model knows no pair {name!r}"
        raise CellDualityError(what, code="unknown-task", where=str(self.model), hint=hint)


def pack(model: Path, data: Path, config: Path | None, *, max_len: int, max_new_tokens: int) -> Path:
    """Write what the use of ``model`` needs into its folder, and return where; an earlier one is replaced.

    ``data`` is the prepared folder it was trained on, ``config`` the configuration, that of ``data`` by default. A
    CellDualityError if ``model`` is no checkpoint, or ``data`` was changed since it was prepared.
    """
    check_checkpoint(model)
    run = Config.load(config or data / "cellduality.json")
    manifest = read_manifest(data / "cells.jsonl")
    asked, _ = served(read_sft(data / "sft.jsonl"), run.load_tasks())
    settings, folder, genes = manifest["settings"], model / FOLDER, _genes_by_task(data, asked)
    folder.mkdir(exist_ok=True)
    values = run.model_dump() | {"records": None, "vocabulary": "vocabulary.json"}
    for task in values["tasks"].values():
        task["pair"] = _carried(task["pair"], run.folder, folder)
    shutil.copyfile(run.folder / run.vocabulary, folder / "vocabulary.json")
    if run.profiles:
        values["profiles"] = "profiles.npz"
        shutil.copyfile(run.folder / run.profiles, folder / "profiles.npz")
    by_source = manifest.get("counts_by_source", {manifest["source"]: manifest["counts"]})
    notes = {
        "format": FORMAT, "version": VERSION,
        "top_genes": settings["top_genes"], "min_genes": settings["min_genes"], "hidden": hidden_share(data),
        "genes": genes, "line": lines_by_task(manifest.get("expression_at_rank", {}), asked),
        "max_len": max_len, "max_new_tokens": max_new_tokens,
        "labelled": {source: counts.get("labelled", 0) for source, counts in by_source.items()},
        "sources": manifest["sha256_by_source"], "versions": versions(),
    }  # fmt: skip
    Config.read(values, where=str(folder)).save(folder / "cellduality.json")
    write_json(folder / _NOTES, notes)
    return folder


def note_calibration(checkpoint: Checkpoint, task: str, asked: str, found: Mapping[str, Any]) -> Checkpoint:
    """Write a calibration into the notes, beside those of other tasks and ways to ask; return the new checkpoint."""
    known = checkpoint.notes.get("calibration", {})
    notes = checkpoint.notes | {"calibration": known | {task: known.get(task, {}) | {asked: dict(found)}}}
    write_json(checkpoint.model / FOLDER / _NOTES, notes)
    return replace(checkpoint, notes=notes)


def fit_line(curves: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return the least-squares line of expression over log rank, each cell and rank counted once.

    ``curves`` are by set, as :func:`data_prep.cells.expression_at_rank` measures them.

    Examples
    --------
    >>> curve = {"mean": [3.0, 3.0 - np.log(2), 3.0 - np.log(3)], "cells": [2, 2, 1], "unit": "log1p"}
    >>> line = fit_line({"blood": curve})
    >>> round(line["intercept"], 3), round(line["slope"], 3), round(line["r2"], 3), line["cells"]
    (3.0, -1.0, 1.0, 2)
    """
    own = list(curves.values())
    means = np.concatenate([np.asarray(curve["mean"], dtype=float) for curve in own])
    counts = np.concatenate([np.asarray(curve["cells"], dtype=float) for curve in own])
    ranks = np.concatenate([np.arange(1, len(curve["mean"]) + 1) for curve in own])
    slope, intercept = np.polyfit(np.log(ranks), means, 1, w=np.sqrt(counts))
    left = means - intercept - slope * np.log(ranks)
    spread = means - np.average(means, weights=counts)
    return {
        "intercept": float(intercept), "slope": float(slope),
        "r2": float(1 - (counts * left**2).sum() / (counts * spread**2).sum()),
        "cells": int(sum(max(curve["cells"]) for curve in own)),
        "sets": sorted(curves), "unit": " or ".join(sorted({curve["unit"] for curve in own})),
    }  # fmt: skip


def lines_by_task(curves: Mapping[str, Any], asked: Mapping[str, Iterable[str]]) -> dict[str, dict[str, Any]]:
    """Return the line of each task over the sets that it is asked about (``asked``: tasks by set), where it has one.

    A line needs two ranks; data of an earlier version have no curves.
    """
    found: dict[str, dict[str, Mapping[str, Any]]] = {}
    for source, tasks in asked.items():
        for task in tasks:
            if len(curves.get(source, {}).get("mean", ())) > 1:
                found.setdefault(task, {})[source] = curves[source]
    return {task: fit_line(own) for task, own in found.items()}


def _genes_by_task(data: Path, asked: Mapping[str, list[str]]) -> dict[str, list[str]]:
    """Return by task the genes that its questions showed: those of the cells of the sets it was asked about.

    The vocabulary may hold more, of other sets: a question that shows them is like none of the training.
    """
    found: dict[str, set[str]] = {}
    for row in read_jsonl(data / "cells.jsonl"):
        for task in asked.get(source_of(row["id"]), ()):
            found.setdefault(task, set()).update(row["genes"])
    return {task: sorted(genes) for task, genes in found.items()}


def _carried(pair: str, source: Path, folder: Path) -> str:
    """Return the name of a pair from ``folder``, into which the file of a user's own is copied."""
    file, _, name = pair.rpartition(":")
    if not file.endswith(".py"):
        return pair
    shutil.copyfile(source / file, folder / Path(file).name)
    return f"{Path(file).name}:{name}"


def read_checkpoint(model: Path, backend: str = "transformers") -> Checkpoint:
    """Return the checkpoint in ``model``; a CellDualityError if it lacks what its use needs."""
    if not model.is_dir():
        hint = "give the folder of a trained model, as runs/cpu/grpo"
        raise CellDualityError("no such folder", code="no-checkpoint", where=str(model), hint=hint)
    folder = model / FOLDER
    what, hint = "description of what the model was trained on", "pack it first: cellduality pack MODEL --data DATA"
    notes = read_versioned(folder / _NOTES, FORMAT, VERSION, what=what, hint=hint)
    return Checkpoint(model, Config.load(folder / "cellduality.json"), notes, backend)
