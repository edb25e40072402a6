"""Which untreated cell stands beside which cell."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from cellduality_plugin.errors import CellDualityError
from cellduality_plugin.perturbations import CONTROL

UNPAIRED = "cell without an untreated cell of its type in its split (asked about by other tasks only)"


def pair_with_controls(
    perturbations: Mapping[str, str], groups: Mapping[str, str], rng: np.random.Generator
) -> dict[str, str]:
    """Return {cell: the untreated cell of its group it is paired with}; cells that find none are left out.

    Within a group every untreated cell is taken before any is taken twice. Untreated cells are paired too, with one
    another in one ring, so none is paired with itself. The result depends on the set of cells and on ``rng``, not on
    the order of ``perturbations``.

    Parameters
    ----------
    perturbations
        The label of every cell's perturbation; :data:`~cellduality_plugin.perturbations.CONTROL` for untreated ones.
    groups
        What a cell and its control have to share, e.g. split and cell type.
    rng
        The only source of randomness.

    Raises
    ------
    CellDualityError
        If no cell at all is untreated.

    Examples
    --------
    >>> import numpy as np
    >>> done = {"a": "control", "b": "control", "c": "cytokine IFN-beta", "d": "cytokine IFN-beta"}
    >>> pairs = pair_with_controls(done, {"a": "T", "b": "T", "c": "T", "d": "B"}, np.random.default_rng(0))
    >>> pairs["a"], pairs["b"], pairs["c"] in "ab", "d" in pairs
    ('b', 'a', True, False)
    """
    if CONTROL not in perturbations.values():
        found = ", ".join(sorted(set(perturbations.values()))[:5])
        raise CellDualityError(
            f"no cell is untreated; the perturbations are {found}",
            where="perturbation",
            mend=f"name untreated cells {CONTROL!r} in that column, or say what they are called with --control",
        )
    members: dict[str, list[str]] = {}
    for name in sorted(perturbations):
        members.setdefault(groups[name], []).append(name)
    pairs: dict[str, str] = {}
    for _, names in sorted(members.items()):
        controls = [name for name in names if perturbations[name] == CONTROL]
        treated = [name for name in names if perturbations[name] != CONTROL]
        ring = [controls[place] for place in rng.permutation(len(controls))]
        if len(ring) > 1:
            pairs.update(zip(ring, [*ring[1:], ring[0]], strict=True))
        pairs.update(zip(treated, _taken(controls, len(treated), rng), strict=False))
    return pairs


def _taken(controls: list[str], count: int, rng: np.random.Generator) -> list[str]:
    taken: list[str] = []
    while controls and len(taken) < count:
        taken += [controls[place] for place in rng.permutation(len(controls))]
    return taken[:count]
