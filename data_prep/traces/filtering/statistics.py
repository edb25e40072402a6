"""What a teacher's candidates are worth: how many pass, why the others do not, how strict a threshold can be."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from rich.table import Table

from cellduality_plugin.errors import CellDualityError
from cellduality_plugin.tasks import DualTask
from cellduality_plugin.vocabulary import Vocabulary
from data_prep.manifests import read_manifest
from data_prep.traces.filtering.curation import CANDIDATES, QUESTIONS, ROWS, CurationSettings, decide
from data_prep.traces.filtering.filters import Judged, judge_all
from data_prep.traces.filtering.instances import Instances
from data_prep.traces.filtering.rows import in_order
from data_prep.traces.questions import Question

STEPS = tuple(step / 10 for step in range(11))
"""The thresholds of the sweep."""

QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)

NOT_NEEDED = ("duplicate", "not_best", "no_primal")
"""Reasons that say nothing against a candidate: it passed every test of its own."""


@dataclass
class Statistics:
    """What was counted over all candidates of a preparation. Groups are ``"task/direction"``.

    Parameters
    ----------
    questions, asked
        Questions by group, and those with a candidate.
    reasons
        {group: {reason: candidates}}; the reason ``""`` is that of rows.
    teachers
        {teacher: {reason: candidates}}.
    sweep
        {group: {threshold: (questions, rows)}} that would be left; gene lists alone, labels are right or wrong.
    trace_words
        {group: {words: candidates}}, of all traces that could be read.
    scores
        {group: {candidate number: (candidates, sum of scores)}}.
    """

    questions: Counter[str] = field(default_factory=Counter)
    asked: Counter[str] = field(default_factory=Counter)
    reasons: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    teachers: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    sweep: dict[str, dict[float, tuple[int, int]]] = field(default_factory=dict)
    trace_words: dict[str, Counter[int]] = field(default_factory=lambda: defaultdict(Counter))
    scores: dict[str, dict[int, tuple[int, float]]] = field(default_factory=lambda: defaultdict(dict))

    def add(self, question: Question, judged: Judged) -> None:
        """Count the candidates of one question."""
        group = question.group
        self.questions[group] += 1
        self.asked[group] += bool(judged)
        for candidate, verdict in judged:
            self.reasons[group][verdict.reason] += 1
            self.teachers[candidate.teacher][verdict.reason] += 1
            if verdict.trace_words:
                self.trace_words[group][verdict.trace_words] += 1
            count, total = self.scores[group].get(candidate.candidate, (0, 0.0))
            self.scores[group][candidate.candidate] = count + 1, total + verdict.score

    def add_sweep(self, question: Question, scores: Sequence[float], keep: int) -> None:
        """Count what the thresholds would leave of one question, whose candidates would else pass with ``scores``."""
        counts = self.sweep.setdefault(question.group, dict.fromkeys(STEPS, (0, 0)))
        for step, (questions, rows) in counts.items():
            passing = sum(score >= step for score in scores)
            counts[step] = questions + (passing > 0), rows + min(passing, keep)


def statistics(data: Path, tasks: Mapping[str, DualTask], settings: CurationSettings) -> Statistics:
    """Return the statistics of the candidates in ``data``, read part by part.

    The sweep looks at each question alone: what well-posedness and the pairing of duals take is not in it.

    Raises
    ------
    CellDualityError
        If a file is missing or malformed, or no candidate is of this preparation.
    """
    settings.check(tasks)
    found, vocabulary = Statistics(), Vocabulary.load(data / "vocabulary.json")
    instances = Instances(data / QUESTIONS, data / CANDIDATES, tasks)
    lax = settings.filters.model_copy(update={"threshold": 0.0, "thresholds": {}, "keep": 10**9})
    for instance in instances:
        for question, judged, _ in decide(instance, vocabulary, settings):
            found.add(question, judged)
            if not isinstance(question.gold, str):
                anew = judge_all(question, (candidate for candidate, _ in judged), vocabulary, lax)
                scores = [verdict.score for _, verdict in anew if verdict.accepted]
                found.add_sweep(question, scores, settings.filters.keep)
    if not instances.matched:
        hint = "ask with cellduality traces sample"
        raise CellDualityError("no candidate is of this preparation", where=str(data / CANDIDATES), hint=hint)
    return found


def last_settings(data: Path) -> CurationSettings:
    """Return the settings that the SFT set in ``data`` was made with; the defaults if there is none."""
    try:
        manifest = read_manifest(data / ROWS)
    except CellDualityError:
        return CurationSettings()
    return CurationSettings.read(manifest["settings"])


def quantiles(counts: Mapping[int, int], shares: Iterable[float] = QUANTILES) -> list[int]:
    """Return the values below which the given shares of a distribution lie.

    Examples
    --------
    >>> quantiles({10: 1, 20: 2, 30: 1}, (0.0, 0.5, 1.0))
    [10, 20, 30]
    """
    values = sorted(counts)
    upto = np.cumsum([counts[value] for value in values])
    return [values[min(int(np.searchsorted(upto, share * upto[-1])), len(values) - 1)] for share in shares]


def passed(reasons: Mapping[str, int]) -> int:
    """Return how many candidates nothing speaks against, whether or not they were needed.

    Examples
    --------
    >>> passed({"": 3, "not_best": 2, "leak": 1})
    5
    """
    return sum(reasons.get(reason, 0) for reason in ("", *NOT_NEEDED))


def tables(found: Statistics, keep: int = 1) -> Iterator[Table]:
    """Yield the statistics as tables, for printing with rich."""
    rows: dict[str, Sequence[object]] = {}
    for group in in_order(found.reasons):
        rows[group] = found.questions[group], found.asked[group], *_rates(found.reasons[group])
    for teacher, reasons in found.teachers.items():
        rows[f"by {teacher}"] = "", "", *_rates(reasons)
    columns: Sequence[object] = ("questions", "asked", "candidates", "passed", "rate", "kept")
    yield from _table("candidates", "task/direction or teacher", columns, rows)

    columns = [name for name, _ in sum(found.reasons.values(), Counter[str]()).most_common() if name]
    rows = {group: [found.reasons[group][str(name)] or "" for name in columns] for group in in_order(found.reasons)}
    yield from _table("why candidates are no rows", "task/direction", columns, rows if columns else {})

    title = (
        f"questions (rows, {keep} a question) left at a least RWJS of" if keep > 1 else "rows left at a least RWJS of"
    )
    rows = {
        group: [f"{left} ({kept})" if keep > 1 else kept for left, kept in found.sweep[group].values()]
        for group in in_order(found.sweep)
    }
    yield from _table(title, "task/direction", STEPS, rows)

    rows = {group: quantiles(found.trace_words[group]) for group in in_order(found.trace_words)}
    yield from _table("words of a trace", "task/direction", [f"{share:.0%}" for share in QUANTILES], rows)

    numbers = sorted({number for scores in found.scores.values() for number in scores})[:16]
    rows = {
        group: [f"{scores[number][1] / scores[number][0]:.3f}" if number in scores else "" for number in numbers]
        for group, scores in ((group, found.scores[group]) for group in in_order(found.scores))
    }
    yield from _table("mean score by candidate number", "task/direction", numbers, rows)


def _rates(reasons: Mapping[str, int]) -> tuple[object, ...]:
    total = sum(reasons.values())
    return total, passed(reasons), f"{passed(reasons) / max(total, 1):.1%}", reasons.get("", 0)


def _table(title: str, first: str, columns: Iterable[object], rows: Mapping[str, Iterable[object]]) -> Iterator[Table]:
    """Yield a table of one row a group, unless there is none."""
    table = Table(title=title, title_justify="left")
    table.add_column(first)
    for column in columns:
        table.add_column(str(column), justify="right")
    for group, cells in rows.items():
        table.add_row(group, *map(str, cells))
    if rows:
        yield table
