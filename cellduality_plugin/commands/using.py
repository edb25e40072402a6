"""`cellduality pack | calibrate | annotate`: a trained model with all its use needs, and labels for a new file."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cellduality_plugin.commands.arguments import refuse_unknown, values_in
from cellduality_plugin.commands.options import (
    Backend,
    Batch,
    Given,
    MaxLen,
    MaxNewTokens,
    Reading,
    Seed,
    Trained,
    load_model,
    reads_cells,
)

if TYPE_CHECKING:
    from cellduality_plugin.inference.model import Model

LITTLE_SHARED = 0.5
"""Of the genes that a model knows: a file that has fewer is warned of."""


def pack(
    model: Annotated[Path, typer.Argument(help="The folder of a trained model.")],
    data: Annotated[Path, typer.Option(help="The prepared folder it was trained on.")],
    config: Annotated[
        Path | None, typer.Option(help="The configuration of the training; that of the folder by default.")
    ] = None,
    max_len: MaxLen = 2048,
    max_new_tokens: MaxNewTokens = 1024,
) -> None:
    """Put all that a model's use needs into its folder: vocabulary, dual pairs, rewards, how cells become sentences.

    The recipes do it after SFT and GRPO. The folder can then be moved, or put on a hub.

    Example: `cellduality pack runs/cpu/grpo --data runs/cpu/data --config runs/cpu/data/chosen.json`
    """
    from cellduality_plugin.inference.checkpoint import pack as pack_model

    print(pack_model(model, data, config, max_len=max_len, max_new_tokens=max_new_tokens))


def calibrate(
    model: Annotated[Path, typer.Argument(help="The folder of a trained model, as the recipes leave it.")],
    data: Annotated[Path, typer.Option(help="The prepared folder it was trained on.")],
    split: Annotated[str, typer.Option(help="validation: fit, and keep it in the model; test or ood: measure.")] = (
        "validation"
    ),
    cells: Annotated[int, typer.Option(min=1, help="Cells whose label is read, at most.")] = 128,
    out: Annotated[
        Path | None, typer.Option(help="Also write what was measured, as JSON, with a .png beside it.")
    ] = None,
    coverage: Annotated[
        float, typer.Option(min=0.0, max=0.999, help="Of the sets of labels that are measured; 0: none.")
    ] = 0.9,
    task: Annotated[str, typer.Option(help="The pair to ask; by default the one that names cell types.")] = "",
    verify: Annotated[int, typer.Option(min=0, help="As `annotate` has it, which uses the fit for the same.")] = 8,
    backend: Backend = "transformers",
    batch: Batch = 64,
    seed: Seed = 42,
) -> None:
    """Make the confidence of `annotate` true, on cells whose labels are known; or measure on others how true it is.

    Fitted are the temperature and what a reward is worth against votes; two thirds of the cells give the threshold of
    sets of labels (split conformal prediction). What is read are labels: count them with those of training.

    Examples:

    `cellduality calibrate runs/cpu/grpo --data runs/cpu/data`

    `cellduality calibrate runs/cpu/grpo --data runs/cpu/data --split test --out runs/cpu/test/confidence.json`
    """
    from cellduality_plugin.evaluation.plots import save_confidence
    from cellduality_plugin.files import write_text

    refuse_unknown(("--split", split, ("validation", "test", "ood")))
    found = load_model(model, backend).calibrate(
        data, split=split, cells=cells, task=task, verify=verify, coverage=coverage, batch=batch, seed=seed
    )
    if out:
        write_text(out, json.dumps(found, indent=1, allow_nan=False, ensure_ascii=False) + "\n")
        save_confidence(out.with_suffix(".png"), found)
    for way, numbers in found["metrics"].items():
        shown = ", ".join(f"{name} {one['value']:.3f}" for name, one in numbers.items())
        print(f"{way:>12}  {shown}")
    print(f"{found['n']} cells of the {split} split{', which were fitted to' if found['in_sample'] else ''}")
    if fitted := found["calibration"]:
        weights = "(votes + 0.1)^{votes:.2f} x reward^{reward:.2f}".format(**fitted["confidence"])
        print(f"confidence: {weights}, fitted to {fitted['labels']} validation cells whose label was read for it")


@reads_cells
def annotate(
    cells: Annotated[Path, typer.Argument(help="The .h5ad file: counts or log1p values, of any size and layout.")],
    model: Trained,
    out: Annotated[Path, typer.Option(help="The copy to write, with labels.")],
    key_added: Annotated[str, typer.Option(help="The column of obs with the labels.")] = "cell_type_cellduality",
    task: Annotated[str, typer.Option(help="The pair to ask; by default the one that names cell types.")] = "",
    verify: Annotated[
        int, typer.Option(min=0, help="Answers to each cell, weighed by the model's own dual; 0: one greedy answer.")
    ] = 8,
    coverage: Annotated[
        float,
        typer.Option(min=0.0, max=0.999, help="How often a set of labels shall hold the true one; 0: no sets."),
    ] = 0.0,
    unassigned_below: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Cells of a lower confidence get no label.")
    ] = 0.0,
    given: Given = None,
    *,
    reading: Reading,
) -> None:
    """Name the cells of a file: label, confidence, votes and reasoning in obs, probabilities in obsm, the rest kept.

    Each cell is answered several times, and the model's own dual weighs the answers. What was answered is kept: a run
    that was stopped goes on when the same command is given again.

    Examples:

    `cellduality annotate new.h5ad --model runs/cpu/grpo --out annotated.h5ad`

    `cellduality annotate new.h5ad --model runs/cpu/grpo --out annotated.h5ad --coverage 0.9` (after `calibrate`)

    `cellduality annotate mouse.h5ad --model runs/cpu/grpo --out annotated.h5ad --species mouse --verify 0`
    """
    settings = {"verify": verify, "coverage": coverage, "unassigned_below": unassigned_below}
    label_file(reading.load(model), cells, out, reading, settings, key_added=key_added, task=task, given=given)


def label_file(
    trained: Model,
    cells: Path,
    out: Path,
    reading: Reading,
    settings: dict[str, Any],
    *,
    given: list[str] | None,
    **how: str,
) -> None:
    """Write a copy of a file with labels, and print how many cells have which."""
    from cellduality_plugin.inference.annotating import UNASSIGNED, AnnotateSettings

    own = AnnotateSettings.read(settings | reading.of_draws, where="annotate")
    found, shared = trained.annotate_file(cells, out, own, given=values_in(given, "--set"), **how, **reading.of_file)
    if shared < LITTLE_SHARED:
        print(f"warning: the file has {shared:.0%} of the genes that the model knows; labels may be worth little")
    for label, count in Counter(found["label"]).most_common():
        sure = found.loc[found["label"] == label, "confidence"].mean()
        print(f"{count:>8} {label}" + ("" if label == UNASSIGNED else f"  (mean confidence {sure:.2f})"))
    print(f"{len(found)} cells, {shared:.0%} of the model's genes: {out}")
