"""Registers the post-import patches in every process of a CPU run, then runs the sitecustomize this one hides."""

import importlib.util
import os
import sys
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType

_HERE = os.path.dirname(os.path.abspath(__file__))


def _run(spec: ModuleSpec) -> ModuleType:
    module = importlib.util.module_from_spec(spec)
    if spec.loader is not None:
        spec.loader.exec_module(module)
    return module


def _register_patches() -> None:
    # By path: importing it as part of its package would import the package in every process.
    path = os.path.join(os.path.dirname(_HERE), "post_import.py")
    spec = importlib.util.spec_from_file_location("_cellduality_post_import", path)
    if spec is not None:
        _run(spec).install()


def _run_hidden_sitecustomize() -> None:
    others = [folder for folder in sys.path if os.path.abspath(folder or os.curdir) != _HERE]
    spec = PathFinder.find_spec("sitecustomize", others)
    if spec is not None:
        _run(spec)


_register_patches()
_run_hidden_sitecustomize()
