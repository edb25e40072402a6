"""How well the policy, asked back, accounts for the hidden part: the reward of one answer, one kind a file."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping
from pathlib import Path

from cellduality_plugin.import_paths import find
from cellduality_plugin.reward_names import Factor, read_reward
from cellduality_plugin.rewards.base import REWARDS, LabelScores, Reward, Verdict, reward, scored_kind
from cellduality_plugin.rewards.combined import LabelProduct, Product, WeightedSum

__all__ = [
    "REWARDS", "LabelProduct", "LabelScores", "Product", "Reward", "Verdict", "WeightedSum", "get_reward", "reward",
    "scored_kind",
]  # fmt: skip

for _file in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_file.name}")


def get_reward(name: str | Mapping[str, float], folder: Path | None = None) -> Reward:
    """Return the reward that ``name`` writes; a CellDualityError lists those there are if it does not exist.

    ``name`` holds keys of :data:`REWARDS`, ``"package.module:Class"`` or ``"path/to/file.py:Class"``, combined as
    :mod:`cellduality_plugin.reward_names` reads them, or is {a reward: its weight in a sum}. A relative path of a file
    is relative to ``folder``, by default the working directory.
    """
    if not isinstance(name, str):
        return WeightedSum([(get_reward(part, folder), weight) for part, weight in name.items()])
    terms = read_reward(name)
    products = [_product(term.factors, folder) for term in terms]
    if len(terms) == 1 and terms[0].weight is None:
        return products[0]
    weights = [1.0 if term.weight is None else term.weight for term in terms]
    return WeightedSum(list(zip(products, weights, strict=True)))


def _product(factors: tuple[Factor, ...], folder: Path | None) -> Reward:
    kinds = [find(each.kind, REWARDS, Reward, folder, what="reward", where="reward") for each in factors]  # type: ignore[type-abstract]
    if len(factors) == 1 and factors[0].power == 1:
        return kinds[0]
    how = LabelProduct if all(isinstance(kind, LabelScores) for kind in kinds) else Product
    return how([(kind, factor.power) for kind, factor in zip(kinds, factors, strict=True)])
