"""One picture of what a teacher's candidates are worth."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from cellduality_plugin.errors import CellDualityError
from cellduality_plugin.files import whole_file
from data_prep.traces.filtering.rows import in_order
from data_prep.traces.filtering.statistics import NOT_NEEDED, STEPS, Statistics

_STYLE = {"font.size": 8, "axes.spines.top": False, "axes.spines.right": False, "axes.titlelocation": "left"}


def plot(found: Statistics, path: Path) -> Path:
    """Return ``path``, a PNG of reasons, threshold sweep, trace lengths and scores; written whole or not at all.

    Each task has a colour, drawn through for the primal and dashed for the dual.

    Raises
    ------
    CellDualityError
        If matplotlib is missing.
    """
    try:
        import matplotlib as mpl
        from matplotlib.figure import Figure  # no pyplot: no global state, no display
    except ImportError as error:
        raise CellDualityError(f"cannot import {error.name}", hint="pip install 'cellduality[eval]'") from error
    groups = in_order(found.questions)
    tasks = list(dict.fromkeys(group.rpartition("/")[0] for group in groups))
    styles: dict[str, dict[str, Any]] = {
        group: {
            "color": f"C{tasks.index(group.rpartition('/')[0])}",
            "linestyle": "--" if group.endswith("/dual") else "-",
        }
        for group in groups
    }
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(12, 8), layout="constrained")
        (reasons, sweep), (lengths, scores) = figure.subplots(2, 2)
        _reasons(reasons, found, mpl.colormaps["tab20"])
        for group, counts in found.sweep.items():
            shares = [counts[step][0] / max(found.questions[group], 1) for step in STEPS]
            sweep.plot(STEPS, shares, **styles[group], marker=".")
        sweep.set(title="questions left by threshold", xlabel="least RWJS", ylabel="share of the questions")
        for group, words in found.trace_words.items():
            upto = np.cumsum([words[length] for length in sorted(words)]) / max(sum(words.values()), 1)
            lengths.step(sorted(words), upto, where="post", **styles[group])
        lengths.set(title="length of the traces", xlabel="words", xscale="log", ylabel="share not longer")
        for group, by_number in found.scores.items():
            numbers = sorted(by_number)
            means = [by_number[number][1] / by_number[number][0] for number in numbers]
            scores.plot(numbers, means, **styles[group], marker=".")
        scores.xaxis.get_major_locator().set_params(integer=True)
        scores.set(title="mean score by candidate number", xlabel="candidate")
        for axes in (sweep, lengths, scores):
            axes.set_ylim(0, 1.05)
        handles = [mpl.lines.Line2D([], [], label=group, **style) for group, style in styles.items()]
        figure.legend(handles=handles, loc="outside lower center", ncols=3, frameon=False)
        with whole_file(path, "wb") as stream:
            figure.savefig(stream, format="png", dpi=120, metadata={"Software": None})
    return path


def _reasons(axes: Any, found: Statistics, colours: Any) -> None:
    """Draw a bar a group: the share of its candidates by reason; green is what is kept, grey what was not needed."""
    groups = in_order(found.reasons)
    named = sorted({name for reasons in found.reasons.values() for name in reasons if name})
    order = ["", *(name for name in NOT_NEEDED if name in named), *(name for name in named if name not in NOT_NEEDED)]
    bright = [colours(place) for place in range(colours.N) if place != 4]
    fixed = dict(zip(("", *NOT_NEEDED), ("tab:green", "0.7", "0.8", "0.9"), strict=True))
    left = np.zeros(len(groups))
    for place, name in enumerate(order):
        shares = [found.reasons[group][name] / max(found.reasons[group].total(), 1) for group in groups]
        colour = fixed.get(name, bright[place % len(bright)])
        axes.barh(groups, shares, left=left, color=colour, edgecolor="white", label=name or "kept")
        left = left + shares
    axes.invert_yaxis()
    axes.set(title="why candidates are rows or not", xlabel="share of the candidates", xlim=(0, 1))
    axes.legend(fontsize=6, frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
