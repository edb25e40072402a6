"""A check is a small decorated function that yields findings on a run. CHECKS.md says what each finds, and why."""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from cellduality_plugin.errors import CellDualityError
from cellduality_plugin.openrlhf_hooks.doctor.flags import TRAINERS
from cellduality_plugin.openrlhf_hooks.doctor.run import Run

Severity = Literal["error", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")


@dataclass(frozen=True)
class Finding:
    """What is wrong, where (flag, file or row), what to do, and the name of the check that found it.

    An ``error``: the run fails, or trains on something else than meant. A ``warning``: likely not meant. A ``note``:
    good to know, or could not be checked here.
    """

    severity: Severity
    what: str
    where: str
    hint: str = ""
    check: str = ""


Found = Iterator[Finding]
error = functools.partial(Finding, "error")
warning = functools.partial(Finding, "warning")
note = functools.partial(Finding, "note")


def finding_of(mistake: CellDualityError, where: str = "") -> Finding:
    """Return a mistake of the user's as the error it is."""
    return error(mistake.what, mistake.where or where, mistake.hint)


@dataclass(frozen=True)
class Check:
    """A check of the runs of some ``trainers``; a mistake of the user's that it raises is a finding as well.

    Parameters of ``find`` are properties of a :class:`Run`, or ``run`` itself: it is skipped where one is None or an
    error. One that is ``always`` made has something to say where the flags could not be read.
    """

    name: str
    find: Callable[..., Found | None]
    trainers: tuple[str, ...]
    always: bool = False

    def __call__(self, run: Run) -> list[Finding]:
        """Return what it finds on ``run``."""
        if run.trainer not in self.trainers or (run.flags.args is None and not self.always):
            return []
        names = inspect.signature(self.find).parameters
        needed = {name: run if name == "run" else getattr(run, name) for name in names}
        if any(value is None or isinstance(value, CellDualityError) for value in needed.values()):
            return []
        found: list[Finding] = []
        try:
            found.extend(self.find(**needed) or ())
        except CellDualityError as mistake:
            found.append(finding_of(mistake))
        return [dataclasses.replace(finding, check=self.name) for finding in found]


def check(*trainers: str, always: bool = False) -> Callable[[Callable[..., Found | None]], Check]:
    """Make a function a check, called as it is, of the runs of ``trainers``; of all, if none is named."""
    return lambda find: Check(find.__name__, find, trainers or TRAINERS, always)
