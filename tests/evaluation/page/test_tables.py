from __future__ import annotations

import json

from cellduality_plugin.evaluation.page.tables import best, confusions, section_tables


def test_real_cells_are_no_contestant(run_of_two):
    metrics = json.loads((run_of_two / "metrics.json").read_text())
    tables = section_tables(metrics)
    assert len(tables) == len(metrics["spaces"])
    for table in tables:
        assert all(set(cells) <= set(table.columns) for _, cells, _ in table.rows)
        assert all("real cells" not in winners for _, _, winners in table.rows)
        assert all(winners for name, cells, winners in table.rows if "accuracy" in name)


def test_where_nothing_is_better_nothing_is_the_best():
    cells = {name: {"value": value, "better": "like real cells"} for name, value in (("a", 1.0), ("b", 2.0))}
    assert best(cells, {"a", "b"}) == frozenset()
    assert best({"a": {"value": None, "better": "higher"}}, {"a"}) == frozenset()
    ties = {name: {"value": 1.0, "better": "higher"} for name in "ab"}
    assert best(ties, {"a", "b"}) == {"a", "b"}


def test_a_confusion_matrix_leaves_out_labels_that_no_cell_has_and_nobody_answers():
    counts = [[3, 0, 1, 1], [0, 0, 0, 0], [0, 0, 0, 2]]
    matrix = {"labels": ["B", "NK", "T"], "counts": counts}
    metrics = {"columns": {"SFT": {"confusion": {"cell_type_annotation": matrix}}}}
    [found] = confusions(metrics, ["SFT"])["cell type annotation"]
    assert found.labels == ["B", "T"]
    assert found.rows == [
        ("B", 5, [(3, 0.6), (1, 0.2), (1, 0.2)]),
        ("T", 2, [(0, 0.0), (0, 0.0), (2, 1.0)]),
    ]
    assert found.read == (4, 7)
