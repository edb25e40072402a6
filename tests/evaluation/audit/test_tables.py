"""An audit as people read it."""

from __future__ import annotations

import re

import pytest

from cellduality_plugin.evaluation.audit.run import AuditSettings, audit
from cellduality_plugin.evaluation.audit.tables import audit_markdown, audit_sections
from cellduality_plugin.evaluation.plots import plot_audit

ANNOTATION, GENERATION = "cell_type_annotation", "conditional_cell_generation"


@pytest.fixture
def content(data, config, players):
    return audit(data, config, players(), AuditSettings(rewards=("oracle", "mine.py:Constant"), cells=6, resamples=20))


def test_a_task_has_a_table_without_empty_columns_its_verdicts_and_its_choice(content):
    tables = {section["findings"][0]["task"]: section["rows"] for section in audit_sections(content)}
    assert list(tables) == [ANNOTATION, GENERATION]
    for rows in tables.values():
        assert [row["reward"] for row in rows] == ["oracle", "Constant"]
        assert all(list(row) == list(rows[0]) for row in rows)
        assert all(any(row[column] != "–" for row in rows) for column in rows[0])
    assert tables[ANNOTATION][0]["AUC"] == "1.00 (1.00–1.00)"
    assert {"choice", "product"} <= set(tables[ANNOTATION][0])
    assert not {"choice", "product", "all masks"} & set(tables[GENERATION][0])
    assert plot_audit("audit0", "annotation", content["findings"][:2]).startswith("<svg")
    assert "**Choice.**" not in audit_markdown(content)
    contender = {"reward": "posterior", "hidden": 1.0, "traces": 0}
    content["choice"] = {
        ANNOTATION: {"reward": "posterior, all hidden", "contender": contender, "why": "it agrees"},
        GENERATION: {"reward": "", "contender": None, "why": "none agrees"},
    }
    page = audit_markdown(content)
    assert "The labels of 24 validation cells were read (made 24)." in page
    for found in content["findings"]:
        assert f"- **{found['reward']}** ({found['verdict']['grade']}): {found['verdict']['words']}\n" in page
    lines = ["Trained with posterior, all hidden: it agrees", "Stays out: none agrees"]
    assert re.findall(r"^\*\*Choice\.\*\* (.*)$", page, re.MULTILINE) == lines
    assert re.findall(r"^## (.*)$", page, re.MULTILINE) == ["cell type annotation", "conditional cell generation"]
    for block in re.findall(r"(?:^\|.*\n)+", page, re.MULTILINE):
        assert len({line.count(" | ") for line in block.splitlines()}) == 1
