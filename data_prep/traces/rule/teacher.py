"""A teacher that needs no model: a rule over marker genes, and imperfect on purpose so that filters have work."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from cellduality_plugin.cell_sentences import Cell, sentence
from cellduality_plugin.errors import CellDualityError
from cellduality_plugin.examples import Value
from cellduality_plugin.files import read_jsonl
from cellduality_plugin.parsing import Genes, OneOf
from cellduality_plugin.vocabulary import Vocabulary
from data_prep.traces.candidates import Reply, Teacher
from data_prep.traces.questions import Question
from data_prep.traces.rule.answers import CellRule, LabelRule
from data_prep.traces.rule.markers import find_markers
from data_prep.views import known_by

# What may be wrong with a candidate on purpose: no answer tag, a trace of so many words, a trace that gives away that
# the answer was known beforehand, an empty answer, the words of candidate 0 once more.
FAULTS = ("no_tag", "endless", "leak", "empty", "repeat")
ENDLESS_WORDS = 600

# Names what the rule writes. Whoever changes a text of its changes this, too, and candidates are asked anew.
EDITION = "8f9a470c41249021e05bc2e0f163700d157a025658949fad2a454fd227153e1c"

NOT_COLUMNS = ("id", "split", "labelled", "genes", "control")  # of a row of ``cells.jsonl``


class RuleTeacher(Teacher):
    """Writes traces that are grounded in the data: which marker genes a cell shows, which it lacks, what follows.

    It goes by the kinds of a question's fields, so that a pair of one's own is served as well: see
    :class:`~data_prep.traces.rule.answers.LabelRule` and :class:`~data_prep.traces.rule.answers.CellRule`. A higher
    candidate's number errs more. ``cells`` are the labelled training cells, and no others. A question, a number and
    ``seed`` always give the same text; ``faults``, in [0, 1], is the share of candidates with one of :data:`FAULTS`.
    """

    name = "rule"

    def __init__(self, cells: Sequence[Cell], vocabulary: Vocabulary, seed: int = 0, faults: float = 0.05) -> None:
        where = "rule teacher"
        if not cells:
            what, hint = "no labelled training cell to learn markers from", "prepare the data with --labelled above 0"
            raise CellDualityError(what, code="no-labelled-cell", where=where, hint=hint)
        if not 0 <= faults <= 1:
            raise CellDualityError(f"faults {faults} is no share", code="no-share", where=where, hint="choose 0 to 1")
        self._seed, self._faults, self._vocabulary = seed, faults, vocabulary
        found = find_markers(cells, vocabulary)
        self._labels = LabelRule(found, vocabulary)
        self._genes = CellRule(cells, found, vocabulary)
        learned = [[cell.id, cell.genes, dict(cell.obs), dict(cell.condition)] for cell in cells]
        decisive = json.dumps([seed, faults, vocabulary.fingerprint, EDITION, learned])
        self.version = hashlib.sha256(decisive.encode()).hexdigest()[:12]

    async def answer(self, question: Question, candidate: int) -> Reply:
        return Reply(self.write(question, candidate))

    def fault(self, question: Question, candidate: int) -> str:
        """Return the name of what is wrong with a candidate on purpose, or an empty text."""
        rng = self._rng(question, candidate, "fault")
        if rng.random() >= self._faults:
            return ""
        return FAULTS[rng.integers(len(FAULTS) - (candidate == 0))]  # candidate 0 has nothing to repeat

    def write(self, question: Question, candidate: int) -> str:
        """Return the text of that candidate.

        A CellDualityError if neither a label nor genes are asked for, or a label of a set too large for the rule.
        """
        fault = self.fault(question, candidate)
        if fault == "repeat":
            return self.write(question, 0)
        rng, field = self._rng(question, candidate, "sound"), question.field
        value: Value
        if isinstance(field, Genes):
            trace, value = self._genes.answer(question, candidate, rng)
        elif isinstance(field, OneOf) and self._vocabulary.tables(field.kind):
            trace, value = self._labels.answer(question, field.kind, candidate, rng)
        else:
            what, code = f"the rule cannot answer with a {type(field).__name__}", "unknown-field"
            if isinstance(field, OneOf):
                what, code = f"the rule cannot choose among so many labels of {field.kind!r}", "too-many-labels"
            where = f"dual pair {question.pair.name!r}, {question.direction}"
            raise CellDualityError(what, code=code, where=where, hint="ask a model (--teacher MODEL)")
        if fault == "endless":
            trace = " ".join((trace.split() * ENDLESS_WORDS)[:ENDLESS_WORDS])
        elif fault == "leak":
            known = value if isinstance(value, str) else sentence(value[:3])
            trace = f"The correct answer is {known} as given. {trace}"
        text = question.response(value, trace)
        opening, _, answer = text.partition("<answer>")
        if fault == "no_tag":
            return opening + answer.replace("</answer>", "")
        return f"{opening}<answer></answer>" if fault == "empty" else text

    def _rng(self, question: Question, candidate: int, purpose: str) -> np.random.Generator:
        # Of what the question shows, not of its key, which depends on the right answer.
        place = f"{question.pair.name}/{question.direction}/{question.example.id}#{question.view}"
        seen = f"{self._seed}/{purpose}/{candidate}/{place}/{question.prompt}"
        return np.random.default_rng(int.from_bytes(hashlib.sha256(seen.encode()).digest()[:16], "big"))


def read_rule_teacher(data: Path, seed: int = 0) -> RuleTeacher:
    """Return the rule that has learned from the labelled training cells of a prepared folder."""
    path = Path(data) / "cells.jsonl"
    cells = []
    for number, row in enumerate(read_jsonl(path), start=1):
        if not {"id", "split", "labelled", "genes"} <= row.keys():
            where, hint = f"{path}:{number}", "prepare the data again"
            raise CellDualityError("not a row of cells", code="malformed", where=where, hint=hint)
        if row["split"] == "train" and row["labelled"]:
            columns = {name: value for name, value in row.items() if name not in NOT_COLUMNS}
            cells.append(known_by(Cell(row["id"], tuple(row["genes"])), columns))
    return RuleTeacher(cells, Vocabulary.load(Path(data) / "vocabulary.json"), seed)
