"""Instances whose dual can be solved, by one answer alone: an option, after DuPO.

A primal question is worth training on if its dual tells good answers from bad ones. It is *answerable* if the dual
about at least one of the answers that candidates gave is solved, and *unique* if no second answer's is. Unique is asked
only where the answer is a label of a closed set: of cells that fit a condition there are many, and that the dual finds
the condition in two of them speaks for both.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from cellduality_plugin.examples import Value
from cellduality_plugin.vocabulary import Vocabulary
from data_prep.traces.candidates import Candidate
from data_prep.traces.filtering.filters import FilterSettings, Reason, similarity
from data_prep.traces.filtering.instances import Instance
from data_prep.traces.questions import Question


def distinct_answers(question: Question, candidates: Iterable[Candidate], vocabulary: Vocabulary) -> list[Value]:
    """Return the different answers that could be read in ``candidates``, right or wrong, in their order."""
    read = (question.read(candidate.reply.text, vocabulary).value for candidate in candidates)
    return list(dict.fromkeys(value for value in read if value is not None))


def dual_questions(instances: Iterable[Instance], vocabulary: Vocabulary) -> Iterator[Question]:
    """Yield the dual question about each different answer that the primal question of an instance was given.

    About the right answer it is the dual question of the SFT set, with the same key: it is not asked again.
    """
    for instance in instances:
        if instance.primal is not None:
            answers = distinct_answers(instance.primal, instance.replies_to(instance.primal), vocabulary)
            yield from (instance.primal.about(answer, vocabulary) for answer in answers)


def ill_posed(instance: Instance, vocabulary: Vocabulary, settings: FilterSettings) -> Reason:
    """Return ``"unanswerable"`` or ``"not_unique"``, or nothing for a well-posed instance.

    A dual is solved if one of its candidates rebuilds the label, or genes at the threshold of the dual. An instance
    without a primal question has nothing to be posed.
    """
    primal = instance.primal
    if primal is None:
        return ""
    answers = distinct_answers(primal, instance.replies_to(primal), vocabulary)
    solved = sum(_solved(primal.about(answer, vocabulary), instance, vocabulary, settings) for answer in answers)
    if not solved:
        return "unanswerable"
    return "not_unique" if solved > 1 and isinstance(primal.gold, str) else ""


def _solved(dual: Question, instance: Instance, vocabulary: Vocabulary, settings: FilterSettings) -> bool:
    least = 1.0 if isinstance(dual.gold, str) else settings.threshold_of(dual)
    values = (dual.read(candidate.reply.text, vocabulary).value for candidate in instance.replies_to(dual))
    return any(value is not None and similarity(dual.gold, value) >= least for value in values)
