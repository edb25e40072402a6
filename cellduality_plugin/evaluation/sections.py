"""What is measured together: the rows of one dual pair, and the real cells that are their yardstick."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cellduality_plugin.errors import CellDualityError
from cellduality_plugin.evaluation.coarse import COARSE_FILE, SharedTypes, read_shared_types
from cellduality_plugin.evaluation.distances import median_bandwidth
from cellduality_plugin.evaluation.embedding import PCA_SPACE, open_embedding
from cellduality_plugin.evaluation.predictions import Rows, read_rows
from cellduality_plugin.evaluation.real_cells import RealCells, read_cells
from cellduality_plugin.evaluation.yardstick import Yardstick
from cellduality_plugin.examples import Example
from cellduality_plugin.parsing import Genes, OneOf
from cellduality_plugin.tasks import DualTask
from cellduality_plugin.vocabulary import Vocabulary

OOD = "ood"
"""The split of the kinds of cells that are held out of all others."""

GROUPS = ("cell_type", "cell_line")
"""Where the kind of a cell stands: screens of cell lines have no types."""


@dataclass(frozen=True)
class Section:
    """The rows of one dual pair in one split.

    Parameters
    ----------
    key
        The first part of the names of its metrics: ``task``; ``task@ood`` for held-out kinds of cells, ``task@set`` for
        a foreign set, no cell of which trains.
    rows
        By (task, row id).
    yardstick
        Real cells of the sets that the rows are about; the training cells of a foreign set are of the sets that train.
    shared
        Of a foreign set: the types by which its labels are held against the answers.
    """

    key: str
    pair: DualTask
    rows: Rows
    yardstick: Yardstick
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
        """Whether the answers are cells that were told apart by their state, from control cells."""
        return self.writes_cells and "control" in self.pair.needs

    def labels(self, vocabulary: Vocabulary) -> list[str]:
        """Return what gold labels and answers may be, as :meth:`comparable` gives them; none if answers are cells."""
        if not isinstance(self.pair.answer, OneOf):
            return []
        return self.shared.names if self.shared else list(vocabulary.labels[self.pair.answer.kind])

    def comparable(self, gold: Sequence[str], predicted: Sequence[str]) -> tuple[list[str], list[str]]:
        """Return both in the names that both sides know: shared types for a foreign set, else as they are."""
        return self.shared.coarse(gold, predicted) if self.shared else (list(gold), list(predicted))


def rows_by_section(data: Path, split: str, tasks: Mapping[str, DualTask], limit: int | None = None) -> dict[str, Rows]:
    """Return the rows of each section by its key: of ``split``, then of held-out kinds of cells and of foreign sets.

    Those of the prepared folder ``data`` and of ``tasks``; of each section the first ``limit``, None for all.

    Raises
    ------
    CellDualityError
        If a file is missing or malformed, or there are no rows.
    """
    found = _by_task(read_rows(data / f"eval_{split}.jsonl", tasks), "", limit)
    if (data / f"eval_{OOD}.jsonl").is_file():
        held_out, foreign = read_rows(data / f"eval_{OOD}.jsonl", tasks), read_shared_types(data / COARSE_FILE)
        for part in (OOD, *sorted(foreign)):
            own = {key: row for key, row in held_out.items() if _part(key[1], foreign) == part}
            found |= _by_task(own, f"@{part}", limit)
    if not found:
        raise CellDualityError("no rows to evaluate", where=str(data), hint="prepare the data again")
    return found


def read_sections(
    data: Path,
    split: str,
    tasks: Mapping[str, DualTask],
    vocabulary: Vocabulary,
    *,
    components: int,
    neighbours: tuple[int, ...],
    seed: int,
    resamples: int,
    limit: int | None = None,
    embedding: str = PCA_SPACE,
) -> list[Section]:
    """Return the sections of :func:`rows_by_section`, in its order, each with its yardstick.

    ``embedding`` is the space of distances, as :func:`cellduality_plugin.evaluation.embedding.open_embedding` takes it.

    Raises
    ------
    CellDualityError
        If a file is missing or malformed.
    """
    foreign = read_shared_types(data / COARSE_FILE)

    def section(key: str, rows: Rows) -> Section:
        task, _, part = key.partition("@")
        where, shared = OOD if part else split, foreign.get(part)
        columns, state = told_apart_by(tasks[task])
        sources = {row.partition("/")[0] for _, row in rows}

        def real(split: str) -> RealCells:
            own = shared.trained if shared and split == "train" else sources
            return read_cells(data / "cells.jsonl", split, columns=columns, state=state, sources=own)

        train, held_out = real("train"), real(where)
        others = None if part else real("validation" if split == "test" else "test")
        space = open_embedding(embedding, train.genes, vocabulary.genes, components=components, seed=seed)
        yardstick = Yardstick(
            embedding=space,
            bandwidth=median_bandwidth(space(train.genes), seed),
            held_out=held_out,
            points=space(held_out.genes),
            train=train,
            others=others,
            other_points=space(others.genes if others else ()),
            neighbours=neighbours,
            seed=seed,
            resamples=resamples,
        )
        return Section(key, tasks[task], rows, yardstick, shared)

    return [section(key, rows) for key, rows in rows_by_section(data, split, tasks, limit).items()]


def told_apart_by(pair: DualTask) -> tuple[tuple[str, ...], str]:
    """Return (the columns that may hold a real cell's label for ``pair``, the column with its state or "").

    Examples
    --------
    >>> from cellduality_plugin.tasks import TASKS
    >>> told_apart_by(TASKS["perturbation_response_generation"])
    (('cell_type', 'cell_line'), 'perturbation')
    """
    if isinstance(pair.answer, OneOf):
        return (pair.answer.kind,), ""
    if isinstance(pair.unknown, OneOf) and pair.unknown.kind not in GROUPS:
        return GROUPS, pair.unknown.kind
    return GROUPS, ""


def _part(row: str, foreign: Container[str]) -> str:
    """Return the foreign set that a row outside the distribution is of, or :data:`OOD` if it is of none."""
    name = row.partition("/")[0]
    return name if name in foreign else OOD


def _by_task(rows: Rows, part: str, limit: int | None) -> dict[str, Rows]:
    found: dict[str, dict[tuple[str, str], Example]] = {}
    for key, example in rows.items():
        own = found.setdefault(f"{key[0]}{part}", {})
        if limit is None or len(own) < limit:
            own[key] = example
    return dict(sorted(found.items()))
