"""A teacher that needs no model: a rule over marker genes, and imperfect on purpose so that filters have work."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np

from cellduality_plugin.cell_sentences import Cell, sentence
from cellduality_plugin.errors import CellDualityError
from cellduality_plugin.examples import Value
from cellduality_plugin.files import read_jsonl
from cellduality_plugin.parsing import Genes, OneOf
from cellduality_plugin.vocabulary import Vocabulary
from data_prep.manifests import code_sha256
from data_prep.traces.candidates import Reply
from data_prep.traces.questions import Question
from data_prep.traces.rule.markers import find_markers
from data_prep.traces.rule.naming import LABEL_WORDS, LabelRule
from data_prep.traces.rule.recalling import LIST_WORDS, CellRule
from data_prep.views import known_by

TRACE_WORDS = (*LABEL_WORDS, *LIST_WORDS)
"""Every word of a sound trace that is neither a gene nor part of a label."""

FAULTS = ("no_tag", "endless", "leak", "empty", "repeat")
"""What may be wrong with a candidate on purpose: no answer tag, a trace of :data:`ENDLESS_WORDS`, a trace that gives
away that the answer was known beforehand, an empty answer, the words of candidate 0 once more."""

ENDLESS_WORDS = 600

MODULES = ("teacher", "markers", "naming", "recalling", "shown")
"""The files that the rule is written in."""

NOT_COLUMNS = ("id", "split", "labelled", "genes", "control")
"""What a row of ``cells.jsonl`` holds besides the values of columns."""


class RuleTeacher:
    """Writes traces that are grounded in the data: which marker genes a cell shows, which it lacks, what follows.

    It is a rule, not a model. Asked for a label, it suspects one after a look at all genes shown, cites a random
    handful of the evidence for it, and concludes what the genes it *cites* speak for most. It never looks at the
    right label, so it can be wrong, and the more so the higher the candidate's number. Asked for genes, it names
    markers of the labels shown and lists a cell it has seen. Candidate 0 recalls the very cell the question was made
    from, and is right by construction, since the labelled training cells are what the rule knows; later ones recall
    another labelled cell of the same labels, or the cell with ranks shaken and genes replaced.

    Parameters
    ----------
    cells
        The labelled training cells, and no others.
    vocabulary
        Genes and label sets.
    seed
        Of everything random. A question and a candidate's number always give the same text.
    faults
        The share of candidates with one of :data:`FAULTS`, in [0, 1].

    Raises
    ------
    CellDualityError
        If there is no cell to learn from, or ``faults`` is no share.

    Notes
    -----
    Questions are told apart by the kinds of their fields alone, so that a pair of one's own is served as the
    built-in ones are.
    """

    name = "rule"

    def __init__(self, cells: Sequence[Cell], vocabulary: Vocabulary, seed: int = 0, faults: float = 0.05) -> None:
        if not cells:
            raise CellDualityError(
                "no labelled training cell to learn markers from",
                where="rule teacher",
                mend="prepare the data with --labelled above 0",
            )
        if not 0 <= faults <= 1:
            raise CellDualityError(f"faults {faults} is no share", where="rule teacher", mend="choose from 0 to 1")
        self._cells, self._vocabulary, self._seed, self._faults = tuple(cells), vocabulary, seed, faults
        found = find_markers(self._cells, vocabulary)
        self._labels = LabelRule(found, vocabulary)
        self._genes = CellRule(self._cells, found, vocabulary)

    @cached_property
    def version(self) -> str:
        """What its answers hang on besides the question: its code, its cells, its seed; 12 hex digits."""
        cells = [[cell.id, cell.genes, dict(cell.obs), dict(cell.condition)] for cell in self._cells]
        code = code_sha256([Path(__file__).with_name(f"{name}.py") for name in MODULES])
        parts = [self._seed, self._faults, self._vocabulary.fingerprint, code, cells]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:12]

    async def answer(self, question: Question, candidate: int) -> Reply:
        """Return candidate number ``candidate`` (from 0)."""
        return Reply(self.write(question, candidate))

    def fault(self, question: Question, candidate: int) -> str:
        """Return the name of what is wrong with a candidate on purpose, or an empty text."""
        rng = self._rng(question, candidate, "fault")
        if rng.random() >= self._faults:
            return ""
        return FAULTS[rng.integers(len(FAULTS) - (candidate == 0))]  # candidate 0 has nothing to repeat

    def write(self, question: Question, candidate: int) -> str:
        """Return the text of candidate number ``candidate``.

        Raises
        ------
        CellDualityError
            If the question asks for something that is neither a label nor a list of genes.
        """
        fault = self.fault(question, candidate)
        if fault == "repeat":
            return self.write(question, 0)
        trace, value = self._sound(question, candidate)
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

    def _sound(self, question: Question, candidate: int) -> tuple[str, Value]:
        rng = self._rng(question, candidate, "sound")
        if isinstance(question.field, OneOf):
            return self._labels.answer(question, question.field.kind, candidate, rng)
        if isinstance(question.field, Genes):
            return self._genes.answer(question, candidate, rng)
        raise CellDualityError(
            f"the rule cannot answer with a {type(question.field).__name__}",
            where=f"dual pair {question.pair.name!r}, {question.direction}",
            mend="ask a model (--teacher MODEL), or build the pair from OneOf and Genes",
        )

    def _rng(self, question: Question, candidate: int, purpose: str) -> np.random.Generator:
        # Of what the question shows, not of its key, which hangs on the right answer.
        place = f"{question.pair.name}/{question.direction}/{question.example.id}#{question.view}"
        seen = f"{self._seed}/{purpose}/{candidate}/{place}/{question.prompt}"
        return np.random.default_rng(int.from_bytes(hashlib.sha256(seen.encode()).digest()[:16], "big"))


def read_rule_teacher(data: Path, seed: int = 0) -> RuleTeacher:
    """Return the rule that has learned from the labelled training cells of a prepared folder.

    Parameters
    ----------
    data
        A folder written by ``cellduality data prepare``.
    seed
        Of everything random.

    Raises
    ------
    CellDualityError
        If ``cells.jsonl`` or ``vocabulary.json`` is missing or malformed, or no training cell is labelled.
    """
    path = Path(data) / "cells.jsonl"
    cells = []
    for number, row in enumerate(read_jsonl(path), start=1):
        if not {"id", "split", "labelled", "genes"} <= row.keys():
            raise CellDualityError("not a row of cells", where=f"{path}:{number}", mend="prepare the data again")
        if row["split"] == "train" and row["labelled"]:
            columns = {name: value for name, value in row.items() if name not in NOT_COLUMNS}
            cells.append(known_by(Cell(row["id"], tuple(row["genes"])), columns))
    return RuleTeacher(cells, Vocabulary.load(Path(data) / "vocabulary.json"), seed)
