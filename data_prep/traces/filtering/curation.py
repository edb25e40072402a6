"""From candidates to the SFT set: what passes the filters, in the proportions that were asked for."""

from __future__ import annotations

import json
import tempfile
from array import array
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal, TypeAlias

import numpy as np
from pydantic import Field
from rich.table import Table

import cellduality_plugin
from cellduality_plugin.errors import CellDualityError
from cellduality_plugin.files import whole_file
from cellduality_plugin.settings import Settings
from cellduality_plugin.tasks import TASKS, DualTask
from cellduality_plugin.vocabulary import Vocabulary
from data_prep.manifests import Manifest, code_sha256, read_manifest, up_to_date, write_manifest
from data_prep.sources import file_sha256
from data_prep.traces.filtering.filters import FilterSettings, Judged, judge_all
from data_prep.traces.filtering.instances import Instance, Instances
from data_prep.traces.filtering.rows import bare_row, chosen, in_order, rejection, taught_row
from data_prep.traces.filtering.well_posed import ill_posed
from data_prep.traces.questions import Direction, Question

QUESTIONS = "sft.jsonl"
CANDIDATES = "traces/candidates.jsonl"
ROWS = "sft_traces.jsonl"
REJECTED = "traces/rejected.jsonl"

Counts: TypeAlias = defaultdict[str, Counter[str]]
"""What is counted on the way, by name: by task/direction, but ``"drops"``, which are by reason."""


class CurationSettings(Settings):
    """How an SFT set is made of candidates.

    Parameters
    ----------
    filters
        What passes.
    directions
        ``"primal"`` leaves all duals out.
    duals
        ``"paired"``: a dual question has rows only if the primal question of its instance has (section 3.3.1), or is
        not in the set; ``"all"``: whenever a candidate passes.
    shares
        Relative weights by ``"task/direction"``, ``"task"`` or ``"direction"``; what is not named weighs 1. Rows are
        left out at random until the groups stand in this proportion. Empty: all rows.
    fill
        Whether a question without an accepted candidate keeps its bare right answer, with an empty trace; not if it is
        refused for its instance.
    well_posed
        Whether instances must be answerable and unique. It needs candidates for the duals of all answers: an instance
        that nobody was asked about counts as unanswerable.
    seed
        Of the choice and the order of rows.
    """

    filters: FilterSettings = FilterSettings()
    directions: Literal["both", "primal"] = "both"
    duals: Literal["paired", "all"] = "paired"
    shares: dict[str, float] = Field(default_factory=dict)
    fill: bool = False
    well_posed: bool = False
    seed: int = Field(42, ge=0)

    def check(self, tasks: Mapping[str, DualTask]) -> None:
        """Raise a CellDualityError if a threshold or share is for a group that nobody knows, or out of bounds."""
        names = {*tasks, *TASKS}
        known = {*names, "primal", "dual", *(f"{name}/{end}" for name in names for end in ("primal", "dual"))}
        for flag, values, most in (("--threshold", self.filters.thresholds, 1.0), ("--share", self.shares, np.inf)):
            for name, value in values.items():
                if name not in known:
                    hint = f"write TASK, primal, dual, TASK/primal or TASK/dual; the tasks are {', '.join(tasks)}"
                    raise CellDualityError(f"no group {name!r}", where=flag, hint=hint)
                if not 0 <= value <= most:
                    raise CellDualityError(f"{name}={value:g} is out of bounds", where=flag, hint="0 is the least")

    @property
    def asked(self) -> tuple[Direction, ...]:
        """The directions whose questions are looked at."""
        return ("primal",) if self.directions == "primal" else ("primal", "dual")


@dataclass(frozen=True)
class CurationSummary:
    """What an SFT set holds: the folder, whether it already was there, and each file's manifest by name."""

    data: Path
    up_to_date: bool
    manifests: Mapping[str, Manifest]


def curate(data: Path, tasks: Mapping[str, DualTask], settings: CurationSettings) -> CurationSummary:
    """Return a summary of the SFT set in ``data``, which is made if it is not there already.

    Reads ``sft.jsonl``, ``vocabulary.json`` and ``traces/candidates.jsonl``; writes ``sft_traces.jsonl`` (the columns
    of ``sft.jsonl`` and where each row comes from) and ``traces/rejected.jsonl``, each whole or not at all, with
    manifests. The same files and settings give identical bytes, whatever the order of the candidates.

    Raises
    ------
    CellDualityError
        If a file is missing or malformed, if no candidate is of this preparation, or if none passes.
    """
    settings.check(tasks)
    data = Path(data)
    origin = _origin(data, tasks, settings)
    fresh = up_to_date([data / ROWS, data / REJECTED], origin)
    if not fresh:
        _write(data, tasks, settings, origin)
    return CurationSummary(data, fresh, {name: read_manifest(data / name) for name in (ROWS, REJECTED)})


def decide(
    instance: Instance, vocabulary: Vocabulary, settings: CurationSettings
) -> Iterator[tuple[Question, Judged, bool]]:
    """Yield (question, its judged candidates, whether it has a row) for the questions of ``instance``, primal first.

    The candidates of a primal question that is not well posed, and of a dual whose primal has no row, are judged like
    all others; those that pass are then rejected for that.
    """
    refused = ill_posed(instance, vocabulary, settings.filters) if settings.well_posed else ""
    for question in instance.questions(settings.asked):
        judged = judge_all(question, instance.replies_to(question), vocabulary, settings.filters, refused)
        has_row = any(verdict.accepted for _, verdict in judged) or (settings.fill and not refused)
        yield question, judged, has_row
        if question.direction == "primal":
            refused = "" if has_row or settings.duals == "all" else "no_primal"


def _origin(data: Path, tasks: Mapping[str, DualTask], settings: CurationSettings) -> dict[str, Any]:
    """Return what the files are made of: if all of it is unchanged, so are they."""
    core = Path(cellduality_plugin.__file__).parent
    code = {*core.glob("*.py"), *core.glob("tasks/*.py"), *Path(__file__).parent.glob("*.py")}
    code |= {Path(type(task).dual_prompt.__code__.co_filename) for task in tasks.values()}
    return {
        "seed": settings.seed,
        "source": f"{QUESTIONS} + {CANDIDATES}",
        "questions_sha256": _sha256(data / QUESTIONS, "prepare the data first (cellduality data prepare)"),
        "candidates_sha256": _sha256(data / CANDIDATES, "ask a teacher first (cellduality traces sample)"),
        "vocabulary": Vocabulary.load(data / "vocabulary.json").fingerprint,
        "code_sha256": code_sha256([path for path in sorted(code) if path.is_file()]),
        "settings": settings.model_dump(mode="json"),
    }


def _sha256(path: Path, hint: str) -> str:
    try:
        return file_sha256(path)
    except OSError as error:
        raise CellDualityError(f"cannot read: {error.strerror}", where=str(path), hint=hint) from error


def _write(data: Path, tasks: Mapping[str, DualTask], settings: CurationSettings, origin: Mapping[str, Any]) -> None:
    """Write both files. The rows wait on the disk until it is known how many of each group there are."""
    counts: Counts = defaultdict(Counter)
    instances = Instances(data / QUESTIONS, data / CANDIDATES, tasks)
    groups: list[str] = []
    places = array("q")
    with whole_file(data / REJECTED) as rejected, tempfile.TemporaryFile(dir=(data / REJECTED).parent) as waiting:
        for group, row in _rows(instances, Vocabulary.load(data / "vocabulary.json"), settings, counts, rejected):
            groups.append(group)
            places.append(waiting.tell())
            waiting.write((json.dumps(row, ensure_ascii=False) + "\n").encode())
        _refuse_nothing(instances, counts, settings, data / CANDIDATES)
        rows = chosen(groups, settings.shares, np.random.default_rng(settings.seed))
        with whole_file(data / ROWS, "wb") as stream:
            for row_number in rows:
                waiting.seek(places[row_number])
                stream.write(waiting.readline())
    names = ("questions", "unasked", "accepted", "filled", "primal_without_dual", "drops")
    by_name = {name: dict(sorted(counts[name].items())) for name in names}
    written = dict(sorted(Counter(groups[row] for row in rows).items()))
    write_manifest(data / ROWS, origin, counts=written, **by_name, other_preparations=instances.unknown)
    write_manifest(data / REJECTED, origin, counts=by_name["drops"], other_preparations=instances.unknown)


def _rows(
    instances: Instances, vocabulary: Vocabulary, settings: CurationSettings, counts: Counts, rejected: IO[str]
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield (group, row) in the order of the instances; write what is rejected, and count."""
    for instance in instances:
        with_rows: dict[str, str] = {}
        for question, judged, has_row in decide(instance, vocabulary, settings):
            group, accepted = question.group, 0
            for candidate, verdict in judged:
                if verdict.accepted:
                    accepted += 1
                    yield group, taught_row(question, candidate, verdict, settings.filters.traces)
                else:
                    counts["drops"][verdict.reason] += 1
                    rejected.write(json.dumps(rejection(candidate, verdict), ensure_ascii=False) + "\n")
            if has_row:
                with_rows[question.direction] = group
                if not accepted:
                    yield group, bare_row(question)
                    counts["filled"][group] += 1
            counts["questions"][group] += 1
            counts["unasked"][group] += not judged
            counts["accepted"][group] += accepted
        if with_rows.keys() == {"primal"}:
            counts["primal_without_dual"][with_rows["primal"]] += 1


def _refuse_nothing(instances: Instances, counts: Counts, settings: CurationSettings, path: Path) -> None:
    """Raise if there is no candidate, none of this preparation, or none that passes while bare answers will not do."""
    if not instances.matched:
        others = f"all {instances.unknown} candidates are of another preparation"
        what = others if instances.unknown else f"no candidate answers a question of {QUESTIONS}"
        hint = f"ask again with cellduality traces sample, or put the {QUESTIONS} back that they were asked for"
        raise CellDualityError(what, where=str(path), hint=hint)
    if not counts["accepted"].total() and not settings.fill:
        why = ", ".join(f"{count} x {reason}" for reason, count in counts["drops"].most_common(4))
        what = f"no candidate passes: {why or 'none was asked in this direction'}"
        hint = "look at the replies, loosen the filter that is named most, or ask a better teacher"
        raise CellDualityError(what, where=str(path), hint=hint)


def describe(summary: CurationSummary) -> Table:
    """Return a table of the SFT set by task and direction, for printing with rich."""
    manifest = summary.manifests[ROWS]
    state = "up to date" if summary.up_to_date else "written"
    table = Table(title=f"{summary.data / ROWS}: {state}", title_justify="left", caption_justify="left")
    columns = {
        "questions": "questions", "unasked": "not asked", "accepted": "accepted", "filled": "bare",
        "primal_without_dual": "no dual", "counts": "rows",
    }  # fmt: skip
    table.add_column("task/direction", overflow="fold")
    for title in columns.values():
        table.add_column(title, justify="right")
    for group in in_order(manifest["questions"]):
        table.add_row(group, *(str(manifest[name].get(group, 0)) for name in columns))
    drops = sorted(manifest["drops"].items(), key=lambda item: -item[1])
    rejected = "; ".join(f"{count} x {reason}" for reason, count in drops) or "nothing"
    others = manifest["other_preparations"]
    table.caption = f"rejected: {rejected}" + (f"; {others} candidates of other preparations" if others else "")
    return table
