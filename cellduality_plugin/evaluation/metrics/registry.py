"""The registry of metrics. To add one, write a function and decorate it with :func:`metric`."""

from __future__ import annotations

import importlib
import re
import runpy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeAlias

from cellduality_plugin.errors import CellDualityError

Better: TypeAlias = Literal["higher", "lower", "like real cells"]
Group: TypeAlias = Literal["labels", "responses", "cells", "dual"]
Bounds: TypeAlias = tuple["float | None", "float | None"]

ARROWS: Mapping[str, str] = {"higher": "↑", "lower": "↓", "like real cells": "≈"}
PREFIXES: Mapping[Group, Mapping[str, str]] = {
    "labels": {"": "{}", "sampled_": "sampled {}", "majority_": "majority of draws"},
    "responses": {"delta_": "{}, DE genes", "shift_": "{}"},
    "cells": {"": "{}"},
    "dual": {"": "{}"},
}
"""What the names of a group's metrics begin with, each being measured so often, and titles; in the order of tables."""
SHARED = "coarse_"  # what the names of label metrics begin with where labels are compared by shared types
BY_CONSTRUCTION = "by construction"  # the note of a value that is no merit: real genes, each once, are always valid


@dataclass(frozen=True)
class Measurement:
    """One number with everything needed to read it, as ``metrics.json`` holds it."""

    value: float | None  # None if it does not exist for these cells: then ``note`` says why
    better: Better = "higher"
    best: float | None = None  # None where only real cells define it
    n: int = 0  # cells it was computed on
    interval: tuple[float, float] | None = None  # 95 % bootstrap over rows, all draws of a row together
    space: str = ""  # of distances
    estimator: str = ""  # what was averaged over what
    kernel: str = ""
    seed: int | None = None  # of everything that was drawn
    note: str = ""
    bounds: Bounds = (0.0, 1.0)  # least and largest value, None where there is no bound
    real: float | None = None  # the same number of real cells against real cells; None where they have none


@dataclass(frozen=True)
class Metric:
    """One entry of the registry; see :func:`metric`.

    Its function is given, by ``group``: of ``"cells"`` one :class:`~cellduality_plugin.evaluation.metrics.given.Cells`;
    of ``"labels"`` gold labels and predicted ones; of ``"responses"`` the real and the predicted shift of some genes;
    of ``"dual"`` a prediction.
    """

    key: str
    title: str
    better: Better
    of: Callable[..., Any] = field(repr=False)
    group: Group = "cells"
    bounds: Bounds = (0.0, 1.0)
    headline: str = ""  # the name of the number that tasks are judged by
    sums_up: bool = False  # whether a section is summed up by it; of several by the first that was measured
    estimator: str = ""  # what is averaged over what
    titles: Mapping[str, str] = field(default_factory=dict)  # of names with a prefix, where the usual one will not do

    def measurement(self, found: Measurement) -> Measurement:
        """Return ``found`` with what the registry knows of it."""
        best = {"higher": self.bounds[1], "lower": self.bounds[0]}.get(self.better)
        estimator = found.estimator or self.estimator
        return replace(found, better=self.better, best=best, bounds=self.bounds, estimator=estimator)


METRICS: dict[str, Metric] = {}  # every metric by its key, in the order in which tables show them


def metric(key: str, title: str, better: Better, **settings: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register the decorated function as a metric, and return it as it is; the README has an example.

    ``key`` and ``title`` are its name in ``metrics.json`` and in tables, ``better`` is the direction of improvement;
    ``settings`` are further fields of :class:`Metric`. A CellDualityError if another module has a metric of this key.
    """

    def register(of: Callable[..., Any]) -> Callable[..., Any]:
        known = METRICS.get(key)
        if known is not None and known.of.__module__ != of.__module__:
            what, hint = f"the metric {key!r} is there already", "name it otherwise"
            raise CellDualityError(what, code="repeated-name", where="--metric", hint=hint)
        METRICS[key] = Metric(key, title, better, of, **settings)
        return of

    return register


def group(name: Group) -> list[Metric]:
    """Return the metrics of a group, in the order of tables."""
    return [each for each in METRICS.values() if each.group == name]


def _names() -> dict[str, tuple[Metric, str]]:
    """Return (metric, prefix) of every name, in the order of tables: of cells all but the headline come last."""
    pairs = [(each, prefix) for of, prefixes in PREFIXES.items() for prefix in prefixes for each in group(of)]
    pairs.sort(key=lambda pair: pair[0].group == "cells" and not pair[0].headline)
    return {prefix + each.key: (each, prefix) for each, prefix in pairs}


def _registered(name: str) -> tuple[str, str]:
    """Return a name without shared types and without its parameter, and the parameter."""
    own = name.removeprefix(SHARED)
    found = None if own in _names() else re.fullmatch(r"(.*)_(\d+)", own)
    return (found[1], found[2]) if found else (own, "")


def titled(name: str) -> str:
    """Return the title of a metric by its name in ``metrics.json``, also of one that is not registered here."""
    (own, parameter), names = _registered(name), _names()
    if own not in names:
        return name.replace("_", " ")
    known, prefix = names[own]
    usual = "shared-type {}" if name.startswith(SHARED) and not prefix else PREFIXES[known.group][prefix]
    return known.titles.get(name, usual.format(known.title)) + (f" ({parameter})" if parameter else "")


def sums_up(name: str, parameter: object) -> bool:
    """Return whether a section is summed up by the metric of this name; where it has a parameter, with that value."""
    own = name.removeprefix(SHARED).removesuffix(f"_{parameter}")
    return own in METRICS and METRICS[own].sums_up


def place(name: str) -> int:
    """Return the place of a metric in tables; what is not registered here comes last."""
    names, (own, _) = list(_names()), _registered(name)
    return names.index(own) if own in names else len(names)


def load_metric(path: str) -> None:
    """Register a metric of one's own: a :func:`metric` as ``module:function`` or ``file.py:function``."""
    module, _, name = path.rpartition(":")
    hint = f"give module:function or file.py:function, decorated with {__name__}.metric"
    try:
        found = (runpy.run_path(module) if module.endswith(".py") else vars(importlib.import_module(module)))[name]
    except (ImportError, OSError, KeyError, ValueError) as error:
        what = f"cannot load the metric {path!r}: {error}"
        raise CellDualityError(what, code="wrong-metric", where="--metric", hint=hint) from error
    if not any(each.of is found for each in METRICS.values()):
        raise CellDualityError(f"{path!r} is no metric", code="wrong-metric", where="--metric", hint=hint)
