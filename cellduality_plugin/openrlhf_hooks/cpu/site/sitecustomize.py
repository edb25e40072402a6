"""Registers the post-import patches in every process of a CPU run, then runs the sitecustomize this one hides."""

import importlib.util
import os
import sys
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType


def _run(spec: ModuleSpec | None) -> ModuleType | None:
    if spec is None or spec.loader is None:
        return None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


_HERE = os.path.dirname(os.path.abspath(__file__))
_PATCHES = os.path.join(os.path.dirname(_HERE), "post_import.py")
# By path: importing it as part of its package would import the package in every process.
if (_post_import := _run(importlib.util.spec_from_file_location("_cellduality_post_import", _PATCHES))) is not None:
    _post_import.install()
_OTHERS = [folder for folder in sys.path if os.path.abspath(folder or os.curdir) != _HERE]
_run(PathFinder.find_spec("sitecustomize", _OTHERS))
