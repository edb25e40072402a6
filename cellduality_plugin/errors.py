"""The one error a user is meant to read: what went wrong, where, and how to mend it."""

from __future__ import annotations


class CellDualityError(Exception):
    """A mistake in data, settings or environment, told in one line.

    Parameters
    ----------
    what
        What is wrong, in a few words, with the offending value.
    where
        The file, row, flag or column it was found in.
    mend
        What the user can do about it.
    exit_code
        Of a command that ends by it: 3 where there is nothing to do, which a recipe may take for done.

    Examples
    --------
    >>> print(CellDualityError("no such task 'annotate'", where="config.json", mend="use one of: a, b"))
    no such task 'annotate' [config.json]: use one of: a, b
    """

    def __init__(self, what: str, *, where: str = "", mend: str = "", exit_code: int = 2) -> None:
        self.what, self.where, self.mend, self.exit_code = what, where, mend, exit_code
        line = what + (f" [{where}]" if where else "") + (f": {mend}" if mend else "")
        super().__init__(" ".join(line.split()))
