"""Run by Python at the start of every process of a CPU run: torchrun and Ray workers, vLLM engines, helpers.

Registers the post-import patches and then runs the sitecustomize this one hides, if there is one.
"""

import importlib.util
import os
import sys
from importlib.machinery import PathFinder

_HERE = os.path.dirname(os.path.abspath(__file__))


def _load(name, path):
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _run_hidden_sitecustomize():
    others = [folder for folder in sys.path if os.path.abspath(folder or os.curdir) != _HERE]
    spec = PathFinder.find_spec("sitecustomize", others)
    if spec is not None and spec.loader is not None:
        spec.loader.exec_module(importlib.util.module_from_spec(spec))


_load("_cellduality_post_import", os.path.join(os.path.dirname(_HERE), "post_import.py")).install()
_run_hidden_sitecustomize()
