"""From settings to a folder of rows, each file with its manifest."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.table import Table

from cellduality_plugin.cell_sentences import Cell
from cellduality_plugin.errors import CellDualityError
from cellduality_plugin.files import whole_folder, write_json, write_jsonl
from cellduality_plugin.perturbations import KIND, canonical
from cellduality_plugin.profiles import Profiles
from cellduality_plugin.tasks import DualTask, get_task
from cellduality_plugin.vocabulary import Vocabulary
from data_prep import manifests
from data_prep.cells import FEW_GENES
from data_prep.datasets import DATASETS
from data_prep.foreign import read_foreign, shareable
from data_prep.h5ad.loaders import MISSING_LABEL
from data_prep.manifests import Summary
from data_prep.rows import PRETRAIN_FILE, RowMaker, pretrain_rows
from data_prep.settings import PrepareSettings
from data_prep.sources import Source, asked_columns, find, joint_sha256
from data_prep.splits import OOD, SPLITS, PublishedSplit
from data_prep.views import View, read_views, source_of

__all__ = ["COARSE_FILE", "FILES", "OOD_FILE", "PrepareSettings", "Summary", "describe", "prepare"]

ROWS = ("sft.jsonl", "rl.jsonl", "audit.jsonl", "eval_validation.jsonl", "eval_test.jsonl")
FILES = ("vocabulary.json", "cells.jsonl", "profiles.npz", *ROWS)

OOD_FILE = f"eval_{OOD}.jsonl"  # Questions about held-out and foreign cells; written only where there are any
COARSE_FILE = "coarse_types.json"  # The types that foreign sets share with those that train; likewise
NO_CLASS = frozenset({
    "unknown", "unassigned", "unclassified", "undefined", "ambiguous", "doublet", "other", "none", "unidentified",
    "unannotated", "notassigned", "unlabeled", "unlabelled", "lowquality", "debris", "mixed", "multiplet",
})  # fmt: skip
"""Letters of labels, less ``cells`` or an s at the end, that name what nobody knows."""


def prepare(settings: PrepareSettings, out: Path) -> Summary:
    """Return a summary of the rows in ``out``, which are written if they are not there already.

    Files: :data:`FILES`, ``pretrain.jsonl`` where a stage before SFT is wanted, ``eval_ood.jsonl`` where cells are held
    out or foreign, and ``coarse_types.json`` where they are foreign, each with a ``.manifest.json``. The same settings
    and sources give identical bytes. Nothing in ``out`` changes unless everything could be made. A CellDualityError is
    raised if the settings do not fit together, a source cannot be read, the folder cannot be written, or a file in it
    is not as it was written here.
    """
    tasks = {name: get_task(name) for name in settings.tasks}
    _refuse_twins([task.name for task in tasks.values()], "dual pairs", "tasks", "give each its own `name`")
    for source in settings.foreign:
        shareable(source.name)  # before anything is fetched
    found = [
        find(source, asked_columns(tasks[name] for name in settings.tasks_of(source))) for source in settings.sources
    ]
    found += [replace(find(source), split=PublishedSplit("whole")) for source in settings.foreign]
    _refuse_twins([source.name for source in found], "sources", "sources", "join them, or rename a file")
    if len({source.sha256 for source in found}) < len(found):  # its test cells would train under the other name
        what = f"two sources are the same file, among {', '.join(source.name for source in found)}"
        raise CellDualityError(what, code="same-file", where="sources", hint="name it once")
    optional = {
        PRETRAIN_FILE: settings.pretrain_views > 0,
        OOD_FILE: any(source.split.rule == "whole" or source.split.held_out for source in found),
        COARSE_FILE: bool(settings.foreign),
    }
    wanted = [*FILES, *(name for name, needed in optional.items() if needed)]
    origin = _origin(settings, found, list(tasks.values()))
    fresh = manifests.up_to_date([out / name for name in wanted], origin)
    if not fresh:
        manifests.refuse_changed(out / name for name in (*FILES, *optional))
        files, views = _build(settings, found, tasks)
        with whole_folder(out) as folder:
            for name in wanted:
                manifests.write_manifest(folder / name, origin, **_write(folder / name, files, views))
        for name in optional.keys() - {*wanted}:  # an earlier one is about cells that these files may hold
            for stale in (out / name, manifests.manifest_path(out / name)):
                stale.unlink(missing_ok=True)
    return Summary(out, fresh, {name: manifests.read_manifest(out / name) for name in wanted})


def _refuse_twins(names: Sequence[str], what: str, where: str, hint: str) -> None:
    if len(set(names)) < len(names):
        what = f"two {what} share a name among {', '.join(names)}"
        raise CellDualityError(what, code="duplicate-names", where=where, hint=hint)


def _origin(settings: PrepareSettings, sources: Sequence[Source], tasks: Sequence[DualTask]) -> dict[str, Any]:
    """Return what the files are made of: if all of it is unchanged, so are they."""
    rooms = (".", "h5ad", "loading", "datasets", "traces")
    code = (file for room in rooms for file in (Path(__file__).parent / room).glob("*.py"))
    digests = [source.sha256 for source in sources]
    if settings.foreign:  # their rows depend on the types that the registry states, too
        types = [sorted(DATASETS[source.name].coarse_types.items()) for source in sources if source.name in DATASETS]
        digests.append(hashlib.sha256(json.dumps(types).encode()).hexdigest())
    return {
        "seed": settings.seed,
        "source": " + ".join(source.name for source in sources),
        "source_sha256": joint_sha256(digests),
        "splits": {source.name: source.split.text(settings.fractions) for source in sources[: len(settings.sources)]},
        "sha256_by_source": {source.name: source.sha256 for source in sources},
        "code_sha256": manifests.rows_code_sha256(tasks, code),
        "settings": settings.model_dump(mode="json"),
    }


def _build(
    settings: PrepareSettings, sources: Sequence[Source], tasks: Mapping[str, DualTask]
) -> tuple[dict[str, Any], list[View]]:
    from data_prep.profiles import fit_profiles  # with what takes seconds to import

    own = len(settings.sources)
    views = read_views(settings, sources[:own], tasks)
    kinds = sorted({kind for view in views for task in view.tasks for kind in task.kinds})
    labels = {kind: tuple(sorted(set().union(*(view.labels(kind) for view in views)))) for kind in kinds}
    if single := next((kind for kind in kinds if len(labels[kind]) < 2), ""):
        what = f"every cell that trains has the {single} {''.join(labels[single])!r}: any answer would earn everything"
        hint = "leave out the tasks that speak of it, hold out less, or name another column"
        raise CellDualityError(what, code="one-class", where=single, hint=hint)
    genes = tuple(sorted({gene for view in views for gene in view.genes}))
    vocabulary = Vocabulary(genes=genes, labels=labels, listed=settings.listed)
    foreign, coarse = read_foreign(settings, sources[own:], tasks.values(), views, frozenset(vocabulary.genes))
    views += foreign
    by_name = {view.name: view for view in views}

    def asked(task: DualTask, cell: Cell) -> bool:
        return by_name[source_of(cell.id)].asks(task, cell)

    def of(split: str) -> list[Cell]:
        return [cell for view in views for cell in view.of(split)]

    pairs, stream = list(tasks.values()), settings.stream
    labelled, unlabelled = ([cell for view in views for cell in view.training(shown)] for shown in (True, False))
    rows = RowMaker(pairs, vocabulary, settings, asked)
    files: dict[str, Any] = {
        "vocabulary.json": vocabulary,
        "cells.jsonl": (_cell_row(view, cell) for view in views for cell in view.cells.values()),
        "profiles.npz": fit_profiles(labelled, unlabelled, pairs, vocabulary, asked=asked),
        COARSE_FILE: coarse,
        "sft.jsonl": rows.sft(labelled, stream("sft")),
        "rl.jsonl": rows.rl(labelled, unlabelled, settings.tasks.values(), stream("rl")),
        "audit.jsonl": rows.audit(of(SPLITS[1]), stream("audit")),
        **{f"eval_{s}.jsonl": rows.evaluation(of(s), stream(f"eval_{s}")) for s in (*SPLITS[1:], OOD)},
    }
    if settings.pretrain_views:
        training = (view.of(SPLITS[0]) for view in views)
        files[PRETRAIN_FILE] = pretrain_rows(training, genes, settings, stream("pretrain"))
    return files, views


def _cell_row(view: View, cell: Cell) -> dict[str, Any]:
    row = {"id": cell.id, "split": view.splits[cell.id], "labelled": cell.id in view.labelled}
    paired = {"control": view.controls[cell.id]} if cell.id in view.controls else {}
    return {**row, "genes": list(cell.genes), **cell.obs, **cell.condition, **paired}


def _write(path: Path, files: Mapping[str, Any], views: Sequence[View]) -> dict[str, Any]:
    """Write one file; return what its manifest says of it, besides what it was made of."""
    content, vocabulary = files[path.name], files["vocabulary.json"]
    found: dict[str, Any] = {}
    if content is vocabulary:
        content.save(path)
        found["counts"] = {"genes": len(content.genes), **{kind: len(of) for kind, of in content.labels.items()}}
    elif isinstance(content, Profiles):
        content.save(path)
        found["counts"] = {f"weights of {kind}": one.weights.size for kind, one in content.by_kind.items()}
    elif isinstance(content, dict):
        write_json(path, content)
        found["counts"] = {source: len(types) for sets in content.values() for source, types in sets.items()}
    else:
        found = _write_rows(path, content, views)
    drops = sum((Counter(view.drops) for view in views), Counter[str]())
    found |= {"drops": dict(drops), "vocabulary": vocabulary.fingerprint}
    if content is vocabulary and (notes := _notes(content, views)):
        found["notes"] = notes
    return found


def _write_rows(path: Path, rows: Iterable[dict[str, Any]], views: Sequence[View]) -> dict[str, Any]:
    """Write rows one by one as they are made; return how many questions there are by task and direction, or cells."""
    of_cells = path.name == "cells.jsonl"
    asked = {view.name: Counter[str]() for view in views}

    def counted() -> Iterator[dict[str, Any]]:
        for row in rows:
            if not of_cells:
                asked[source_of(row["id"])][f"{row['datasource']}/{row.get('direction', 'primal')}"] += 1
            yield row

    def counts(views: Sequence[View]) -> dict[str, int]:
        if of_cells:
            labelled = sum(len(view.labelled & view.cells.keys()) for view in views)
            return {**Counter(view.splits[i] for view in views for i in view.cells), "labelled": labelled}
        return dict(sorted(sum((asked[view.name] for view in views), Counter[str]()).items()))

    write_jsonl(path, counted())
    found: dict[str, Any] = {"counts": counts(views)}
    if of_cells:
        found["expression_at_rank"] = {view.name: dict(view.expression) for view in views if view.expression}
    if len(views) > 1:
        found["counts_by_source"] = {view.name: counts([view]) for view in views}
    return found


def _notes(vocabulary: Vocabulary, views: Sequence[View]) -> list[str]:
    """Return what may be right, and should be looked at."""
    found = [
        f"the {kind} {label!r} is a class like any other: rows show it and are paid for it"
        for kind, labels in vocabulary.labels.items()
        for label in labels
        if "".join(filter(str.isalnum, label.lower())).removesuffix("cells").removesuffix("s") in NO_CLASS
    ]
    said: dict[str, list[str]] = {}
    for label in vocabulary.labels.get(KIND, ()):
        said.setdefault(canonical(label), []).append(label)
    same = [twins for twins in said.values() if len(twins) > 1]
    found += [f"the perturbations {' and '.join(map(repr, twins))} say the same and are two classes" for twins in same]
    for view in views:
        lost = sum(view.drops.get(why, 0) for why in (FEW_GENES, MISSING_LABEL))
        if lost >= len(view.cells):
            found.append(f"half of the cells of {view.name}, or more, are left out: is the file complete?")
    return found


def describe(summary: Summary) -> Table:
    """Return a table of the files and what they hold, for printing with rich."""
    first = summary.manifests["vocabulary.json"]
    state = "up to date" if summary.up_to_date else "written"
    table = Table("file", "holds", title=f"{first['source']} -> {summary.out}: {state}", title_justify="left")
    for name, manifest in summary.manifests.items():
        table.add_row(name, ", ".join(f"{count} {what}" for what, count in manifest["counts"].items()))
    for name, split in first["splits"].items():
        table.add_row("split", f"{name}: {split}" if len(first["splits"]) > 1 else split)
    for note in first.get("notes", ()):
        table.add_row("note", note)
    table.add_row("left out", "; ".join(f"{count} x {why}" for why, count in first["drops"].items()) or "nothing")
    table.add_row("fingerprint", f"vocabulary {first['vocabulary']}, seed {first['seed']}")
    return table
