"""One picture of what a teacher's candidates are worth."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from cellduality_plugin.errors import CellDualityError
from cellduality_plugin.files import whole_file
from data_prep.traces.filtering.proportions import in_order
from data_prep.traces.filtering.statistics import NOT_NEEDED, STEPS, Statistics

Styles: TypeAlias = dict[str, dict[str, Any]]

_STYLE = {"font.size": 8, "axes.spines.top": False, "axes.spines.right": False, "axes.titlelocation": "left"}


def plot(found: Statistics, path: Path) -> Path:
    """Return ``path``, a PNG of reasons, threshold sweep, trace lengths and scores; written whole or not at all.

    Raises
    ------
    CellDualityError
        If matplotlib is missing.
    """
    try:
        import matplotlib as mpl
        from matplotlib.figure import Figure  # no pyplot: no global state, no display
    except ImportError as error:
        raise CellDualityError(f"cannot import {error.name}", mend="pip install 'cellduality[eval]'") from error
    styles = _styles(in_order(found.questions))
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(12, 8), layout="constrained")
        axes = figure.subplots(2, 2)
        _reasons(axes[0, 0], found)
        _sweep(axes[0, 1], found, styles)
        _lengths(axes[1, 0], found, styles)
        _scores(axes[1, 1], found, styles)
        handles = [mpl.lines.Line2D([], [], label=group, **style) for group, style in styles.items()]
        figure.legend(handles=handles, loc="outside lower center", ncols=3, frameon=False)
        with whole_file(path, "wb") as stream:
            figure.savefig(stream, format="png", dpi=120, metadata={"Software": None})
    return path


def _styles(groups: Sequence[str]) -> Styles:
    """Return a colour for each task, drawn through for the primal and dashed for the dual."""
    tasks = list(dict.fromkeys(group.rpartition("/")[0] for group in groups))
    return {
        group: {
            "color": f"C{tasks.index(group.rpartition('/')[0])}",
            "linestyle": "--" if group.endswith("/dual") else "-",
        }
        for group in groups
    }


def _reasons(axes: Any, found: Statistics) -> None:
    import matplotlib as mpl

    groups = in_order(found.reasons)
    named = sorted({name for reasons in found.reasons.values() for name in reasons if name})
    order = ["", *(name for name in NOT_NEEDED if name in named), *(name for name in named if name not in NOT_NEEDED)]
    table = mpl.colormaps["tab20"]
    bright = [table(place) for place in range(table.N) if place != 4]  # green is what is kept
    greys = dict(zip(("", *NOT_NEEDED), ("tab:green", "0.7", "0.8", "0.9"), strict=True))
    left = [0.0] * len(groups)
    for place, name in enumerate(order):
        shares = [found.reasons[group][name] / max(found.reasons[group].total(), 1) for group in groups]
        colour = greys[name] if name in greys else bright[place % len(bright)]
        axes.barh(groups, shares, left=left, color=colour, edgecolor="white", label=name or "kept")
        left = [start + share for start, share in zip(left, shares, strict=True)]
    axes.invert_yaxis()
    axes.set(title="why candidates are rows or not", xlabel="share of the candidates", xlim=(0, 1))
    axes.legend(fontsize=6, frameon=False, loc="upper left", bbox_to_anchor=(1, 1))


def _sweep(axes: Any, found: Statistics, styles: Styles) -> None:
    for group, counts in found.sweep.items():
        shares = [counts[step][0] / max(found.questions[group], 1) for step in STEPS]
        axes.plot(STEPS, shares, **styles[group], marker=".")
    axes.set(title="questions left by threshold", xlabel="least RWJS", ylabel="share of the questions", ylim=(0, 1.05))


def _lengths(axes: Any, found: Statistics, styles: Styles) -> None:
    for group, counts in found.trace_words.items():
        words = sorted(counts)
        upto = np.cumsum([counts[length] for length in words]) / max(sum(counts.values()), 1)
        axes.step(words, upto, where="post", **styles[group])
    axes.set(title="length of the traces", xlabel="words", xscale="log", ylabel="share not longer", ylim=(0, 1.05))


def _scores(axes: Any, found: Statistics, styles: Styles) -> None:
    for group, scores in found.scores.items():
        numbers = sorted(scores)
        means = [scores[number][1] / scores[number][0] for number in numbers]
        axes.plot(numbers, means, **styles[group], marker=".")
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.set(title="mean score by candidate number", xlabel="candidate", ylim=(0, 1.05))
