"""Plots: as image files, and as SVG that stands in an HTML page in the page's own colours, in light and in dark."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from html import escape
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from cellduality_plugin.errors import needs_extra
from cellduality_plugin.files import whole_file

if TYPE_CHECKING:
    from cellduality_plugin.evaluation.curves import Panel
    from cellduality_plugin.evaluation.generated import Style

Plane: TypeAlias = NDArray[np.float64]  # points x two dimensions

INK, MUTED, LINE = "#1b1f24", "#57606a", "#d0d7de"
PALETTE = ("#2a45a8", "#a33c18", "#3d9a67", "#a08a12", "#3b95c5", "#96206c")
"""Six colours that stay apart for colour-blind eyes; what has more kinds differs in shape, too."""
MARKERS = {"dot": ("o", "full"), "ring": ("o", "none"), "square": ("s", "full"), "frame": ("s", "none")}
"""Shape -> matplotlib's marker and its fill style."""

_GREY = "#8b949e"  # at a third of its strength it is pale on white and dim on black
_CSS = {INK: "--ink", MUTED: "--muted", LINE: "--line"} | {
    colour: f"--s{place}" for place, colour in enumerate(PALETTE, start=1)
}
_STYLE = {
    "font.size": 9, "font.family": "sans-serif", "svg.fonttype": "none", "svg.hashsalt": "cellduality",
    "axes.spines.top": False, "axes.spines.right": False, "axes.edgecolor": MUTED, "axes.labelcolor": INK,
    "axes.titlesize": 9.5, "text.color": INK, "xtick.color": MUTED, "xtick.labelcolor": INK, "ytick.color": MUTED,
    "ytick.labelcolor": INK, "legend.frameon": False, "legend.fontsize": 8,
}  # fmt: skip
_METADATA: dict[str, dict[str, None]] = {
    "svg": dict.fromkeys(("Creator", "Date", "Format", "Type")),
    "png": {"Software": None},
    "pdf": {"CreationDate": None},
}
"""What would make two files of the same numbers differ."""

_WIDTH, _HEIGHT = 3.6, 2.3  # of a small plot, in inches: on a page of 400 pixels its letters are still 12 pixels high


@contextmanager
def drawing(width: float, height: float) -> Iterator[Any]:
    """An empty figure of so many inches; what is drawn and saved in the block has the style of all plots."""
    with needs_extra("eval"):
        import matplotlib as mpl
        from matplotlib.figure import Figure  # no pyplot: no global state, no display

    with mpl.rc_context(_STYLE):
        yield Figure(figsize=(width, height), layout="constrained")


def save_figure(figure: Any, *paths: Path) -> None:
    """Write a figure into each of ``paths``, an .svg, .png or .pdf: whole, and the same bytes each time."""
    for path in paths:
        kind = path.suffix.removeprefix(".")
        with whole_file(path, "wb") as stream:
            figure.savefig(stream, format=kind, dpi=200, metadata=_METADATA[kind])


def _svg(figure: Any, name: str, said: str) -> str:
    """Return the figure as one <svg> element in the page's own colours, titled ``said``; ids start with ``name``."""
    stream = io.StringIO()
    figure.savefig(stream, format="svg", dpi=150, metadata=_METADATA["svg"], transparent=True)
    text = stream.getvalue()
    text = re.sub(r'\bid="', f'id="{name}-', text[text.index("<svg") :])
    text = text.replace('href="#', f'href="#{name}-').replace("url(#", f"url(#{name}-")
    for colour, variable in _CSS.items():
        text = text.replace(colour, f"var({variable})")
    head, rest = text.split(">", 1)  # without a size of its own it takes that of its place on the page
    head = re.sub(r' (?:width|height)="[^"]*"', "", head)
    return f'{head} role="img"><title>{escape(said, quote=False)}</title>{rest}'


def _plot(name: str, said: str, height: float, draw: Callable[..., None], *shown: Any, width: float = _WIDTH) -> str:
    """Return as :func:`_svg` one plot of so many inches, into whose axes ``draw`` draws what is ``shown``."""
    with drawing(width, height) as figure:
        draw(figure.subplots(), *shown)
        return _svg(figure, name, said)


def plot_curve(name: str, title: str, points: Sequence[tuple[int, float]]) -> str:
    """Return one training curve: every step in grey, the mean of the last five in colour."""
    steps, values = np.transpose(points)
    smooth = [values[max(0, end - 5) : end].mean() for end in range(1, len(values) + 1)]

    def draw(axes: Any) -> None:
        axes.plot(steps, values, color=LINE, linewidth=1)
        axes.plot(steps, smooth, color=PALETTE[0], linewidth=1.5)
        axes.set(title=title, xlabel="step")
        axes.xaxis.get_major_locator().set_params(integer=True)

    return _plot(name, f"{title} by step, from {smooth[0]:.3g} to {smooth[-1]:.3g}", _HEIGHT, draw)


def plot_cells(
    name: str, said: str, plane: Plane, behind: Plane, cells: Mapping[str, Plane], styles: Mapping[str, Style]
) -> str:
    """Return cells on a ``plane``: ``behind`` as an image in grey, in front ``cells`` by condition, in their styles."""
    low, high = plane.min(axis=0), plane.max(axis=0)
    room = 0.03 * np.maximum(high - low, 1e-9)

    def draw(axes: Any) -> None:
        axes.set_axis_off()
        axes.set(xlim=(low[0] - room[0], high[0] + room[0]), ylim=(low[1] - room[1], high[1] + room[1]))
        axes.plot(*behind.T, "o", color=_GREY, alpha=0.35, markersize=3, markeredgewidth=0, rasterized=True)
        for condition, points in cells.items():
            marker, fill = MARKERS[styles[condition].shape]
            colour, edge = PALETTE[styles[condition].colour - 1], 0.9 if fill == "none" else 0.0
            axes.plot(*points.T, marker, color=colour, fillstyle=fill, markersize=4, markeredgewidth=edge, alpha=0.85)

    return _plot(name, said, 3.1, draw)


def plot_panel(name: str, panel: Panel) -> str:
    """Return one task of Figure 2."""
    bands = {"reward": panel.reward} | ({panel.truth_is: panel.truth} if panel.truth else {})
    ends = ", ".join(f"{what} from {own.mean[0]:.2f} to {own.mean[-1]:.2f}" for what, own in bands.items())
    return _plot(name, f"{panel.task}: {ends}", _HEIGHT + 0.3, _draw_panel, panel)


def save_figure2(path: Path, panels: Sequence[Panel], window: int) -> None:
    """Write Figure 2 into one image, a row a family, whole or not at all; the ending of ``path`` is the format."""
    families = {family: list(own) for family, own in groupby(panels, key=lambda panel: panel.family)}
    widest, runs = max(map(len, families.values())), panels[0].reward.runs
    spread = f"; band: standard deviation over {runs} runs" if runs > 1 else "; faint: every step"
    with drawing(_WIDTH * widest, (_HEIGHT + 0.6) * len(families)) as figure:
        rows = figure.subfigures(len(families), 1, squeeze=False)[:, 0]
        for row, (family, own) in zip(rows, families.items(), strict=True):
            row.suptitle(f"{family} tasks", x=0.01, ha="left", fontweight="bold", fontsize=10)
            axes = row.subplots(1, widest, squeeze=False)[0]
            for each, panel in zip(axes, own, strict=False):
                _draw_panel(each, panel)
            for each in axes[len(own) :]:
                each.set_axis_off()
        figure.supxlabel(f"lines: moving average over {window} steps{spread}", fontsize=8, color=MUTED)
        save_figure(figure, path)


def _draw_panel(axes: Any, panel: Panel) -> None:
    bands = [(panel.reward, PALETTE[0], "-", "reward")]
    if panel.truth:
        bands.append((panel.truth, PALETTE[1], "--", f"ground truth: {panel.truth_is}"))
    for drawn, colour, style, label in bands:
        if drawn.runs == 1:
            axes.plot(*np.array(drawn.raw[0]).T, color=colour, linewidth=0.8, alpha=0.35)
        else:
            low, high = drawn.mean - drawn.spread, drawn.mean + drawn.spread
            axes.fill_between(drawn.steps, low, high, color=colour, alpha=0.2, linewidth=0)
        axes.plot(drawn.steps, drawn.mean, color=colour, linestyle=style, linewidth=1.7, label=label)
    low, high = axes.get_ylim()
    axes.set_ylim(max(low, -0.02), min(high + 0.25 * (high - low), 1.1))  # room for the legend
    axes.set(title=panel.task.replace("_", " "), xlabel="step")
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.legend(loc="upper left", ncols=2, columnspacing=1, handlelength=1.6, borderaxespad=0.1)


def plot_audit(name: str, findings: Sequence[Mapping[str, Any]]) -> str:
    """Return the AUC of each reward of one task, and how right the votes times it are beside the majority."""
    said = f"AUC of {', '.join(found['reward'] for found in findings)}: the numbers are those of the table"
    return _plot(name, said, 1.4 + 0.32 * len(findings), _draw_audit, "", findings, width=4.0)


def save_audit(path: Path, tasks: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
    """Write the plots of all tasks, by title, into one image, whole or not at all."""
    heights = [1.3 + 0.32 * len(findings) for findings in tasks.values()]
    with drawing(5.6, sum(heights)) as figure:
        axes = figure.subplots(len(tasks), squeeze=False, gridspec_kw={"height_ratios": heights})
        for each, own in zip(axes[:, 0], tasks.items(), strict=True):
            _draw_audit(each, *own)
        save_figure(figure, path)


def _draw_audit(axes: Any, title: str, findings: Sequence[Mapping[str, Any]]) -> None:
    labels = {"auc": "AUC, 95 % interval", "product": "accuracy of votes × reward"}
    for place, found in enumerate(findings):
        auc, above = found["auc"], place - 0.12  # so that neither mark hides the other
        if auc["value"] is not None:
            axes.plot(auc["interval"], [above, above], color=PALETTE[0], linewidth=1.5)
            axes.plot(auc["value"], above, "o", color=PALETTE[0], label=labels.pop("auc", None))
        if "product_accuracy" in found:
            product = found["product_accuracy"]["value"]
            axes.plot(product, place + 0.12, "D", markersize=5, color=PALETTE[1], label=labels.pop("product", None))
    if "majority_accuracy" in findings[0]:
        majority = findings[0]["majority_accuracy"]["value"]
        axes.axvline(majority, color=PALETTE[1], linestyle="--", linewidth=1, label="accuracy of the majority")
    axes.axvline(0.5, color=MUTED, linestyle=":", linewidth=1, label="AUC by chance")
    axes.set_yticks(range(len(findings)), [found["reward"] for found in findings])
    axes.set(title=title, xlim=(-0.03, 1.03), ylim=(len(findings) - 0.5, -0.5))
    # Below: beside it the plot would be too narrow for a telephone.
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.22), ncols=2, columnspacing=1)


def plot_confidence(name: str, content: Mapping[str, Any]) -> list[str]:
    """Return what `cellduality calibrate` measured: accuracy by confidence, and risk by coverage."""
    plots = []
    for draw, metric, said in (_draw_reliability, "ece", "calibration error"), (_draw_risk, "aurc", "area under risk"):
        values = ", ".join(f"{way} {own[metric]['value']:.3f}" for way, own in content["metrics"].items())
        plots.append(_plot(f"{name}-{metric}", f"{said}: {values}", 2.9, draw, content))
    return plots


def save_confidence(path: Path, content: Mapping[str, Any]) -> None:
    """Write the same into one image, whole or not at all."""
    with drawing(2 * _WIDTH, 2.9) as figure:
        for axes, draw in zip(figure.subplots(1, 2), (_draw_reliability, _draw_risk), strict=True):
            draw(axes, content)
        save_figure(figure, path)


def _draw_reliability(axes: Any, content: Mapping[str, Any]) -> None:
    axes.plot([0, 1], [0, 1], color=LINE, linewidth=1)
    for colour, (way, bins) in zip(PALETTE, content["reliability"].items(), strict=False):
        points = [(each["confidence"], each["accuracy"]) for each in bins]
        axes.plot(*np.transpose(points), "o-", color=colour, linewidth=1, markersize=3.5, label=way)
    axes.set(xlabel="confidence", ylabel="accuracy", xlim=(-0.03, 1.03), ylim=(-0.03, 1.03))
    axes.legend(loc="upper left")


def _draw_risk(axes: Any, content: Mapping[str, Any]) -> None:
    for colour, (way, points) in zip(PALETTE, content["risk_coverage"].items(), strict=False):
        axes.plot(*np.transpose(points), color=colour, linewidth=1.5, label=way)
    axes.set(xlabel="share of cells that keep their label", ylabel="share of wrong ones", xlim=(0, 1.03))
    axes.legend(loc="upper left")
