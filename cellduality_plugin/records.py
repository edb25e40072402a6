"""Rollouts kept in files: what was answered, what the duals of it said, and so all it takes to score it again."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import math
import uuid
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

from cellduality_plugin.config import Config
from cellduality_plugin.errors import CellDualityError
from cellduality_plugin.files import AppendLog
from cellduality_plugin.parsing import MAX_CHARACTERS
from cellduality_plugin.policies.base import Asked, PolicyError, Question, QuestionPolicy
from cellduality_plugin.scoring import Group, Score

SCHEMA = 1
NOT_RECORDED = "not_recorded"
MAX_TEXT = MAX_CHARACTERS + 1
"""So much of a text is kept: the parser reads nothing of a longer one, nor of what is kept of it."""

Row: TypeAlias = dict[str, Any]

_log = logging.getLogger(__name__)


def prompt_key(prompt: str) -> str:
    """Return the first 16 hex digits of a prompt's SHA-256: its name in the records of a group."""
    return hashlib.sha256(prompt.encode("utf-8", "surrogatepass")).hexdigest()[:16]


class Recorder:
    """Appends one JSON line a rollout to a file of this process's own, whole lines alone.

    A disk that is full ends the recording, not the run. Line by line::

        {"schema": 1, "group": 8, "last": false, "task": ..., "row": ..., "label": "{...}", "response": ...,
         "answer": ..., "failure": "", "reward": 0.25, "logs": {...},
         "calls": [{"prompt": KEY, "text": ..., "draw": 0, "response": ...},
                   {"prompt": KEY, "draw": 1, "error": "timeout"},
                   {"prompt": KEY, "trace": 12345, "response": ...},
                   {"prompt": KEY, "response": ..., "log_probs": [...]},
                   {"prompt": KEY, "given": ..., "response": ..., "log_probs": [...]},
                   {"prompt": KEY, "responses": [...], "log_probs": [...]}]}

    ``calls`` are those that were answered for the group since its last line. ``text`` is there the first time.
    ``every`` and ``limit`` are those of :class:`cellduality_plugin.config.RecordSettings`.
    """

    def __init__(self, folder: Path, every: int, limit: int) -> None:
        self._folder, self._every, self._limit = folder, every, limit
        self._written_of: dict[int, set[Question | str]] = {}  # by group: calls and prompts
        self._written = 0
        self._file: AppendLog | None = None
        self.broken = False

    @classmethod
    def of(cls, config: Config) -> Recorder | None:
        """Return the recorder that ``config`` asks for, None if for none."""
        how = config.records
        return None if how is None else cls(config.folder / how.folder, how.every, how.limit)

    def write(self, group: Group, text: str, score: Score, last: bool) -> None:
        """Append a rollout of ``group``, the ``last`` or an earlier one, if that is a group that is kept."""
        begun = group.number in self._written_of
        if self.broken or (not begun and (group.number % self._every or self._written >= self._limit)):
            return
        written = self._written_of.setdefault(group.number, set())
        row = {
            "schema": SCHEMA, "group": group.number, "last": last, "task": group.example.task, "row": group.example.id,
            "label": group.label, "response": text[:MAX_TEXT], "answer": score.answer.value, "failure": score.failure,
            "reward": score.reward, "logs": score.logs, "calls": list(_calls(group.asked, written, last)),
        }  # fmt: skip
        if last:
            del self._written_of[group.number]
        self._written += 1
        try:
            if self._file is None:
                self._file = AppendLog(self._folder / f"rollouts-{uuid.uuid4().hex}.jsonl")
            self._file.append(json.dumps(row, allow_nan=False, separators=(",", ":")).encode())
        except CellDualityError as error:
            self.broken = True
            _log.warning("rollouts are not recorded any more: %s: %s", self._folder, error.what)


def _calls(asked: Asked, written: set[Question | str], last: bool) -> Iterator[Row]:
    """Yield what was answered since the last time; what is unanswered when the group is over came too late for it."""
    for question, call in asked.items():
        if question not in written and (last or call.done()):
            text = {} if question.prompt in written else {"text": question.prompt}
            written |= {question, question.prompt}
            if question.is_draw:
                asks: Row = {"draw": question.draw} if question.seed is None else {"trace": question.seed}
            elif question.choices:
                asks = {"responses": question.choices}
            else:
                asks = {**({"given": question.given} if question.given else {}), "response": question.response}
            yield {"prompt": prompt_key(question.prompt)} | text | asks | _outcome(call)


def _outcome(call: Any) -> Row:
    if not call.done():
        return {"error": "timeout"}
    if call.cancelled():
        return {"error": "cancelled"}
    if (error := call.exception()) is not None:
        return {"error": error.cause if isinstance(error, PolicyError) else type(error).__name__}
    found = call.result()
    if isinstance(found, str):
        return {"response": found[:MAX_TEXT]}
    return {"log_probs": [float(value) if math.isfinite(value) else None for value in found]}


@dataclass
class Reading:
    """Lines ``skipped`` because they are not whole (a process that is killed leaves one at most), and groups that are
    ``incomplete``: without their last rollout."""

    skipped: int = 0
    incomplete: int = 0


def read_groups(path: Path, reading: Reading) -> Iterator[list[Row]]:
    """Yield the rows of each group in ``path`` once it is complete, one by one, and count in ``reading``."""
    under_way: dict[int, list[Row]] = {}
    try:
        with path.open("rb") as lines:
            for number, line in enumerate(lines, start=1):
                row = _row(line, f"{path}:{number}")
                if row is None:
                    reading.skipped += 1
                    continue
                under_way.setdefault(row["group"], []).append(row)
                if row["last"]:
                    yield under_way.pop(row["group"])
    except OSError as error:
        what, hint = f"cannot read: {error.strerror}", "name a file of records, or their folder"
        raise CellDualityError(what, code="unreadable-file", where=str(path), hint=hint) from error
    reading.incomplete += len(under_way)
    yield from under_way.values()


_TYPES: dict[str, type | tuple[type, ...]] = {
    "group": int, "last": bool, "task": str, "row": str, "label": str, "response": str, "reward": (int, float),
    "calls": list,
}  # fmt: skip


def _row(line: bytes, where: str) -> Row | None:
    """Return the row in ``line``, None if the line is not whole."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(row, dict) or row.get("schema") != SCHEMA:
        what, hint = f"not a record of schema {SCHEMA}", "name files that a run with `records` has written"
        raise CellDualityError(what, code="wrong-format", where=where, hint=hint)
    for name, kind in _TYPES.items():
        if not isinstance(row.get(name), kind):
            what, hint = f"{name!r} is missing or malformed", "record the run again"
            raise CellDualityError(what, code="malformed-row", where=where, hint=hint)
    return row


class RecordedPolicy(QuestionPolicy):
    """Plays the dual from ``rows``, the records of one group: repeats what the policy answered then.

    The answer to anything else is ``PolicyError(NOT_RECORDED)``.
    """

    def __init__(self, rows: Iterable[Mapping[str, Any]]) -> None:
        super().__init__()
        self._answers: dict[Question, Mapping[str, Any]] = {}
        for row in rows:
            for call in row["calls"]:
                with contextlib.suppress(KeyError, TypeError):  # a malformed call is one that was not recorded
                    self._answers[_asked_in(call)] = call

    async def answer(self, question: Question) -> Any:
        call = self._answers.get(replace(question, prompt=prompt_key(question.prompt)), {})
        if isinstance(call.get("error"), str):
            raise PolicyError(call["error"])
        found = call.get("response" if question.is_draw else "log_probs")
        if question.is_draw and isinstance(found, str):
            return found
        numbers = isinstance(found, list) and all(value is None or isinstance(value, float | int) for value in found)
        if found is not None and numbers and not question.is_draw:
            return [math.nan if value is None else float(value) for value in found]
        raise PolicyError(NOT_RECORDED)


def _asked_in(call: Mapping[str, Any]) -> Question:
    """Return what was asked, the prompt by its key; a generated response stands beside its draw."""
    prompt = str(call["prompt"])
    if "trace" in call:
        return Question(prompt, seed=call["trace"])
    if "draw" in call:
        return Question(prompt, draw=call["draw"])
    if "responses" in call:
        return Question(prompt, choices=tuple(call["responses"]))
    return Question(prompt, call["response"], call.get("given", ""))
