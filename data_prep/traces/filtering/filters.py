"""Which candidates are good enough to learn from, and for which reason the others are not (section 3.3.1)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Literal, TypeAlias

from pydantic import Field

from cellduality_plugin.examples import Value
from cellduality_plugin.parsing import Answer
from cellduality_plugin.settings import Settings
from cellduality_plugin.similarity import exact_match, rank_weighted_jaccard
from cellduality_plugin.vocabulary import Vocabulary
from data_prep.traces.candidates import Candidate, Instance, answers_read, dual_questions
from data_prep.traces.questions import Question

Reason: TypeAlias = Literal[
    "",  # it is a row
    "cut_off",  # the endpoint stopped it at its length: tested before the form, which a cut text cannot keep
    "too_long", "no_answer", "unclosed", "ambiguous", "empty", "unknown_label",  # the parser's: it holds no answer
    "no_trace", "trace_too_short", "trace_too_long",  # by words; only where traces are wanted
    "answer_too_short", "answer_too_long",  # of a gene list: its length beside the right answer's,
    "strangers", "repeats",  # the shares of its words that are no gene, or came before
    "wrong_label",  # rejection sampling
    "low_similarity",  # rank-aware filtering: the RWJS to the right list is below the threshold
    "leak",  # see :func:`leak`
    "unanswerable", "not_unique",  # the instance is not well posed, see :func:`ill_posed`
    "no_primal",  # a dual of an instance whose primal question has no row
    "duplicate",  # the text, white space folded, of an earlier candidate that passed
    "not_best",  # more passed than are kept: the best are, and of equals the lowest candidate number
]  # fmt: skip
"""Why a candidate is no row, in the order of the tests; the first that applies is named."""

SHOWN = {"strangers": "unknown genes"}  # how a reason is printed, where its name in files says too little

ANSWER_PHRASES = (
    "correct answer", "ground truth", "gold answer", "gold label", "answer key", "reference answer", "expected answer",
    "given answer", "provided answer", "answer is given", "answer was given", "answer provided", "told the answer",
)  # fmt: skip
"""What a trace says of an answer that it knows beforehand; case, punctuation and spacing do not count."""

LABEL_PHRASES = (
    "given label", "provided label", "true label", "known label", "label provided", "label is given",
    "was given the label", "as provided",
)  # fmt: skip
"""The same where the answer is a label. A question whose answer is a list of genes shows a label: it may be named."""

FEWEST_WRITTEN = 4  # a trace may always name this many genes of the answer: that is evidence, not a copy

_MARKUP = re.compile(r"</?[a-zA-Z]\w*\s*/?>|<\|[^<>|]*\|>|\[/?INST\]")
_WORD = re.compile(r"[^\W_]+")


class FilterSettings(Settings):
    """What passes."""

    traces: bool = True  # whether traces are wanted; if not, no test reads them
    min_trace_words: int = Field(3, ge=0)
    max_trace_words: int = Field(400, ge=1)
    min_genes: float = Field(0.5, ge=0)  # in a list, as a multiple of the right answer's length
    max_genes: float = Field(2.0, ge=0)
    max_strangers: float = Field(0.1, ge=0, le=1)  # the share of a list that may be no gene of the vocabulary
    max_repeats: float = Field(0.1, ge=0, le=1)  # the share that may repeat an earlier gene
    threshold: float = Field(0.5, ge=0, le=1)  # the least RWJS to the right list
    thresholds: dict[str, Annotated[float, Field(ge=0, le=1)]] = Field(default_factory=dict)  # see :func:`by_group`
    max_written: float = Field(0.5, ge=0, le=1)  # the share of a list that the trace may write out beforehand
    keep: int = Field(1, ge=1)  # rows of a question, at most


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
    """What the filters say of one candidate: its answer as read, and why it is no row, if it is none."""

    candidate: Candidate
    answer: Answer
    score: float  # 1 or 0 for a label, the RWJS to the right list for genes; 0 where nothing could be read
    reason: Reason

    @property
    def trace_words(self) -> int:
        return len(self.answer.trace.split())


def similarity(gold: Value, value: Value | None) -> float:
    """Return how well an answer matches the right one, in [0, 1]; best value 1."""
    if value is None:
        return 0.0
    return exact_match(gold, value) if isinstance(gold, str) else rank_weighted_jaccard(gold, value)


def judge(question: Question, candidate: Candidate, vocabulary: Vocabulary, settings: FilterSettings) -> Verdict:
    """Return the verdict on one candidate, on its own. Never raises on any text."""
    answer, gold = question.read(candidate.reply.text, vocabulary), question.gold
    verdict = Verdict(candidate, answer, similarity(gold, answer.value), "")
    fails: dict[Reason, bool] = {"cut_off": candidate.reply.finish == "length", answer.failure: bool(answer.failure)}
    if settings.traces:
        fails["no_trace"] = not verdict.trace_words
        fails["trace_too_short"] = verdict.trace_words < settings.min_trace_words
        fails["trace_too_long"] = verdict.trace_words > settings.max_trace_words
    if isinstance(gold, str):
        fails["wrong_label"] = verdict.score < 1
    else:
        length = len(answer.value or ())
        fails["answer_too_short"] = length < settings.min_genes * len(gold)
        fails["answer_too_long"] = length > settings.max_genes * len(gold)
        fails["strangers"] = answer.unknown > settings.max_strangers * answer.listed
        fails["repeats"] = answer.repeated > settings.max_repeats * answer.listed
        fails["low_similarity"] = verdict.score < by_group(settings.thresholds, question.group, settings.threshold)
    reason: Reason = next((reason for reason, failed in fails.items() if failed), "")
    if not reason and settings.traces and answer.value is not None:
        reason = "leak" if leak(answer.trace, answer.value, vocabulary, settings.max_written) else ""
    return replace(verdict, reason=reason)


def leak(trace: str, value: Value, vocabulary: Vocabulary, most_written: float = 0.5) -> str:
    """Return what shows that a trace knew its answer: a phrase, a tag, or ``"N genes of the answer"``; else nothing.

    A trace may end on the label ``value``, or on a label that the question shows: that is what reasoning does. Of genes
    it may write out a share of ``most_written``, in [0, 1]: more teaches the student to answer twice.
    """
    folded = f" {' '.join(_WORD.findall(trace.casefold()))} "
    for phrase in ANSWER_PHRASES + (LABEL_PHRASES if isinstance(value, str) else ()):
        if f" {phrase} " in folded:
            return phrase
    if markup := _MARKUP.search(trace):
        return str(markup.group())
    if not isinstance(value, str):
        words = (word.strip(".,;:!?()[]{}\"'`*") for word in re.split(r"[\s,;/]+", trace))
        written = len({vocabulary.gene(word) for word in words} & set(value))
        if written > max(FEWEST_WRITTEN, most_written * len(value)):
            return f"{written} genes of the answer"
    return ""


def judge_all(
    question: Question,
    candidates: Iterable[Candidate],
    vocabulary: Vocabulary,
    settings: FilterSettings,
    refused: Reason = "",
) -> list[Verdict]:
    """Return the verdict on every candidate of a question, given by number.

    ``refused`` is why none of them becomes a row, as its instance is not well posed; what fails on its own is still
    named for that.
    """
    verdicts = [judge(question, candidate, vocabulary, settings) for candidate in candidates]
    texts: set[str] = set()
    for place, verdict in enumerate(verdicts):
        if not verdict.reason:
            text = " ".join(verdict.candidate.reply.text.split())
            verdicts[place] = replace(verdict, reason=refused or ("duplicate" if text in texts else ""))
            texts.add(text)
    passed = [place for place, verdict in enumerate(verdicts) if not verdict.reason]
    for place in sorted(passed, key=lambda place: -verdicts[place].score)[settings.keep :]:
        verdicts[place] = replace(verdicts[place], reason="not_best")
    return verdicts


def ill_posed(instance: Instance, vocabulary: Vocabulary, settings: FilterSettings) -> Reason:
    """Return ``"unanswerable"`` or ``"not_unique"``; nothing for a well-posed instance, or one without a primal.

    After DuPO. An instance is *answerable* if the dual about one of the answers that candidates gave is solved: a
    candidate of that dual rebuilds the label, or genes at its threshold. It is *unique* if no second answer's is; that
    is asked only where the answer is a label: of cells that fit a condition there are many.
    """
    if instance.primal is None:
        return ""
    solved = 0
    for dual in dual_questions([instance], vocabulary):
        least = 1.0 if isinstance(dual.gold, str) else by_group(settings.thresholds, dual.group, settings.threshold)
        solved += any(similarity(dual.gold, value) >= least for value in answers_read(instance, dual, vocabulary))
    if not solved:
        return "unanswerable"
    return "not_unique" if solved > 1 and isinstance(instance.primal.gold, str) else ""
