"""What goes wrong between a teacher and whoever asks it, and how long its endpoint asks to wait."""

from __future__ import annotations

import email.utils
import math
import re
import time
from collections.abc import Mapping

_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|us|µs|ns|d|h|m|s)")
_SECONDS = {"d": 86_400.0, "h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}


class TeacherFault(Exception):
    """A question that was not answered, for a reason that may pass: a later run asks it again.

    Parameters
    ----------
    reason
        A word to count by: an HTTP status, ``"timeout"``, ``"connection"`` or ``"malformed"``.
    detail
        What the endpoint said, if anything.
    wait
        The seconds it asks to wait; None if it does not say.
    passing
        Whether it is worth asking again at once.
    """

    def __init__(self, reason: str, detail: str = "", *, wait: float | None = None, passing: bool = True) -> None:
        self.reason, self.detail, self.wait, self.passing = reason, detail, wait, passing
        super().__init__(f"{reason}: {detail}" if detail else reason)


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the seconds that ``retry-after-ms`` or ``Retry-After`` (seconds or a date) asks to wait, or None.

    Examples
    --------
    >>> retry_after({"retry-after-ms": "250", "retry-after": "1"}), retry_after({"retry-after": "soon"})
    (0.25, None)
    """
    for name, unit in (("retry-after-ms", 1e-3), ("retry-after", 1.0)):
        seconds = _number(headers.get(name, ""))
        if seconds is not None:
            return seconds * unit
    try:
        moment = email.utils.mktime_tz(email.utils.parsedate_tz(headers.get("retry-after", "")) or ())  # type: ignore[arg-type]
    except (TypeError, ValueError, IndexError, OverflowError):
        return None
    return max(0.0, moment - time.time())


def until_reset(headers: Mapping[str, str]) -> float:
    """Return the seconds until every allowance that these headers call used up is there again; 0 if none is.

    Examples
    --------
    >>> until_reset({"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "1m0.5s"})
    60.5
    >>> until_reset({"x-ratelimit-remaining-tokens": "7", "x-ratelimit-reset-tokens": "6s"})
    0.0
    """
    waits = [0.0]
    for what in ("requests", "tokens"):
        if _number(headers.get(f"x-ratelimit-remaining-{what}", "")) == 0:
            waits.append(duration(headers.get(f"x-ratelimit-reset-{what}", "")) or 0.0)
    return max(waits)


def duration(text: str) -> float | None:
    """Return the seconds in a span such as ``6m0s``, ``20ms`` or ``1.5``; None if it is none.

    Examples
    --------
    >>> duration("2m59.56s"), duration("20ms"), duration("1.5"), duration("tomorrow")
    (179.56, 0.02, 1.5, None)
    """
    text = text.strip()
    if _DURATION.sub("", text):
        return _number(text)
    parts = _DURATION.findall(text)
    return _bounded(sum(float(count) * _SECONDS[unit] for count, unit in parts)) if parts else None


def _number(text: str) -> float | None:
    try:
        return _bounded(float(text))
    except ValueError:
        return None


def _bounded(seconds: float) -> float | None:
    """Return ``seconds`` unless no clock can count them."""
    return seconds if seconds >= 0 and math.isfinite(seconds) else None
