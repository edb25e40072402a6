"""`cellduality generate | perturb | predict | card`: cells from a trained model, any pair's answer, its model card."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

from cellduality_plugin.commands.reading import (
    Batch,
    Column,
    Control,
    GeneSymbols,
    Given,
    Layer,
    Matrix,
    Seed,
    Species,
    columns_in,
    load_model,
    value_in,
    values_in,
)
from cellduality_plugin.commands.using import annotate

if TYPE_CHECKING:
    from anndata import AnnData

Trained: TypeAlias = Annotated[
    Path, typer.Option("--model", help="The folder of a trained model, as the recipes leave it.")
]
Out: TypeAlias = Annotated[Path, typer.Option(help="The .h5ad file to write.")]
Verify: TypeAlias = Annotated[
    int, typer.Option(min=0, help="Cells drawn for each, of which the best by the model's own dual is kept; 0: one.")
]
KeyAdded: TypeAlias = Annotated[str, typer.Option(help="The first part of the new columns of obs.")]
Backend: TypeAlias = Annotated[str, typer.Option(help="transformers, in this process; or vllm, faster on a GPU.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    for command in (generate, perturb, predict, card):
        app.command(command.__name__)(command)


def generate(
    model: Trained,
    out: Out,
    cell_type: Annotated[list[str] | None, typer.Option(help="What to write; may be given several times.")] = None,
    n: Annotated[int, typer.Option("-n", min=1, help="Cells of each.")] = 100,
    verify: Verify = 4,
    length: Annotated[int | None, typer.Option(help="Genes of a cell; by default those of a cell sentence.")] = None,
    given: Given = None,
    task: Annotated[str, typer.Option(help="The pair to ask; by default the one that writes cells of a type.")] = "",
    key_added: KeyAdded = "cellduality",
    backend: Backend = "transformers",
    batch: Batch = 64,
    seed: Seed = 42,
) -> None:
    """Write cells of a type as AnnData: expression by the line fitted to the training cells, ranks as a layer.

    Examples:

    `cellduality generate --model runs/cpu/grpo --cell-type "CD19+ B" -n 200 --out cells.h5ad`

    `cellduality generate --model runs/cpu/grpo --cell-type "CD19+ B" --cell-type Dendritic --verify 0 --out cells.h5ad`
    """
    from cellduality_plugin.evaluation.generated import write_anndata
    from cellduality_plugin.inference.files import refuse_taken

    refuse_taken(out, model)
    cells = load_model(model, backend).generate(
        cell_type or [], n, length=length, given=values_in(given), task=task, key_added=key_added,
        verify=verify, batch=batch, seed=seed,
    )  # fmt: skip
    write_anndata(out, cells)
    _tell(cells, key_added, out)


def predict(
    task: Annotated[str, typer.Argument(help="The pair to ask, also one of your own.")],
    cells: Annotated[Path, typer.Argument(help="The .h5ad file: counts or log1p values, of any size and layout.")],
    model: Trained,
    out: Out,
    given: Given = None,
    control: Control = None,
    verify: Annotated[
        int | None,
        typer.Option(min=0, help="Answers to each cell, weighed by the dual; by default 8 for labels, else 4."),
    ] = None,
    key_added: Annotated[str, typer.Option(help="The new column of obs, or the first part of the new ones.")] = "",
    backend: Backend = "transformers",
    matrix: Matrix = "X",
    layer: Layer = None,
    gene_symbols: GeneSymbols = None,
    species: Species = None,
    column: Column = None,
    batch: Batch = 64,
    seed: Seed = 42,
) -> None:
    """Ask any pair about the cells of a file: labels go into a copy of it, cells into a new one.

    What was answered is kept: a run that was stopped goes on when the same command is given again.

    Examples:

    `cellduality predict drug_exposure_prediction new.h5ad --model runs/cpu/grpo --set drug=IFN-beta --out out.h5ad`

    `cellduality predict dropout_recovery new.h5ad --model runs/mine/grpo --out out.h5ad`
    """
    from cellduality_plugin.inference.writing import WriteSettings
    from cellduality_plugin.inference.written import refuse_control
    from cellduality_plugin.parsing import OneOf

    trained = load_model(model, backend, matrix, species)
    pair, chosen = trained.checkpoint.task(task), value_in(control, "--control") if control else None
    answer = pair.answer
    if isinstance(answer, OneOf):
        refuse_control(pair, chosen)
        annotate(
            cells, model, out, key_added or f"{answer.kind}_cellduality", task, 8 if verify is None else verify,
            backend=backend, matrix=matrix, layer=layer, gene_symbols=gene_symbols, species=species, column=column,
            given=given, batch=batch, seed=seed,
        )  # fmt: skip
        return
    settings = WriteSettings.read(
        {"verify": 4 if verify is None else verify, "batch": batch, "seed": seed}, where="predict"
    )
    written = trained.write_file(
        task, cells, out, settings, given=values_in(given), key_added=key_added or "cellduality",
        control=chosen,
        matrix=matrix, layer=layer, gene_symbols=gene_symbols, species=species, columns=columns_in(column),
    )  # fmt: skip
    _tell(written, key_added or "cellduality", out)


def perturb(
    cells: Annotated[Path, typer.Argument(help="The .h5ad file with untreated cells.")],
    model: Trained,
    perturbation: Annotated[str, typer.Option(help="What is done to them, in the model's words.")],
    out: Out,
    control: Control = None,
    verify: Verify = 4,
    task: Annotated[
        str, typer.Option(help="The pair to ask; by default the one that starts from untreated cells.")
    ] = "",
    key_added: KeyAdded = "cellduality",
    backend: Backend = "transformers",
    matrix: Matrix = "X",
    layer: Layer = None,
    gene_symbols: GeneSymbols = None,
    species: Species = None,
    column: Column = None,
    batch: Batch = 64,
    seed: Seed = 42,
) -> None:
    """Write what each untreated cell of a file becomes under a perturbation, as AnnData with the same names and obs.

    Untreated are the cells of `--control`; by default those called "control" in obs["perturbation"], or all of them.

    Example:

    `cellduality perturb control.h5ad --model runs/cpu/grpo --perturbation "cytokine IFN-beta" --out out.h5ad`
    """
    from cellduality_plugin.inference.checkpoint import read_checkpoint
    from cellduality_plugin.inference.written import cell_pair

    pair = cell_pair(read_checkpoint(model), task, from_control=True)
    predict(
        pair.name, cells, model, out, [f"perturbation={perturbation}"], control, verify, key_added, backend,
        matrix, layer, gene_symbols, species, column, batch, seed,
    )  # fmt: skip


def card(
    folder: Annotated[Path, typer.Argument(help="The folder of a trained model, as the recipes leave it.")],
    metrics: Annotated[Path | None, typer.Option(help="metrics.json of an evaluation of this very model.")] = None,
    audit: Annotated[Path | None, typer.Option(help="audit.json of the rewards it was trained with.")] = None,
    licence: Annotated[
        str, typer.Option(help="Of the model, as the hub writes it: apache-2.0, cc-by-4.0, other.")
    ] = "other",
) -> None:
    """Write the model card, README.md: what it was trained on, data and their licences, how many labels, results.

    Example: `cellduality card runs/cpu/grpo --metrics runs/cpu/test/metrics.json --audit runs/cpu/audit/audit.json`
    """
    from cellduality_plugin.inference.card import write_card

    print(write_card(folder, metrics, audit, licence))


def _tell(cells: AnnData, key: str, out: Path) -> None:
    """Print how many cells were written, and why some could not be read."""
    failures = Counter(reason for reason in cells.obs[f"{key}_failure"] if reason)
    for reason, count in failures.most_common():
        print(f"{count:>8} cells without genes: {reason}")
    print(f"{cells.n_obs} cells, mean validity {cells.obs[f'{key}_validity'].mean():.3f}: {out}")
