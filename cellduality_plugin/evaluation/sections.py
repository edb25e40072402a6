"""The sections of an evaluation: the rows of one dual pair in one split, and the real cells they are compared with."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import BaseModel, ValidationError

from cellduality_plugin.errors import CellDualityError
from cellduality_plugin.evaluation.distances import median_bandwidth
from cellduality_plugin.evaluation.embedding import PCA_SPACE, Embedding, open_embedding
from cellduality_plugin.evaluation.metrics.given import NEIGHBOURS, RealCells, Reference, read_cell_rows, read_cells
from cellduality_plugin.evaluation.predictions import Prediction, PredictionSettings, Rows, read_rows
from cellduality_plugin.examples import Example
from cellduality_plugin.parsing import Genes, OneOf
from cellduality_plugin.tasks import DualTask
from cellduality_plugin.vocabulary import Vocabulary

OOD = "ood"  # the split of the kinds of cells that are held out of all others
COARSE_FILE = "coarse_types.json"  # beside the rows of an external set: the shared type of every label that has one
GROUPS: tuple[str, ...] = ("cell_type", "cell_line")  # of the kind of a cell: screens of lines have no types

_PREPARE = "prepare the data again (cellduality data prepare)"


@dataclass(frozen=True)
class EvaluationSettings:
    """How checkpoints are measured."""

    prediction: PredictionSettings = field(default_factory=PredictionSettings)  # how held-out rows are answered
    neighbours: tuple[int, ...] = NEIGHBOURS
    components: int = 30  # dimensions of the PCA space
    embedding: str = PCA_SPACE  # the space of distances: see embedding.open_embedding
    seed: int = 0  # of bootstrap intervals and of drawing real cells
    resamples: int = 500
    rows: int | None = None  # of each task and split at the most, the first ones; None for all
    anndata: bool = False  # whether generated cells are written as AnnData, too,
    real_cells: bool = False  # and the real cells of the split beside them
    metrics: tuple[str, ...] = ()  # of one's own, as module:function or file.py:function: see metrics.registry.metric


@dataclass(frozen=True)
class SharedTypes:
    """The types that one external set shares with the sets that train."""

    gold: Mapping[str, str]  # the shared type of each label of the external set
    answers: Mapping[str, str]  # and of each label that was taught and has one
    trained: frozenset[str]  # the names of the sets that train

    @property
    def names(self) -> list[str]:
        """The shared types, in alphabetical order."""
        return sorted({*self.gold.values(), *self.answers.values()})


class _File(BaseModel):
    training: dict[str, dict[str, str]]
    foreign: dict[str, dict[str, str]]


def read_shared_types(path: Path) -> dict[str, SharedTypes]:
    """Return the shared types by external set; none without a file. One label may not be of two shared types."""
    if not path.exists():
        return {}
    try:
        content = _File.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        what = f"no maps of labels to shared types: {str(error).splitlines()[0]}"
        raise CellDualityError(what, code="unreadable-file", where=str(path), hint=_PREPARE) from error
    answers: dict[str, str] = {}
    for types in content.training.values():
        for label, coarse in types.items():
            if answers.setdefault(label, coarse) != coarse:
                what = f"the label {label!r} is both {answers[label]!r} and {coarse!r}"
                raise CellDualityError(what, code="ambiguous-label", where=str(path), hint="train on sets that agree")
    trained = frozenset(content.training)
    return {name: SharedTypes(types, answers, trained) for name, types in content.foreign.items()}


@dataclass(frozen=True)
class Section:
    """The rows of one dual pair in one split, by (task, row id), and real cells of the sets that they are about.

    Its ``key`` begins the names of its metrics: ``task``; ``task@ood`` for held-out kinds of cells, ``task@set`` for a
    single set. The labels of an external one are compared with answers by ``shared`` types.
    """

    key: str
    pair: DualTask
    rows: Rows
    reference: Reference
    shared: SharedTypes | None = None

    @property
    def names_labels(self) -> bool:
        """Whether the answers are labels."""
        return isinstance(self.pair.answer, OneOf)

    @property
    def writes_cells(self) -> bool:
        """Whether the answers are cells of a condition that real cells have, too."""
        return isinstance(self.pair.answer, Genes) and isinstance(self.pair.unknown, OneOf)

    @property
    def writes_responses(self) -> bool:
        """Whether the answers are cells in a state, each made from a control cell."""
        return self.writes_cells and "control" in self.pair.needs

    def labels(self, vocabulary: Vocabulary) -> list[str]:
        """Return what gold labels and answers may be, as :meth:`comparable` gives them; none if answers are cells."""
        if not isinstance(self.pair.answer, OneOf):
            return []
        return self.shared.names if self.shared else list(vocabulary.labels[self.pair.answer.kind])

    def comparable(self, gold: Sequence[str], predicted: Sequence[str]) -> tuple[list[str], list[str]]:
        """Return both as shared types where there are any: an answer without is empty, gold a CellDualityError."""
        if self.shared is None:
            return list(gold), list(predicted)
        if unknown := sorted({*gold} - self.shared.gold.keys()):
            what = f"no shared type of the label {unknown[0]!r}"
            raise CellDualityError(what, code="no-shared-type", where=COARSE_FILE, hint=_PREPARE)
        return [self.shared.gold[label] for label in gold], [self.shared.answers.get(label, "") for label in predicted]

    def own(self, predictions: Sequence[Prediction]) -> list[Prediction]:
        """Return the ``predictions`` that are about its rows."""
        return [p for p in predictions if (p.task, p.id) in self.rows]


def rows_by_section(data: Path, split: str, tasks: Mapping[str, DualTask], limit: int | None = None) -> dict[str, Rows]:
    """Return the first ``limit`` rows of each section by its key: of ``split``, of held-out kinds and of single sets.

    A set has a section of its own if a task asks about several in the split, if it is external, or if all of it is held
    out. A CellDualityError if a file is missing or malformed, or there are no rows.
    """

    inside, file = read_rows(data / f"eval_{split}.jsonl", tasks), data / f"eval_{OOD}.jsonl"
    held_out = read_rows(file, tasks) if file.is_file() else {}
    sets = {(task, _set_of(row)) for task, row in inside}
    sets_of, trained = Counter(task for task, _ in sets), {name for _, name in sets}
    whole = {*read_shared_types(data / COARSE_FILE), *(_set_of(row) for _, row in held_out)} - trained
    found: dict[tuple[int, str, str, str], dict[tuple[str, str], Example]] = {}  # sorted as they are to follow
    for (task, row), example in inside.items():
        name = _set_of(row)
        found.setdefault((0, task, "", task), {})[task, row] = example
        if sets_of[task] > 1:
            found.setdefault((1, task, name, f"{task}@{name}"), {})[task, row] = example
    for (task, row), example in held_out.items():
        name = _set_of(row)
        place = (3, name, task, f"{task}@{name}") if name in whole else (2, task, "", f"{task}@{OOD}")
        found.setdefault(place, {})[task, row] = example
    if not found:
        raise CellDualityError("no rows to evaluate", code="no-rows", where=str(data), hint=_PREPARE)
    return {key: dict([*rows.items()][:limit]) for (*_, key), rows in sorted(found.items())}


def files_of(data: Path, split: str) -> list[str]:
    """Return the files of a prepared folder that an evaluation is made from."""
    optional = [name for name in (f"eval_{OOD}.jsonl", COARSE_FILE) if (data / name).is_file()]
    return ["vocabulary.json", "cells.jsonl", f"eval_{split}.jsonl", *optional]


def read_sections(
    data: Path, split: str, tasks: Mapping[str, DualTask], vocabulary: Vocabulary, settings: EvaluationSettings
) -> list[Section]:
    """Return the sections of :func:`rows_by_section`, in its order, each with its real cells and their space."""
    external, file = read_shared_types(data / COARSE_FILE), data / "cells.jsonl"
    every = read_cell_rows(file)
    split_of = {row["id"]: row["split"] for row in every}
    trained = {_set_of(name) for name, where in split_of.items() if where == "train"}
    spaces: dict[tuple[str, ...], tuple[Embedding, float]] = {}  # sections share training cells

    def section(key: str, rows: Rows) -> Section:
        task, _, part = key.partition("@")
        pair, where, shared = tasks[task], split_of.get(next(iter(rows))[1], split), external.get(part)
        columns, state, sources = GROUPS, "", {_set_of(row) for _, row in rows}
        if isinstance(pair.answer, OneOf):
            columns = (pair.answer.kind,)
        elif isinstance(pair.unknown, OneOf) and pair.unknown.kind not in GROUPS:
            state = pair.unknown.kind

        def real(split: str) -> RealCells:
            own: Collection[str] = sources
            if split == "train":  # of a set that is held out whole there are none
                own = shared.trained if shared else sources & trained or trained
            return read_cells(file, split, columns=columns, state=state, sources=own, rows=every)

        train, held_out = real("train"), real(where)
        others = None if where == OOD else real("validation" if split == "test" else "test")
        if train.ids not in spaces:
            how = {"components": settings.components, "seed": settings.seed}
            space = open_embedding(settings.embedding, train.genes, vocabulary.genes, **how)
            spaces[train.ids] = space, median_bandwidth(space(train.genes), settings.seed)
        space, bandwidth = spaces[train.ids]
        reference = Reference(
            embedding=space, bandwidth=bandwidth, held_out=held_out, points=space(held_out.genes), train=train,
            others=others, other_points=space(others.genes if others else ()), neighbours=settings.neighbours,
            seed=settings.seed, resamples=settings.resamples,
        )  # fmt: skip
        return Section(key, pair, rows, reference, shared)

    return [section(key, rows) for key, rows in rows_by_section(data, split, tasks, settings.rows).items()]


def _set_of(row: str) -> str:
    return row.partition("/")[0]
