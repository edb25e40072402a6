"""What a teacher's candidates are worth: how many pass, why the others do not, how strict a threshold can be."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from rich.table import Table

from cellduality_plugin.errors import CellDualityError, needs_extra
from cellduality_plugin.files import whole_file
from cellduality_plugin.tasks import DualTask
from cellduality_plugin.vocabulary import Vocabulary
from data_prep.manifests import read_manifest
from data_prep.traces.candidates import read_instances
from data_prep.traces.filtering.curation import CANDIDATES, QUESTIONS, ROWS, CurationSettings, decide, in_order, table
from data_prep.traces.filtering.filters import SHOWN, judge_all

STEPS = tuple(step / 10 for step in range(11))  # the thresholds of the sweep
QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)
NOT_NEEDED = ["duplicate", "not_best", "no_primal"]  # what is rejected for these passed every test of its own
_STYLE = {"font.size": 8, "axes.spines.top": False, "axes.spines.right": False, "axes.titlelocation": "left"}


@dataclass(frozen=True)
class Statistics:
    """What was counted over all candidates of a preparation. Groups are ``"task/direction"``."""

    questions: Counter[str]  # by group
    asked: Counter[str]  # those with a candidate
    candidates: Any  # data frame: group, number, teacher, reason (empty for rows), score and words of the trace
    sweep: Mapping[str, NDArray[np.int64]]  # (questions, rows) left at each of STEPS by group, of lists alone: (11, 2)


def statistics(data: Path, tasks: Mapping[str, DualTask], settings: CurationSettings) -> Statistics:
    """Return the statistics of the candidates in ``data``; the sweep looks at each question alone."""
    settings.check(tasks)
    vocabulary, keep = Vocabulary.load(data / "vocabulary.json"), settings.filters.keep
    lax = settings.filters.model_copy(update={"threshold": 0.0, "thresholds": {}, "keep": 10**9})
    questions, asked, rows = Counter[str](), Counter[str](), []
    sweep: dict[str, NDArray[np.int64]] = {}
    for instance in read_instances(data / QUESTIONS, data / CANDIDATES, tasks)[0]:
        for question, verdicts, _ in decide(instance, vocabulary, settings):
            group, said = question.group, [verdict.candidate for verdict in verdicts]
            questions[group] += 1
            asked[group] += bool(said)
            rows += [
                (group, v.candidate.candidate, v.candidate.teacher, v.reason, v.score, v.trace_words) for v in verdicts
            ]
            if not isinstance(question.gold, str):
                anew = judge_all(question, said, vocabulary, lax)
                scores = np.array([verdict.score for verdict in anew if not verdict.reason])
                passing = (scores[:, None] >= np.array(STEPS)).sum(axis=0)
                left = np.stack([passing > 0, np.minimum(passing, keep)], axis=1)
                sweep[group] = sweep.get(group, np.zeros_like(left)) + left
    found = pd.DataFrame(rows, columns=["group", "number", "teacher", "reason", "score", "words"])
    found["group"] = pd.Categorical(found["group"], in_order(found["group"].unique()), ordered=True)
    return Statistics(questions, asked, found, {group: sweep[group] for group in in_order(sweep)})


def last_settings(data: Path) -> CurationSettings:
    """Return the settings that the SFT set in ``data`` was made with; the defaults if there is none."""
    try:
        manifest = read_manifest(data / ROWS)
    except CellDualityError:
        return CurationSettings()
    return CurationSettings.read(manifest["settings"])


def tables(found: Statistics, keep: int = 1) -> Iterator[Table]:
    """Yield the statistics as tables, for printing with rich."""
    reasons = pd.crosstab(found.candidates["group"], found.candidates["reason"])
    rows: dict[str, Iterable[object]] = {
        group: (found.questions[group], found.asked[group], *_rates(of)) for group, of in reasons.iterrows()
    }
    by_teacher = pd.crosstab(found.candidates["teacher"], found.candidates["reason"])
    rows |= {f"by {teacher}": ("", "", *_rates(of)) for teacher, of in by_teacher.iterrows()}
    columns = ("questions", "asked", "candidates", "passed", "rate", "kept")
    yield table("candidates", "task/direction or teacher", columns, rows)

    failed = reasons.drop(columns="", errors="ignore").rename(columns=SHOWN)
    failed = failed[failed.sum().sort_values(ascending=False, kind="stable").index]
    if failed.size:
        rows = {group: [count or "" for count in of] for group, of in failed.iterrows()}
        yield table("why candidates are no rows", "task/direction", failed.columns, rows)
    if found.sweep:
        what = f"questions (rows, {keep} a question)" if keep > 1 else "rows"
        written = "{0} ({1})" if keep > 1 else "{1}"
        rows = {group: [written.format(*of) for of in left] for group, left in found.sweep.items()}
        yield table(f"{what} left at a least RWJS of", "task/direction", STEPS, rows)
    if words := _trace_words(found):
        rows = {group: np.quantile(of, QUANTILES, method="inverted_cdf") for group, of in words.items()}
        yield table("words of a trace", "task/direction", [f"{share:.0%}" for share in QUANTILES], rows)
    scores = _mean_scores(found).iloc[:, :16]
    rows = {group: ["" if np.isnan(score) else f"{score:.3f}" for score in of] for group, of in scores.iterrows()}
    yield table("mean score by candidate number", "task/direction", scores.columns, rows)


def plot(found: Statistics, path: Path) -> Path:
    """Return ``path``, a PNG of reasons, sweep, trace lengths and scores: a colour a task, the dual dashed."""
    with needs_extra("eval"):
        import matplotlib as mpl
        from matplotlib.figure import Figure  # no pyplot: no global state, no display
    groups = in_order(found.questions)
    tasks = list(dict.fromkeys(group.rpartition("/")[0] for group in groups))
    styles: dict[str, dict[str, Any]] = {
        group: {"color": f"C{tasks.index(task)}", "ls": "--" if direction == "dual" else "-"}
        for group in groups
        for task, _, direction in [group.rpartition("/")]
    }
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(12, 8), layout="constrained")
        (reasons, sweep), (lengths, scores) = figure.subplots(2, 2)
        _reasons(reasons, found, mpl.colormaps["tab20"])
        for group, left in found.sweep.items():
            sweep.plot(STEPS, left[:, 0] / max(found.questions[group], 1), **styles[group], marker=".")
        sweep.set(title="questions left by threshold", xlabel="least RWJS", ylabel="share of the questions")
        for group, words in _trace_words(found).items():
            lengths.ecdf(words, **styles[group])
        lengths.set(title="length of the traces", xlabel="words", xscale="log", ylabel="share not longer")
        for group, means in _mean_scores(found).iterrows():
            scores.plot(means.dropna(), **styles[group], marker=".")
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
    shares = pd.crosstab(found.candidates["group"], found.candidates["reason"], normalize="index").rename(columns=SHOWN)
    fixed = dict(zip(("", *NOT_NEEDED), ("tab:green", "0.7", "0.8", "0.9"), strict=True))
    bright = [colours(place) for place in range(colours.N) if place != 4]  # without another green
    left = np.zeros(len(shares))
    for place, name in enumerate(sorted(shares, key=lambda name: (name not in fixed, name))):
        colour = fixed.get(name, bright[place % len(bright)])
        axes.barh(list(shares.index), shares[name], left=left, color=colour, edgecolor="white", label=name or "kept")
        left = left + shares[name].to_numpy()
    axes.invert_yaxis()
    axes.set(title="why candidates are rows or not", xlabel="share of the candidates", xlim=(0, 1))
    axes.legend(fontsize=6, frameon=False, loc="upper left", bbox_to_anchor=(1, 1))


def _trace_words(found: Statistics) -> dict[str, NDArray[np.int64]]:
    """Return the lengths of the traces that could be read, by group."""
    read = found.candidates[found.candidates["words"] > 0]
    return {group: words.to_numpy() for group, words in read.groupby("group", observed=True)["words"]}


def _mean_scores(found: Statistics) -> Any:
    return found.candidates.pivot_table(index="group", columns="number", values="score", observed=True)


def _rates(reasons: Any) -> tuple[object, ...]:
    """Return (candidates, those that nothing speaks against, their share, rows) of the counts by reason."""
    passed = int(reasons.reindex(["", *NOT_NEEDED], fill_value=0).sum())
    return reasons.sum(), passed, f"{passed / reasons.sum():.1%}", reasons.get("", 0)
