"""What sets of different tissues both call their cells: the yardstick where their own labels have nothing in common."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ValidationError

from cellduality_plugin.errors import CellDualityError

COARSE_FILE = "coarse_types.json"
"""Beside the rows, if a foreign set is among them: the shared type of every label that has one."""

_MEND = "prepare the data again (cellduality data prepare)"


@dataclass(frozen=True)
class SharedTypes:
    """The types that one foreign set shares with the sets that train.

    Parameters
    ----------
    gold, answers
        The shared type of each label of the foreign set, and of each label that was taught and has one.
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
        """Return both as shared types; an answer without one is an empty string, a gold label a CellDualityError.

        Examples
        --------
        >>> shared = SharedTypes({"CD4T cell": "T cell"}, {"CD4+ Memory": "T cell"}, frozenset({"blood"}))
        >>> shared.coarse(["CD4T cell", "CD4T cell"], ["CD4+ Memory", "CD34+"])
        (['T cell', 'T cell'], ['T cell', ''])
        """
        if strangers := sorted({*gold} - self.gold.keys()):
            raise CellDualityError(f"no shared type of the label {strangers[0]!r}", where=COARSE_FILE, hint=_MEND)
        return [self.gold[label] for label in gold], [self.answers.get(label, "") for label in predicted]


class _File(BaseModel):
    training: dict[str, dict[str, str]]
    foreign: dict[str, dict[str, str]]


def read_shared_types(path: Path) -> dict[str, SharedTypes]:
    """Return the shared types by foreign set; none if there is no such file.

    Raises
    ------
    CellDualityError
        If the file is not what the preparation writes, or two sets that train call different types by one label.
    """
    if not path.exists():
        return {}
    try:
        content = _File.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        what = f"no maps of labels to shared types: {str(error).splitlines()[0]}"
        raise CellDualityError(what, where=str(path), hint=_MEND) from error
    answers: dict[str, str] = {}
    for types in content.training.values():
        for label, coarse in types.items():
            if answers.setdefault(label, coarse) != coarse:
                what = f"the label {label!r} is both {answers[label]!r} and {coarse!r}"
                raise CellDualityError(what, where=str(path), hint="train on sets that mean the same by it")
    trained = frozenset(content.training)
    return {name: SharedTypes(types, answers, trained) for name, types in content.foreign.items()}
