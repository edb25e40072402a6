"""An audit as a table for the terminal, and as Markdown."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any, TypeAlias

from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from cellduality_plugin.evaluation.tables import section_title

Finding: TypeAlias = Mapping[str, Any]

_STYLES = {"agrees": "green", "unclear": "yellow", "harmful": "red", "no signal": "red"}

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


def audit_rows(content: Mapping[str, Any]) -> dict[str, list[dict[str, str]]]:
    """Return {task: rows}, a row a reward, a cell a column; columns without a number in a task are left out."""
    tasks = {}
    for task, findings in groupby(content["findings"], key=lambda found: found["task"]):
        rows = [_row(found) for found in findings]
        kept = [name for name in rows[0] if any(row.get(name, "–") != "–" for row in rows)]
        tasks[str(task)] = [{name: row.get(name, "–") for name in kept} for row in rows]
    return tasks


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


def section_heading(findings: Sequence[Finding]) -> str:
    """Return what all contenders of a task share: how many cells, and how right the policy's own answers are."""
    first = findings[0]
    heading = f"{first['n']} cells, {first['samples']} answers each"
    if "majority_accuracy" not in first:
        return heading
    return (
        f"{heading}; accuracy / macro-F1 of the policy's likeliest answer {_pair(first, 'policy')}, "
        f"of the majority of a group {_pair(first, 'majority')}"
    )


def choice_line(content: Mapping[str, Any], task: str) -> str:
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


def _sections(content: Mapping[str, Any]) -> Iterator[tuple[str, list[dict[str, str]], list[Finding], str]]:
    """Yield the title, rows, findings and choice of each task."""
    for task, rows in audit_rows(content).items():
        found = [each for each in content["findings"] if each["task"] == task]
        yield section_title(task), rows, found, choice_line(content, task)


def audit_table(content: Mapping[str, Any]) -> Group:
    """Return the tables of ``content`` with the verdicts below, to be printed with rich."""
    shown: list[Any] = []
    for title, rows, found, choice in _sections(content):
        heading = Text(f"{title}: {section_heading(found)}", style="bold")
        table = Table(title=heading, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 0, 0, 1))
        for column in rows[0]:
            table.add_column(column, justify="left" if column == "reward" else "right", no_wrap=column == "reward")
        for row in rows:
            table.add_row(*row.values())
        shown.append(table)
        for each in found:
            said = each["verdict"]
            shown.append(Text.assemble((f"  {each['reward']}: ", "bold"), (said["words"], _STYLES[said["grade"]])))
        shown += [Text(f"  {choice}".rstrip(), style="bold"), Text()]
    return Group(*shown, Text(labels_line(content)), Text(LEGEND, style="dim"))


def audit_markdown(content: Mapping[str, Any]) -> str:
    """Return ``content`` as a Markdown page."""
    parts = ["# Audit of rewards\n", labels_line(content) + "\n", LEGEND + "\n"]
    for title, rows, found, choice in _sections(content):
        parts += [f"## {title}\n", f"{section_heading(found)}.\n"]
        if choice:
            parts.append(f"**Choice.** {choice}\n")
        parts += [_line(list(rows[0])), _line(["---"] * len(rows[0])), *(_line(list(row.values())) for row in rows), ""]
        parts += [f"- **{each['reward']}** ({each['verdict']['grade']}): {each['verdict']['words']}" for each in found]
        parts.append("")
    return "\n".join(parts)


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
