from __future__ import annotations

import pytest

from cellduality_plugin.errors import CellDualityError
from cellduality_plugin.tasks import TASKS, get_task

PAIR = """
from cellduality_plugin.tasks.cell_type_annotation import CellTypeAnnotation

class Mine(CellTypeAnnotation):
    name = "mine"

not_a_pair = 3
"""


def test_built_in_pairs_are_found_by_name():
    assert get_task("cell_type_annotation") is TASKS["cell_type_annotation"]


def test_a_pair_is_found_in_a_file_and_in_a_module(tmp_path, monkeypatch):
    (tmp_path / "my_pairs.py").write_text(PAIR)
    assert get_task("my_pairs.py:Mine", tmp_path).name == "mine"
    monkeypatch.syspath_prepend(tmp_path)
    assert get_task("my_pairs:Mine").name == "mine"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("annotate", "cell_type_annotation, conditional_cell_generation"),
        ("no.such.module:Pair", "cannot load"),
        ("missing.py:Pair", "cannot load"),
        ("my_pairs.py:Other", "cannot load"),
        ("my_pairs.py:not_a_pair", "subclass"),
    ],
)
def test_a_wrong_name_tells_what_there_is(tmp_path, name, message):
    (tmp_path / "my_pairs.py").write_text(PAIR)
    with pytest.raises(CellDualityError, match=message):
        get_task(name, tmp_path)
