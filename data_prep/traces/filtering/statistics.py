"""What a teacher's candidates are worth: how many pass, why the others do not, how strict a threshold can be."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from rich.table import Table

from cellduality_plugin.errors import CellDualityError
from cellduality_plugin.tasks import DualTask
from cellduality_plugin.vocabulary import Vocabulary
from data_prep.manifests import read_manifest
from data_prep.traces.candidates import Candidate
from data_prep.traces.filtering.curation import CANDIDATES, QUESTIONS, ROWS, CurationSettings, decide
from data_prep.traces.filtering.filters import FilterSettings, Verdict, judge_all
from data_prep.traces.filtering.instances import Instances
from data_prep.traces.filtering.proportions import in_order
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
    strangers
        Candidates of other preparations.
    """

    questions: Counter[str] = field(default_factory=Counter)
    asked: Counter[str] = field(default_factory=Counter)
    reasons: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    teachers: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    sweep: dict[str, dict[float, tuple[int, int]]] = field(default_factory=dict)
    trace_words: dict[str, Counter[int]] = field(default_factory=lambda: defaultdict(Counter))
    scores: dict[str, dict[int, tuple[int, float]]] = field(default_factory=lambda: defaultdict(dict))
    strangers: int = 0

    def add(self, question: Question, judged: Sequence[tuple[Candidate, Verdict]]) -> None:
        """Count the candidates of one question."""
        group = f"{question.pair.name}/{question.direction}"
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
        counts = self.sweep.setdefault(f"{question.pair.name}/{question.direction}", dict.fromkeys(STEPS, (0, 0)))
        for step, (questions, rows) in counts.items():
            passed = sum(score >= step for score in scores)
            counts[step] = questions + (passed > 0), rows + min(passed, keep)


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
                scores = _otherwise_good(question, judged, vocabulary, lax)
                found.add_sweep(question, scores, settings.filters.keep)
    found.strangers = instances.strangers
    if not instances.matched:
        mend = "ask with cellduality traces sample"
        raise CellDualityError("no candidate is of this preparation", where=str(data / CANDIDATES), mend=mend)
    return found


def _otherwise_good(
    question: Question,
    judged: Sequence[tuple[Candidate, Verdict]],
    vocabulary: Vocabulary,
    lax: FilterSettings,
) -> list[float]:
    """Return the scores of the candidates that pass if no threshold is set."""
    candidates = (candidate for candidate, _ in judged)
    return [verdict.score for _, verdict in judge_all(question, candidates, vocabulary, lax) if verdict.accepted]


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


def tables(found: Statistics, keep: int = 1) -> list[Table]:
    """Return the statistics as tables, for printing with rich."""
    made = [_acceptance(found), _why(found), _sweep(found, keep), _lengths(found), _by_number(found)]
    return [table for table in made if table.row_count]


def passed(reasons: Mapping[str, int]) -> int:
    """Return how many candidates nothing speaks against, whether or not they were needed.

    Examples
    --------
    >>> passed({"": 3, "not_best": 2, "leak": 1})
    5
    """
    return sum(reasons.get(reason, 0) for reason in ("", *NOT_NEEDED))


def _acceptance(found: Statistics) -> Table:
    columns = ("questions", "asked", "candidates", "passed", "rate", "kept")
    table = _table("candidates", "task/direction or teacher", *columns)
    for group in in_order(found.reasons):
        reasons = found.reasons[group]
        table.add_row(group, str(found.questions[group]), str(found.asked[group]), *_rates(reasons))
    for teacher, reasons in found.teachers.items():
        table.add_row(f"by {teacher}", "", "", *_rates(reasons))
    return table


def _rates(reasons: Mapping[str, int]) -> list[str]:
    total = sum(reasons.values())
    return [str(total), str(passed(reasons)), f"{passed(reasons) / max(total, 1):.1%}", str(reasons.get("", 0))]


def _why(found: Statistics) -> Table:
    named = [name for name, _ in sum(found.reasons.values(), Counter[str]()).most_common() if name]
    table = _table("why candidates are no rows", "task/direction", *named)
    for group in in_order(found.reasons) if named else ():
        table.add_row(group, *(str(found.reasons[group][name] or "") for name in named))
    return table


def _sweep(found: Statistics, keep: int) -> Table:
    title = f"questions (rows, {keep} a question) left at a least RWJS of"
    table = _table(title if keep > 1 else "rows left at a least RWJS of", "task/direction", *map(str, STEPS))
    for group in in_order(found.sweep):
        counts = found.sweep[group].values()
        cells = (f"{questions} ({rows})" if keep > 1 else str(rows) for questions, rows in counts)
        table.add_row(group, *cells)
    return table


def _lengths(found: Statistics) -> Table:
    table = _table("words of a trace", "task/direction", *(f"{share:.0%}" for share in QUANTILES))
    for group in in_order(found.trace_words):
        table.add_row(group, *map(str, quantiles(found.trace_words[group])))
    return table


def _by_number(found: Statistics) -> Table:
    numbers = sorted({number for scores in found.scores.values() for number in scores})[:16]
    table = _table("mean score by candidate number", "task/direction", *map(str, numbers))
    for group in in_order(found.scores):
        means = {number: total / count for number, (count, total) in found.scores[group].items()}
        table.add_row(group, *(f"{means[number]:.3f}" if number in means else "" for number in numbers))
    return table


def _table(title: str, first: str, *others: str) -> Table:
    table = Table(title=title, title_justify="left")
    table.add_column(first)
    for other in others:
        table.add_column(other, justify="right")
    return table
