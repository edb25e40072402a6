from __future__ import annotations

import csv
import io
import json

import pytest

from cellduality_plugin.evaluation.arms.comparing import compare
from cellduality_plugin.evaluation.arms.tables import as_csv, as_json, goal_lines, headline_rows, markdown

KEY = "cell_type_annotation/accuracy"


def cells(text: str, start: str) -> list[list[str]]:
    """Return the cells of the lines of both tables whose first cell starts with `start`."""
    lines = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in text.splitlines() if line[:1] == "|"]
    return [line for line in lines if line[0].startswith(start)]


def test_the_best_of_a_row_is_bold_and_a_baseline_has_its_name(table6):
    [means, change] = cells(markdown(compare(table6), "test"), "cell type annotation")
    assert means == [
        "cell type annotation: accuracy ↑", "0.100 ± 0.000", "0.600 ± 0.100", "**0.800 ± 0.095**", "0.703 ± 0.105",
        "0.500 ± 0.095", "0.300 ± 0.000 majority", "–",
    ]  # fmt: skip
    assert change[1:] == ["oracle", "+0.200 (+0.175 to +0.225)\\*", "–", "a gap (+0.200)"]


def test_the_reader_is_told_how_many_seeds_and_what_intervals(table6):
    text = markdown(compare(table6), "validation")
    assert text.startswith("validation split, 3 seeds\n")
    assert "Student's t over seeds" in text
    assert "Fieller" in text


def test_an_arm_is_beside_its_verdict(table6):
    lines = markdown(compare(table6), "test").splitlines()
    told = {line.split("|")[2].strip(): line.split("|")[-2].strip() for line in lines if line.count("|") == 6}
    assert told["paper"] == "closes 48 % of the gap"
    shown = [line for line in lines if "closes 52 % of the gap" in line]
    assert len(shown) == 1
    assert "| 52 % (" in shown[0]


def test_the_goal_counts_gaps_and_harm(table6):
    lines = goal_lines(headline_rows(compare(table6)))
    assert lines == [
        "**paper** closes 50 % or more of 1 of 2 gaps; harms nothing clearly",
        "**default** closes 50 % or more of 0 of 2 gaps; harms cell type annotation: accuracy ↑",
    ]
    [line] = goal_lines(headline_rows(compare(table6, oracle="", reference="paper")))
    assert line.startswith("**default** harms cell type annotation: accuracy ↑")


def test_headlines_inside_the_distribution_come_first_and_others_not_at_all(make_runs):
    one = ("higher", {"SFT": [0.5, 0.6]})
    keys = [
        "cell_type_annotation@kidney_immune/coarse_accuracy", "cell_type_annotation/macro_f1", KEY,
        "drug_exposure_prediction/accuracy", "cell_type_annotation/dual_similarity",
    ]  # fmt: skip
    rows = headline_rows(compare(make_runs(dict.fromkeys(keys, one)), oracle=""))
    assert [row.key for row in rows] == [KEY, keys[1], keys[3], keys[0]]


def test_machines_get_every_number(table6):
    rows = compare(table6)
    told = json.loads(json.dumps(as_json(rows, "test", [0, 1, 2]), allow_nan=False))
    assert (told["format"], told["seeds"], told["split"]) == ("cellduality-arms", [0, 1, 2], "test")
    row = next(row for row in told["rows"] if row["key"] == KEY)
    assert row["gap"] == "certain"
    assert row["columns"]["SFT"] == {
        "role": "reference", "values": [0.5, 0.6, 0.7], "mean": pytest.approx(0.6), "deviation": pytest.approx(0.1),
        "interval": pytest.approx([0.6 - 0.24841, 0.6 + 0.24841], abs=1e-4),
    }  # fmt: skip
    paper = row["columns"]["paper"]
    assert paper["share"] == pytest.approx(31 / 60)
    assert paper["share_interval"][0] < paper["share"] < paper["share_interval"][1]

    lines = list(csv.DictReader(io.StringIO(as_csv(rows))))
    [line] = [line for line in lines if (line["section"], line["column"]) == ("cell_type_annotation", "paper")]
    assert float(line["share"]) == paper["share"]
    assert [float(line["share_low"]), float(line["share_high"])] == paper["share_interval"]
    assert (line["metric"], line["seeds"], line["clear"]) == ("accuracy", "3", "True")
    assert line["verdict"] == "closes 52 % of the gap"
    [line] = [line for line in lines if (line["section"], line["column"]) == ("cell_type_annotation", "majority")]
    assert (line["role"], line["change"], line["share"], line["verdict"]) == ("baseline", "", "", "")


def test_one_seed_is_json_too(table6):
    told = json.loads(json.dumps(as_json(compare(table6[:1]), "test", [0]), allow_nan=False))
    paper = told["rows"][0]["columns"]["paper"]
    assert (paper["deviation"], paper["interval"], paper["change_interval"]) == (None, None, None)
    assert paper["outcome"] == "unknown"
