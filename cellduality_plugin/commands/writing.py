"""`cellduality generate | perturb | predict | card`: cells from a trained model, any pair's answer, its model card."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

from cellduality_plugin.commands.arguments import value_in, values_in
from cellduality_plugin.commands.options import (
    Backend,
    Batch,
    Control,
    Given,
    Reading,
    Seed,
    Trained,
    load_model,
    reads_cells,
)
from cellduality_plugin.commands.using import label_file

if TYPE_CHECKING:
    from anndata import AnnData

    from cellduality_plugin.inference.model import Model

Out: TypeAlias = Annotated[Path, typer.Option(help="The .h5ad file to write.")]
Verify: TypeAlias = Annotated[
    int, typer.Option(min=0, help="Cells drawn for each, of which the best by the model's own dual is kept; 0: one.")
]
KeyAdded: TypeAlias = Annotated[str, typer.Option(help="The first part of the new columns of obs.")]


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
        cell_type or [], n, length=length, given=values_in(given, "--set"), task=task, key_added=key_added,
        verify=verify, batch=batch, seed=seed,
    )  # fmt: skip
    write_anndata(out, cells)
    _tell(cells, key_added, out)


@reads_cells
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
    *,
    reading: Reading,
) -> None:
    """Ask any pair about the cells of a file: labels go into a copy of it, cells into a new one.

    What was answered is kept: a run that was stopped goes on when the same command is given again.

    Examples:

    `cellduality predict drug_exposure_prediction new.h5ad --model runs/cpu/grpo --set drug=IFN-beta --out out.h5ad`

    `cellduality predict dropout_recovery new.h5ad --model runs/mine/grpo --out out.h5ad`
    """
    from cellduality_plugin.inference.written import refuse_control
    from cellduality_plugin.parsing import OneOf

    trained = reading.load(model)
    pair = trained.checkpoint.task(task)
    if isinstance(pair.answer, OneOf):
        refuse_control(pair, _untreated(control))
        key, settings = key_added or f"{pair.answer.kind}_cellduality", {} if verify is None else {"verify": verify}
        label_file(trained, cells, out, reading, settings, key_added=key, task=task, given=given)
        return
    shown, draws = values_in(given, "--set"), 4 if verify is None else verify
    _write_file(trained, task, cells, out, shown, control, draws, key_added or "cellduality", reading)


@reads_cells
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
    *,
    reading: Reading,
) -> None:
    """Write what each untreated cell of a file becomes under a perturbation, as AnnData with the same names and obs.

    Untreated are the cells of `--control`; by default those called "control" in obs["perturbation"], or all of them.

    Example:

    `cellduality perturb control.h5ad --model runs/cpu/grpo --perturbation "cytokine IFN-beta" --out out.h5ad`
    """
    from cellduality_plugin.inference.written import cell_pair

    trained = reading.load(model)
    pair = cell_pair(trained.checkpoint, task, from_control=True)
    given = values_in([f"perturbation={perturbation}"], "--perturbation")
    _write_file(trained, pair.name, cells, out, given, control, verify, key_added, reading)


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


def _untreated(control: str | None) -> tuple[str, str] | None:
    return value_in(control, "--control") if control else None


def _write_file(
    trained: Model,
    task: str,
    cells: Path,
    out: Path,
    given: dict[str, str],
    control: str | None,
    verify: int,
    key: str,
    reading: Reading,
) -> None:
    """Write the cells that a pair answers with about a file, and print how many could be read."""
    from cellduality_plugin.inference.writing import WriteSettings

    settings, untreated = WriteSettings(verify=verify, **reading.of_draws), _untreated(control)
    how = reading.of_file
    written = trained.write_file(task, cells, out, settings, given=given, control=untreated, key_added=key, **how)
    _tell(written, key, out)


def _tell(cells: AnnData, key: str, out: Path) -> None:
    """Print how many cells were written, and why some could not be read."""
    failures = Counter(reason for reason in cells.obs[f"{key}_failure"] if reason)
    for reason, count in failures.most_common():
        print(f"{count:>8} cells without genes: {reason}")
    print(f"{cells.n_obs} cells, mean validity {cells.obs[f'{key}_validity'].mean():.3f}: {out}")
