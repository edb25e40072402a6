"""An audit as people read it."""

from __future__ import annotations

import io
import re

import pytest
from rich.console import Console

from cellduality_plugin.evaluation.audit.run import AuditSettings, audit
from cellduality_plugin.evaluation.audit.tables import audit_markdown, audit_rows, audit_table, verdict_lines
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
    assert "choice" in tables[ANNOTATION][0]
    assert not {"choice", "policy", "all masks"} & set(tables[GENERATION][0])
    assert all(any(row[column] != "–" for row in rows) for rows in tables.values() for column in rows[0])


def test_the_terminal_shows_every_verdict(content):
    console = Console(width=200, file=io.StringIO())
    console.print(audit_table(content))
    printed = console.file.getvalue()
    for found in content["findings"]:
        assert f"{found['reward']}: {found['verdict']['words']}" in printed
    assert "cell type annotation: 6 cells, 8 answers each" in printed


def test_markdown_holds_tables_that_read_as_such(content):
    page = audit_markdown(content)
    for block in re.findall(r"(?:^\|.*\n)+", page, re.MULTILINE):
        assert len({line.count(" | ") for line in block.splitlines()}) == 1
    assert [line.removeprefix("## ") for line in page.splitlines() if line.startswith("## ")] == [
        "cell type annotation", "conditional cell generation",
    ]  # fmt: skip
    assert len(verdict_lines(content)) == 4


def test_plots_stand_in_a_page_and_in_a_file(content, tmp_path):
    found = [each for each in content["findings"] if each["task"] == ANNOTATION]
    svg = plot_audit("audit0", "annotation", found)
    assert svg.startswith("<svg")
    assert "accuracy of the policy" in svg
    save_audit(tmp_path / "audit.png", {"annotation": found, "generation": found})
    assert (tmp_path / "audit.png").read_bytes().startswith(b"\x89PNG")
    assert [path.name for path in tmp_path.iterdir() if path.suffix == ".png"] == ["audit.png"]
