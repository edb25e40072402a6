"""One HTML file that tells what a run achieved; it loads nothing from anywhere."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cellduality_plugin.alarms import alarms, steps_of
from cellduality_plugin.errors import CellDualityError
from cellduality_plugin.evaluation import plots
from cellduality_plugin.evaluation.audit.run import read_audit
from cellduality_plugin.evaluation.audit.tables import LEGEND, audit_rows
from cellduality_plugin.evaluation.curves import chosen, divided, read_curves
from cellduality_plugin.evaluation.evaluate import FORMAT, REAL, VERSION
from cellduality_plugin.evaluation.predictions import Prediction
from cellduality_plugin.evaluation.tables import section_title, table_rows, written
from cellduality_plugin.examples import Value
from cellduality_plugin.files import read_jsonl, write_text

TEMPLATE = "report.html.j2"
_TRACE_CHARACTERS = 1200


@dataclass(frozen=True)
class Trace:
    """One rollout as a reader sees it."""

    task: str
    title: str
    prediction: Prediction
    response: str
    answer: str
    unknown: str
    gold: str
    rebuilt: str


def write_report(
    run: Path,
    out: Path,
    curves: Mapping[str, Path] | None = None,
    title: str = "CellDuality",
    audit: Path | None = None,
) -> Path:
    """Return ``out``, a self-contained HTML page about the evaluation in ``run``; written whole or not at all.

    Parameters
    ----------
    run
        What :func:`cellduality_plugin.evaluation.evaluate.evaluate` wrote.
    out
        The page.
    curves
        TensorBoard folders or training logs by the name of their section, e.g. ``{"GRPO": ...}``. A source without
        curves, or that does not exist, is told on the page and stops nothing.
    title
        The page's heading.
    audit
        An ``audit.json``; the page goes without where there is none.

    Raises
    ------
    CellDualityError
        If the run has no metrics, or a package of the extra ``eval`` is missing.
    """
    try:
        import jinja2
        import matplotlib as mpl
    except ImportError as error:
        raise CellDualityError(f"cannot import {error.name}", mend="pip install 'cellduality[eval]'") from error
    mpl.use("svg")
    metrics = read_metrics(run / "metrics.json")
    checkpoints = [name for name, column in metrics["columns"].items() if column["kind"] == "checkpoint"]
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["written"] = written
    environment.filters["section_title"] = section_title
    page = environment.get_template(TEMPLATE).render(
        title=title,
        legend=LEGEND,
        metrics=metrics,
        rows=table_rows(metrics),
        curves=[_curve_section(place, *item) for place, item in enumerate((curves or {}).items())],
        audit=audit_sections(audit),
        confusions=_confusions(metrics, checkpoints),
        scatters=_scatters(run / "points.jsonl", checkpoints),
        traces={name: _traces(run / "predictions" / f"{name}.jsonl") for name in checkpoints[-1:]},
        provenance=json.dumps(metrics["provenance"], indent=2, ensure_ascii=False),
        settings=json.dumps(metrics["settings"], indent=2, ensure_ascii=False),
    )
    write_text(out, page)
    return out


def read_metrics(path: Path) -> dict[str, Any]:
    """Return the content of a metrics file.

    Raises
    ------
    CellDualityError
        If the file is missing, is not JSON, or has another format or version.
    """
    mend = "evaluate first (cellduality evaluate)"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CellDualityError("no metrics", where=str(path), mend=mend) from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise CellDualityError(f"unreadable metrics: {error}", where=str(path), mend=mend) from error
    if not isinstance(content, dict) or (content.get("format"), content.get("version")) != (FORMAT, VERSION):
        raise CellDualityError(f"not a {FORMAT} file of version {VERSION}", where=str(path), mend=mend)
    return content


def audit_sections(path: Path | None) -> list[dict[str, Any]]:
    """Return of each task of an audit its title, its table, what was said of each reward, and a plot.

    Raises
    ------
    CellDualityError
        If there is such a file and it is no audit.
    """
    if path is None or not path.is_file():
        return []
    content = read_audit(path)
    sections = []
    for place, (task, rows) in enumerate(audit_rows(content).items()):
        found = [each for each in content["findings"] if each["task"] == task]
        plot = plots.plot_audit(f"audit{place}", "", found)
        sections.append({"name": section_title(task), "rows": rows, "findings": found, "plot": plot})
    return sections


def _curve_section(place: int, name: str, source: Path) -> dict[str, Any]:
    try:
        found = read_curves(source)
    except CellDualityError as error:
        return {"name": name, "note": str(error), "plots": [], "alarms": []}
    finite = {key: [p for p in points if math.isfinite(p[1])] for key, points in divided(found).items()}
    drawn = plots.plot_curves(f"curve{place}", chosen(finite))
    note = "" if drawn else "No curves were recorded."
    return {"name": name, "note": note, "plots": drawn, "alarms": alarms(steps_of(found))}


def _confusions(metrics: Mapping[str, Any], checkpoints: Sequence[str]) -> list[str]:
    return [
        plots.plot_confusion(
            f"confusion{place}-{number}", f"{name}: {section_title(key)}", matrix["labels"], matrix["counts"]
        )
        for place, name in enumerate(checkpoints)
        for number, (key, matrix) in enumerate(metrics["columns"][name]["confusion"].items())
    ]


def _scatters(path: Path, checkpoints: Sequence[str]) -> list[dict[str, Any]]:
    """Return the scatter plots of each section, real cells first, and their legend."""
    sections: dict[str, dict[str, dict[str, list[tuple[float, float]]]]] = {}
    for row in read_jsonl(path):
        columns = sections.setdefault(row["section"], {})
        columns.setdefault(row["column"], {}).setdefault(row["condition"], []).append((row["x"], row["y"]))
    return [_scatter(place, *item, checkpoints) for place, item in enumerate(sorted(sections.items()))]


def _scatter(
    place: int, key: str, columns: Mapping[str, Mapping[str, list[tuple[float, float]]]], checkpoints: Sequence[str]
) -> dict[str, Any]:
    colours = plots.colours_of(sorted({condition for points in columns.values() for condition in points}))
    real = [point for points in columns.get(REAL, {}).values() for point in points]
    drawn = []
    for number, name in enumerate(name for name in (REAL, *checkpoints) if name in columns):
        behind = () if name == REAL else real
        points = dict(sorted(columns[name].items()))
        drawn.append(plots.plot_cells(f"cells{place}-{number}", name, points, behind, colours))
    return {"name": section_title(key), "plots": drawn if len(drawn) > 1 else [], "colours": colours}


def _traces(path: Path) -> list[Trace]:
    """Return of each task the rollouts with the best, the middle and the worst reward."""
    made: dict[str, list[Prediction]] = {}
    for row in read_jsonl(path):
        prediction = Prediction.from_row(row)
        made.setdefault(prediction.task, []).append(prediction)
    traces = []
    for task, predictions in sorted(made.items()):
        ranked = sorted(predictions, key=lambda p: (-p.reward, p.id, p.sample))
        places = {"best": 0, "middle": len(ranked) // 2, "worst": len(ranked) - 1}
        traces += [_trace(task, f"{name} reward", ranked[place]) for name, place in places.items()]
    return traces


def _trace(task: str, title: str, p: Prediction) -> Trace:
    answer = _shown(p.answer) or f"could not be read: {p.failure}"
    rebuilt = _shown(p.rebuilt) or f"nothing: {p.dual_failure or 'the answer could not be read'}"
    return Trace(task, title, p, _cut(p.response), answer, _shown(p.unknown), _shown(p.gold), rebuilt)


def _shown(value: Value | None) -> str:
    return "" if value is None else _cut(value if isinstance(value, str) else " ".join(value))


def _cut(text: str) -> str:
    return text if len(text) <= _TRACE_CHARACTERS else text[:_TRACE_CHARACTERS] + " ..."
