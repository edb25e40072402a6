"""Class profiles: how likely a cell is under each label, by which genes it expresses. A dual that asks no model."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cellduality_plugin.errors import CellDualityError
from cellduality_plugin.files import whole_file

VERSION = 1


@dataclass(frozen=True)
class Profile:
    """The profiles of one label set."""

    labels: tuple[str, ...]  # in the order of the rows of ``weights``
    # What each gene that a cell expresses adds to its log-score: labels x genes. Of a paired set labels x 2 genes:
    # genes that the cell has and its control lacks, then genes that the control has and the cell lacks.
    weights: NDArray[np.float32]
    bias: NDArray[np.float32]  # the log-score of a cell that expresses nothing, by label
    paired: bool = False  # whether a cell is held against its control


class Profiles:
    """Class profiles by label set, over one list of genes: those of the columns; other genes are ignored."""

    def __init__(self, genes: Sequence[str], by_kind: Mapping[str, Profile]) -> None:
        self.genes = tuple(genes)
        self.by_kind = dict(by_kind)
        self._places = {gene: place for place, gene in enumerate(self.genes)}

    def log_scores(self, kind: str, genes: Collection[str], control: Collection[str] = ()) -> dict[str, float]:
        """Return {label: natural log-score of the cell under its profile}, up to a number that the labels share."""
        profile, columns = self.by_kind[kind], self._places_of(genes)
        if profile.paired:
            lost = self._places_of(set(control) - set(genes))
            columns = self._places_of(set(genes) - set(control)) + [len(self.genes) + place for place in lost]
        scores = profile.bias + profile.weights[:, columns].sum(axis=1)
        return dict(zip(profile.labels, map(float, scores), strict=True))

    def likeliest(self, kind: str, genes: Collection[str], control: Collection[str] = ()) -> str:
        """Return the label of the set ``kind`` under whose profile the cell is likeliest; of equals the first."""
        scores = self.log_scores(kind, genes, control)
        return max(scores, key=scores.__getitem__)

    def _places_of(self, genes: Collection[str]) -> list[int]:
        return sorted({self._places[gene] for gene in genes if gene in self._places})

    def save(self, path: Path) -> None:
        """Write the profiles as a numpy archive, whole or not at all; the same profiles give the same bytes."""
        arrays: dict[str, NDArray[np.generic]] = {"version": np.array(VERSION), "genes": np.array(self.genes)}
        for kind, profile in self.by_kind.items():
            arrays[f"{kind}/labels"] = np.array(profile.labels)
            arrays[f"{kind}/weights"], arrays[f"{kind}/bias"] = profile.weights, profile.bias
            arrays[f"{kind}/paired"] = np.array(profile.paired)
        with whole_file(path, "wb") as stream:
            np.savez_compressed(stream, allow_pickle=False, **arrays)  # numpy dates every member 1980: no clock in it

    @classmethod
    def load(cls, path: Path) -> Profiles:
        """Return the profiles in ``path``; a CellDualityError if there is no such archive of this version."""
        where, hint = str(path), "prepare the data again (cellduality data prepare)"
        try:
            with path.open("rb") as stream, np.load(stream, allow_pickle=False) as arrays:
                if int(arrays["version"]) != VERSION:
                    what = f"profiles of another version than {VERSION}"
                    raise CellDualityError(what, code="wrong-format", where=where, hint=hint)
                by_kind = {}
                for kind in [name.removesuffix("/labels") for name in arrays.files if name.endswith("/labels")]:
                    labels, *numbers = (arrays[f"{kind}/{part}"] for part in ("labels", "weights", "bias", "paired"))
                    by_kind[kind] = Profile(tuple(map(str, labels)), numbers[0], numbers[1], bool(numbers[2]))
                return cls(tuple(map(str, arrays["genes"])), by_kind)
        except FileNotFoundError:
            raise CellDualityError("no profiles", code="missing-file", where=where, hint=hint) from None
        except (OSError, ValueError, TypeError, KeyError, EOFError, zlib.error, zipfile.BadZipFile) as error:
            what = f"unreadable profiles: {error}"
            raise CellDualityError(what, code="unreadable-file", where=where, hint=hint) from error
