"""Which round is kept, and when rounds end."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cellduality_plugin.evaluation.report import FORMAT, VERSION
from cellduality_plugin.evaluation.rounds.choosing import as_json, read_round
from tests.refused import refused

KEY = "cell_type_annotation/accuracy"


@pytest.mark.parametrize(
    ("scores", "patience", "kept", "goes_on"),
    [
        ((0.5,), 1, 1, True),
        ((0.5, 0.6), 1, 2, True),
        ((0.5, 0.6, 0.6), 1, 2, False),  # equal is no help
        ((0.5, 0.4), 1, 1, False),
        ((0.5, 0.4), 2, 1, True),
        ((0.5, 0.4, 0.6), 2, 3, True),
        ((0.5, 0.4, 0.3), 2, 1, False),
    ],
)
def test_the_best_is_kept_and_rounds_end_when_they_no_longer_help(scores, patience, kept, goes_on):
    content = as_json([{"round": number, "score": score} for number, score in enumerate(scores, start=1)], patience)
    assert (content["kept"], content["goes_on"]) == (kept, goes_on)


def write_round(folder: Path, split: str = "validation", columns: int = 1, **metrics: tuple[float, str]) -> Path:
    found = {key.replace("__", "/"): {"value": value, "better": better} for key, (value, better) in metrics.items()}
    found["cell_type_annotation@ood/accuracy"] = {"value": 1.0, "better": "higher"}
    made = {f"round-{place}": {"kind": "checkpoint", "metrics": found} for place in range(columns)}
    baseline = {"majority": {"kind": "baseline", "metrics": {KEY: {"value": 1.0, "better": "higher"}}}}
    content = {"format": FORMAT, "version": VERSION, "split": split, "columns": made | baseline}
    (folder / "validation").mkdir(parents=True)
    (folder / "validation" / "metrics.json").write_text(json.dumps(content))
    return folder


def test_headlines_of_cells_like_those_that_train_are_what_counts(tmp_path: Path):
    folder = write_round(
        tmp_path / "2",
        cell_type_annotation__accuracy=(0.6, "higher"),
        cell_type_annotation__dual_similarity=(0.9, "higher"),
        conditional_cell_generation__knn_agreement_10=(0.8, "higher"),
        perturbation_response_generation__shift_error=(3.0, "lower"),
    )
    summary = {"flip_rate": 0.25, "entropy": 0.9, "alarms": [], "cells": 7}
    (folder / "pseudo.json").write_text(json.dumps({"tasks": {"cell_type_annotation": summary}}))
    assert read_round(folder) == {
        "round": 2,
        "score": pytest.approx(0.7),
        "metrics": {KEY: 0.6, "conditional_cell_generation/knn_agreement_10": 0.8},
        "flip_rate": {"cell_type_annotation": 0.25},
        "entropy": {"cell_type_annotation": 0.9},
        "alarms": {"cell_type_annotation": []},
    }
    first = read_round(write_round(tmp_path / "1", cell_type_annotation__accuracy=(0.5, "higher")))
    assert (first["entropy"], as_json([first, read_round(folder)], 1)["kept"]) == ({}, 2)


@pytest.mark.parametrize(
    ("how", "code"), [({"split": "test"}, "not-a-round"), ({"columns": 2}, "not-a-round"), ({}, "no-headline")]
)
def test_test_cells_choose_nothing_nor_does_a_round_without_a_headline(how, code, tmp_path: Path):
    with refused(code):
        read_round(write_round(tmp_path / "1", **how))
