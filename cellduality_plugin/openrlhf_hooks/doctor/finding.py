"""One thing a check has to say."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Literal

from cellduality_plugin.errors import CellDualityError

Severity = Literal["error", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")
"""From what ends or spoils a run to what could not be checked."""


@dataclass(frozen=True)
class Finding:
    """What is the matter, where, and how to mend it.

    Parameters
    ----------
    severity
        ``error``: the run fails, or trains on something else than meant. ``warning``: likely not meant.
        ``note``: good to know, or could not be checked here.
    what
        In a few words, with the offending value.
    where
        The flag, file or row.
    mend
        What can be done about it; empty where there is nothing to do.
    check
        The check that says so.
    """

    severity: Severity
    what: str
    where: str
    mend: str = ""
    check: str = ""

    def as_dict(self) -> dict[str, str]:
        """Return the fields, for JSON."""
        return asdict(self)


def error(what: str, where: str, mend: str) -> Finding:
    """Return what ends or spoils the run."""
    return Finding("error", what, where, mend)


def warning(what: str, where: str, mend: str) -> Finding:
    """Return what is likely not meant."""
    return Finding("warning", what, where, mend)


def note(what: str, where: str, mend: str = "") -> Finding:
    """Return what is good to know, or could not be checked."""
    return Finding("note", what, where, mend)


def told(failure: CellDualityError, where: str = "") -> Finding:
    """Return a mistake of the user's as the error it is."""
    return Finding("error", failure.what, failure.where or where, failure.mend)
