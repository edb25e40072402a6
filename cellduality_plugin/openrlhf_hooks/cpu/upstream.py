"""Strict replacement of upstream attributes: a version that moved one fails loudly, by the behaviour that is lost."""

from __future__ import annotations

import contextlib
import importlib.metadata
from typing import Any

from cellduality_plugin.errors import CellDualityError


def existing(owner: Any, name: str, behaviour: str) -> Any:
    """Return `owner.name` of an upstream module or class, on which a patch relies.

    ``behaviour`` is what the patch makes possible, as a noun phrase ("weight sync over gloo"). A CellDualityError is
    raised if the attribute is absent: the installed version is not the one the patch was written for.
    """
    try:
        return getattr(owner, name)
    except AttributeError as error:
        package = _path(owner).partition(".")[0]
        raise CellDualityError(
            f"{behaviour} cannot be set up on the CPU, because {_path(owner)} has no attribute {name!r}",
            code="wrong-version",
            where=" ".join(installed_version(package) or [package]),
            hint="install the versions pinned by cellduality[cpu], or report this version as unsupported",
        ) from error


def replace(owner: Any, name: str, new: Any, behaviour: str) -> None:
    """Set `owner.name` to `new` after making sure that it exists; see `existing` for the parameters."""
    existing(owner, name, behaviour)
    setattr(owner, name, new)


def _path(owner: Any) -> str:
    module = getattr(owner, "__module__", None)
    return f"{module}.{owner.__name__}" if module else str(owner.__name__)


def installed_version(package: str) -> tuple[str, str] | None:
    """Return the distribution of a package, its own or the one for a CPU, and its version; None if it is not there."""
    for name in (package, f"{package}-cpu"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            return name, importlib.metadata.version(name)
    return None
