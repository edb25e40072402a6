"""Several checkpoints that answer at the same time."""

from __future__ import annotations

import multiprocessing
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from cellduality_plugin.config import Config
from cellduality_plugin.evaluation.checkpoints import predict_checkpoint
from cellduality_plugin.evaluation.evaluate import EvaluationSettings, Split
from cellduality_plugin.evaluation.sections import rows_asked
from cellduality_plugin.vocabulary import Vocabulary


def predict_together(models: Mapping[str, Path], data: Path, split: Split, out: Path, how: EvaluationSettings) -> None:
    """Answer with all ``models``, each in a process of its own; an evaluation then reads what they wrote.

    The dual pairs are those of ``cellduality.json`` in ``data``; the rest is as in
    :func:`cellduality_plugin.evaluation.evaluate.evaluate`.
    """
    with ProcessPoolExecutor(len(models), multiprocessing.get_context("spawn")) as pool:
        for answered in [pool.submit(_predict, name, models[name], data, split, out, how) for name in models]:
            answered.result()


def _predict(name: str, model: Path, data: Path, split: Split, out: Path, how: EvaluationSettings) -> None:
    tasks = Config.load(data / "cellduality.json").load_tasks()
    vocabulary = Vocabulary.load(data / "vocabulary.json")
    examples = rows_asked(data, split, tasks, how.rows)
    file = out / "predictions" / f"{name}.jsonl"
    predict_checkpoint(model, examples, vocabulary, how.prediction, file, tasks=tasks)
