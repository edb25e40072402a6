"""From settings to a folder of rows, each file with its manifest."""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from rich.table import Table

import cellduality_plugin
from cellduality_plugin.cell_sentences import Cell
from cellduality_plugin.errors import CellDualityError
from cellduality_plugin.files import write_jsonl
from cellduality_plugin.tasks import TASKS, DualTask, get_task
from cellduality_plugin.vocabulary import Vocabulary
from data_prep.cells import ranked_cells
from data_prep.loaders import load_h5ad
from data_prep.manifests import Manifest, code_sha256, read_manifest, up_to_date, write_manifest
from data_prep.rows import Row, eval_rows, rl_rows, sft_rows
from data_prep.sources import Expression, Matrix, Source, file_sha256, find_source
from data_prep.splits import SPLITS, choose_labelled, small_classes, split_cells
from data_prep.whole_folder import whole_folder

FILES = (
    "vocabulary.json",
    "cells.jsonl",
    "sft.jsonl",
    "rl.jsonl",
    "eval_validation.jsonl",
    "eval_test.jsonl",
)

RARE_CLASS = "cell of a class with fewer than three cells"

Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Fraction = Annotated[float, Field(gt=0, lt=1)]


class PrepareSettings(BaseModel):
    """Everything that decides what :func:`prepare` writes.

    Parameters
    ----------
    source
        The name of a set in ``data_prep.sources.SOURCES``, or a path to an .h5ad file.
    label_column, matrix, expression
        What to read from it; see :func:`data_prep.loaders.load_h5ad`. None: what the set is known to use.
    tasks
        Pairs by name or import path, with their share of the RL rows; 0 leaves a pair to SFT and evaluation.
    top_genes, min_genes
        Most and fewest genes of a cell sentence.
    hidden
        The fraction of a cell's genes that the annotation dual has to rebuild.
    n_labelled
        How many training cells show their label: all that SFT sees.
    sft_views
        How many versions of each labelled cell SFT sees: the whole cell, then ones that lost genes.
    n_rl, rl_includes_labelled
        How many RL rows, and whether they ask about the labelled cells too.
    fractions
        Of train, validation and test cells.
    small_classes
        What to do about classes with fewer than three cells.
    seed
        Of the only random generators.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: str = "pbmc68k_reduced"
    label_column: str | None = None
    matrix: Matrix | None = None
    expression: Expression = "auto"
    tasks: dict[str, Weight] = Field(default_factory=lambda: dict.fromkeys(TASKS, 1.0), min_length=1)
    top_genes: int = Field(default=64, ge=2)
    min_genes: int = Field(default=8, ge=2)
    hidden: Fraction = 0.25
    n_labelled: int = Field(default=140, ge=1)
    sft_views: int = Field(default=1, ge=1)
    n_rl: int = Field(default=512, ge=0)
    rl_includes_labelled: bool = True
    fractions: tuple[Fraction, Fraction, Fraction] = (0.6, 0.2, 0.2)
    small_classes: Literal["refuse", "drop"] = "refuse"
    seed: int = Field(default=0, ge=0)

    @classmethod
    def read(cls, values: Mapping[str, Any]) -> PrepareSettings:
        """Return the settings in ``values``.

        Raises
        ------
        CellDualityError
            If a name is unknown or a value out of range; the first such setting is named.
        """
        try:
            settings = cls(**values)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            where = ".".join(map(str, first["loc"]))
            known = f"settings are {', '.join(cls.model_fields)}" if first["type"] == "extra_forbidden" else ""
            raise CellDualityError(
                f"{first['msg']}, found {first['input']!r:.60}",
                where=where,
                mend=known or "correct the value",
            ) from error
        settings.check()
        return settings

    def check(self) -> None:
        """Raise a CellDualityError where settings that are valid one by one do not fit together."""
        if abs(sum(self.fractions) - 1) > 1e-6:
            raise CellDualityError(f"fractions add up to {sum(self.fractions):g}", where="fractions", mend="make it 1")
        if self.min_genes > self.top_genes:
            raise CellDualityError(
                f"min_genes {self.min_genes} is above top_genes {self.top_genes}",
                where="min_genes",
                mend="lower it",
            )
        if self.n_rl and not any(self.tasks.values()):
            raise CellDualityError("every task has the weight 0", where="tasks", mend="give one a weight above 0")


@dataclass(frozen=True)
class Summary:
    """What a preparation holds: where it is, whether it already was, and each file's manifest by name."""

    out: Path
    up_to_date: bool
    manifests: Mapping[str, Manifest]


def prepare(settings: PrepareSettings, out: Path) -> Summary:
    """Return a summary of the rows in ``out``, which are written if they are not there already.

    Files: ``vocabulary.json``, ``cells.jsonl`` (every cell with its split), ``sft.jsonl``, ``rl.jsonl``,
    ``eval_validation.jsonl``, ``eval_test.jsonl``, each with a ``.manifest.json``. The same settings and
    source give identical bytes. Nothing in ``out`` changes unless everything could be made.

    Raises
    ------
    CellDualityError
        If the settings do not fit together, the source cannot be read, or the folder cannot be written.
    """
    settings.check()
    out = Path(out)
    source = find_source(
        settings.source,
        label_column=settings.label_column,
        matrix=settings.matrix,
        expression=settings.expression,
    )
    tasks = _tasks(settings)
    origin = _origin(settings, source, list(tasks))
    fresh = up_to_date([out / name for name in FILES], origin)
    if not fresh:
        files, content = _build(settings, source, tasks)
        with whole_folder(out) as folder:
            for name in FILES:
                file = files[name]
                if isinstance(file, Vocabulary):
                    file.save(folder / name)
                else:
                    write_jsonl(folder / name, file)
                write_manifest(folder / name, origin, counts=content["counts"][name], **content["shared"])
    return Summary(out, fresh, {name: read_manifest(out / name) for name in FILES})


def _tasks(settings: PrepareSettings) -> dict[DualTask, float]:
    tasks = {get_task(name): weight for name, weight in settings.tasks.items()}
    names = [task.name for task in tasks]
    if len(set(names)) < len(names):
        raise CellDualityError(
            f"two dual pairs share a name among {', '.join(names)}",
            where="tasks",
            mend="give each its own `name`",
        )
    return tasks


def _origin(settings: PrepareSettings, source: Source, tasks: Sequence[DualTask]) -> dict[str, Any]:
    """Return what the files are made of: if all of it is unchanged, so are they."""
    core, here = Path(cellduality_plugin.__file__).parent, Path(__file__).parent
    code = {*core.glob("*.py"), *core.glob("tasks/*.py"), *here.glob("*.py")}
    code |= {file for task in tasks for file in _code_of(task)}
    return {
        "seed": settings.seed,
        "source": source.name,
        "source_sha256": file_sha256(source.path()),
        "code_sha256": code_sha256(sorted(code)),
        "settings": settings.model_dump(mode="json"),
    }


def _code_of(task: DualTask) -> set[Path]:
    """Return the files a pair's functions are written in; nobody else may know of its module."""
    functions = (value for kind in type(task).__mro__ for value in vars(kind).values() if inspect.isfunction(value))
    return {path for path in (Path(function.__code__.co_filename) for function in functions) if path.is_file()}


def _build(
    settings: PrepareSettings, source: Source, tasks: Mapping[DualTask, float]
) -> tuple[dict[str, Vocabulary | list[dict[str, Any]]], dict[str, Any]]:
    """Return (content by file name, what the manifests tell of it)."""
    streams = [np.random.default_rng(child) for child in np.random.SeedSequence(settings.seed).spawn(6)]
    loaded = load_h5ad(source.path(), source.label_column, expression=source.expression, matrix=source.matrix)
    cells, genes, drops = ranked_cells(
        loaded.adata, source=source.name, top=settings.top_genes, min_genes=settings.min_genes
    )
    drops = {**loaded.drops, **drops}
    if settings.small_classes == "drop" and (rare := small_classes(cell.obs["cell_type"] for cell in cells)):
        cells = [cell for cell in cells if cell.obs["cell_type"] not in rare]
        drops[RARE_CLASS] = sum(rare.values())
    by_id = {cell.id: cell for cell in sorted(cells, key=lambda cell: cell.id)}
    labels = {name: cell.obs["cell_type"] for name, cell in by_id.items()}
    vocabulary = Vocabulary(genes=genes, labels={"cell_type": tuple(sorted(set(labels.values())))})

    splits = split_cells(labels, fractions=settings.fractions, rng=streams[0])
    train = {name: labels[name] for name in by_id if splits[name] == "train"}
    chosen = choose_labelled(train, settings.n_labelled, streams[1])
    labelled = [by_id[name] for name in train if name in chosen]
    unlabelled = [by_id[name] for name in train if name not in chosen]

    pairs, hidden = list(tasks), settings.hidden
    sft = sft_rows(labelled, pairs, vocabulary, hidden=hidden, views=settings.sft_views, rng=streams[2])
    rl = rl_rows(
        labelled,
        unlabelled,
        tasks,
        vocabulary,
        count=settings.n_rl,
        hidden=hidden,
        includes_labelled=settings.rl_includes_labelled,
        rng=streams[3],
    )
    held_out = {split: [by_id[name] for name in by_id if splits[name] == split] for split in SPLITS}
    validation = eval_rows(held_out["validation"], pairs, vocabulary, hidden=hidden, rng=streams[4])
    test = eval_rows(held_out["test"], pairs, vocabulary, hidden=hidden, rng=streams[5])
    files: dict[str, Any] = {
        "vocabulary.json": vocabulary,
        "cells.jsonl": [_cell_row(cell, splits[name], name in chosen) for name, cell in by_id.items()],
        "sft.jsonl": sft,
        "rl.jsonl": rl,
        "eval_validation.jsonl": validation,
        "eval_test.jsonl": test,
    }
    counts: dict[str, dict[str, int]] = {
        "vocabulary.json": {"genes": len(genes), "cell_type": len(vocabulary.labels["cell_type"])},
        "cells.jsonl": {**Counter(splits.values()), "labelled": len(labelled)},
        **{name: _row_counts(files[name]) for name in FILES if name not in ("vocabulary.json", "cells.jsonl")},
    }
    return files, {"counts": counts, "shared": {"drops": drops, "vocabulary": vocabulary.fingerprint}}


def _cell_row(cell: Cell, split: str, labelled: bool) -> dict[str, Any]:
    return {"id": cell.id, "split": split, "labelled": labelled, "genes": list(cell.genes), **cell.obs}


def _row_counts(rows: Sequence[Row]) -> dict[str, int]:
    """Return how many rows there are by task and direction; RL and evaluation ask primal questions alone."""
    return dict(sorted(Counter(f"{row['datasource']}/{row.get('direction', 'primal')}" for row in rows).items()))


def describe(summary: Summary) -> Table:
    """Return a table of the files and what they hold, for printing with rich."""
    first = summary.manifests["vocabulary.json"]
    state = "up to date" if summary.up_to_date else "written"
    table = Table(title=f"{first['source']} -> {summary.out}: {state}", title_justify="left")
    table.add_column("file")
    table.add_column("holds")
    for name, manifest in summary.manifests.items():
        table.add_row(name, ", ".join(f"{count} {what}" for what, count in manifest["counts"].items()))
    table.add_row("left out", "; ".join(f"{count} x {why}" for why, count in first["drops"].items()) or "nothing")
    table.add_row("fingerprint", f"vocabulary {first['vocabulary']}, seed {first['seed']}")
    return table
