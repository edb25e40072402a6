"""Accuracy and written cells over the number of labels: tables and a figure of what benchmark_labels.sh measured.

python recipes/benchmarks/label_curves.py RUNS --split test reads RUNS/LABELS/SEED/SPLIT/{metrics,baselines}.json and
writes RUNS/SPLIT.md and RUNS/SPLIT.png: mean and standard deviation over seeds, and each difference from the
column --reference, paired by seed, with its 95 % interval (Student's t).
"""

from __future__ import annotations

import itertools
import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

from shared import SPLITS, options

from cellduality_plugin.errors import CellDualityError
from cellduality_plugin.evaluation.compare import Spread, check_runs, paired_change, row_label, values_of
from cellduality_plugin.evaluation.plots import PALETTE, drawing, save_figure
from cellduality_plugin.evaluation.tables import markdown, ordered_keys, signed
from cellduality_plugin.files import write_text

DRAWN = ("cell_type_annotation/accuracy", "cell_type_annotation/macro_f1")

Values: TypeAlias = "dict[str, dict[str, dict[int, tuple[float, ...]]]]"
"""Metric -> column -> number of labels -> a value a seed, in the order of the seeds."""


def read(runs: Path, split: str) -> tuple[Values, dict[str, str]]:
    """Return all values, and the label of each metric; baselines join the metrics of annotation."""
    values: Values = defaultdict(lambda: defaultdict(dict))
    labels: dict[str, str] = {}
    for count in sorted(int(path.name) for path in runs.iterdir() if path.name.isdecimal()):
        found = sorted((runs / str(count)).glob(f"*/{split}/metrics.json"))
        measured, others = (
            [json.loads(path.with_name(name).read_text(encoding="utf-8")) for path in found]
            for name in ("metrics.json", "baselines.json")
        )
        if not measured:
            continue
        check_runs(measured)
        for key, column in itertools.product(ordered_keys(measured[0]), measured[0]["columns"]):
            if own := values_of(measured, key, column):
                labels[key] = row_label(key, measured[0]["columns"][column]["metrics"][key]["better"])
                values[key][column][count] = own
        for name, key in itertools.product(others[0], DRAWN):
            values[key][name][count] = tuple(other[name][key.partition("/")[2]] for other in others)
    if not values:
        hint = "run recipes/benchmark_labels.sh first"
        raise CellDualityError("no finished seed", code="no-runs", where=str(runs), hint=hint)
    return values, labels


def tables(values: Values, labels: Mapping[str, str], reference: str) -> Iterator[str]:
    """Yield a Markdown table by metric: a row a column, two cells a number of labels."""
    counts = sorted({count for columns in values.values() for own in columns.values() for count in own})
    heading = ["", *(f"{count} labels{end}" for count in counts for end in ("", f" minus {reference}"))]
    for key, label in labels.items():
        rows = []
        for name, own in values[key].items():
            rows.append([name])
            for count in counts:
                rows[-1].append(str(Spread.of(own[count])) if count in own else "–")
                rows[-1].append(difference(own.get(count), values[key].get(reference, {}).get(count)))
        yield f"### {label}\n\n{markdown(heading, *rows)}\n"


def difference(own: Sequence[float] | None, reference: Sequence[float] | None) -> str:
    """Return the mean difference from the reference with its interval; nothing where there is none."""
    if own is None or reference is None or own == reference or len(own) != len(reference):
        return ""
    change = Spread.of(paired_change(reference, own))
    bounds = "" if change.interval is None else f" ({' to '.join(map(signed, change.interval))})"
    return f"{signed(change.mean)}{bounds}"


def draw(values: Values, labels: Mapping[str, str], path: Path) -> None:
    """Draw the metrics of annotation over the number of labels, mean and standard deviation over seeds."""
    with drawing(9, 3.8) as figure:
        for axes, key in zip(figure.subplots(1, len(DRAWN)), DRAWN, strict=True):
            for place, (name, by_count) in enumerate(values[key].items()):
                counts, spreads = list(by_count), [Spread.of(own) for own in by_count.values()]
                axes.errorbar(
                    counts, [s.mean for s in spreads], [s.deviation for s in spreads], label=name, capsize=2,
                    color=PALETTE[place % len(PALETTE)], marker="o^sDvP"[place // len(PALETTE) % 6], markersize=4,
                    linestyle=("-", "--", ":")[place // len(PALETTE) % 3],
                )  # fmt: skip
            axes.set(title=labels[key], xlabel="labelled cells", xscale="log")
            axes.set_xticks(counts, map(str, counts))
            axes.minorticks_off()
        figure.legend(*axes.get_legend_handles_labels(), loc="outside right center")
        save_figure(figure, path)


if __name__ == "__main__":
    given = options(__doc__, "runs", split=SPLITS, reference="SFT")
    values, labels = read(given.runs, given.split)
    write_text(given.runs / f"{given.split}.md", "\n".join(tables(values, labels, given.reference)))
    draw(values, labels, given.runs / f"{given.split}.png")
    print(given.runs / f"{given.split}.md", given.runs / f"{given.split}.png")
