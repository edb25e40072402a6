"""What was done to a cell, as a label: operation, target and, where it matters, dose (section 3.1).

Such as ``"cytokine IFN-beta"``, ``"knockdown TP53"`` or ``"drug erlotinib 2 uM"``: one line, as prompts show it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable

KIND = "perturbation"  # the label set whose labels are structured so
FORM = (
    "Write operation, target and, where it matters, dose; the parts of a combination in any order, a + between them; "
    "and control if nothing was done"
)
"""How a question asks for a label that it does not list."""

CONTROL = "control"  # the label of an untreated cell

_DOSE = re.compile(r"\s(\d+(?:\.\d+)?(?:e[+-]?\d+)?)\s*([pnu\u03bcm]?)m$", re.IGNORECASE)
# A + before a dose belongs to a name: "drug Ca2+ 5 mM".
_PLUS = re.compile(r"\+(?!\s*\d[\d.]*\s*[pnu\u03bcm]?m\b)", re.IGNORECASE)
_MOLAR = {"p": 1e-12, "n": 1e-9, "u": 1e-6, "\u03bc": 1e-6, "m": 1e-3, "": 1.0}

_UNTREATED = frozenset({
    "control", "controls", "ctrl", "ctl", "nontargeting", "nontargetingcontrol", "nontarget", "ntc", "nt",
    "safetargeting", "negativecontrol", "negcontrol", "negctrl", "scramble", "scrambled", "scramblecontrol", "vehicle",
    "vehiclecontrol", "vehiclectrl", "dmso", "dmsocontrol", "pbs", "mock", "untreated", "unperturbed", "unstimulated",
    "unstim", "notreatment", "nontreated",
})  # fmt: skip


LONG = 5  # letters at most that may begin a gene's name, which a number then makes: NT5, CTRL2


def means_control(label: str) -> bool:
    """Return whether ``label`` is a usual name of an untreated cell, whatever its case, punctuation and number.

    Examples
    --------
    >>> [means_control(label) for label in ("Non-Targeting_07", "NT", "DMSO", "NegCtrl3", "NT5", "knockdown CTRL2", "")]
    [True, True, True, True, False, False, False]
    """
    name = "".join(filter(str.isalnum, label.casefold()))
    unnumbered = name.rstrip("0123456789")
    return name in _UNTREATED or (len(unnumbered) > LONG and unnumbered in _UNTREATED)


def joined(labels: Iterable[str], controls: Collection[str] = ()) -> dict[str, str]:
    """Return {label: what it is written as}, so that one combination has one label, in whatever order it is written.

    What is named twice is done once. Of several spellings the first in the alphabet is taken. ``controls`` are written
    :data:`CONTROL`; in a combination both say that nothing else was done, and are left out of it.

    Examples
    --------
    >>> joined(["TP53+KRAS", "KRAS+TP53", "drug A 2 uM+drug B 1 uM", "MYC+ctrl", "ctrl"], ["ctrl"]).values()
    dict_values(['KRAS+TP53', 'KRAS+TP53', 'drug A 2 uM+drug B 1 uM', 'MYC', 'control'])
    >>> joined(["IL-2+", "drug Ca2+ 5 mM", "TP53+TP53", "knockdown A+knockdown B", "knockdown B + A"]).values()
    dict_values(['IL-2+', 'drug Ca2+ 5 mM', 'TP53', 'knockdown A+B', 'knockdown A+B'])
    """
    parts = {label: _parts(label, {*controls, CONTROL}.__contains__) for label in labels}
    first: dict[tuple[str, ...], str] = {}
    for _, (head, rest) in sorted(parts.items()):
        first.setdefault((head, *sorted(rest)), head + "+".join(rest))
    return {label: first[(head, *sorted(rest))] for label, (head, rest) in parts.items()}


def canonical(label: str) -> str:
    """Return one form of all labels that say the same: whatever the case, the order of a combination, the usual name
    of an untreated cell, and the unit of a molar dose.

    Examples
    --------
    >>> canonical("Knockdown TP53 + KRAS") == canonical("knockdown kras+tp53")
    True
    >>> canonical("drug A 2 uM+drug B 1.0 nM") == canonical("drug b 0.001 µM + Drug A 2000nM"), canonical("DMSO")
    (True, 'control')
    """
    head, parts = _parts(" ".join(label.casefold().split()), means_control)
    return head + "+".join(
        sorted({_DOSE.sub(lambda dose: f" {float(dose[1]) * _MOLAR[dose[2]]:.6g} m", p) for p in parts})
    )


def _parts(label: str, is_control: Callable[[str], bool]) -> tuple[str, list[str]]:
    """Return (the operation that the parts share, with its blank; the parts)."""
    if is_control(label):
        return "", [CONTROL]
    parts = [part.strip() for part in _PLUS.split(label)]
    head, blank, first = parts[0].rpartition(" ")
    if len(parts) == 1 or not all(parts):
        return "", [label]
    others = [part.removeprefix(head + blank) for part in parts[1:]]
    # "knockdown TP53+KRAS", "knockdown TP53+knockdown KRAS"
    if blank and not any(" " in part for part in others) and not _DOSE.search(parts[0]):
        parts = [first, *others]
    else:
        head, blank = "", ""
    kept = [part for part in dict.fromkeys(parts) if not is_control(part)]
    return (head + blank, kept) if kept else ("", [CONTROL])
