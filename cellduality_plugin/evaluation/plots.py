"""Plots as SVG text that can stand inside an HTML page, several on one page."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cellduality_plugin.evaluation.curves import Curves
from cellduality_plugin.files import whole_file

_STYLE = {
    "font.size": 9,
    "font.family": "sans-serif",
    "svg.fonttype": "none",
    "svg.hashsalt": "cellduality",
    "axes.spines.top": False,
    "axes.spines.right": False,
}
_MANY_POINTS = 1500


def _figure(width: float, height: float) -> Any:
    from matplotlib.figure import Figure  # no pyplot: no global state, no display

    return Figure(figsize=(width, height), layout="constrained")


def _svg(figure: Any, name: str) -> str:
    """Return the figure as one <svg> element whose ids start with ``name``, so that pages can hold many."""
    stream = io.StringIO()
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    figure.savefig(stream, format="svg", metadata=nothing)
    text = stream.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r'\bid="', f'id="{name}-', text)
    text = text.replace('href="#', f'href="#{name}-').replace("url(#", f"url(#{name}-")
    head, rest = text.split(">", 1)  # without a size of its own it takes that of its place on the page
    return re.sub(r' (?:width|height)="[^"]*"', "", head) + ">" + rest


def plot_curve(name: str, title: str, points: Sequence[tuple[int, float]]) -> str:
    """Return one training curve: every step in grey, the mean of the last five in blue."""
    import matplotlib as mpl

    with mpl.rc_context(_STYLE):
        figure = _figure(3.6, 2.3)
        axes = figure.subplots()
        steps, values = np.array([p[0] for p in points]), np.array([p[1] for p in points])
        axes.plot(steps, values, color="0.75", linewidth=1)
        smooth = [values[max(0, end - 5) : end].mean() for end in range(1, len(values) + 1)]
        axes.plot(steps, smooth, color="tab:blue", linewidth=1.5)
        axes.set_title(title)
        axes.set_xlabel("step")
        axes.xaxis.get_major_locator().set_params(integer=True)
        return _svg(figure, name)


def plot_curves(name: str, curves: Curves) -> list[str]:
    """Return one plot a curve."""
    return [plot_curve(f"{name}-{place}", title, points) for place, (title, points) in enumerate(curves.items())]


def plot_cells(
    name: str,
    title: str,
    points: Mapping[str, Sequence[tuple[float, float]]],
    behind: Sequence[tuple[float, float]],
    colours: Mapping[str, Any],
) -> str:
    """Return a scatter of cells coloured by condition, with real cells in grey behind.

    Parameters
    ----------
    points
        By condition.
    behind
        Drawn first, in grey.
    colours
        By condition, the same in every plot of a page.
    """
    import matplotlib as mpl

    with mpl.rc_context(_STYLE):
        figure = _figure(3.6, 3.2)
        axes = figure.subplots()
        dense = len(behind) + sum(map(len, points.values())) > _MANY_POINTS  # an image is smaller than many circles
        if len(behind):
            axes.scatter(*np.array(behind).T, s=6, color="0.88", linewidths=0, rasterized=dense)
        for condition, cells in points.items():
            axes.scatter(*np.array(cells).T, s=8, color=colours[condition], linewidths=0, alpha=0.7, rasterized=dense)
        axes.set(title=title, xlabel="PC 1", ylabel="PC 2", xticks=[], yticks=[])
        return _svg(figure, name)


def colours_of(conditions: Sequence[str]) -> dict[str, str]:
    """Return a hex colour for each condition, by its place in the order."""
    import matplotlib as mpl
    from matplotlib.colors import to_hex

    table = mpl.colormaps["tab10" if len(conditions) <= 10 else "tab20"]
    return {condition: to_hex(table(place % table.N)) for place, condition in enumerate(conditions)}


def plot_confusion(name: str, title: str, labels: Sequence[str], counts: Sequence[Sequence[int]]) -> str:
    """Return a confusion matrix: gold labels x answers, shaded by the share of the gold label."""
    import matplotlib as mpl

    matrix = np.asarray(counts, dtype=float)
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    side = min(10.0, 2.2 + 0.32 * len(labels))
    with mpl.rc_context(_STYLE):
        figure = _figure(side + 0.4, side)
        axes = figure.subplots()
        axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
        numbers = [str(place + 1) for place in range(len(labels))]  # names twice would leave no room for the cells
        axes.set_xticks(range(matrix.shape[1]), [*numbers, "none"], rotation=90 if len(labels) > 12 else 0)
        axes.set_yticks(range(len(labels)), [f"{label}  {place}" for place, label in zip(numbers, labels, strict=True)])
        axes.set(title=title, xlabel="answer", ylabel="gold")
        if len(labels) <= 25:
            for (row, column), count in np.ndenumerate(matrix):
                if count:
                    ink = "white" if shares[row, column] > 0.5 else "0.2"
                    axes.text(column, row, f"{count:.0f}", ha="center", va="center", color=ink, fontsize=7)
        return _svg(figure, name)


def plot_audit(name: str, title: str, findings: Sequence[Mapping[str, Any]]) -> str:
    """Return the AUC of each reward of one task, and how often its own choice is right beside the policy's."""
    import matplotlib as mpl

    with mpl.rc_context(_STYLE):
        figure = _figure(4.6, 1.1 + 0.32 * len(findings))
        _draw_audit(figure.subplots(), title, findings)
        return _svg(figure, name)


def save_audit(path: Path, tasks: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
    """Write the plots of all tasks, by title, into one image, whole or not at all."""
    import matplotlib as mpl

    with mpl.rc_context(_STYLE), whole_file(path, "wb") as stream:
        heights = [1.1 + 0.32 * len(findings) for findings in tasks.values()]
        figure = _figure(5.6, sum(heights))
        axes = figure.subplots(len(tasks), squeeze=False, gridspec_kw={"height_ratios": heights})
        for each, (title, findings) in zip(axes[:, 0], tasks.items(), strict=True):
            _draw_audit(each, title, findings)
        figure.savefig(stream, format="png", dpi=150)


def _draw_audit(axes: Any, title: str, findings: Sequence[Mapping[str, Any]]) -> None:
    named = ""
    for place, found in enumerate(findings):
        auc = found["auc"]
        if auc["value"] is not None:
            axes.plot(auc["interval"], [place, place], color="tab:blue", linewidth=1.5)
            axes.plot(auc["value"], place, "o", color="tab:blue", label=named or "AUC, 95 % interval")
            named = "_"  # once is enough
        if "choice_accuracy" in found:
            choice = found["choice_accuracy"]["value"]
            axes.plot(choice, place, "D", color="tab:orange", label="" if place else "accuracy of its own choice")
    if "policy_accuracy" in findings[0]:
        policy = findings[0]["policy_accuracy"]["value"]
        axes.axvline(policy, color="tab:orange", linestyle="--", linewidth=1, label="accuracy of the policy")
    axes.axvline(0.5, color="0.7", linewidth=1)
    axes.set_yticks(range(len(findings)), [found["reward"] for found in findings])
    axes.set(title=title, xlim=(-0.03, 1.03), ylim=(len(findings) - 0.5, -0.5))
    if axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize=7, loc="upper left", bbox_to_anchor=(1.01, 1), frameon=False)
