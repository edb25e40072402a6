"""Rows of the SFT set with their provenance, and the rows of what was rejected."""

from __future__ import annotations

from typing import Any, TypeAlias

from data_prep.traces.candidates import Candidate
from data_prep.traces.filtering.filters import Verdict
from data_prep.traces.log import prompt_hash
from data_prep.traces.questions import Question

Row: TypeAlias = dict[str, Any]

NO_TEACHER = "none"
"""Who "answered" a row that holds the bare right answer."""


def taught_row(question: Question, candidate: Candidate, verdict: Verdict, traces: bool = True) -> Row:
    """Return the row of an accepted candidate.

    The answer is written as the field writes what was read in it: a list without its strangers and repeats. With
    ``traces`` false the trace is left out.
    """
    if verdict.value is None:
        raise ValueError(f"candidate {candidate.candidate} of {candidate.key} has no answer")
    return {
        **_columns(question, question.response(verdict.value, verdict.trace if traces else "")),
        "teacher": candidate.teacher,
        "teacher_version": candidate.version,
        "candidate": candidate.candidate,
        "score": verdict.score,
        "trace_words": verdict.trace_words if traces else 0,
        "prompt": candidate.prompt,
    }


def bare_row(question: Question) -> Row:
    """Return the row of the right answer without a trace, as ``sft.jsonl`` has it; its candidate is number -1."""
    nobody = {"teacher": NO_TEACHER, "teacher_version": "", "candidate": -1, "score": 1.0, "trace_words": 0}
    return {**_columns(question, question.response(question.gold)), **nobody, "prompt": prompt_hash(question.prompt)}


def rejection(candidate: Candidate, verdict: Verdict) -> Row:
    """Return what is told of a candidate that is no row; its text stands in the file of candidates."""
    who = {"teacher": candidate.teacher, "teacher_version": candidate.version}
    what = {"reason": verdict.reason, "score": verdict.score}
    return {"key": candidate.key, "candidate": candidate.candidate, **what, **who}


def _columns(question: Question, response: str) -> Row:
    origin = {"id": question.example.id, "view": str(question.view), "label": question.example.to_label()}
    known = {"direction": question.direction, "datasource": question.pair.name, **origin}
    return {"input": question.prompt, "output": response, **known}
