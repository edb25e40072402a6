"""Which kind of reward should be the default of a task: the audits of several seeds in one table, and how runs learn.

Run by recipes/benchmark_default.sh. Writes audits.md, and curves.png: the ground truth of the rollouts of every arm by
step, as a mean over seeds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas
from shared import options

from cellduality_plugin.evaluation.audit.run import read_audit
from cellduality_plugin.evaluation.curves import Band, panels, read_curves
from cellduality_plugin.evaluation.plots import PALETTE, drawing, save_figure
from cellduality_plugin.evaluation.tables import markdown, section_title
from cellduality_plugin.files import write_text

COLUMNS: Mapping[str, str] = {
    "auc": "AUC, true against wrong",
    "majority_accuracy": "the majority is right",
    "product_accuracy": "votes × reward are right",
    "group_agreement": "agrees in the group",
    "group_gain": "best paid over mean",
    "zero_variance": "flat groups",
}
"""Number of a finding -> its name here; the table's other columns name the task and the reward."""


def audits_table(audits: Sequence[Mapping[str, Any]]) -> str:
    """Return a Markdown table, a row a task and reward: mean and standard deviation over ``audits``, one a seed."""
    rows = []
    for same in zip(*(audit["findings"] for audit in audits), strict=True):
        if len(named := {(found["task"], found["reward"]) for found in same}) > 1:
            raise SystemExit("the audits are of different rewards: audit all seeds alike")
        [(task, reward)] = named
        rows.append({"task": section_title(task), "reward": reward})
        for name, title in COLUMNS.items():
            values = pandas.Series([(found.get(name) or {}).get("value") for found in same], dtype=float)
            spread = f" ± {values.std():.2f}" if len(values) > 1 else ""
            rows[-1][title] = "–" if values.hasnans else f"{values.mean():.2f}{spread}"
    return "" if not rows else markdown([*rows[0]], *([*row.values()] for row in rows)) + "\n"


def save_curves(root: Path, seeds: Sequence[str], arms: Sequence[str], *paths: Path) -> None:
    """Draw the ground truth of rollouts by step: a row a task, an arm a line, its frozen dual beside it."""
    truths: dict[str, dict[str, Band]] = {}
    means: dict[str, str] = {}
    for arm in arms:
        for panel in panels([read_curves(root / seed / "arms" / arm / "tensorboard/grpo") for seed in seeds]):
            if panel.truth is not None:
                truths.setdefault(panel.task, {})[arm] = panel.truth
                means[panel.task] = panel.truth_is
    colours = dict(zip(dict.fromkeys(arm.removesuffix("-frozen") for arm in arms), PALETTE, strict=False))
    with drawing(8.4, 2.2 * len(truths)) as figure:
        rows = figure.subplots(len(truths), 2, squeeze=False, sharex=True, sharey="row")
        for (task, bands), pair in zip(truths.items(), rows, strict=True):
            for arm, band in bands.items():
                kind = arm.removesuffix("-frozen")
                # The oracle has no dual: it stands in both columns, to be compared with.
                for axes in pair if kind == "oracle" else [pair[int(arm != kind)]]:
                    low, high = ((band.mean + way * band.spread).clip(0, 1) for way in (-1, 1))
                    axes.fill_between(band.steps, low, high, color=colours[kind], alpha=0.12, linewidth=0)
                    axes.plot(band.steps, band.mean, color=colours[kind], linewidth=1.6, label=kind)
            pair[0].set_ylabel(means[task])
            for axes, dual in zip(pair, ("moving dual", "frozen dual"), strict=True):
                axes.set_title(f"{section_title(task)}, {dual}", fontsize=9, loc="left")
        for axes in rows[-1]:
            axes.set_xlabel("step")
        rows[0][0].legend(fontsize=8, ncols=2)
        save_figure(figure, *paths)


if __name__ == "__main__":
    given = options(__doc__, root=Path, seeds=[str], arms=[str])
    table = audits_table([read_audit(given.root / seed / "audit/audit.json") for seed in given.seeds])
    write_text(given.root / "audits.md", table)
    print(table, end="")
    save_curves(given.root, given.seeds, given.arms, given.root / "curves.png")
    print(f"{given.root / 'validation/arms.md'}, audits.md, curves.png")
