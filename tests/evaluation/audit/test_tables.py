"""An audit as people read it."""

from __future__ import annotations

import io
import re

import pytest
from rich.console import Console

from cellduality_plugin.evaluation.audit.run import AuditSettings, audit
from cellduality_plugin.evaluation.audit.tables import (
    audit_markdown,
    audit_rows,
    audit_table,
    choice_line,
)
from cellduality_plugin.evaluation.plots import plot_audit, save_audit

ANNOTATION, GENERATION = "cell_type_annotation", "conditional_cell_generation"


@pytest.fixture
def content(data, config, players):
    return audit(data, config, players(), AuditSettings(rewards=("oracle", "mine.py:Constant"), cells=6, resamples=20))


def test_a_task_has_a_table_without_empty_columns(content):
    tables = audit_rows(content)
    assert list(tables) == [ANNOTATION, GENERATION]
    for rows in tables.values():
        assert [row["reward"] for row in rows] == ["oracle", "Constant"]
        assert all(list(row) == list(rows[0]) for row in rows)
    assert tables[ANNOTATION][0]["AUC"] == "1.00 (1.00–1.00)"
    assert {"choice", "product"} <= set(tables[ANNOTATION][0])
    assert not {"choice", "product", "all masks"} & set(tables[GENERATION][0])
    assert all(any(row[column] != "–" for row in rows) for rows in tables.values() for column in rows[0])


def test_the_terminal_shows_every_verdict(content):
    console = Console(width=200, file=io.StringIO())
    console.print(audit_table(content))
    printed = console.file.getvalue()
    for found in content["findings"]:
        assert f"{found['reward']}: {found['verdict']['words']}" in printed
    assert "cell type annotation: 6 cells, 8 answers each; accuracy / macro-F1 of the policy's likeliest" in printed
    assert "The labels of 24 validation cells were read (made 24)." in printed


def test_markdown_holds_tables_that_read_as_such(content):
    page = audit_markdown(content)
    for block in re.findall(r"(?:^\|.*\n)+", page, re.MULTILINE):
        assert len({line.count(" | ") for line in block.splitlines()}) == 1
    assert [line.removeprefix("## ") for line in page.splitlines() if line.startswith("## ")] == [
        "cell type annotation", "conditional cell generation",
    ]  # fmt: skip


def test_what_was_chosen_stands_beside_its_task(content):
    assert choice_line(content, ANNOTATION) == ""
    contender = {"reward": "posterior", "hidden": 1.0, "traces": 0}
    content["choice"] = {
        ANNOTATION: {"reward": "posterior, all hidden", "contender": contender, "why": "it agrees"},
        GENERATION: {"reward": "", "contender": None, "why": "none agrees"},
    }
    lines = ["Trained with posterior, all hidden: it agrees", "Stays out: none agrees"]
    assert [choice_line(content, task) for task in (ANNOTATION, GENERATION)] == lines
    assert [line for line in audit_markdown(content).splitlines() if line.startswith("**Choice.** ")] == [
        f"**Choice.** {line}" for line in lines
    ]
    console = Console(width=200, file=io.StringIO())
    console.print(audit_table(content))
    assert all(line in console.file.getvalue() for line in lines)


def test_plots_stand_in_a_page_and_in_a_file(content, tmp_path):
    found = [each for each in content["findings"] if each["task"] == ANNOTATION]
    svg = plot_audit("audit0", "annotation", found)
    assert svg.startswith("<svg")
    assert "accuracy of the majority" in svg
    save_audit(tmp_path / "audit.png", {"annotation": found, "generation": found})
    assert (tmp_path / "audit.png").read_bytes().startswith(b"\x89PNG")
    assert [path.name for path in tmp_path.iterdir() if path.suffix == ".png"] == ["audit.png"]
