from __future__ import annotations

import re

from cellduality_plugin.evaluation.arms.plot import save_plot
from cellduality_plugin.evaluation.compare import compare
from cellduality_plugin.evaluation.compare_tables import headline_rows


def test_a_panel_a_row_with_every_arm_and_no_base_model(table6, tmp_path):
    rows = headline_rows(compare(table6))
    save_plot(rows, tmp_path / "arms.svg", tmp_path / "arms.png")
    text = (tmp_path / "arms.svg").read_text(encoding="utf-8")
    for told in ("cell type annotation: accuracy", "drug exposure prediction", "shift error", "SFT", "oracle"):
        assert told in text
    assert "base<" not in text
    assert len(re.findall(r'id="axes_\d+"', text)) == 4  # two in a row, the last place empty
    assert (tmp_path / "arms.png").read_bytes().startswith(b"\x89PNG")


def test_the_same_numbers_make_the_same_bytes(table6, tmp_path):
    rows = headline_rows(compare(table6))[:1]
    for name in ("a.svg", "b.svg", "a.png", "b.png"):
        save_plot(rows, tmp_path / name)
    for kind in ("svg", "png"):
        assert (tmp_path / f"a.{kind}").read_bytes() == (tmp_path / f"b.{kind}").read_bytes()


def test_one_seed_without_an_oracle_can_be_drawn(table6, tmp_path):
    save_plot(headline_rows(compare(table6[:1], oracle="")), tmp_path / "arms.svg")
    assert "SFT" in (tmp_path / "arms.svg").read_text(encoding="utf-8")
