"""Every published set of cells that can be used by name: where it is, whose it is, what bites."""

from __future__ import annotations

import difflib

from cellduality_plugin.errors import CellDualityError
from data_prep.registry.annotation import ANNOTATION
from data_prep.registry.dynamics import DYNAMICS
from data_prep.registry.embedded import EMBEDDED
from data_prep.registry.entry import (
    COLUMNS,
    CollectionFile,
    Dataset,
    FileSource,
    PackageMember,
    RemoteFile,
    Split,
    UserFile,
    Variant,
)

__all__ = [
    "COLUMNS",
    "DATASETS",
    "CollectionFile",
    "Dataset",
    "FileSource",
    "PackageMember",
    "RemoteFile",
    "Split",
    "UserFile",
    "Variant",
    "find_dataset",
]

DATASETS: dict[str, Dataset] = {dataset.name: dataset for dataset in (*EMBEDDED, *ANNOTATION, *DYNAMICS)}


def find_dataset(name: str) -> Dataset:
    """Return the set called ``name``.

    Raises
    ------
    CellDualityError
        If there is none; the nearest names are suggested.

    Examples
    --------
    >>> find_dataset("kang_2018_ifnb").title
    'Kang 2018, blood cells with and without interferon beta'
    """
    if name in DATASETS:
        return DATASETS[name]
    near = difflib.get_close_matches(name, DATASETS, n=3)
    raise CellDualityError(
        f"no data set {name!r}",
        where="registry",
        mend=f"did you mean {' or '.join(near)}?" if near else "`cellduality data list` shows what there is",
    )
