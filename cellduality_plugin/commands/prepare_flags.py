"""Flags of `cellduality data prepare` that say nothing without another, or of what they are given for."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

import typer

from cellduality_plugin.errors import CellDualityError
from cellduality_plugin.tasks import TASKS, get_task

_NEEDS = {
    "records_every": "records", "records_limit": "records",
    "clusters": "pretrain_views", "dual_samples": "dual_temperature",
}  # fmt: skip
"""Options that say nothing without another."""


def refuse_alone(context: typer.Context) -> None:
    """Raise if an option is given without the one it needs, or two that exclude each other."""
    for name, other in _NEEDS.items():
        source = context.get_parameter_source(name)
        is_given = source is not None and source.name == "COMMANDLINE" and context.params[name] not in (None, [], 1)
        if is_given and not context.params[other]:
            what = f"{_flag(name)} does nothing without {_flag(other)}"
            raise CellDualityError(what, code="needs-another", where=_flag(name), hint="give both, or neither")
    if context.params["matrix"] and context.params["layer"]:
        hint = "leave out --matrix or --layer"
        raise CellDualityError("two matrices are asked for", code="settings-clash", where="--layer", hint=hint)


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def refuse_unread(flags: Mapping[str, str], tasks: Iterable[str], others: Collection[str]) -> None:
    """Raise if no task of the files reads a column: its cells without a value would be left out for nothing.

    ``flags`` are those that name a column, by what questions call it; ``others`` are columns of some other use.
    """
    from data_prep.h5ad.loaders import NAMED
    from data_prep.sources import asked_columns

    read = {*asked_columns(get_task(task) for task in tasks), *others}
    if unread := [name for name in flags if name not in read]:
        partners = [needs for task in TASKS.values() if unread[0] in (needs := asked_columns([task]))]
        more = " or ".join(sorted({NAMED[name] for needs in partners for name in needs - {*flags, "cell_type"}}))
        what = f"no task of this run reads {flags[unread[0]]}"
        hint = f"add {more}, or leave it out" if more else "add a --task that reads it, or leave it out"
        raise CellDualityError(what, code="needs-another", where=flags[unread[0]], hint=hint)


def refuse_misplaced(reading: Mapping[str, object], variant: str, files: Collection[str], names: Sequence[str]) -> None:
    """Raise if flags for files of one's own are given and there is no such file, or --variant and only such files."""
    wrong = "variant" if variant and len(files) == len(names) else ""
    for flag in ("control", "columns", "drug", "layer", "matrix", "gene_symbols", "species"):
        wrong = flag if reading.get(flag) and not files else wrong
    if wrong:
        of = "published sets" if wrong == "variant" else "files of one's own"
        what = f"{_flag('perturbation_column' if wrong == 'columns' else wrong)} is for {of}, and there is none"
        raise CellDualityError(what, code="file-only", where=", ".join(names), hint="leave it out")


def held_out_values(
    items: Iterable[str], sources: Sequence[str], known: Iterable[str]
) -> dict[str, dict[str, tuple[str, ...]]]:
    """Return {set: {column: values}} of ``[SET:]COLUMN=VALUE`` items; ``known`` sets of other runs are left out."""
    found: dict[str, dict[str, tuple[str, ...]]] = {}
    for item in items:
        name = next((source for source in (*sources, *known) if item.startswith(f"{source}:")), "")
        column, equals, value = item[len(name) + bool(name) :].partition("=")
        if not equals or not column or not value or ":" in column or (not name and len(sources) > 1):
            what, hint = f"{item!r} is not SET:COLUMN=VALUE", f"name one of {', '.join(sources)} first"
            raise CellDualityError(what, code="malformed", where="--held-out", hint=hint)
        columns = found.setdefault(name or sources[0], {})
        columns[column] = (*columns.get(column, ()), value)
    return {name: columns for name, columns in found.items() if name in sources}
