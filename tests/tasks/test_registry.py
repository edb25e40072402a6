from __future__ import annotations

from cellduality_plugin.tasks import TASKS, get_task
from tests.refused import refused

PAIR = """
from cellduality_plugin.tasks.cell_type_annotation import CellTypeAnnotation

class Mine(CellTypeAnnotation):
    name = "mine"

not_a_pair = 3
"""


def test_a_pair_is_found_by_name_in_a_file_and_in_a_module(tmp_path, monkeypatch):
    assert get_task("cell_type_annotation") is TASKS["cell_type_annotation"]
    (tmp_path / "my_pairs.py").write_text(PAIR)
    assert get_task("my_pairs.py:Mine", tmp_path).name == "mine"
    monkeypatch.syspath_prepend(tmp_path)
    assert get_task("my_pairs:Mine").name == "mine"


def test_a_wrong_name_is_refused(tmp_path):
    (tmp_path / "my_pairs.py").write_text(PAIR)
    wrong = {"annotate": "unknown-name", "my_pairs.py:Other": "cannot-load", "my_pairs.py:not_a_pair": "wrong-class"}
    for name, code in wrong.items():
        with refused(code):
            get_task(name, tmp_path)
