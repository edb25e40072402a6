"""One HTML file that tells what a run achieved; it loads nothing from anywhere and runs no script."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cellduality_plugin import __version__
from cellduality_plugin.alarms import alarms, steps_of
from cellduality_plugin.errors import CellDualityError, needs_extra
from cellduality_plugin.evaluation import confidence, plots, tables
from cellduality_plugin.evaluation.audit.run import read_audit
from cellduality_plugin.evaluation.audit.verdicts import LEGEND, audit_sections, labels_line
from cellduality_plugin.evaluation.curves import chosen, divided, panels, read_curves
from cellduality_plugin.evaluation.evaluate import FORMAT, VERSION
from cellduality_plugin.evaluation.generated import maps_of
from cellduality_plugin.evaluation.page import results
from cellduality_plugin.evaluation.predictions import Prediction, Rows, counted, file_hash
from cellduality_plugin.evaluation.sections import rows_by_section
from cellduality_plugin.evaluation.tables import columns_of, section_title, written
from cellduality_plugin.files import read_jsonl, read_versioned, write_text
from cellduality_plugin.tasks import TASKS, DualTask


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

    ``run`` is what :func:`.evaluate.evaluate` wrote, maybe with ``confidence.json``. ``curves`` are TensorBoard folders
    or training logs by the name of their section, ``audit`` is an ``audit.json``, ``commands`` a folder with
    ``STAGE.command`` files. ``data`` is the prepared folder that was evaluated (a CellDualityError if it is another),
    ``tasks`` are its dual pairs. ``window`` are the steps of the moving average of Figure 2.
    """
    with needs_extra("eval"):
        import jinja2
    loader = jinja2.FileSystemLoader(Path(__file__).parent / "page")
    how: Any = {"undefined": jinja2.StrictUndefined, "trim_blocks": True, "lstrip_blocks": True}
    environment = jinja2.Environment(loader=loader, autoescape=True, **how)
    filters = (results.marked, results.cut, written, section_title)
    environment.filters |= {each.__name__: each for each in filters}
    metrics = read_metrics(run / "metrics.json")
    audited = read_audit(audit) if audit is not None and audit.is_file() else {}
    repeat = needed_to_repeat(metrics, data, commands)
    if choice := audited.get("choice"):
        repeat["rewards"] = {task: each["reward"] or "nothing (it stayed out)" for task, each in choice.items()}
    page = environment.get_template("report.html.j2").render(
        title=title,
        version=__version__,
        metrics=metrics,
        tables=results.section_tables(metrics),
        wins_line=tables.wins_line(metrics),
        curves=[_curve_section(place, *item, window) for place, item in enumerate((curves or {}).items())],
        window=window,
        confidence=_confidence(run / "confidence.json"),
        audit=[
            section | {"plot": plots.plot_audit(f"audit{place}", section["findings"])}
            for place, section in enumerate(audit_sections(audited) if audited else ())
        ],
        labels_read=labels_line(audited) if audited else "",
        legend=LEGEND,
        repeat=repeat,
        **_answers(run, metrics, {} if data is None else questions_of(metrics, data, tasks)),
    )
    write_text(out, page)
    return out


def _answers(run: Path, metrics: Mapping[str, Any], questions: Mapping[str, Rows]) -> dict[str, Any]:
    """Return what the page shows of the checkpoints' answers."""
    checkpoints, pair = columns_of(metrics, "checkpoint"), tables.compared(metrics)
    files = {name: run / "predictions" / f"{name}.jsonl" for name in checkpoints}
    made = {name: counted(map(Prediction.from_row, read_jsonl(file))) for name, file in files.items()}
    points, headlines = list(read_jsonl(run / "points.jsonl")), tables.headlines(metrics)
    answers = results.by_section(made[checkpoints[-1]] if checkpoints else [], questions)
    own = [row for row in points if row["column"] in checkpoints[-1:]]
    return {
        "checkpoints": checkpoints,
        "headlines": headlines,
        "compared": pair,
        "sentences": tables.sentences(headlines, pair) if pair else [],
        "confusions": results.confusions(metrics, checkpoints),
        "maps": maps_of(points, metrics, checkpoints),
        "traces": results.examples(answers, questions),
        "unreadable": results.unreadable(made),
        "wrong": results.wrong_labels(answers),
        "hollow": results.hollow(answers, own, metrics["settings"]["neighbours"][0], questions),
    }


def read_metrics(path: Path) -> dict[str, Any]:
    """Return the content of a metrics file; a CellDualityError if it is missing or malformed."""
    return read_versioned(path, FORMAT, VERSION, what="metrics", hint="evaluate first (cellduality evaluate)")


def questions_of(metrics: Mapping[str, Any], data: Path, tasks: Mapping[str, DualTask]) -> dict[str, Rows]:
    """Return the rows that ``metrics`` are about, by section; a CellDualityError if ``data`` was not evaluated."""
    for name, known in metrics["provenance"]["data"].items():
        path = data / name
        if not path.is_file() or file_hash(path) != known:
            what = "not what was evaluated" if path.is_file() else "no such file"
            hint = "give the prepared folder of this evaluation with --data, or evaluate again"
            raise CellDualityError(what, code="other-data", where=str(path), hint=hint)
    return rows_by_section(data, metrics["split"], tasks, metrics["settings"]["rows"])


def needed_to_repeat(metrics: Mapping[str, Any], data: Path | None, commands: Path | None) -> dict[str, Any]:
    """Return commands, rewards, seeds, sources and whole settings, as the page shows them."""
    names = "cells.jsonl.manifest.json", "cellduality.json"
    manifest, configured = (_json(data / name) if data else {} for name in names)
    seeds = {"evaluation": metrics["settings"]["seed"], "answers": metrics["settings"]["prediction"]["seed"]}
    if "seed" in manifest:
        seeds["data (split, labelled cells, masks)"] = manifest["seed"]
    settings = {
        "evaluation settings": metrics["settings"],
        "preparation of the data": manifest,
        "tasks and rewards (cellduality.json)": configured,
        "checkpoints": metrics["provenance"]["models"],
    }
    ran = sorted(commands.glob("*.command"), key=lambda path: (path.stat().st_mtime, path.name)) if commands else []
    stages = {path.stem: path.read_text(encoding="utf-8").strip() for path in ran}
    stages = stages or {"evaluate": shlex.join(metrics["provenance"]["command"])}
    return {
        "commands": {stage: without_secrets(command) for stage, command in stages.items()},
        "rewards": {task: own["reward"] for task, own in configured.get("tasks", {}).items()},
        "seeds": seeds,
        "sources": [str(manifest[key]) for key in ("source", "source_sha256") if key in manifest],
        "settings": {name: json.dumps(own, indent=2, ensure_ascii=False) for name, own in settings.items() if own},
    }


_SECRET = re.compile(
    r"""((?:api[._-]?|wandb[._-])key|[._-]token|password|secret)(\\?["']?[\s=:\\]+["']?)[^\s"'\\]+""", re.IGNORECASE
)


def without_secrets(command: str) -> str:
    """Return a command without the keys, tokens and passwords it was given: a page is made to be handed on."""
    return _SECRET.sub(r"\1\2***", command)


def _json(path: Path) -> dict[str, Any]:
    """Return the object in ``path``, empty if there is none: what is not there is not shown."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError as error:
        hint = "prepare the data again"
        raise CellDualityError(f"not JSON: {error}", code="not-json", where=str(path), hint=hint) from error
    return content if isinstance(content, dict) else {}


def _confidence(path: Path) -> dict[str, Any]:
    """Return what `cellduality calibrate` measured, with two plots; empty if it did not."""
    if not path.is_file():
        return {}
    hint = "measure again (cellduality calibrate --split test)"
    content = read_versioned(path, confidence.FORMAT, confidence.VERSION, what="measures of confidence", hint=hint)
    return content | {"section": section_title(content["task"]), "plots": plots.plot_confidence("confidence", content)}


def _curve_section(place: int, name: str, source: Path, window: int) -> dict[str, Any]:
    """Return of one source of curves its name, alarms, Figure 2 by family, and a plot a curve; or what is missing."""
    section: dict[str, Any] = {"name": name, "note": "", "plots": [], "alarms": [], "families": {}, "gold": False}
    try:
        found = read_curves(source)
    except CellDualityError as error:
        return section | {"note": str(error)}
    shown = enumerate(chosen(divided(found)).items())
    drawn = [plots.plot_curve(f"curve{place}-{number}", *curve) for number, curve in shown]
    section |= {"plots": drawn, "note": "" if drawn else "No curves were recorded.", "alarms": alarms(steps_of(found))}
    for panel in panels([found], window):
        plot = plots.plot_panel(f"figure2-{place}-{panel.task}", panel)
        section["families"].setdefault(panel.family, []).append(plot)
        section["gold"] |= bool(panel.truth)
    return section
