"""How well the policy, asked back, accounts for the hidden part: the reward of one answer, one kind a file."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from cellduality_plugin.import_paths import find
from cellduality_plugin.reward_names import read_reward
from cellduality_plugin.rewards.base import REWARDS, LabelScores, Reward, Verdict, reward, scored_kind
from cellduality_plugin.rewards.combined import LabelProduct, Product, WeightedSum

__all__ = [
    "REWARDS", "LabelProduct", "LabelScores", "Product", "Reward", "Verdict", "WeightedSum", "get_reward", "reward",
    "scored_kind",
]  # fmt: skip

for _file in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_file.name}")


def get_reward(name: str | Mapping[str, float], folder: Path | None = None) -> Reward:
    """Return the reward that ``name`` writes.

    Parameters
    ----------
    name
        Keys of :data:`REWARDS`, ``"package.module:Class"`` or ``"path/to/file.py:Class"``, combined as
        :mod:`cellduality_plugin.reward_names` reads them; or {a reward: its weight in a sum}.
    folder
        What a relative file path is relative to; the working directory by default.

    Raises
    ------
    CellDualityError
        If there is no such reward; the message lists those there are.

    Examples
    --------
    >>> get_reward({"posterior": 1, "oracle": 3}).needs_gold, get_reward("posterior*profile^0.3").needs_profiles
    (True, True)
    """
    if not isinstance(name, str):
        return WeightedSum([(get_reward(part, folder), weight) for part, weight in name.items()])
    terms = [
        (_product([(_kind(factor.kind, folder), factor.power) for factor in term.factors]), term.weight)
        for term in read_reward(name)
    ]
    if len(terms) == 1 and terms[0][1] is None:
        return terms[0][0]
    return WeightedSum([(product, 1.0 if weight is None else weight) for product, weight in terms])


def _product(factors: Sequence[tuple[Reward, float]]) -> Reward:
    if len(factors) == 1 and factors[0][1] == 1:
        return factors[0][0]
    return (LabelProduct if all(isinstance(reward, LabelScores) for reward, _ in factors) else Product)(factors)


def _kind(name: str, folder: Path | None) -> Reward:
    return find(name, REWARDS, Reward, folder, what="reward", where="reward")  # type: ignore[type-abstract]
