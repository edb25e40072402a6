"""Instances whose dual can be solved, by one answer alone: an option, after DuPO.

A primal question is worth training on if its dual tells good answers from bad ones. It is *answerable* if the dual
about at least one of the answers that candidates gave is solved, and *unique* if no second answer's is. Unique is asked
only where the answer is a label: of cells that fit a condition there are many.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from cellduality_plugin.examples import Value
from cellduality_plugin.vocabulary import Vocabulary
from data_prep.traces.filtering.filters import FilterSettings, Reason, similarity
from data_prep.traces.filtering.instances import Instance
from data_prep.traces.questions import Question


def answers_read(instance: Instance, question: Question, vocabulary: Vocabulary) -> list[Value]:
    """Return the different answers that could be read in the replies to ``question``, right or wrong, in order."""
    read = (question.read(candidate.reply.text, vocabulary).value for candidate in instance.replies_to(question))
    return list(dict.fromkeys(value for value in read if value is not None))


def dual_questions(instances: Iterable[Instance], vocabulary: Vocabulary) -> Iterator[Question]:
    """Yield the dual question about each different answer that the primal question of an instance was given.

    About the right answer it is the dual question of the SFT set, with the same key: it is not asked again.
    """
    for instance in instances:
        if instance.primal is not None:
            answers = answers_read(instance, instance.primal, vocabulary)
            yield from (instance.primal.about(answer, vocabulary) for answer in answers)


def ill_posed(instance: Instance, vocabulary: Vocabulary, settings: FilterSettings) -> Reason:
    """Return ``"unanswerable"`` or ``"not_unique"``, or nothing for a well-posed instance, or one without a primal.

    A dual is solved if one of its candidates rebuilds the label, or genes at the threshold of the dual.
    """
    if instance.primal is None:
        return ""
    solved = 0
    for dual in dual_questions([instance], vocabulary):
        least = 1.0 if isinstance(dual.gold, str) else settings.threshold_of(dual)
        solved += any(similarity(dual.gold, value) >= least for value in answers_read(instance, dual, vocabulary))
    if not solved:
        return "unanswerable"
    return "not_unique" if solved > 1 and isinstance(instance.primal.gold, str) else ""
