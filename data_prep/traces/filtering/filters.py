"""Which candidates are good enough to learn from, and for which reason the others are not (section 3.3.1)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

from pydantic import Field

from cellduality_plugin.examples import Value
from cellduality_plugin.parsing import Answer
from cellduality_plugin.settings import Settings
from cellduality_plugin.similarity import exact_match, rank_weighted_jaccard
from cellduality_plugin.vocabulary import Vocabulary
from data_prep.traces.candidates import Candidate, Reply
from data_prep.traces.filtering.leaks import leak
from data_prep.traces.questions import Question

Reason: TypeAlias = Literal[
    "", "cut_off",
    "too_long", "no_answer", "unclosed", "ambiguous", "empty", "unknown_label",
    "no_trace", "trace_too_short", "trace_too_long",
    "answer_too_short", "answer_too_long", "strangers", "repeats",
    "wrong_label", "low_similarity", "leak",
    "unanswerable", "not_unique", "no_primal", "duplicate", "not_best",
]  # fmt: skip
"""Why a candidate is no row, in the order of the tests; the first that applies is named. Empty: it is one.

``cut_off``
    The endpoint stopped it at its length; told before the form, which a cut text cannot keep.
``too_long`` to ``unknown_label``
    What :mod:`cellduality_plugin.parsing` says of a text that holds no answer.
``no_trace``, ``trace_too_short``, ``trace_too_long``
    By words; only where traces are wanted.
``answer_too_short``, ``answer_too_long``, ``strangers``, ``repeats``
    Of a gene list: its length beside the right answer's, the shares of words that are no gene or came before.
``wrong_label``
    Rejection sampling: a label is right or it is wrong.
``low_similarity``
    Rank-aware filtering: the Rank-Weighted Jaccard Similarity to the right list is below the threshold.
``leak``
    See :mod:`data_prep.traces.filtering.leaks`.
``unanswerable``, ``not_unique``
    The instance is not well posed, see :mod:`data_prep.traces.filtering.well_posed`.
``no_primal``
    A dual of an instance whose primal question has no row.
``duplicate``
    The text, white space folded, of an earlier candidate that passed.
``not_best``
    More passed than are kept; those with the best score are, and of equals the lowest candidate number.
"""


class FilterSettings(Settings):
    """What passes.

    Parameters
    ----------
    traces
        Whether traces are wanted. If not, no test reads them.
    min_trace_words, max_trace_words
        How long a trace may be.
    min_genes, max_genes
        How long a gene list may be, as multiples of the right answer's length.
    max_strangers, max_repeats
        The shares of a gene list that may be no gene of the vocabulary, or repeat an earlier gene; in [0, 1].
    threshold
        The least RWJS to the right list, in [0, 1].
    thresholds
        Others by ``"task/direction"``, ``"task"`` or ``"direction"``; the first of these that is given counts.
    max_written
        The share of a gene list that the trace may write out beforehand, in [0, 1].
    keep
        Rows of a question, at most.
    """

    traces: bool = True
    min_trace_words: int = Field(3, ge=0)
    max_trace_words: int = Field(400, ge=1)
    min_genes: float = Field(0.5, ge=0)
    max_genes: float = Field(2.0, ge=0)
    max_strangers: float = Field(0.1, ge=0, le=1)
    max_repeats: float = Field(0.1, ge=0, le=1)
    threshold: float = Field(0.5, ge=0, le=1)
    thresholds: dict[str, float] = Field(default_factory=dict)
    max_written: float = Field(0.5, ge=0, le=1)
    keep: int = Field(1, ge=1)

    def threshold_of(self, question: Question) -> float:
        """Return the least similarity for a gene list that answers ``question``."""
        return by_group(self.thresholds, question.group, self.threshold)


def by_group(values: Mapping[str, float], group: str, default: float) -> float:
    """Return the value for the most specific of ``"task/direction"``, which is ``group``, its task and its direction.

    Examples
    --------
    >>> values = {"dual": 0.3, "annotation": 0.4, "annotation/dual": 0.2}
    >>> [by_group(values, group, 0.5) for group in ("annotation/dual", "annotation/primal", "t/dual", "t/primal")]
    [0.2, 0.4, 0.3, 0.5]
    """
    task, _, direction = group.rpartition("/")
    return next((values[name] for name in (group, task, direction) if name in values), default)


@dataclass(frozen=True)
class Verdict:
    """What the filters say of one candidate.

    Parameters
    ----------
    reason
        Empty if it passed.
    score
        Of the answer against the right one: 1 or 0 for a label, the RWJS for genes; 0 where nothing could be read.
    value
        The answer.
    trace, trace_words
        The reasoning before it, and how long that is.
    """

    reason: Reason
    score: float
    value: Value | None
    trace: str
    trace_words: int

    @property
    def accepted(self) -> bool:
        """Whether the candidate passed."""
        return not self.reason


Judged: TypeAlias = list[tuple[Candidate, Verdict]]
"""The candidates of a question with their verdicts, by candidate number."""


def similarity(gold: Value, value: Value | None) -> float:
    """Return how well an answer matches the right one, in [0, 1]; best value 1.

    Examples
    --------
    >>> similarity("B", "T"), similarity(("LYZ", "CD74"), ("LYZ", "CD74")), similarity("B", None)
    (0.0, 1.0, 0.0)
    """
    if value is None:
        return 0.0
    return exact_match(gold, value) if isinstance(gold, str) else rank_weighted_jaccard(gold, value)


def judge(question: Question, reply: Reply, vocabulary: Vocabulary, settings: FilterSettings) -> Verdict:
    """Return the verdict on one candidate, on its own. Never raises on any text."""
    answer = question.read(reply.text, vocabulary)
    score, words = similarity(question.gold, answer.value), len(answer.trace.split())
    reason: Reason = (
        ("cut_off" if reply.finish == "length" else answer.failure)
        or (_of_trace(words, settings) if settings.traces else "")
        or _of_answer(question, answer, score, settings)
    )
    if not reason and settings.traces and answer.value is not None:
        reason = "leak" if leak(answer.trace, answer.value, vocabulary, settings.max_written) else ""
    return Verdict(reason, score, answer.value, answer.trace, words)


def _of_trace(words: int, settings: FilterSettings) -> Reason:
    if not words:
        return "no_trace"
    if words < settings.min_trace_words:
        return "trace_too_short"
    return "trace_too_long" if words > settings.max_trace_words else ""


def _of_answer(question: Question, answer: Answer, score: float, settings: FilterSettings) -> Reason:
    gold = question.gold
    if isinstance(gold, str):
        return "" if score == 1.0 else "wrong_label"
    length = len(answer.value or ())
    if length < settings.min_genes * len(gold):
        return "answer_too_short"
    if length > settings.max_genes * len(gold):
        return "answer_too_long"
    if answer.unknown > settings.max_strangers * answer.listed:
        return "strangers"
    if answer.repeated > settings.max_repeats * answer.listed:
        return "repeats"
    return "" if score >= settings.threshold_of(question) else "low_similarity"


def judge_all(
    question: Question,
    candidates: Iterable[Candidate],
    vocabulary: Vocabulary,
    settings: FilterSettings,
    refused: Reason = "",
) -> Judged:
    """Return every candidate of a question with its verdict, by candidate number.

    Parameters
    ----------
    candidates
        All that was answered to ``question``; the order does not matter.
    refused
        Why no candidate of this question becomes a row, if so, as its instance is not well posed. What fails on its
        own is still named for that.
    """
    judged: Judged = []
    texts: set[str] = set()
    for candidate in sorted(candidates, key=lambda candidate: candidate.order):
        verdict = judge(question, candidate.reply, vocabulary, settings)
        if verdict.accepted:
            text = " ".join(candidate.reply.text.split())
            verdict = replace(verdict, reason=refused or ("duplicate" if text in texts else ""))
            texts.add(text)
        judged.append((candidate, verdict))
    passed = [place for place, (_, verdict) in enumerate(judged) if verdict.accepted]
    for place in sorted(passed, key=lambda place: -judged[place][1].score)[settings.keep :]:
        candidate, verdict = judged[place]
        judged[place] = candidate, replace(verdict, reason="not_best")
    return judged
