"""What sets of different tissues both call their cells: the yardstick where their own labels have nothing in common."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cellduality_plugin.errors import CellDualityError

COARSE_FILE = "coarse_types.json"
"""Beside the rows, if a foreign set is among them: the shared type of every label that has one."""

_MEND = "prepare the data again (cellduality data prepare)"


@dataclass(frozen=True)
class SharedTypes:
    """The types that one foreign set shares with the sets that train.

    Parameters
    ----------
    gold
        The shared type of each label of the foreign set.
    answers
        The shared type of each label that was taught; labels without one are not there.
    trained
        The names of the sets that train.
    """

    gold: Mapping[str, str]
    answers: Mapping[str, str]
    trained: frozenset[str]

    @property
    def names(self) -> list[str]:
        """The shared types, in alphabetical order."""
        return sorted({*self.gold.values(), *self.answers.values()})

    def coarse(self, gold: Sequence[str], predicted: Sequence[str]) -> tuple[list[str], list[str]]:
        """Return both as shared types; an answer without one is an empty string, which is wrong as an unreadable one.

        Raises
        ------
        CellDualityError
            If a gold label has no shared type.

        Examples
        --------
        >>> shared = SharedTypes({"CD4T cell": "T cell"}, {"CD4+ Memory": "T cell"}, frozenset({"blood"}))
        >>> shared.coarse(["CD4T cell", "CD4T cell"], ["CD4+ Memory", "CD34+"])
        (['T cell', 'T cell'], ['T cell', ''])
        """
        if strangers := sorted({*gold} - self.gold.keys()):
            raise CellDualityError(f"no shared type of the label {strangers[0]!r}", where=COARSE_FILE, mend=_MEND)
        return [self.gold[label] for label in gold], [self.answers.get(label, "") for label in predicted]


def read_shared_types(path: Path) -> dict[str, SharedTypes]:
    """Return the shared types by foreign set; none if there is no such file.

    Raises
    ------
    CellDualityError
        If the file is not what the preparation writes, or two sets that train call different types by one label.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise CellDualityError(f"unreadable shared types: {error}", where=str(path), mend=_MEND) from error
    if not isinstance(content, dict) or not all(_is_maps(content.get(part)) for part in ("training", "foreign")):
        raise CellDualityError("no maps of labels to shared types", where=str(path), mend=_MEND)
    answers: dict[str, str] = {}
    for types in content["training"].values():
        for label, coarse in types.items():
            if answers.setdefault(label, coarse) != coarse:
                raise CellDualityError(
                    f"the label {label!r} is both {answers[label]!r} and {coarse!r}",
                    where=str(path),
                    mend="train on sets that mean the same by it",
                )
    trained = frozenset(content["training"])
    return {name: SharedTypes(types, answers, trained) for name, types in content["foreign"].items()}


def _is_maps(part: Any) -> bool:
    return isinstance(part, dict) and all(
        isinstance(types, dict) and all(isinstance(coarse, str) for coarse in types.values()) for types in part.values()
    )
