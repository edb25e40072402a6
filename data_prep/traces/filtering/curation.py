"""From candidates to the SFT set: what passes the filters, in the proportions that were asked for."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field
from rich.table import Table

from cellduality_plugin.errors import CellDualityError
from cellduality_plugin.files import write_jsonl
from cellduality_plugin.parsing import Answer
from cellduality_plugin.settings import Settings
from cellduality_plugin.tasks import TASKS, DualTask
from cellduality_plugin.vocabulary import Vocabulary
from data_prep.manifests import Summary, read_manifest, refuse_changed, rows_code_sha256, up_to_date, write_manifest
from data_prep.sources import file_sha256
from data_prep.traces.candidates import Candidate, Instance, Reply, prompt_hash, read_instances
from data_prep.traces.filtering.filters import SHOWN, FilterSettings, Reason, Verdict, by_group, ill_posed, judge_all
from data_prep.traces.questions import Question

QUESTIONS = "sft.jsonl"
CANDIDATES = "traces/candidates.jsonl"
ROWS = "sft_traces.jsonl"
REJECTED = "traces/rejected.jsonl"

NOBODY = Candidate("", -1, "", "none", "", Reply(""))
"""Who wrote the row of a right answer without a trace, as ``sft.jsonl`` has it."""

Row = dict[str, Any]


class CurationSettings(Settings):
    """How an SFT set is made of candidates."""

    filters: FilterSettings = FilterSettings()
    directions: Literal["both", "primal"] = "both"  # "primal" leaves all duals out
    # "paired": a dual question has rows only if the primal question of its instance has (section 3.3.1), or is not in
    # the set; "all": whenever a candidate passes.
    duals: Literal["paired", "all"] = "paired"
    # Relative weights by "task/direction", "task" or "direction"; what is not named weighs 1. Rows are left out at
    # random until the groups stand in this proportion. Empty: all rows.
    shares: dict[str, Annotated[float, Field(ge=0, allow_inf_nan=False)]] = Field(default_factory=dict)
    # Whether a question without an accepted candidate, unless refused for its instance, keeps its bare right answer.
    fill: bool = False
    # Whether instances must be answerable and unique. It needs candidates for the duals of all answers: an instance
    # that nobody was asked about counts as unanswerable.
    well_posed: bool = False
    seed: int = Field(42, ge=0)  # of the choice and the order of rows

    def check(self, tasks: Mapping[str, DualTask]) -> None:
        """Raise a CellDualityError if a threshold or share is for an unknown group."""
        names = {*tasks, *TASKS}
        known = {*names, "primal", "dual", *(f"{name}/{end}" for name in names for end in ("primal", "dual"))}
        for flag, values in (("--threshold", self.filters.thresholds), ("--share", self.shares)):
            for name in values.keys() - known:
                hint = f"write TASK, primal, dual, TASK/primal or TASK/dual; the tasks are {', '.join(tasks)}"
                raise CellDualityError(f"no group {name!r}", code="unknown-group", where=flag, hint=hint)


def curate(data: Path, tasks: Mapping[str, DualTask], settings: CurationSettings) -> Summary:
    """Return a summary of the SFT set in ``data``, which is made of its questions and candidates if it is not there.

    ``sft_traces.jsonl`` has the columns of ``sft.jsonl`` and where each row comes from. The same files and settings
    give identical bytes, whatever the order of the candidates. A CellDualityError is raised if a file is missing or
    malformed, was changed by hand, or no candidate is of this preparation or passes.
    """
    settings.check(tasks)
    origin, made = _origin(data, tasks, settings), [data / ROWS, data / REJECTED]
    fresh = up_to_date(made, origin)
    if not fresh:
        refuse_changed(made)
        _write(data, tasks, settings, origin)
    return Summary(data, fresh, {name: read_manifest(data / name) for name in (ROWS, REJECTED)})


def decide(
    instance: Instance, vocabulary: Vocabulary, settings: CurationSettings
) -> Iterator[tuple[Question, list[Verdict], bool]]:
    """Yield (question, verdicts on its candidates, whether it has a row) of an instance, the primal first.

    Candidates of an ill-posed primal, and of a dual whose primal has no row, are judged like all others, then rejected.
    """
    refused: Reason = ill_posed(instance, vocabulary, settings.filters) if settings.well_posed else ""
    for question in filter(None, (instance.primal, instance.dual if settings.directions == "both" else None)):
        verdicts = judge_all(question, instance.replies_to(question), vocabulary, settings.filters, refused)
        has_row = any(not verdict.reason for verdict in verdicts) or (settings.fill and not refused)
        yield question, verdicts, has_row
        if question.direction == "primal":
            refused = "" if has_row or settings.duals == "all" else "no_primal"


def _origin(data: Path, tasks: Mapping[str, DualTask], settings: CurationSettings) -> dict[str, Any]:
    """Return what the files are made of: if all of it is unchanged, so are they."""
    try:
        questions, candidates = file_sha256(data / QUESTIONS), file_sha256(data / CANDIDATES)
    except OSError as error:
        what, hint = (
            f"cannot read: {error.strerror}",
            "prepare the data, ask a teacher (cellduality traces sample)",
        )
        raise CellDualityError(what, code="unreadable-file", where=str(error.filename), hint=hint) from error
    return {
        "seed": settings.seed,
        "source": f"{QUESTIONS} + {CANDIDATES}",
        "questions_sha256": questions,
        "candidates_sha256": candidates,
        "vocabulary": Vocabulary.load(data / "vocabulary.json").fingerprint,
        "code_sha256": rows_code_sha256(tasks.values(), Path(__file__).parents[1].rglob("*.py")),
        "settings": settings.model_dump(mode="json"),
    }


def _write(data: Path, tasks: Mapping[str, DualTask], settings: CurationSettings, origin: Mapping[str, Any]) -> None:
    counts: defaultdict[str, Counter[str]] = defaultdict(Counter)
    instances, others = read_instances(data / QUESTIONS, data / CANDIDATES, tasks)
    vocabulary = Vocabulary.load(data / "vocabulary.json")
    rows: list[tuple[str, Row]] = []
    rejected: list[Row] = []
    for instance in instances:
        with_rows: dict[str, str] = {}
        for question, verdicts, has_row in decide(instance, vocabulary, settings):
            group, passed = question.group, [verdict for verdict in verdicts if not verdict.reason]
            counts["questions"][group] += 1
            counts["unasked"][group] += not verdicts
            counts["accepted"][group] += len(passed)
            if has_row:
                with_rows[question.direction] = group
                if not passed:
                    passed = [Verdict(NOBODY, Answer(question.gold), 1.0, "")]
                    counts["filled"][group] += 1
            rows += [(group, _row(question, verdict, settings.filters.traces)) for verdict in passed]
            rejected += [_row(question, verdict, settings.filters.traces) for verdict in verdicts if verdict.reason]
        if with_rows.keys() == {"primal"}:
            counts["primal_without_dual"][with_rows["primal"]] += 1
    counts["drops"] = Counter(row["reason"] for row in rejected)
    if not counts["accepted"].total() and not settings.fill:
        why = ", ".join(f"{count} x {reason}" for reason, count in counts["drops"].most_common(4))
        what = f"no candidate passes: {why or 'none was asked in this direction'}"
        hint = "look at the replies, loosen the filter that is named most, or ask a better teacher"
        raise CellDualityError(what, code="nothing-passes", where=str(data / CANDIDATES), hint=hint)
    groups = [group for group, _ in rows]
    places = chosen(groups, settings.shares, np.random.default_rng(settings.seed))
    write_jsonl(data / ROWS, (rows[place][1] for place in places))
    write_jsonl(data / REJECTED, rejected)
    names = ("questions", "unasked", "accepted", "filled", "primal_without_dual", "drops")
    by_name = {name: dict(sorted(counts[name].items())) for name in names}
    written = dict(sorted(Counter(groups[place] for place in places).items()))
    write_manifest(data / ROWS, origin, counts=written, **by_name, other_preparations=others)
    write_manifest(data / REJECTED, origin, counts=by_name["drops"], other_preparations=others)


def _row(question: Question, verdict: Verdict, traces: bool) -> Row:
    """Return a row of the SFT set, or of the rejected, whose texts stand in the file of candidates.

    The answer is written as the field writes what was read in it: a list without unknown genes and repeats.
    """
    said, answer = verdict.candidate, verdict.answer
    number, whose = {"candidate": said.candidate}, {"teacher": said.teacher, "teacher_version": said.version}
    if verdict.reason or answer.value is None:
        return {"key": said.key, **number, "reason": verdict.reason, "score": verdict.score, **whose}
    trace = answer.trace if traces else ""
    row = {**question.row(question.response(answer.value, trace)), **whose, **number, "score": verdict.score}
    return {**row, "trace_words": len(trace.split()), "prompt": prompt_hash(question.prompt)}


def chosen(groups: Sequence[str], shares: Mapping[str, float], rng: np.random.Generator) -> list[int]:
    """Return the places of the rows to keep, shuffled; ``groups`` is the ``"task/direction"`` of each row.

    They stand in the proportion of ``shares``, rounded, and are as many as that allows: of the group that is scarcest
    for its weight all. Without shares all rows are kept. A CellDualityError is raised if every group weighs 0.
    """
    left = Counter(groups)
    if shares:
        weights = {group: by_group(shares, group, 1.0) for group in left}
        scales = [left[group] / weight for group, weight in weights.items() if weight > 0]
        if not scales:
            hint = "give one a weight above 0"
            raise CellDualityError("every group weighs 0", code="no-weight", where="--share", hint=hint)
        left = Counter({group: min(left[group], round(min(scales) * weight)) for group, weight in weights.items()})
    places = []
    for place in rng.permutation(len(groups)).tolist():
        if left[groups[place]] > 0:
            left[groups[place]] -= 1
            places.append(place)
    return places


def in_order(groups: Iterable[str]) -> list[str]:
    """Return ``"task/direction"`` groups by task, the primal first."""
    return sorted(groups, key=lambda group: (group.rpartition("/")[0], group.endswith("/dual")))


def describe(summary: Summary) -> Table:
    """Return a table of the SFT set by task and direction, for printing with rich."""
    manifest = summary.manifests[ROWS]
    state = "up to date" if summary.up_to_date else "written"
    columns = {
        "questions": "questions", "unasked": "not asked", "accepted": "accepted", "filled": "bare",
        "primal_without_dual": "no dual", "counts": "rows",
    }  # fmt: skip
    rows = {group: [manifest[name].get(group, 0) for name in columns] for group in in_order(manifest["questions"])}
    found = table(f"{summary.out / ROWS}: {state}", "task/direction", columns.values(), rows)
    drops = sorted(manifest["drops"].items(), key=lambda item: -item[1])
    rejected = "; ".join(f"{count} x {SHOWN.get(reason, reason)}" for reason, count in drops) or "nothing"
    others = manifest["other_preparations"]
    found.caption = f"rejected: {rejected}" + (f"; {others} candidates of other preparations" if others else "")
    return found


def table(title: str, first: str, columns: Iterable[object], rows: Mapping[str, Iterable[object]]) -> Table:
    """Return a table, for printing with rich: a row a group, numbers on the right."""
    found = Table(title=title, title_justify="left", caption_justify="left")
    found.add_column(first, overflow="fold")
    for column in columns:
        found.add_column(str(column), justify="right")
    for group, cells in rows.items():
        found.add_row(group, *map(str, cells))
    return found
