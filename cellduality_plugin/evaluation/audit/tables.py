"""An audit as Markdown, and its parts for the report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any, TypeAlias

from cellduality_plugin.evaluation.tables import section_title

Finding: TypeAlias = Mapping[str, Any]

LEGEND = (
    "AUC: the true answer against wrong ones, as a rollout is paid, with its 95 % interval (all masks: paid the mean "
    "over all masks of the audit). product: accuracy / macro-F1 of the label whose votes in a group times reward are "
    "most, to which training leads; choice: of the label that is paid most of all. group: agreement with the truth "
    "among the policy's own answers (labels: AUC of right against wrong; cells: Spearman with what most of their "
    "nearest real cells are). best paid: how true the best paid answer of a group is (the mean of all). "
    "flat: groups whose answers are all paid the same. S/N: variance over answers by variance over masks. paid: the "
    "true answer / that of a random other cell / one that adds nothing. asked, read, written, ms: dual requests, "
    "tokens prefilled and decoded, and time of one rollout under one mask."
)


def audit_sections(content: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return of each task its ``name``, ``findings``, ``heading`` and ``choice``, and ``rows``, one a reward.

    Columns of rows without a number in a task are left out.
    """
    sections = []
    for task, grouped in groupby(content["findings"], key=lambda found: found["task"]):
        findings = list(grouped)
        rows = [_row(found) for found in findings]
        kept = [name for name in rows[0] if any(row.get(name, "–") != "–" for row in rows)]
        sections.append(
            {
                "name": section_title(task),
                "rows": [{name: row.get(name, "–") for name in kept} for row in rows],
                "findings": findings,
                "heading": _heading(findings[0]),
                "choice": _choice(content, task),
            }
        )
    return sections


def _row(found: Finding) -> dict[str, str]:
    cost, several = found["cost"], found["masks"] > found["masks_of_a_rollout"]
    auc = _value(found, "auc")
    if found["auc"]["value"] is not None:
        auc += " ({:.2f}–{:.2f})".format(*found["auc"]["interval"])
    return {
        "reward": found["reward"],
        "AUC": auc,
        "all masks": _value(found, "auc_all_masks") if several else "–",
        **{way: _pair(found, way) for way in ("product", "choice") if f"{way}_accuracy" in found},
        "group": _value(found, "group_agreement"),
        "best paid": f"{_value(found, 'best_of_group')} ({_value(found, 'mean_of_group')})",
        "flat": _value(found, "zero_variance"),
        "S/N": _number(found["signal_to_noise"], 1),
        "paid": " / ".join(_value(found, f"{name}_reward") for name in ("true", "shuffled", "observed_only")),
        "asked": _number(cost["requests"]),
        "read": _number(cost["prefilled"], 0),
        "written": _number(cost["decoded"], 0),
        "ms": _number(1000 * cost["seconds"], 0),
    }


def _pair(found: Finding, who: str) -> str:
    return f"{_value(found, f'{who}_accuracy')} / {_value(found, f'{who}_macro_f1')}"


def _value(found: Finding, name: str) -> str:
    return _number(found[name]["value"])


def _number(value: float | None, digits: int = 2) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


def _heading(first: Finding) -> str:
    """Return what all contenders of a task share: how many cells, and how right the policy's own answers are."""
    heading = f"{first['n']} cells, {first['samples']} answers each"
    if "majority_accuracy" not in first:
        return heading
    return (
        f"{heading}; accuracy / macro-F1 of the policy's likeliest answer {_pair(first, 'policy')}, "
        f"of the majority of a group {_pair(first, 'majority')}"
    )


def _choice(content: Mapping[str, Any], task: str) -> str:
    """Return what ``task`` is trained with and why; empty if the audit chose nothing."""
    chosen = content.get("choice", {}).get(task)
    if chosen is None:
        return ""
    return f"{'Trained with ' + chosen['reward'] if chosen['reward'] else 'Stays out'}: {chosen['why']}"


def labels_line(content: Mapping[str, Any]) -> str:
    """Return how many validation cells had their label read, by data set."""
    used = content["labels_used"]
    by_set = ", ".join(f"{name} {count}" for name, count in used.items())
    return f"The labels of {sum(used.values())} validation cells were read ({by_set}). {content['seconds']:.0f} s."


def audit_markdown(content: Mapping[str, Any]) -> str:
    """Return ``content`` as a Markdown page."""
    parts = ["# Audit of rewards\n", labels_line(content) + "\n", LEGEND + "\n"]
    for section in audit_sections(content):
        parts += [f"## {section['name']}\n", f"{section['heading']}.\n"]
        parts += [f"**Choice.** {section['choice']}\n"] if section["choice"] else []
        said = [(each["reward"], each["verdict"]) for each in section["findings"]]
        lines = [f"- **{reward}** ({verdict['grade']}): {verdict['words']}" for reward, verdict in said]
        parts += [*_table(section["rows"]), "", *lines, ""]
    return "\n".join(parts)


def _table(rows: Sequence[Mapping[str, str]]) -> list[str]:
    """Return the lines of a Markdown table, its columns aligned for the terminal."""
    lines = [[cell.replace("|", "\\|") for cell in cells] for cells in (rows[0], *(row.values() for row in rows))]
    widths = [max(3, *map(len, column)) for column in zip(*lines, strict=True)]
    lines.insert(1, ["-" * width for width in widths])
    return [f"| {' | '.join(map(str.ljust, cells, widths))} |" for cells in lines]
