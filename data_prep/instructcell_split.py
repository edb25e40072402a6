"""The split of InstructCell, which the published results on its sets go by."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from data_prep.splits import Split

SEED, TRAIN = 42, 0.8


def instructcell_sizes(n: int) -> tuple[int, int, int]:
    """Return how many of ``n`` cells train, validate and test.

    Notes
    -----
    In InstructCell's preprocessing (github.com/zjunlp/InstructCell, preprocess.py) both products are rounded down, and
    the test set gets what is left: one or two cells more than the validation set.

    Examples
    --------
    >>> [instructcell_sizes(n)[2] for n in (34135, 35481, 1302, 1419, 19915)]
    [3414, 3549, 131, 143, 1992]
    """
    train, validation = int(n * TRAIN), int(n * (1 - TRAIN)) // 2
    return train, validation, n - train - validation


def sizes_with_test(test: int) -> range:
    """Return the set sizes that have a test set of ``test`` cells.

    Notes
    -----
    Three published test sizes are smaller than the split of the published set size. They fit a split of what was left
    when labels and poor cells had been dropped, with the set size counted before; that is known of the first and
    inferred of the others:

    - GSE149383: 226 of 2,739. After the caps on genes and mitochondrial counts 2,254 cells are left, as the output in
      InstructCell's notebook shows, and 2,254 cells have 226 test cells.
    - Segerstolpe-2016: 209 of 2,209, and He-2020-Liver: 254 of 2,839. 124 to 133 and 304 to 313 cells would have
      been dropped in between, by rare labels and the caps; the publication does not say.

    Examples
    --------
    >>> [sizes_with_test(test) for test in (226, 209, 254)]
    [range(2246, 2256), range(2076, 2086), range(2526, 2536)]
    >>> 2254 in sizes_with_test(226)
    True
    """
    fitting = [n for n in range(max(0, 10 * test - 30), 10 * test + 31) if instructcell_sizes(n)[2] == test]
    return range(fitting[0], fitting[-1] + 1) if fitting else range(0)


def instructcell_split(sizes: Mapping[str, int], seed: int = SEED) -> dict[str, dict[Split, np.ndarray]]:
    """Return the rows of every set that train, validate and test.

    Parameters
    ----------
    sizes
        Cells of each set, after all filters, by name. The order counts: one random state goes through all sets, so
        that a set's split depends on the sizes of those before it.
    seed
        Of that state.

    Notes
    -----
    InstructCell goes through its folders in the order in which the file system lists them, which is not recorded. The
    sizes are therefore reproduced, and which cell is where only for the same order.

    Examples
    --------
    >>> split = instructcell_split({"gse117872": 1302, "gse110894": 1419})
    >>> [len(rows) for rows in split["gse110894"].values()]
    [1135, 141, 143]
    """
    state = np.random.RandomState(seed)
    splits: dict[str, dict[Split, np.ndarray]] = {}
    for name, n in sizes.items():
        order = state.permutation(n)
        train, validation, _ = instructcell_sizes(n)
        splits[name] = {
            "train": order[:train],
            "validation": order[train : train + validation],
            "test": order[train + validation :],
        }
    return splits
