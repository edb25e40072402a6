"""All that a policy may answer with: gene names and label sets."""

from __future__ import annotations

import hashlib
import heapq
import json
import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from cellduality_plugin.errors import CellDualityError
from cellduality_plugin.files import read_versioned, write_text
from cellduality_plugin.perturbations import KIND, canonical

FORMAT = "cellduality-vocabulary"
VERSION = 1
LISTED = 100  # a question lists the labels of a set of so many, at most, unless a preparation says otherwise
TABLED = 2_000  # what holds numbers for each label, such as class profiles, is made of sets of so many, at most


@dataclass(frozen=True)
class Vocabulary:
    """Gene names V and named label sets (cell types T, sensitivities S, ...), paper section 3.1."""

    genes: tuple[str, ...]  # gene symbols, unique, case kept as in the data
    # Label sets by kind, e.g. ``{"cell_type": ("B", "T")}``; within a kind unique even when case is ignored.
    labels: Mapping[str, tuple[str, ...]]
    # A question lists the labels of a set of so many, at most; past it, it says how they are written.
    listed: int = LISTED

    def __post_init__(self) -> None:
        for gene in self.genes:
            if gene.split() != [gene]:
                what = f"gene name {gene!r} is empty or holds white space"
                raise CellDualityError(what, code="wrong-gene-name", hint="rename or drop it")
        if len(set(self.genes)) != len(self.genes):
            what, hint = "duplicate gene names in the vocabulary", "make the names unique"
            raise CellDualityError(what, code="duplicate-genes", hint=hint)
        for kind, names in self.labels.items():
            if len({_fold(name) for name in names}) != len(names):
                folded = Counter(map(_fold, names))
                twins = ", ".join(repr(name) for name in names if folded[_fold(name)] > 1)
                what = f"labels of kind {kind!r} differ only in case or spacing: {twins:.200}"
                raise CellDualityError(what, code="duplicate-labels", hint="merge or rename them")

    @cached_property
    def _genes(self) -> dict[str, str]:
        """{spelling: name}; a folded spelling that two names share is left out, never guessed."""
        counts = Counter(name.casefold() for name in self.genes)
        folded = {name.casefold(): name for name in self.genes if counts[name.casefold()] == 1}
        return {**folded, **{name: name for name in self.genes}}

    @cached_property
    def _labels(self) -> dict[str, dict[str, str]]:
        return {kind: {_fold(name): name for name in names} for kind, names in self.labels.items()}

    @cached_property
    def _said(self) -> dict[str, str]:
        """{canonical form: perturbation}; a form that two share is left out, never guessed."""
        names = self.labels.get(KIND, ())
        forms = list(map(canonical, names))
        counts = Counter(forms)
        return {form: name for form, name in zip(forms, names, strict=True) if counts[form] == 1}

    def lists(self, kind: str) -> bool:
        """Return whether a question lists the labels of ``kind``."""
        return len(self.labels[kind]) <= self.listed

    def tables(self, kind: str) -> bool:
        """Return whether numbers are held for each label of ``kind``."""
        return len(self.labels[kind]) <= TABLED

    def written(self, kind: str) -> str:
        """Return the labels of ``kind`` as a message shows them: the first few of a set that no question lists."""
        names = self.labels[kind]
        return ", ".join(names) if self.lists(kind) else f"{', '.join(names[:5])}, ... ({len(names)} in all)"

    def longest(self, kind: str) -> tuple[str, ...]:
        """Return the labels of ``kind`` that may take most tokens: all, or of a set that is not listed 16 by length."""
        names = self.labels[kind]
        return names if self.lists(kind) else tuple(heapq.nlargest(16, names, key=len))

    def gene(self, token: str) -> str | None:
        """Return the gene spelled ``token``, exactly or but for case; None if there is none or two."""
        return self._genes.get(token) or self._genes.get(token.casefold())

    def label(self, kind: str, text: str) -> str | None:
        """Return the label of ``kind`` that ``text`` names, case and spacing ignored, or None.

        A perturbation is also found by its :func:`~cellduality_plugin.perturbations.canonical` form where it is a
        combination, whose order does not matter, or where no question lists how it is spelled.
        """
        found = self._labels[kind].get(_fold(text))
        if found is None and kind == KIND and ("+" in text or not self.lists(kind)):
            found = self._said.get(canonical(text))
        return found

    @property
    def fingerprint(self) -> str:
        """The first 12 hex digits of the SHA-256 of the content."""
        return hashlib.sha256(self._json().encode()).hexdigest()[:12]

    def _json(self) -> str:
        labels = {kind: list(names) for kind, names in sorted(self.labels.items())}
        content = {"format": FORMAT, "version": VERSION, "genes": list(self.genes), "labels": labels}
        listed = {} if all(map(self.lists, labels)) else {"listed": self.listed}
        return json.dumps({**content, **listed}, ensure_ascii=False)

    def save(self, path: str | os.PathLike[str]) -> None:
        write_text(Path(path), self._json() + "\n")

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Vocabulary:
        """Return the vocabulary in ``path``; a CellDualityError if there is no such file of this format and version."""
        hint = "prepare the data again (cellduality data prepare)"
        content = read_versioned(Path(path), FORMAT, VERSION, what="vocabulary file", hint=hint)
        labels = {kind: tuple(names) for kind, names in content["labels"].items()}
        listed = content.get("listed", max([LISTED, *map(len, labels.values())]))  # without a bound all are listed
        return cls(genes=tuple(content["genes"]), labels=labels, listed=listed)


def _fold(text: str) -> str:
    return " ".join(text.casefold().split())
