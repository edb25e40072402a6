"""What was done to a cell: an operation, its target and, where it matters, a dose (section 3.1)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

from cellduality_plugin.errors import CellDualityError

Operation: TypeAlias = Literal["knockdown", "overexpression", "drug", "cytokine", "control"]

OPERATIONS: tuple[Operation, ...] = get_args(Operation)

_DOSE = re.compile(r"[0-9]+(?:\.[0-9]+)? [^\s<>]+")


@dataclass(frozen=True)
class Perturbation:
    """A structured intervention p = {operation, target, dose}.

    Parameters
    ----------
    operation
        What was done. The paper has knockdown and overexpression of a gene; exposure to a drug or a cytokine and the
        untreated control are what the data sets need besides.
    target
        The gene, drug or cytokine: words with one space between. Empty for the control, which has none.
    dose
        A number and its unit, e.g. ``"2 uM"``; empty where there is one dose only, or it is not known.

    Raises
    ------
    CellDualityError
        If the parts could not be read back once they are written in one line.

    Examples
    --------
    >>> Perturbation("drug", "erlotinib", "2 uM").render()
    'drug erlotinib 2 uM'
    >>> Perturbation.parse("cytokine IFN-beta")
    Perturbation(operation='cytokine', target='IFN-beta', dose='')
    """

    operation: Operation
    target: str = ""
    dose: str = ""

    def __post_init__(self) -> None:
        control, what, hint = self.operation == "control", "", ""
        odd = " ".join(self.target.split()) != self.target or set(self.target) & set("<>")
        if self.operation not in OPERATIONS:
            what, hint = f"unknown operation {self.operation!r}", f"use one of {', '.join(OPERATIONS)}"
        elif control and (self.target or self.dose):
            what, hint = "a control has neither target nor dose", "leave both out"
        elif not control and (odd or not self.target):
            what, hint = f"target {self.target!r} is empty, or holds an angle bracket or odd white space", "rename it"
        elif self.dose and not _DOSE.fullmatch(self.dose):
            what, hint = f"dose {self.dose!r} is not a number and a unit", "write it like '2 uM'"
        elif not self.dose and _split_dose(self.target)[1]:
            what, hint = f"target {self.target!r} ends like a dose", "give the dose on its own"
        if what:
            where = f"perturbation {self.render()!r:.60}"
            raise CellDualityError(what, code="wrong-perturbation", where=where, hint=hint)

    def render(self) -> str:
        """Return the label: one line, as prompts show it and answers give it."""
        return " ".join(part for part in (self.operation, self.target, self.dose) if part)

    @classmethod
    def parse(cls, text: str) -> Perturbation:
        """Return the perturbation that :meth:`render` wrote as ``text``; a CellDualityError if it is no such label."""
        operation, _, rest = text.partition(" ")
        target, dose = _split_dose(rest)
        return cls(operation, target, dose)  # type: ignore[arg-type]  # checked by the class itself


def _split_dose(text: str) -> tuple[str, str]:
    """Return (target, dose) of the part behind the operation."""
    words = text.split(" ")
    dose = " ".join(words[-2:])
    return (" ".join(words[:-2]), dose) if len(words) > 2 and _DOSE.fullmatch(dose) else (text, "")


CONTROL = Perturbation("control").render()
"""The label of an untreated cell."""
