"""What was done to a cell, as a label: operation, target and, where it matters, dose (section 3.1).

Such as ``"cytokine IFN-beta"``, ``"knockdown TP53"`` or ``"drug erlotinib 2 uM"``: one line, as prompts show it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

CONTROL = "control"  # the label of an untreated cell

_UNTREATED = frozenset({
    "control", "controls", "ctrl", "ctl", "nontargeting", "nontargetingcontrol", "nontarget", "ntc", "nt",
    "safetargeting", "negativecontrol", "negcontrol", "negctrl", "scramble", "scrambled", "scramblecontrol", "vehicle",
    "vehiclecontrol", "vehiclectrl", "dmso", "dmsocontrol", "pbs", "mock", "untreated", "unperturbed", "unstimulated",
    "unstim", "notreatment", "nontreated",
})  # fmt: skip


def means_control(label: str) -> bool:
    """Return whether ``label`` is a usual name of an untreated cell, whatever its case and its punctuation.

    Examples
    --------
    >>> [means_control(label) for label in ("Non-Targeting", "NT", "DMSO", "ctrl", "NTRK1", "knockdown CTRL2", "")]
    [True, True, True, True, False, False, False]
    """
    return "".join(filter(str.isalnum, label.casefold())) in _UNTREATED


def joined(labels: Iterable[str], controls: Collection[str] = ()) -> dict[str, str]:
    """Return {label: what it is written as}, so that one combination has one label, in whatever order it is written.

    Of several spellings the first in the alphabet is taken. ``controls`` are written :data:`CONTROL`; in a combination
    both say that nothing else was done, and are left out of it.

    Examples
    --------
    >>> joined(["TP53+KRAS", "KRAS+TP53", "drug A 2 uM+drug B 1 uM", "MYC+ctrl", "ctrl"], ["ctrl"]).values()
    dict_values(['KRAS+TP53', 'KRAS+TP53', 'drug A 2 uM+drug B 1 uM', 'MYC', 'control'])
    >>> joined(["IL-2+"])
    {'IL-2+': 'IL-2+'}
    """
    parts = {label: _parts(label, {*controls, CONTROL}) for label in labels}
    first: dict[tuple[str, ...], str] = {}
    for _, (head, rest) in sorted(parts.items()):
        first.setdefault((head, *sorted(rest)), head + "+".join(rest))
    return {label: first[(head, *sorted(rest))] for label, (head, rest) in parts.items()}


def _parts(label: str, controls: Collection[str]) -> tuple[str, list[str]]:
    """Return (the operation that the parts share, with its blank; the parts)."""
    if label in controls:
        return "", [CONTROL]
    parts = [part.strip() for part in label.split("+")]
    head, blank, first = parts[0].rpartition(" ")
    if len(parts) == 1 or not all(parts):
        return "", [label]
    if blank and not any(" " in part for part in parts[1:]):  # "knockdown TP53+KRAS"
        parts = [first, *parts[1:]]
    else:
        head, blank = "", ""
    kept = [part for part in parts if part not in controls]
    return (head + blank, kept) if kept else ("", [CONTROL])
