"""One HTML file that tells what a run achieved; it loads nothing from anywhere and runs no script."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cellduality_plugin import __version__
from cellduality_plugin.alarms import alarms, steps_of
from cellduality_plugin.errors import CellDualityError
from cellduality_plugin.evaluation import figure2, plots
from cellduality_plugin.evaluation.audit.run import read_audit
from cellduality_plugin.evaluation.audit.tables import LEGEND, audit_rows, choice_line, labels_line, section_heading
from cellduality_plugin.evaluation.curves import chosen, divided, read_curves
from cellduality_plugin.evaluation.evaluate import FORMAT, VERSION
from cellduality_plugin.evaluation.page.failures import hollow, unreadable, wrong_labels
from cellduality_plugin.evaluation.page.maps import Map, maps_of_points, umaps
from cellduality_plugin.evaluation.page.repeat import needed_to_repeat, sections_of
from cellduality_plugin.evaluation.page.rollouts import examples
from cellduality_plugin.evaluation.page.summary import headlines, sentences
from cellduality_plugin.evaluation.page.tables import confusions, section_tables
from cellduality_plugin.evaluation.predictions import Prediction
from cellduality_plugin.evaluation.sections import Section
from cellduality_plugin.evaluation.tables import section_title, told_wins, written
from cellduality_plugin.evaluation.winners import baseline_wins
from cellduality_plugin.files import read_jsonl, write_text
from cellduality_plugin.tasks import TASKS, DualTask

TEMPLATE = "report.html.j2"
NO_DATA = "A UMAP needs the cells themselves: give --data, the prepared folder."
NO_UMAP = "A UMAP needs umap-learn: pip install 'cellduality[eval]'."


def write_report(
    run: Path,
    out: Path,
    curves: Mapping[str, Path] | None = None,
    title: str = "CellDuality",
    audit: Path | None = None,
    data: Path | None = None,
    tasks: Mapping[str, DualTask] = TASKS,
    commands: Path | None = None,
    window: int = 5,
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
    data
        The prepared folder that was evaluated: for the UMAP, the questions, and whether generated cells are what the
        dual takes them for. Without it the page shows the principal components that the evaluation wrote.
    tasks
        The dual pairs by the name that rows give.
    commands
        A folder with ``STAGE.command`` files: what was run, in the order in which they were written.
    window
        Steps of the moving average of Figure 2.

    Raises
    ------
    CellDualityError
        If the run has no metrics, ``data`` is not what was evaluated, or a package of the extra ``eval`` is missing.
    """
    try:
        import jinja2
        import matplotlib as mpl
    except ImportError as error:
        raise CellDualityError(f"cannot import {error.name}", mend="pip install 'cellduality[eval]'") from error
    mpl.use("svg")
    metrics = read_metrics(run / "metrics.json")
    audited = read_audit(audit) if audit is not None and audit.is_file() else {}
    repeat = needed_to_repeat(metrics, data, commands)
    if choice := audited.get("choice"):
        repeat["rewards"] = {task: each["reward"] or "nothing (it stayed out)" for task, each in choice.items()}
    checkpoints = [name for name, column in metrics["columns"].items() if column["kind"] == "checkpoint"]
    made = {name: _predictions(run / "predictions" / f"{name}.jsonl") for name in checkpoints}
    sections = None if data is None else sections_of(metrics, data, tasks)
    last = made[checkpoints[-1]] if checkpoints else []
    found = headlines(metrics, checkpoints) if checkpoints else []
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "page"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["written"] = written
    environment.filters["section_title"] = section_title
    page = environment.get_template(TEMPLATE).render(
        title=title,
        version=__version__,
        legend=LEGEND,
        metrics=metrics,
        checkpoints=checkpoints,
        headlines=found,
        sentences=sentences(found, checkpoints) if found else [],
        tables=section_tables(metrics),
        told_wins=told_wins(*baseline_wins(metrics)),
        curves=[_curve_section(place, *item, window) for place, item in enumerate((curves or {}).items())],
        window=window,
        audit=_audit_sections(audited),
        labels_read=labels_line(audited) if audited else "",
        confusions=confusions(metrics, checkpoints),
        maps=_maps(run, metrics, checkpoints, made, sections),
        traces=examples(last, sections),
        unreadable=unreadable(made),
        wrong=wrong_labels(last, sections),
        hollow=hollow(last, sections),
        no_data=data is None,
        repeat=repeat,
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


def _audit_sections(content: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return of each task of an audit its title, its table, what was said of each reward and chosen, and a plot."""
    sections: list[dict[str, Any]] = []
    if not content:
        return sections
    for place, (task, rows) in enumerate(audit_rows(content).items()):
        found = [each for each in content["findings"] if each["task"] == task]
        plot = plots.plot_audit(f"audit{place}", "", found)
        told = {"heading": section_heading(found), "choice": choice_line(content, task)}
        sections.append({"name": section_title(task), "rows": rows, "findings": found, "plot": plot, **told})
    return sections


def _predictions(path: Path) -> list[Prediction]:
    """Return the answers that headline metrics are of: where a row was answered greedily, too, not the drawn ones."""
    found = [Prediction.from_row(row) for row in read_jsonl(path)]
    greedy = {(p.task, p.id) for p in found if not p.drawn}
    return [p for p in found if not p.drawn or (p.task, p.id) not in greedy]


def _maps(
    run: Path,
    metrics: Mapping[str, Any],
    checkpoints: Sequence[str],
    made: Mapping[str, Sequence[Prediction]],
    sections: Sequence[Section] | None,
) -> list[Map]:
    if sections is None:
        return maps_of_points(run / "points.jsonl", checkpoints, NO_DATA)
    try:
        return umaps(sections, made, metrics["settings"]["seed"])
    except ImportError:
        return maps_of_points(run / "points.jsonl", checkpoints, NO_UMAP)


def _curve_section(place: int, name: str, source: Path, window: int) -> dict[str, Any]:
    try:
        found = read_curves(source)
    except CellDualityError as error:
        return {"name": name, "note": str(error), "plots": [], "alarms": [], "families": {}, "gold": False}
    finite = {key: [p for p in points if math.isfinite(p[1])] for key, points in divided(found).items()}
    drawn = plots.plot_curves(f"curve{place}", chosen(finite))
    panels = figure2.panels([found], window)
    families = {
        family: [plots.plot_panel(f"figure2-{place}-{panel.task}", panel) for panel in own]
        for family, own in figure2.by_family(panels).items()
    }
    return {
        "name": name,
        "note": "" if drawn else "No curves were recorded.",
        "plots": drawn,
        "alarms": alarms(steps_of(found)),
        "families": families,
        "gold": any(panel.truth for panel in panels),
    }
