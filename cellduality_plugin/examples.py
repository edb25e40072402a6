"""One question with its hidden part, as it travels through OpenRLHF's label column."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from cellduality_plugin.errors import CellDualityError

SCHEMA = 1

Value: TypeAlias = str | tuple[str, ...]
"""A label, or a list of genes in descending order of expression."""


@dataclass(frozen=True)
class Mask:
    """Another split of the same cell: x_k and x_u, as :class:`Example` has them."""

    known: Mapping[str, Value]
    unknown: Value


@dataclass(frozen=True)
class Example:
    """Definition 3.1 of the paper for one row: x = (x_k, x_u) and, where it is known, y*.

    Parameters
    ----------
    task
        The name of the dual pair.
    id
        Where the row comes from, e.g. ``"pbmc68k/AAAGCCTG-1"``.
    inputs
        What the primal prompt shows, by name.
    known
        x_k: what the dual prompt may show besides the answer. The split of a cell into known and unknown genes
        is drawn once and stored here, so that all rollouts of a group face the same mask (or the same ``masks``).
    unknown
        x_u: what the dual must rebuild.
    gold
        y*, or None: rows for reinforcement learning hold no label.
    masks
        Further splits that the same answer is judged under; the reward is the mean over all. The question is the same.

    Examples
    --------
    >>> row = Example("t", "1", {"cell": ("A", "B")}, {"observed": ("A",)}, ("B",), None)
    >>> Example.from_label(row.to_label()) == row
    True
    """

    task: str
    id: str
    inputs: Mapping[str, Value]
    known: Mapping[str, Value]
    unknown: Value
    gold: Value | None
    masks: tuple[Mask, ...] = ()

    def splits(self) -> tuple[Example, ...]:
        """Return the row under each of its masks, one mask a row.

        Examples
        --------
        >>> row = Example("t", "1", {}, {"observed": ("A",)}, ("B",), None, (Mask({"observed": ("B",)}, ("A",)),))
        >>> [split.unknown for split in row.splits()]
        [('B',), ('A',)]
        """
        first = replace(self, masks=())
        return (first, *(replace(first, known=mask.known, unknown=mask.unknown) for mask in self.masks))

    def to_label(self) -> str:
        """Return the row as the JSON string that OpenRLHF carries as ``label``.

        A row with one mask has no field ``masks``: it reads as it did before there were several.
        """
        content = {"schema": SCHEMA, **self.__dict__, "masks": [mask.__dict__ for mask in self.masks]}
        if not self.masks:
            del content["masks"]
        return json.dumps(content, ensure_ascii=False, separators=(",", ":"))

    @classmethod
    def from_label(cls, label: str) -> Example:
        """Return the example in the JSON string ``label``.

        Raises
        ------
        CellDualityError
            If the string is not JSON, has another schema, or a field is missing or of the wrong type.
        """
        try:
            content = json.loads(label)
        except (json.JSONDecodeError, TypeError, RecursionError) as error:
            raise _malformed(f"not JSON ({error})", label) from error
        if not isinstance(content, dict) or content.get("schema") != SCHEMA:
            raise _malformed(f"not a row of schema {SCHEMA}", label)
        try:
            return cls(
                task=_text(content["task"]),
                id=_text(content["id"]),
                inputs=_named(content["inputs"]),
                known=_named(content["known"]),
                unknown=_value(content["unknown"]),
                gold=None if content["gold"] is None else _value(content["gold"]),
                masks=tuple(
                    Mask(_named(mask["known"]), _value(mask["unknown"])) for mask in _listed(content.get("masks", []))
                ),
            )
        except KeyError as error:
            raise _malformed(f"field {error} is missing", label) from error
        except (TypeError, AttributeError) as error:
            raise _malformed(str(error), label) from error


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"expected text, found {value!r:.40}")
    return value


def _named(values: Any) -> dict[str, Value]:
    return {_text(key): _value(value) for key, value in values.items()}


def _listed(values: Any) -> list[Any]:
    if not isinstance(values, list):
        raise TypeError(f"expected a list, found {values!r:.40}")
    return values


def _value(value: Any) -> Value:
    if isinstance(value, list):
        return tuple(_text(item) for item in value)
    return _text(value)


def _malformed(why: str, label: object) -> CellDualityError:
    return CellDualityError(
        f"malformed label row: {why}",
        where=f"label {str(label)[:60]!r}",
        hint="pass rows made by cellduality data prepare, with --data.label_key label",
    )
