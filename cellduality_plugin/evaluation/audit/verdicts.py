"""An audit in words: what training on a reward is expected to do, which one a task is trained with, and audit.md."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import groupby
from typing import Any, TypeAlias

import numpy as np

from cellduality_plugin.config import Config
from cellduality_plugin.evaluation.audit.answers import Contender
from cellduality_plugin.evaluation.audit.findings import Counting
from cellduality_plugin.evaluation.tables import markdown, section_title
from cellduality_plugin.rewards import get_reward

Finding: TypeAlias = Mapping[str, Any]

FLAT_GROUPS = 0.9
"""Share of groups without spread from which on there is no signal."""
WIDE_INTERVAL = 0.3
"""Width of an AUC's interval, about what fewer than ten cells give, past which the cells are too few to tell."""
WIDE_GAIN = 0.1
"""The same of a gain: one of a twentieth, which would be worth a run, could not be seen."""
AS_CHEAP = 1.25
"""A contender that takes up to this times the tokens of another is as cheap: prompts differ in length by less."""
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


def verdict(finding: Finding) -> tuple[str, str]:
    """Return the grade (agrees, unclear, harmful or no signal) of one (task, reward), and the words for it.

    In this order, by 95 % intervals over cells:

    1. At least :data:`FLAT_GROUPS` of the groups without spread: no signal.
    2. The AUC holds 0.5: no signal, or unclear if wider than :data:`WIDE_INTERVAL`. All of it below: harmful.
    3. ``product_gain`` (labels) or ``group_gain`` all below 0: harmful. Either all above 0: agrees. Else unclear.
    """
    flat, auc = finding["zero_variance"]["value"], finding["auc"]
    if flat is not None and flat >= FLAT_GROUPS:
        alike = finding["same_answers"]["value"]
        why = f" (in {_percent(alike)} the policy gives one answer only)" if alike else ""
        return "no signal", f"no signal: zero-variance groups {_percent(flat)}{why}"
    if auc["value"] is None:
        return "no signal", "no signal: there was no wrong answer to tell the true one from"
    low, high = auc["interval"]
    area = f"AUC {auc['value']:.2f}, {low:.2f} to {high:.2f}"
    if high < 0.5:
        return "harmful", f"prefers wrong answers ({area}): training on this reward is expected to do harm"
    if low <= 0.5 and high - low > WIDE_INTERVAL:
        return "unclear", f"too few cells to tell ({area}): audit more"
    if low <= 0.5:
        return "no signal", f"no signal: does not tell the true answer from wrong ones ({area})"
    gains = _gains(finding)
    if not gains:
        return "unclear", f"no answer of the policy could be read, to see what it does among them ({area})"
    for (_, high), words in gains:
        if high < 0:
            return "harmful", f"{words}: training on this reward is expected to do harm"
    if above := [words for (low, _), words in gains if low > 0]:
        return "agrees", f"agrees with the truth ({area}); {'; '.join(above)}"
    seen = "; ".join(words for _, words in gains)
    if any(high - low > WIDE_GAIN for (low, high), _ in gains):
        return "unclear", f"too few cells to tell: {seen}: audit more"
    return "unclear", f"tells true answers from wrong ones ({area}), but not among the policy's own: {seen}"


def _gains(finding: Finding) -> list[tuple[tuple[float, float], str]]:
    """Return the interval of each gain that is known, with the words for it."""
    words = {
        "product_gain": "votes times reward name {product_accuracy} of the cells right, the majority "
        "{majority_accuracy}",
        "group_gain": "{best_of_group} of the best paid of a group are right, {mean_of_group} of all"
        if finding["truth"] == "correct"
        else "near the best paid cell of a group {best_of_group} of real cells are of the right condition, "
        "near all {mean_of_group}",
    }
    known = {name: each for name, each in finding.items() if isinstance(each, Mapping) and each.get("interval")}
    shares = {name: _percent(each["value"]) for name, each in known.items()}
    gains = [(known[name]["interval"], said.format(**shares)) for name, said in words.items() if name in known]
    return [((low, high), f"{said} (gain {100 * low:+.1f} to {100 * high:+.1f})") for (low, high), said in gains]


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def choices(content: Mapping[str, Any], config: Config) -> dict[str, dict[str, Any]]:
    """Return what each task of ``config`` is trained with by an audit (:func:`choose`), and its :func:`namer`.

    A task that could not be audited keeps what it has. A reward that needs the true answers is no choice.
    """
    how, chosen = Counting(content["settings"]["seed"], content["settings"]["resamples"]), {}
    for name, task in config.tasks.items():
        found = [each for each in content["findings"] if each["task"] == name]
        fit = [each for each in found if not get_reward(each["contender"]["reward"], config.folder).needs_gold]
        kept, why = Contender(task.reward, task.hidden, task.traces), "as configured: it could not be audited"
        chosen[name] = choose(fit, how) if found else {"reward": kept.title, "contender": asdict(kept), "why": why}
        if names := namer(fit):
            chosen[name]["namer"] = names
    return chosen


def namer(findings: Sequence[Finding]) -> dict[str, Any] | None:
    """Return who names cells without a label, or None where the answer of the task is no label.

    That is the ``contender`` that judges, whether the policy's ``votes`` are weighed by it or it names alone (one that
    asks no dual), its ``accuracy``, and ``why``. Of the ways within one standard error of the best (Breiman 1984,
    section 3.4.3), paired by cell, it is the first: alone before votes.
    """
    labels = [found for found in findings if "choice_of_cells" in found]
    ways = [(found, "choice") for found in labels if not found["cost"]["requests"]]
    ways += [(found, "score") for found in labels]
    if not ways:
        return None
    right = np.array([found[f"{way}_of_cells"] for found, way in ways], dtype=float)
    behind = right[right.mean(axis=1).argmax()] - right
    at = int((behind.mean(axis=1) <= behind.std(axis=1) / np.sqrt(right.shape[1])).argmax())
    shares = right.mean(axis=1).tolist()
    names = [found["reward"] + " x votes" * (way == "score") for found, way in ways]
    said = [f"{name} {share:.2f}" for name, share in zip(names, shares, strict=True)]
    others = ", ".join(said[:at] + said[at + 1 :])
    why = f"{said[at]} of these cells right" + (f" ({others})" if others else "")
    found, way = ways[at]
    return {"contender": found["contender"], "votes": way == "score", "accuracy": shares[at], "why": why}


def choose(findings: Sequence[Finding], how: Counting) -> dict[str, Any]:
    """Return what a task is trained with: of the contenders graded ``agrees`` the one of the highest score.

    That is the title of the ``reward``, empty if the task stays out, the ``contender`` (None), and ``why``. Of those
    within the noise (the 95 % interval of the paired difference over cells holds 0) one that asks the policy's own dual
    is preferred, then one that takes fewer tokens by more than :data:`AS_CHEAP`. ``findings`` are of one task.
    """
    fit = [found for found in findings if found["verdict"]["grade"] == "agrees"]
    if not fit:
        grades = Counter(found["verdict"]["grade"] for found in findings)
        counts = ", ".join(f"{count} {grade}" for grade, count in grades.items())
        why = f"no reward agrees with the truth ({counts or 'none was audited'})"
        return {"reward": "", "contender": None, "why": why}
    best = max(fit, key=_score)

    def near(found: Finding) -> bool:
        gaps = np.subtract(*(np.array(each["score_of_cells"], dtype=float) for each in (best, found)))
        interval = how.mean(gaps)["interval"]
        return found is best or interval is None or interval[0] <= 0

    among = [found for found in fit if near(found)]
    own = [found for found in among if found["cost"]["requests"]] or among
    least = min(map(_tokens, own))
    picked = max((found for found in own if _tokens(found) <= AS_CHEAP * least), key=_score)
    why = picked["verdict"]["words"]
    if picked is not best:
        virtue = "asks the policy's own dual" if not best["cost"]["requests"] else "takes fewer tokens"
        scores = f"{best['reward']} scores {_score(best):.3f} to {_score(picked):.3f}, within the noise"
        why += f"; {scores}: this one {virtue}"
    return {"reward": picked["reward"], "contender": picked["contender"], "why": why}


def _score(found: Finding) -> float:
    return float(np.nanmean(np.array(found["score_of_cells"], dtype=float)))


def _tokens(found: Finding) -> float:
    return float(found["cost"]["prefilled"] + found["cost"]["decoded"])


def audit_sections(content: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return of each task its ``name``, ``findings``, ``heading``, ``choice`` or none, and ``rows``, one a reward.

    Columns without a number in a task are left out.
    """
    sections = []
    for task, grouped in groupby(content["findings"], key=lambda found: found["task"]):
        findings = list(grouped)
        first, rows = findings[0], [_row(found) for found in findings]
        kept = [name for name in rows[0] if any(row[name] != "–" for row in rows)]
        heading, choice = f"{first['n']} cells, {first['samples']} answers each", ""
        if "majority_accuracy" in first:
            heading += f"; accuracy / macro-F1 of the policy's likeliest answer {_pair(first, 'policy')}, "
            heading += f"of the majority of a group {_pair(first, 'majority')}"
        if chosen := content.get("choice", {}).get(task):
            choice = f"{'Trained with ' + chosen['reward'] if chosen['reward'] else 'Stays out'}: {chosen['why']}"
            if names := chosen.get("namer"):
                choice += f". Cells without a label would be named by {names['why']}"
        own = {"findings": findings, "heading": heading, "choice": choice}
        sections.append(
            {"name": section_title(task), "rows": [{name: row[name] for name in kept} for row in rows], **own}
        )
    return sections


def _row(found: Finding) -> dict[str, str]:
    cost, auc = found["cost"], _value(found, "auc")
    if found["auc"]["value"] is not None:
        auc += " ({:.2f}–{:.2f})".format(*found["auc"]["interval"])
    return {
        "reward": found["reward"],
        "AUC": auc,
        "all masks": _value(found, "auc_all_masks") if found["masks"] > found["masks_of_a_rollout"] else "–",
        "product": _pair(found, "product"),
        "choice": _pair(found, "choice"),
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
    """Return accuracy / macro-F1 of a way to name a label, a dash where the answer is none."""
    if f"{who}_accuracy" not in found:
        return "–"
    return f"{_value(found, f'{who}_accuracy')} / {_value(found, f'{who}_macro_f1')}"


def _value(found: Finding, name: str) -> str:
    return _number(found[name]["value"])


def _number(value: float | None, digits: int = 2) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


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
        parts.append(markdown([*section["rows"][0]], *([*row.values()] for row in section["rows"])))
        said = [(each["reward"], each["verdict"]) for each in section["findings"]]
        parts += ["", *(f"- **{reward}** ({it['grade']}): {it['words']}" for reward, it in said), ""]
    return "\n".join(parts)
