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

from cellduality_plugin.errors import CellDualityError
from cellduality_plugin.tasks import DualTask
from cellduality_plugin.vocabulary import Vocabulary
from data_prep.manifests import read_manifest
from data_prep.traces.candidates import read_instances
from data_prep.traces.filtering.curation import CANDIDATES, QUESTIONS, ROWS, CurationSettings, decide, in_order, table
from data_prep.traces.filtering.filters import SHOWN, judge_all

STEPS = tuple(step / 10 for step in range(11))  # the thresholds of the sweep
QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)
NOT_NEEDED = ["duplicate", "not_best", "no_primal"]  # what is rejected for these passed every test of its own


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
    read = found.candidates[found.candidates["words"] > 0].groupby("group", observed=True)["words"]
    if rows := {group: np.quantile(words, QUANTILES, method="inverted_cdf") for group, words in read}:
        yield table("words of a trace", "task/direction", [f"{share:.0%}" for share in QUANTILES], rows)
    scores = found.candidates.pivot_table(index="group", columns="number", values="score", observed=True).iloc[:, :16]
    rows = {group: ["" if np.isnan(score) else f"{score:.3f}" for score in of] for group, of in scores.iterrows()}
    yield table("mean score by candidate number", "task/direction", scores.columns, rows)


def _rates(reasons: Any) -> tuple[object, ...]:
    """Return (candidates, those that nothing speaks against, their share, rows) of the counts by reason."""
    passed = int(reasons.reindex(["", *NOT_NEEDED], fill_value=0).sum())
    return reasons.sum(), passed, f"{passed / reasons.sum():.1%}", reasons.get("", 0)
