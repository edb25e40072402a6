"""The arms of an experiment as dots: every seed faint, the mean with its standard deviation in front."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cellduality_plugin.evaluation.compare import Role, Row
from cellduality_plugin.evaluation.plots import MUTED, PALETTE, drawing, save_figure
from cellduality_plugin.evaluation.seeds import Spread

COLOURS: dict[Role, str] = {"oracle": PALETTE[1], "arm": PALETTE[0], "reference": MUTED}
"""In the order from bottom to top of a panel."""
SHADE = {"certain": 0.16, "likely": 0.07, "none": 0.0}
"""How visible the gap is."""


def save_plot(rows: Sequence[Row], *paths: Path) -> None:
    """Write one panel a row into each of ``paths``, as SVG or PNG by their suffix; whole or not at all.

    Base models, baselines and real cells are left to the table: far off, they would press the arms together.
    """
    across = min(2, len(rows))
    down = math.ceil(len(rows) / across)
    most = max(len(_shown(row)) for row in rows)
    with drawing(5.0 * across, (0.95 + 0.3 * most) * down) as figure:
        panels = figure.subplots(down, across, squeeze=False).flatten()
        for place, row in enumerate(rows):
            _draw(panels[place], row, names=place % across == 0)
        for axes in panels[len(rows) :]:
            axes.set_axis_off()
        save_figure(figure, *paths)


def _shown(row: Row) -> list[str]:
    return [name for role in COLOURS for name in reversed([*row.roles]) if row.roles[name] == role]


def _draw(axes: Any, row: Row, *, names: bool) -> None:
    shown = _shown(row)
    means = {row.roles[name]: Spread.of(row.values[name]).mean for name in shown if row.values[name]}
    if "oracle" in means and row.gap:
        axes.axvspan(means["reference"], means["oracle"], color=COLOURS["oracle"], alpha=SHADE[row.gap], linewidth=0)
    axes.axvline(means["reference"], color=COLOURS["reference"], linewidth=0.8, linestyle=":")
    for height, name in enumerate(shown):
        values, colour = row.values[name], COLOURS[row.roles[name]]
        if not values:
            continue
        spread = Spread.of(values)
        axes.plot(values, [height + 0.2] * len(values), "o", color=colour, alpha=0.35, markersize=4, markeredgewidth=0)
        if not math.isnan(spread.deviation):
            low, high = spread.mean - spread.deviation, spread.mean + spread.deviation
            axes.plot([low, high], [height, height], color=colour, linewidth=1.2)
        axes.plot(spread.mean, height, "D", color=colour, markersize=6)
    axes.set_yticks(range(len(shown)), shown if names else [""] * len(shown))
    axes.set_ylim(-0.6, len(shown) - 0.4)
    axes.set_title(row.label, fontsize=8, loc="left")
    axes.margins(x=0.12)
