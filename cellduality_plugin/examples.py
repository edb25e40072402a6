"""One question with its hidden part, as it travels through OpenRLHF's label column."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TypeAlias

from pydantic import TypeAdapter, ValidationError

from cellduality_plugin.errors import CellDualityError

SCHEMA = 1

Value: TypeAlias = str | tuple[str, ...]  # a label, or a list of genes in descending order of expression


@dataclass(frozen=True)
class Mask:
    """Another split of the same cell: x_k and x_u, as :class:`Example` has them."""

    known: Mapping[str, Value]
    unknown: Value


@dataclass(frozen=True)
class Example:
    """Definition 3.1 of the paper for one row: x = (x_k, x_u) and, where it is known, y*."""

    task: str  # the name of the dual pair
    id: str  # where the row comes from, e.g. ``"pbmc68k/AAAGCCTG-1"``
    inputs: Mapping[str, Value]  # what the primal prompt shows, by name
    # x_k: what the dual prompt may show besides the answer. The split of a cell into known and unknown genes is drawn
    # once and stored here, so that all rollouts of a group face the same mask (or the same ``masks``).
    known: Mapping[str, Value]
    unknown: Value  # x_u: what the dual must rebuild
    gold: Value | None  # y*, or None: rows for reinforcement learning hold no label
    # Further splits that the same answer is judged under; the reward is the mean over all. The question is the same.
    masks: tuple[Mask, ...] = ()

    def splits(self) -> tuple[Example, ...]:
        """Return the row under each of its masks, one mask a row."""
        first = replace(self, masks=())
        return (first, *(replace(first, known=mask.known, unknown=mask.unknown) for mask in self.masks))

    def to_label(self) -> str:
        """Return the row as the JSON string that OpenRLHF carries as ``label``; without ``masks`` if there are none."""
        content = {"schema": SCHEMA, **self.__dict__, "masks": [mask.__dict__ for mask in self.masks]}
        if not self.masks:
            del content["masks"]
        return json.dumps(content, ensure_ascii=False, separators=(",", ":"))

    @classmethod
    def from_label(cls, label: str) -> Example:
        """Return the example in the JSON string ``label``; a CellDualityError if it holds none of this schema."""
        try:
            content = json.loads(label)
            if not isinstance(content, dict) or content.get("schema") != SCHEMA:
                raise ValueError(f"not a row of schema {SCHEMA}")
            return _ROW.validate_python(content)
        except (ValueError, TypeError, RecursionError) as error:
            what = str(error)
            if isinstance(error, ValidationError):
                first = error.errors()[0]
                what = f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
            what, where = f"malformed label row: {what}", f"label {str(label)[:60]!r}"
            hint = "pass rows made by cellduality data prepare, with --data.label_key label"
            raise CellDualityError(what, code="malformed-row", where=where, hint=hint) from error


_ROW = TypeAdapter(Example)
