"""`cellduality data prepare`: cells to rows for SFT, RL and evaluation."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from typer import Argument, Option

from cellduality_plugin.commands.arguments import Seed, absolute, by_name, names_in, pairs, reward_of
from cellduality_plugin.commands.prepare_flags import held_out_values, refuse_alone, refuse_misplaced, refuse_unread
from cellduality_plugin.config import EVERY_TASK, Config
from cellduality_plugin.errors import CellDualityError
from cellduality_plugin.tasks import TASKS, get_task
from cellduality_plugin.vocabulary import LISTED

out = Console()


def data_prepare(
    context: typer.Context,
    sources: Annotated[list[str] | None, Argument(help="Known sets (`data list`) or paths of .h5ad files.")] = None,
    folder: Annotated[Path, Option("--out", help="Where the rows go.")] = Path("data"),
    task: Annotated[
        list[str] | None,
        Option(
            help="A dual pair, or several with commas: a built-in name, module:Class or file.py:Class; PAIR=3 gives it "
            "three shares of the RL rows. By default all that the sets serve."
        ),
    ] = None,
    weights: Annotated[str, Option(help="Shares of the RL rows other than 1: task=share,...")] = "",
    label_column: Annotated[str, Option(help="The obs column with cell types; the set's own if empty.")] = "",
    perturbation_column: Annotated[str, Option(help="The obs column with perturbations.")] = "",
    control: Annotated[str, Option(help="Its names of untreated cells, with commas; else control, DMSO, NT, ...")] = "",
    match: Annotated[str, Option(help="Columns that a cell shares with its control: batch,donor,...")] = "",
    drug_column: Annotated[str, Option(help="The obs column with drugs.")] = "",
    drug: Annotated[str, Option(help="The one drug of a file, in place of that column.")] = "",
    sensitivity_column: Annotated[str, Option(help="The obs column with drug sensitivities.")] = "",
    exposure_column: Annotated[str, Option(help="The obs column that says which cells were exposed.")] = "",
    expression: Annotated[str, Option(help="What the matrix holds: auto, log1p or counts.")] = "auto",
    matrix: Annotated[str, Option(help="Which matrix to read: X or raw; the set's own if empty.")] = "",
    layer: Annotated[str, Option(help="The layer to read in place of X.")] = "",
    gene_symbols: Annotated[str, Option(help="The var column with gene symbols, if the index has ids.")] = "",
    species: Annotated[str, Option(help="human or mouse; mouse genes become their human orthologues.")] = "",
    variant: Annotated[str, Option(help="Of a published set: as_published or corrected.")] = "",
    small_classes: Annotated[str, Option(help="Classes of fewer than three cells: refuse or drop.")] = "refuse",
    held_out: Annotated[
        list[str] | None,
        Option(
            help="Cells for evaluation out of distribution alone, by any column of obs: [SET:]COLUMN=VALUE; "
            "repeatable. In place of what a published set holds out."
        ),
    ] = None,
    split: Annotated[
        str, Option(help="Of published sets: published, as `data info` shows; or fractions, 60 / 20 / 20 by class.")
    ] = "published",
    foreign: Annotated[list[str] | None, Option(help="A set that never trains, scored by shared types.")] = None,
    max_cells: Annotated[str, Option(help="Cells of a set at most, as N or SET=N,...; empty for all.")] = "",
    rewards: Annotated[
        str,
        Option(
            help="Reward by task name, task=KIND,...: duality, likelihood, posterior, profile, consistency or oracle; "
            "duality-KIND and oracle-KIND compare by exact, rwjs, ruzicka or rbo; module:Class or file.py:Class; "
            "0.5*posterior+0.5*duality is a weighted sum, posterior*profile^0.3 a product of powers; *=KIND stands for "
            "all tasks that are not named. oracle puts the true answers into the task's RL rows."
        ),
    ] = "",
    top_genes: Annotated[int, Option(help="Genes in a cell sentence, at most.")] = 64,
    genes: Annotated[int, Option(help="Most variable genes of each set that make the vocabulary; 0: all.")] = 0,
    min_genes: Annotated[int, Option(help="Cells with fewer expressed genes are left out.")] = 8,
    list_labels: Annotated[int, Option(help="Labels a question lists; past it, how to write one.")] = LISTED,
    hidden: Annotated[
        str,
        Option(
            help="Share of a cell's genes that the dual of a label rebuilds, up to 1 for the whole cell; several with "
            "commas teach the dual at each, and the rows of RL and evaluation are split by the first."
        ),
    ] = "0.25",
    thin: Annotated[float, Option(help="Share of genes that RL questions do not show; --hidden begins with 1.")] = 0.0,
    labelled: Annotated[str, Option(help="Training cells whose label SFT may see, as N or SET=N,...")] = "140",
    rl_rows: Annotated[int, Option(help="Rows for reinforcement learning.")] = 512,
    masks: Annotated[int, Option(help="Splits of a cell that the reward of a dual of genes is the mean over.")] = 1,
    audit_cells: Annotated[int, Option(help="Validation cells of a task that audit may look at.")] = 128,
    sft_views: Annotated[int, Option(help="Versions of each labelled cell: whole, then with lost genes.")] = 1,
    sft_label_views: Annotated[int, Option(help="The same where a label is the answer; 0: as many.")] = 0,
    pretrain_views: Annotated[int, Option(help="The same of unlabelled cells, for a stage before SFT; 0: none.")] = 0,
    clusters: Annotated[int, Option(help="Clusters that stand for the types of a set there, at most.")] = 16,
    validity_power: Annotated[float, Option(help="What repeats in a list cost; 0: nothing, as the paper.")] = 1.0,
    validity_share: Annotated[float, Option(help="Share of the reward that form alone earns, in [0, 1).")] = 0.0,
    minimum_spread: Annotated[float, Option(help="Rewards of a group that are nearer become equal; 0: never.")] = 0.0,
    votes: Annotated[str, Option(help="Label tasks, with commas, whose groups' votes are the posterior's prior.")] = "",
    traces: Annotated[str, Option(help="Reasoning traces of the dual, task=NUMBER,... or *=NUMBER.")] = "",
    dual_temperature: Annotated[float, Option(help="Sampling temperature of the dual; 0 is greedy.")] = 0.0,
    dual_samples: Annotated[int, Option(help="Reconstructions drawn for an answer, of which the mean counts.")] = 1,
    dual_max_new_tokens: Annotated[int, Option(help="Longest response to a dual; 0: what the context leaves.")] = 0,
    dual_timeout: Annotated[float, Option(help="Seconds after which a dual counts as failed.")] = 120.0,
    gold_for_monitoring: Annotated[
        bool, Option("--gold-for-monitoring", help="Put the true answers into all RL rows, for the log alone.")
    ] = False,
    records: Annotated[Path | None, Option(help="Where a run keeps rollouts, for `cellduality replay`.")] = None,
    records_every: Annotated[int, Option(help="Of so many groups one is kept.")] = 8,
    records_limit: Annotated[int, Option(help="Rollouts that each process keeps, at most.")] = 1000,
    seed: Seed = 42,
    label_seed: Annotated[int | None, Option(help="Of which training cells show their label, if not --seed.")] = None,
) -> None:
    """Turn cells into rows for SFT, RL and evaluation, with a manifest beside each file.

    Examples:

    `cellduality data prepare pbmc68k_reduced kang_2018_ifnb --out data --held-out "kang_2018_ifnb:cell_type=B cell"`

    `cellduality data prepare pbmc68k_reduced --foreign kidney_immune --max-cells kidney_immune=150 --out data`

    `cellduality data prepare my.h5ad --label-column cell_type --perturbation-column condition --control DMSO`

    `cellduality data prepare my.h5ad --label-column cell_type --held-out donor=D3`

    `cellduality data prepare screen.h5ad --perturbation-column target --match batch --held-out guide=TP53g2`

    Of a file of your own, columns called cell_type, perturbation, drug, sensitivity and exposure need no flag.
    """
    from data_prep.datasets import DATASETS
    from data_prep.download.fetching import ready_file
    from data_prep.h5ad.loaders import NAMED
    from data_prep.manifests import is_edited, write_manifest
    from data_prep.prepare import PrepareSettings, describe, prepare
    from data_prep.sources import asked_columns, look_at, tasks_of_sources

    refuse_alone(context)
    names, others = sources or ["pbmc68k_reduced"], foreign or []
    given = context.params
    named = {ours: column for ours, flag in NAMED.items() if (column := given[flag[2:].replace("-", "_")])}
    read = ("expression", "matrix", "layer", "gene_symbols", "species", "control", "drug")
    reading = {name: given[name] for name in read}
    flags = {name: NAMED[name] for name in named if name != "cell_type"} | ({"drug": "--drug"} if drug else {})
    wanted = {absolute(name): share for item in task or [] for name, share in pairs(item, "--task", "").items()}
    kept_out = held_out_values(held_out or [], names, DATASETS)
    looks = {name: look_at(name, named, reading, kept_out.get(name, {})) for name in names if name not in DATASETS}
    for note in (note for look in looks.values() for note in look.notes(asked=bool(wanted))):
        out.print(note, soft_wrap=True, highlight=False, markup=False)
    served = tasks_of_sources(names, list(wanted), {name: look.usable for name, look in looks.items()})
    shares = pairs(weights, "--weights")
    asked = {pair: wanted.get(pair) or shares.get(pair) or "1" for some in served.values() for pair in some}
    _refuse_unknown(shares, asked, "--weights")
    if files := [name for name in names if name not in DATASETS or DATASETS[name].as_file]:
        spoken = {*names_in(match), *(column for name in files for column in kept_out.get(name, ()))}
        spoken |= {column for look in looks.values() for column in look.shared}
        refuse_unread(flags, [task for name in files for task in served[name]], spoken)
    refuse_misplaced({**reading, "columns": flags}, variant, files, names)
    cells = by_name(max_cells, [*names, *others], "--max-cells", DATASETS)
    shown = by_name(labelled, names, "--labelled", DATASETS)

    matched = {name: names_in(match) for name in names if any("control" in get_task(t).needs for t in served[name])}

    def source(name: str) -> dict[str, object]:
        published = name in DATASETS and not DATASETS[name].as_file  # it knows its own columns
        columns = {} if published else dict(named)
        if name in looks:  # of those that nobody named, what a question speaks of
            spoken = {"cell_type", *named, *asked_columns(map(get_task, served[name]))}
            columns = {ours: column for ours, column in looks[name].columns.items() if ours in spoken}
        how = {"variant": variant} if published else {**reading, "label_column": columns.pop("cell_type", "")}
        return {
            "name": name, "tasks": served[name], "held_out": kept_out.get(name, {}), "split": split,
            "max_cells": cells.get(name), "n_labelled": shown.get(name),
            "match": matched.get(name, () if matched else names_in(match)),
            **({} if published else {"columns": columns}), **{flag: value for flag, value in how.items() if value},
        }  # fmt: skip

    values = {
        "top_genes": top_genes, "min_genes": min_genes, "thin": thin, "masks": masks, "sft_views": sft_views,
        "pretrain_views": pretrain_views, "clusters": clusters, "small_classes": small_classes, "seed": seed,
        "label_seed": label_seed,
        "sources": [source(name) for name in names],
        "foreign": [{"name": name, "max_cells": cells.get(name)} for name in others],
        "tasks": dict(sorted(asked.items(), key=lambda item: list(TASKS).index(item[0]) if item[0] in TASKS else 99)),
        "n_genes": genes or None, "sft_label_views": sft_label_views or None, "hidden": names_in(hidden),
        "listed": list_labels, "n_rl": rl_rows, "n_audit": audit_cells,
    }  # fmt: skip
    settings = PrepareSettings.read(values)
    config = _config(settings.tasks, given)
    config.load_rewards(config.load_tasks(), prepared=False)
    gold = tuple(config.tasks) if gold_for_monitoring else config.needs_gold()
    for name in (*names, *others):
        if name in DATASETS and (ready := ready_file(DATASETS[name])):
            out.print(f"{name}: {ready} in place of the download", soft_wrap=True, highlight=False)
    place_of_config = folder / "cellduality.json"
    edited = is_edited(place_of_config, config.text)
    summary = prepare(settings.model_copy(update={"rl_gold": gold}), folder)
    if edited:
        out.print(f"{place_of_config} was changed by hand and is kept; without it, it is written again", soft_wrap=True)
    else:
        config.save(place_of_config)
        write_manifest(place_of_config, {})
    out.print(describe(summary))


def _config(tasks: Iterable[str], given: Mapping[str, Any]) -> Config:
    """Return the configuration of a run with ``tasks`` (names or import paths), from what is ``given`` by parameter.

    A CellDualityError if something is said of an unknown task, or a setting is wrong.
    """
    rewards, traces = (pairs(given[name], f"--{name}") for name in ("rewards", "traces"))
    found, votes = {get_task(pair).name: pair for pair in tasks}, names_in(given["votes"])
    for said, flag in ((rewards, "--rewards"), (votes, "--votes"), (traces, "--traces")):
        _refuse_unknown({*said} - {EVERY_TASK}, found, flag)
    shaping = {name: given[name] for name in ("validity_power", "validity_share", "minimum_spread")}
    usual = rewards.get(EVERY_TASK, "duality")
    settings = {
        name: {
            "pair": pair, "reward": reward_of(rewards.get(name, usual), "--rewards"), "votes": name in votes, **shaping,
        }
        for name, pair in found.items()
    }  # fmt: skip
    dual = {
        "temperature": given["dual_temperature"], "samples": given["dual_samples"],
        "timeout_seconds": given["dual_timeout"], "max_new_tokens": given["dual_max_new_tokens"] or None,
    }  # fmt: skip
    records = None
    if given["records"]:  # named from where the data are, so that both can be moved
        folder = os.path.relpath(given["records"], given["folder"])
        records = {"folder": folder, "every": given["records_every"], "limit": given["records_limit"]}
    config = Config.read({"tasks": settings, "dual": dual, "records": records, "profiles": "profiles.npz"})
    own = {name: count for name, count in traces.items() if name in (*found, EVERY_TASK)}
    return config.with_each("traces", own, "--traces")


def _refuse_unknown(given: Iterable[str], tasks: Iterable[str], flag: str) -> None:
    """Raise if a name in ``given`` is neither of a task of this run nor of a built-in one.

    One list of weights or rewards serves runs with more and with fewer of the built-in tasks.
    """
    for name in {*given} - {*tasks} - {*TASKS}:
        hint = f"the tasks are {', '.join(tasks)}"
        raise CellDualityError(f"no task {name!r}", code="unknown-task", where=flag, hint=hint)
