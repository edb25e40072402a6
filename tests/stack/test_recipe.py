"""One command from nothing to the report, with the real trainer."""

from __future__ import annotations

import json
import math

import pytest

pytestmark = pytest.mark.stack

# What `cellduality_plugin.scoring` reports for every rollout, as the trainer logs it.
LOGGED = {
    "dual_reward",
    "dual_similarity",
    "dual_validity",
    "dual_answer_parsed",
    "dual_repeated_genes",
    "dual_unknown_genes",
    "dual_failed",
    "dual_timeout",
    "dual_requests",
    "dual_seconds",
    "dual_share/cell_type_annotation",
    "dual_reward/cell_type_annotation",
    "dual_share/conditional_cell_generation",
    "dual_reward/conditional_cell_generation",
}


def test_it_prints_a_table_of_the_three_models(whole_run):
    table = whole_run.printed.rpartition("[5/5]")[2]
    header = next(line for line in table.splitlines() if "GRPO" in line)
    assert header.index("base") < header.index("SFT") < header.index("GRPO")
    assert "accuracy" in table
    assert "MMD²" in table


def test_it_writes_metrics_and_a_report(whole_run):
    metrics = json.loads((whole_run.folder / "test" / "metrics.json").read_text())
    checkpoints = {name for name, column in metrics["columns"].items() if column["kind"] == "checkpoint"}
    assert checkpoints == {"base", "SFT", "GRPO"}
    for name in checkpoints:
        accuracy = metrics["columns"][name]["metrics"]["cell_type_annotation/accuracy"]["value"]
        assert 0 <= accuracy <= 1
    page = (whole_run.folder / "report.html").read_text()
    assert "GRPO" in page
    assert "</html>" in page


def test_every_step_is_logged(whole_run):
    assert whole_run.steps() == [1, 2, 3]


def test_rewards_and_every_dual_key_reach_tensorboard(whole_run, scalars):
    found = scalars(whole_run.folder / "tensorboard" / "grpo")
    assert found.keys() >= LOGGED
    for name in {"reward", *LOGGED}:
        assert len(found[name]) == 3, name
        assert all(map(math.isfinite, found[name])), name
    assert found["reward"] == pytest.approx(found["dual_reward"], abs=1e-6)
    assert all(0 <= reward <= 1 for reward in found["reward"])
    for annotation, generation in zip(
        found["dual_share/cell_type_annotation"], found["dual_share/conditional_cell_generation"], strict=True
    ):
        assert annotation + generation == pytest.approx(1, abs=1e-6)
    assert any(requests > 0 for requests in found["dual_requests"]), "no dual was ever asked"


def test_the_rows_for_rl_hold_no_gold(whole_run):
    rows = [json.loads(line) for line in (whole_run.folder / "data" / "rl.jsonl").read_text().splitlines()]
    assert len(rows) == 24
    for row in rows:
        assert json.loads(row["label"])["gold"] is None
        assert not row.keys() & {"output", "gold", "answer", "cell_type"}


def test_the_trained_model_loads_and_is_not_the_sft_model(whole_run):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    before, after = (AutoModelForCausalLM.from_pretrained(whole_run.folder / name) for name in ("sft", "grpo"))
    weights = after.state_dict()
    changed = [name for name, weight in before.state_dict().items() if not weight.equal(weights[name])]
    assert all(weight.isfinite().all() for weight in weights.values())
    assert len(changed) > len(weights) / 2, changed
    sft, grpo = (AutoTokenizer.from_pretrained(whole_run.folder / name) for name in ("sft", "grpo"))
    assert sft.get_vocab() == grpo.get_vocab()
    assert sft.chat_template == grpo.chat_template


def test_no_process_is_left(whole_run, living):
    assert living(whole_run.folder) == []
