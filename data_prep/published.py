"""How a set is split into cells that train and cells that test: as its publication does, as far as that is known."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from data_prep.splits import SPLITS

OOD = "ood"  # the split of the cells that are held out of all others
FRACTIONS = (0.6, 0.2, 0.2)  # of train, validation and test cells of each class, where no publication says otherwise


@dataclass(frozen=True)
class PublishedSplit:
    """The rule by which a set is split, the cells it holds out, and what of it cannot be had again.

    It stands in the set's own file: ``cellduality data info`` shows it, and ``cellduality data prepare`` applies it.
    """

    rule: Literal["fractions", "instructcell", "whole"] = "fractions"  # of the cells that are not held out by a value
    held_out: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # values by column
    first_word: bool = False  # whether the first word of a value says that it is held out: Trametinib (GSK1120212)
    unknown: str = ""  # what of the published split is not reproduced, and why

    @property
    def holds_out(self) -> bool:
        """Whether there are cells for evaluation out of distribution alone."""
        return self.rule == "whole" or bool(self.held_out)

    def text(self, fractions: Sequence[float] = FRACTIONS) -> str:
        """Return the split in words; ``fractions`` of the classes count where no rule says otherwise."""
        by_class = f"{' / '.join(f'{100 * share:g}' for share in fractions)} by class, seeded"
        rule = {
            "fractions": by_class,
            "instructcell": "80 / 10 / 10 at random, by InstructCell's rule (seed 42)",
            "whole": "the whole set is held out: no cell trains",
        }[self.rule]
        held = "; ".join(f"{column} {', '.join(values)}" for column, values in self.held_out.items())
        text = f"held out: {held}; the others {rule}" if held else rule
        return f"{text}. Not as published: {self.unknown}" if self.unknown else text

    def held_values(self, column: str, values: Collection[str]) -> dict[str, str]:
        """Return {value: the one of ``held_out`` that it is} of those ``values`` of a column that are held out.

        Examples
        --------
        >>> split = PublishedSplit(held_out={"drug": ("Trametinib",)}, first_word=True)
        >>> split.held_values("drug", ["Trametinib (GSK1120212)", "Tram", ""])
        {'Trametinib (GSK1120212)': 'Trametinib'}
        """
        names = {value: value.partition(" ")[0] if self.first_word else value for value in values}
        return {value: name for value, name in names.items() if name in self.held_out[column]}

    def assign(self, cells: Sequence[str]) -> dict[str, str]:
        """Return the split of every cell by the rule, of all cells in the order of the file; nothing for fractions.

        InstructCell (github.com/zjunlp/InstructCell, preprocess.py) permutes the cells by RandomState(42) and rounds
        the shares of train and validation down. One state goes through all its sets, in the order in which the system
        listed their folders; here every set has a state of its own, as the first of them had.

        Examples
        --------
        >>> found = PublishedSplit("instructcell").assign([f"c{number}" for number in range(1302)])
        >>> [list(found.values()).count(split) for split in ("train", "validation", "test")]
        [1041, 130, 131]
        """
        if self.rule == "whole":
            return dict.fromkeys(cells, OOD)
        if self.rule == "fractions":
            return {}
        total = len(cells)
        train, validation = int(total * 0.8), int(total * (1 - 0.8)) // 2
        names = np.repeat(SPLITS, [train, validation, total - train - validation]).tolist()
        order = np.random.RandomState(42).permutation(total)
        return {cells[place]: name for place, name in zip(order, names, strict=True)}


INSTRUCTCELL = PublishedSplit(
    "instructcell",
    unknown="the sizes are InstructCell's, but which cells are where depends on the order in which it read its sets,"
    " which was not recorded.",
)

UNSEEN = PublishedSplit(
    "whole",
    unknown="InstructCell trains on 80 / 10 / 10 of it; the paper trains on none of it, and says of GSE110894 alone"
    " that all of it is tested on.",
)
