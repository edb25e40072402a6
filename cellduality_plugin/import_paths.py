"""Classes of a user's own, named by where they are."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import TypeVar

from cellduality_plugin.errors import CellDualityError

Base = TypeVar("Base")

FORMS = "module:Class or file.py:Class"  # how a class is named


def load_class(name: str, base: type[Base], folder: Path | None = None, *, what: str, where: str) -> type[Base]:
    """Return the subclass of ``base`` at the import path ``name``: ``"package.module:Class"`` or ``"file.py:Class"``.

    A file path is relative to ``folder``, by default the working directory; ``what`` the class is and ``where`` it is
    named are for the message. A CellDualityError is raised if there is no such class, it is no subclass of ``base``, or
    it lacks a method that ``base`` leaves open.
    """
    module, _, class_name = name.rpartition(":")
    try:
        found = getattr(_module_at(module, folder), class_name)
    except (ImportError, FileNotFoundError, AttributeError, ValueError) as error:
        problem, hint = f"cannot load the {what} {name!r}: {error}", f"check the path; give it as {FORMS}"
        raise CellDualityError(problem, code="cannot-load", where=where, hint=hint) from error
    if not (inspect.isclass(found) and issubclass(found, base)):
        hint = f"subclass {base.__module__}.{base.__name__}"
        raise CellDualityError(f"{name!r} is not a {base.__name__}", code="wrong-class", where=where, hint=hint)
    if inspect.isabstract(found):
        problem = f"the {what} {name!r} lacks {', '.join(sorted(getattr(found, '__abstractmethods__', ())))}"
        raise CellDualityError(problem, code="abstract-class", where=where, hint="write what is missing")
    return found


def find(
    name: str, known: Mapping[str, Base], base: type[Base], folder: Path | None = None, *, what: str, where: str
) -> Base:
    """Return the one called ``name`` among ``known``, or a new one of the class there, see :func:`load_class`."""
    if name in known:
        return known[name]
    if ":" not in name:
        hint = f"use one of {', '.join(known)}, or {FORMS}"
        raise CellDualityError(f"no {what} {name!r}", code="unknown-name", where=where, hint=hint)
    return load_class(name, base, folder, what=what, where=where)()


def _module_at(name: str, folder: Path | None) -> ModuleType:
    if not name.endswith(".py"):
        return importlib.import_module(name)
    path = (folder or Path()) / name
    spec = importlib.util.spec_from_file_location(f"cellduality_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise FileNotFoundError(path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
