"""Questions and their candidates put together again, and which of these instances are well posed."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from cellduality_plugin.errors import CellDualityError
from cellduality_plugin.examples import Value
from cellduality_plugin.tasks import DualTask
from cellduality_plugin.vocabulary import Vocabulary
from data_prep.traces.candidates import Candidate, prompt_hash, read_candidates
from data_prep.traces.filtering.filters import FilterSettings, Reason, similarity
from data_prep.traces.questions import Direction, Question, read_questions

_KEY = re.compile(r"(?P<task>.*?)/(?:primal|dual)/(?P<rest>.*?#\d+)(?:@[0-9a-f]{12})?", re.DOTALL)


def instance_key(key: str) -> str:
    """Return what the primal and the dual question of one cell, view and pair share, from the key of either.

    Examples
    --------
    >>> instance_key("annotation/dual/set/AAAC-1#0@0123456789ab") == instance_key("annotation/primal/set/AAAC-1#0")
    True
    """
    found = _KEY.fullmatch(key)
    return f"{found['task']}/{found['rest']}" if found else key


@dataclass
class Instance:
    """A primal question and its dual, of which one may not be in the set, and all replies by the key of their question.

    Among them are replies to duals about other answers than the right one.
    """

    primal: Question | None = None
    dual: Question | None = None
    replies: dict[str, list[Candidate]] = field(default_factory=dict)

    def questions(self, directions: Iterable[Direction] = ("primal", "dual")) -> list[Question]:
        """Return the questions of the set, the primal first."""
        return [question for question in (self.primal, self.dual) if question and question.direction in directions]

    def replies_to(self, question: Question) -> list[Candidate]:
        """Return the candidates that answer ``question`` as it is worded now, by number."""
        prompt = prompt_hash(question.prompt)
        found = (candidate for candidate in self.replies.get(question.key, ()) if candidate.prompt == prompt)
        return sorted(found, key=lambda candidate: candidate.order)


def read_instances(questions: Path, candidates: Path, tasks: Mapping[str, DualTask]) -> tuple[list[Instance], int]:
    """Return the instances of an SFT file, in its order, and how many candidates answer no question that it asks now.

    A CellDualityError is raised if a file is missing or malformed, or no candidate answers a question of the file.
    """
    instances: dict[str, Instance] = {}
    prompts: dict[str, str] = {}
    for question in read_questions(questions, tasks):
        setattr(instances.setdefault(instance_key(question.key), Instance()), question.direction, question)
        prompts[question.key] = prompt_hash(question.prompt)
    others = matched = 0
    for candidate in read_candidates(candidates):
        instance = instances.get(instance_key(candidate.key))
        if instance and prompts.get(candidate.key, candidate.prompt) == candidate.prompt:
            instance.replies.setdefault(candidate.key, []).append(candidate)
            matched += candidate.key in prompts
        else:
            others += 1
    if not matched:
        what = f"no candidate answers a question of {questions.name}, {others} are of another preparation"
        hint = f"ask with cellduality traces sample, or put the {questions.name} back that they were asked for"
        raise CellDualityError(what, code="other-preparation", where=str(candidates), hint=hint)
    return list(instances.values()), others


def some_questions(
    path: Path, tasks: Mapping[str, DualTask], limit: int | None, rng: np.random.Generator
) -> list[Question]:
    """Return questions of whole instances drawn at random, in the file's order; ``limit`` at most, None for all."""
    questions = list(read_questions(path, tasks))
    counts = Counter(instance_key(question.key) for question in questions)
    names, left = list(counts), len(questions) if limit is None else limit
    wanted = set()
    for place in rng.permutation(len(names)).tolist():
        if counts[names[place]] <= left:
            wanted.add(names[place])
            left -= counts[names[place]]
    return [question for question in questions if instance_key(question.key) in wanted]


def answers_read(instance: Instance, question: Question, vocabulary: Vocabulary) -> list[Value]:
    """Return the different answers that could be read in the replies to ``question``, right or wrong, in order."""
    read = (question.read(candidate.reply.text, vocabulary).value for candidate in instance.replies_to(question))
    return list(dict.fromkeys(value for value in read if value is not None))


def dual_questions(instances: Iterable[Instance], vocabulary: Vocabulary) -> Iterator[Question]:
    """Yield the dual question about each different answer that the primal question of an instance was given."""
    for instance in instances:
        if instance.primal is not None:
            answers = answers_read(instance, instance.primal, vocabulary)
            yield from (instance.primal.about(answer, vocabulary) for answer in answers)


def ill_posed(instance: Instance, vocabulary: Vocabulary, settings: FilterSettings) -> Reason:
    """Return ``"unanswerable"`` or ``"not_unique"``; nothing for a well-posed instance, or one without a primal.

    After DuPO: a primal question is worth training on if its dual is solved, by one answer alone. It is *answerable* if
    the dual about at least one of the answers that candidates gave is solved, that is, one of its candidates rebuilds
    the label, or genes at the threshold of the dual. It is *unique* if no second answer's is; that is asked only where
    the answer is a label: of cells that fit a condition there are many.
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
