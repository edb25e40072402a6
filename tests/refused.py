"""What a test expects of an error: its kind, not its wording."""

from __future__ import annotations

import pytest

from cellduality_plugin.errors import CellDualityError


def refused(code: str) -> pytest.RaisesExc[CellDualityError]:
    """Return a context manager that passes where a `CellDualityError` of this code is raised."""
    return pytest.raises(CellDualityError, check=lambda error: error.code == code)
