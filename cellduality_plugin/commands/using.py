"""`cellduality pack | calibrate | annotate | generate | predict | perturb`: a trained model in use."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias

from typer import Argument, Option

from cellduality_plugin.commands import arguments
from cellduality_plugin.commands.arguments import Reading, load_model, reads_cells, refuse_unknown, values_in

if TYPE_CHECKING:
    from anndata import AnnData

    from cellduality_plugin.inference.annotating import Annotator
    from cellduality_plugin.inference.writing import Writer

LITTLE_SHARED = 0.5  # of the genes that a model knows: a file that has fewer is warned of

Folder: TypeAlias = Annotated[Path, Argument(help="The folder of a trained model, as the recipes leave it.")]
Cells: TypeAlias = Annotated[Path, Argument(help="The .h5ad file: counts or log1p values, of any size and layout.")]
Out: TypeAlias = Annotated[Path, Option(help="The .h5ad file to write.")]
Verify: TypeAlias = Annotated[int, Option(min=0, help="Cells drawn for each: the best by the dual is kept; 0: one.")]
VerifyLabels: TypeAlias = Annotated[int, Option(min=0, help="Answers to a cell, weighed by the dual; 0: one, greedy.")]
KeyAdded: TypeAlias = Annotated[str, Option(help="The first part of the new columns of obs.")]
CellTask: TypeAlias = Annotated[str, Option(help="The pair to ask; by default the first that writes such cells.")]


def pack(
    model: Folder,
    data: arguments.Data,
    config: arguments.ConfigFile = None,
    max_len: arguments.MaxLen = 2048,
    max_new_tokens: arguments.MaxNewTokens = 1024,
) -> None:
    """Put all that a model's use needs into its folder: vocabulary, dual pairs, rewards, how cells become sentences.

    The recipes do it after SFT and GRPO. The folder can then be moved, or put on a hub.

    Example: `cellduality pack runs/cpu/grpo --data runs/cpu/data --config runs/cpu/data/chosen.json`
    """
    from cellduality_plugin.inference.checkpoint import pack as pack_model

    print(pack_model(model, data, config, max_len=max_len, max_new_tokens=max_new_tokens))


def calibrate(
    model: Folder,
    data: arguments.Data,
    split: Annotated[str, Option(help="validation: fit, and keep it in the model; test or ood: measure.")] = (
        "validation"
    ),
    cells: Annotated[int, Option(min=1, help="Cells whose label is read, at most.")] = 400,
    out: Annotated[Path | None, Option(help="Also write what was measured, as JSON, with a .png beside it.")] = None,
    coverage: arguments.Coverage = 0.9,
    task: arguments.LabelTask = "",
    verify: VerifyLabels = 8,
    backend: arguments.Backend = "transformers",
    batch: arguments.Batch = 64,
    seed: arguments.Seed = 42,
) -> None:
    """Make the confidence of `annotate` true, on cells whose labels are known; or measure on others how true it is.

    Fitted are the temperature, what reward and class profiles are worth against votes, and an offset of each label;
    sets of labels are by conformal prediction, across folds. What is read are labels: count them with the others.

    Examples:

    `cellduality calibrate runs/cpu/grpo --data runs/cpu/data`

    `cellduality calibrate runs/cpu/grpo --data runs/cpu/data --split test --out runs/cpu/test/confidence.json`
    """
    from cellduality_plugin.evaluation.confidence import coverage_of_sets
    from cellduality_plugin.evaluation.plots import save_confidence
    from cellduality_plugin.files import write_json

    refuse_unknown(("--split", split, ("validation", "test", "ood")))
    found = load_model(model, backend).calibrate(
        data, split=split, cells=cells, task=task, verify=verify, coverage=coverage, batch=batch, seed=seed
    )
    if out:
        write_json(out, found)
        save_confidence(out.with_suffix(".png"), found)
    for way, numbers in found["metrics"].items():
        shown = ", ".join(f"{name} {one['value']:.3f}" for name, one in numbers.items())
        print(f"{way:>12}  {shown}")
    print(f"{found['n']} cells of the {split} split{', which were fitted to' if found['in_sample'] else ''}")
    if fitted := found["calibration"]:
        own = fitted["confidence"]
        weights = "(votes + 0.1)^{votes:.2f} x reward^{reward:.2f} x profile^{profiles:.2f}".format(**own)
        if own["offsets"]:
            weights += f" x e^({min(own['offsets']):.2f} to {max(own['offsets']):.2f}, by label)"
        print(f"confidence: {weights}, fitted to {fitted['labels']} validation cells whose label was read for it")
        if coverage and fitted["scores"]:
            mean, spread = coverage_of_sets(len(fitted["scores"]), coverage)
            print(f"sets for {coverage:g}: of many new cells {mean:.3f} are expected to be covered, ± {spread:.3f}")


@reads_cells
def annotate(
    cells: Cells,
    model: arguments.Packed,
    out: Annotated[Path, Option(help="The copy to write, with labels.")],
    key_added: Annotated[str, Option(help="The column of obs with the labels.")] = "cell_type_cellduality",
    task: arguments.LabelTask = "",
    verify: VerifyLabels = 8,
    coverage: arguments.Coverage = 0.0,
    unassigned_below: Annotated[float, Option(min=0.0, max=1.0, help="Less sure cells get no label.")] = 0.0,
    given: arguments.Given = None,
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
    shown, trained = values_in(given, "--set"), reading.load(model)
    from cellduality_plugin.inference.annotating import Annotator

    settings = {"verify": verify, "coverage": coverage, "unassigned_below": unassigned_below, **reading.of_draws}
    _ask(Annotator(trained.checkpoint, task, settings, given=shown, key=key_added), cells, out, reading)


def generate(
    model: arguments.Packed,
    out: Out,
    cell_type: Annotated[list[str] | None, Option(help="What to write; may be given several times.")] = None,
    n: Annotated[int, Option("-n", min=1, help="Cells of each.")] = 100,
    verify: Verify = 4,
    length: Annotated[int | None, Option(help="Genes of a cell; by default those of a cell sentence.")] = None,
    given: arguments.Given = None,
    task: CellTask = "",
    key_added: KeyAdded = "cellduality",
    backend: arguments.Backend = "transformers",
    batch: arguments.Batch = 64,
    seed: arguments.Seed = 42,
) -> None:
    """Write cells of a type as AnnData: expression by the line fitted to the training cells, ranks as a layer.

    Examples:

    `cellduality generate --model runs/cpu/grpo --cell-type "CD19+ B" -n 200 --out cells.h5ad`

    `cellduality generate --model runs/cpu/grpo --cell-type "CD19+ B" --cell-type Dendritic --verify 0 --out cells.h5ad`
    """
    from cellduality_plugin.evaluation.generated import write_anndata
    from cellduality_plugin.inference.asking import refuse_taken

    refuse_taken(out, model)
    cells = load_model(model, backend).generate(
        cell_type or [], n, length=length, given=values_in(given, "--set"), task=task, key_added=key_added,
        verify=verify, batch=batch, seed=seed,
    )  # fmt: skip
    write_anndata(out, cells)
    _tell(cells, key_added, out)


@reads_cells
def predict(
    task: Annotated[str, Argument(help="The pair to ask, also one of your own.")],
    cells: Cells,
    model: arguments.Packed,
    out: Out,
    given: arguments.Given = None,
    control: arguments.Control = None,
    verify: Annotated[int | None, Option(min=0, help="As `annotate` (default 8), or as `perturb` (4).")] = None,
    key_added: Annotated[str, Option(help="The new column of obs, or the first part of the new ones.")] = "",
    *,
    reading: Reading,
) -> None:
    """Ask any pair about the cells of a file: labels go into a copy of it, cells into a new one.

    A pair that names what was done to a cell needs untreated ones beside it, of its cell_type and cell_line: those of
    `--control`, which may be a file of untreated cells; by default cells of a usual name in obs["perturbation"].
    What was answered is kept: a run that was stopped goes on when the same command is given again.

    Examples:

    `cellduality predict drug_exposure_prediction new.h5ad --model runs/cpu/grpo --set drug=IFN-beta --out out.h5ad`

    `cellduality predict perturbation_identification screen.h5ad --model runs/screen/grpo --control control.h5ad
    --out out.h5ad`

    `cellduality predict dropout_recovery new.h5ad --model runs/mine/grpo --out out.h5ad`
    """
    trained, settings = reading.load(model), {} if verify is None else {"verify": verify}
    untreated = _untreated(control) if control is None or "=" in control else Path(control)
    how = {"given": values_in(given, "--set"), "control": untreated, "key": key_added}
    _ask(trained.asker(task, settings | reading.of_draws, **how), cells, out, reading)


@reads_cells
def perturb(
    cells: Cells,
    model: arguments.Packed,
    perturbation: Annotated[str, Option(help="What is done to them, in the model's words.")],
    out: Out,
    control: arguments.Control = None,
    verify: Verify = 4,
    task: CellTask = "",
    key_added: KeyAdded = "cellduality",
    *,
    reading: Reading,
) -> None:
    """Write what each untreated cell of a file becomes under a perturbation, as AnnData with the same names and obs.

    Untreated are the cells of `--control`; by default those called "control" in obs["perturbation"], or all of them.

    Example:

    `cellduality perturb control.h5ad --model runs/cpu/grpo --perturbation "cytokine IFN-beta" --out out.h5ad`
    """
    from cellduality_plugin.inference.writing import Writer, cell_pair

    checkpoint = reading.load(model).checkpoint
    given = values_in([f"perturbation={perturbation}"], "--perturbation")
    how = {"given": given, "control": _untreated(control), "key": key_added}
    pair, settings = cell_pair(checkpoint, task, from_control=True), {"verify": verify, **reading.of_draws}
    _ask(Writer(checkpoint, pair, settings, **how), cells, out, reading)


def _untreated(control: str | None) -> tuple[str, str] | None:
    return next(iter(values_in([control], "--control").items())) if control else None


def _ask(asker: Annotator | Writer, cells: Path, out: Path, reading: Reading) -> None:
    """Write the answers about a file; print how many cells have which label, or how many could be written."""
    from cellduality_plugin.inference.annotating import UNASSIGNED, Annotator
    from cellduality_plugin.inference.asking import PROVENANCE

    if not isinstance(asker, Annotator):
        return _tell(asker.of_file(cells, out, **reading.of_file), asker.key, out)
    labels = asker.of_file(cells, out, **reading.of_file)
    found, shared = labels.asked, labels.uns[PROVENANCE]["shared_genes"]
    if shared < LITTLE_SHARED:
        print(f"warning: the file has {shared:.0%} of the genes that the model knows; labels may be worth little")
    for label, count in Counter(found["label"]).most_common():
        sure = found.loc[found["label"] == label, "confidence"].mean()
        print(f"{count:>8} {label}" + ("" if label == UNASSIGNED else f"  (mean confidence {sure:.2f})"))
    print(f"{len(found)} cells, {shared:.0%} of the model's genes: {out}")


def _tell(cells: AnnData, key: str, out: Path) -> None:
    """Print how many cells were written, and why some could not be read."""
    failures = Counter(reason for reason in cells.obs[f"{key}_failure"] if reason)
    for reason, count in failures.most_common():
        print(f"{count:>8} cells without genes: {reason}")
    print(f"{cells.n_obs} cells, mean validity {cells.obs[f'{key}_validity'].mean():.3f}: {out}")
