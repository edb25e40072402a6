from __future__ import annotations

import json

from cellduality_plugin.evaluation.page.tables import confusions, section_tables


def test_real_cells_are_no_contestant(run_of_two):
    metrics = json.loads((run_of_two / "metrics.json").read_text())
    tables = section_tables(metrics)
    assert len(tables) == len(metrics["spaces"])
    for table in tables:
        assert all(set(cells) <= set(table.columns) for _, cells, _ in table.rows)
        assert all("real cells" not in winners for _, _, winners in table.rows)
        assert all(winners for name, cells, winners in table.rows if name.startswith(("accuracy", "diversity")))


def test_what_no_column_has_is_told_once_with_its_reason(run_of_two):
    metrics = json.loads((run_of_two / "metrics.json").read_text())
    tables = {table.name: table for table in section_tables(metrics)}
    for column in metrics["columns"].values():
        for key, metric in column["metrics"].items():
            if "@ood/scfid" in key:
                metric |= {"value": None, "interval": None, "note": "mean over 0 of 2 types; more"}
    found = {table.name: table for table in section_tables(metrics)}
    name = "perturbation response generation, held-out cell types"
    assert found[name].unmeasured == {"mean over 0 of 2 types": ["scFID", "scFID, shrunk"]}
    assert [row for row, _, _ in tables[name].rows if "scFID" not in row] == [row for row, _, _ in found[name].rows]
    assert found["cell type annotation"].unmeasured == {}


def test_how_each_number_was_measured_is_told(run_of_two):
    metrics = json.loads((run_of_two / "metrics.json").read_text())
    tables = {table.name: table for table in section_tables(metrics)}
    for table in tables.values():
        assert list(table.how) == [name for name, _, _ in table.rows]
        assert all("Range" in told and "n = " in told for told in table.how.values())
    mmd = tables["conditional cell generation"].how["MMD² ↓"]
    assert mmd.startswith("MMD^2, biased V-statistic, mean over draws. RBF, sigma")
    assert "Range 0 to 2, best 0." in mmd
    assert "best as real cells" in tables["conditional cell generation"].how["spread within types ≈"]
    assert "n = 60 (GRPO)" in tables["conditional cell generation"].how["k-NN agreement (5) ↑"]


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
