"""What was done to a cell, as a label: operation, target and, where it matters, dose (section 3.1).

Such as ``"cytokine IFN-beta"``, ``"knockdown TP53"`` or ``"drug erlotinib 2 uM"``: one line, as prompts show it.
"""

from __future__ import annotations

CONTROL = "control"
"""The label of an untreated cell."""

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
