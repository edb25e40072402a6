"""How a reward is written: a sum of products of kinds (names, import paths): ``0.5*posterior+0.5*profile^0.3``."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from cellduality_plugin.errors import CellDualityError

_FACTOR = re.compile(r"(?P<kind>\s*/[^:]*:[\w.]*|[^+*^:]*(?::[\w.]*)?)\s*(?:\^(?P<power>[^+*^]*))?(?P<sign>[+*]|$)")
"""Only the path of a file that begins with / may hold the signs + * and ^."""


@dataclass(frozen=True)
class Factor:
    """A kind of reward and the power it is raised to."""

    kind: str
    power: float = 1.0

    def __str__(self) -> str:
        return self.kind if self.power == 1 else f"{self.kind}^{self.power:.12g}"


@dataclass(frozen=True)
class Term:
    """A product, and its weight in a sum; None where none is written."""

    factors: tuple[Factor, ...]
    weight: float | None = None

    @property
    def product(self) -> str:
        return "*".join(map(str, self.factors))

    def __str__(self) -> str:
        return self.product if self.weight is None else f"{self.weight:.12g}*{self.product}"


def read_reward(text: str) -> tuple[Term, ...]:
    """Return the terms of the sum that ``text`` writes, one at least; whether its kinds exist is not looked at.

    A CellDualityError says that it cannot be read, or that a weight or power is not above 0.
    """
    terms: list[Term] = []
    factors: list[Factor] = []
    place, weight, sign = 0, None, "+"
    while sign:
        found = _FACTOR.match(text, place)
        kind = found["kind"].strip() if found else ""
        if found is None or not kind:
            raise _refused(f"{text!r} is no reward")
        place, power, sign = found.end(), found["power"], found["sign"]
        if not factors and weight is None and sign == "*" and power is None and _number(kind) is not None:
            weight = _above_zero(kind, text)
            continue
        factors.append(Factor(kind, 1.0 if power is None else _above_zero(power, text)))
        if sign != "*":
            terms.append(Term(tuple(factors), weight))
            factors, weight = [], None
    return tuple(terms)


def renamed(text: str, name: Callable[[str], str]) -> str:
    """Return the reward ``text`` with ``name(kind)`` in the place of each of its kinds."""
    terms = read_reward(text)
    named = [tuple(Factor(name(factor.kind), factor.power) for factor in term.factors) for term in terms]
    return "+".join(str(replace(term, factors=factors)) for term, factors in zip(terms, named, strict=True))


def shortened(reward: str | Mapping[str, float], cut: str = "/") -> str:
    """Return a reward, or {reward: its weight}, as it is written, each kind without all up to its last ``cut``.

    Examples
    --------
    >>> shortened("path/mine.py:Mine"), shortened({"posterior": 2, "path/mine.py:Mine": 1}, ":")
    ('mine.py:Mine', '2*posterior+Mine')
    """
    if isinstance(reward, str):
        return renamed(reward, lambda kind: kind.rpartition(cut)[2])
    return "+".join(f"{weight:g}*{shortened(name, cut)}".removeprefix("1*") for name, weight in reward.items())


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _above_zero(text: str, whole: str) -> float:
    number = _number(text)
    if number is None or not 0 < number < math.inf:
        raise _refused(f"{text.strip()!r} in {whole!r} is no number above 0")
    return number


def _refused(what: str) -> CellDualityError:
    hint = "write weight*kind^power*kind+weight*kind, numbers above 0"
    return CellDualityError(what, code="wrong-reward", where="reward", hint=hint)
