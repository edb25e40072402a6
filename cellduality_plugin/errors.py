"""The one error a user is meant to read: what went wrong, where, and how to mend it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator


class CellDualityError(Exception):
    """A mistake in data, settings or environment, reported in one line.

    ``what`` is wrong, in a few words, with the offending value; ``where`` it was found: file, row, flag or column; the
    ``hint`` says what the user can do about it. Programs and tests go by the ``code``, lower case with hyphens, and not
    by the wording. A command that ends by it has the ``exit_code``: 3 where there is nothing to do, which a recipe may
    take for done.

    Examples
    --------
    >>> print(CellDualityError("no such task 'annotate'", code="unknown-task", where="a.json", hint="use one of: a, b"))
    no such task 'annotate' [a.json]: use one of: a, b
    """

    def __init__(self, what: str, *, code: str = "", where: str = "", hint: str = "", exit_code: int = 2) -> None:
        self.what, self.code, self.where, self.hint, self.exit_code = what, code, where, hint, exit_code
        line = what + (f" [{where}]" if where else "") + (f": {hint}" if hint else "")
        super().__init__(" ".join(line.split()))


@contextlib.contextmanager
def needs_extra(extra: str) -> Iterator[None]:
    """Turn a package that the block cannot import into one line that says how to install it."""
    try:
        yield
    except ImportError as error:
        hint = f"in the folder of CellDuality: pip install '.[{extra}]'"
        raise CellDualityError(f"cannot import {error.name}", code="not-installed", hint=hint) from error
