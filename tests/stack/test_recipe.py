"""One command from nothing to the report, with the real trainer."""

from __future__ import annotations

import json
import math

import pytest

pytestmark = pytest.mark.stack

TASKS = (
    "cell_type_annotation",
    "conditional_cell_generation",
    "drug_exposure_prediction",
    "perturbation_response_generation",
)


def test_it_prints_a_table_of_the_three_models(whole_run):
    table = whole_run.printed.rpartition("[7/7]")[2]
    header = next(line for line in table.splitlines() if "GRPO" in line)
    assert header.index("base") < header.index("SFT") < header.index("GRPO")
    assert "accuracy" in table
    assert "MMD²" in table


def test_it_writes_metrics_and_a_report(whole_run):
    metrics = json.loads((whole_run.folder / "test" / "metrics.json").read_text())
    checkpoints = {name for name, column in metrics["columns"].items() if column["kind"] == "checkpoint"}
    assert checkpoints == {"base", "SFT", "GRPO"}
    for name in checkpoints:
        found = metrics["columns"][name]["metrics"]
        for task in ("cell_type_annotation", "drug_exposure_prediction", "drug_exposure_prediction@ood"):
            assert 0 <= found[f"{task}/accuracy"]["value"] <= 1
        assert all(f"{task}/dual_similarity" in found for task in TASKS)
    for name in ("no change", "mean shift", "GRPO", "real cells"):
        assert "perturbation_response_generation/shift_error" in metrics["columns"][name]["metrics"]
    page = (whole_run.folder / "report.html").read_text()
    assert "GRPO" in page
    assert "</html>" in page


def test_the_rewards_are_audited_before_they_train(whole_run):
    content = json.loads((whole_run.folder / "audit" / "audit.json").read_text())
    assert {found["task"] for found in content["findings"]} == set(TASKS)
    assert {found["n"] for found in content["findings"]} == {3}
    for found in content["findings"]:
        assert found["verdict"]["words"] in whole_run.printed
        assert found["failed"] < 1
    assert whole_run.printed.index("audit.md") < whole_run.printed.index("] grpo]")
    assert "Audit of rewards before training" in (whole_run.folder / "report.html").read_text()


def test_sft_learns_from_traces_of_every_task_in_both_directions(whole_run):
    lines = (whole_run.folder / "data" / "sft_traces.jsonl").read_text().splitlines()
    taught = [row for row in map(json.loads, lines) if row["teacher"] == "rule"]
    assert len(taught) > 0.9 * len(lines)
    assert {(row["datasource"], row["direction"]) for row in taught} == {
        (task, direction) for task in TASKS for direction in ("primal", "dual")
    }
    assert not any("<think></think>" in row["output"] for row in taught)


def test_every_step_is_logged(whole_run):
    assert whole_run.steps() == [1, 2, 3]


def test_rewards_and_every_dual_key_reach_tensorboard(whole_run, scalars, dual_keys):
    found = scalars(whole_run.folder / "tensorboard" / "grpo")
    of_tasks = {f"{kind}/{task}" for task in TASKS for kind in ("dual_share", "dual_reward")}
    for name in {"reward", *dual_keys, *of_tasks}:
        assert len(found[name]) == 3, name
        assert all(map(math.isfinite, found[name])), name
    assert found["reward"] == pytest.approx(found["dual_reward"], abs=1e-6)
    assert all(0 <= reward <= 1 for reward in found["reward"])
    shares = zip(*(found[f"dual_share/{task}"] for task in TASKS), strict=True)
    assert [sum(step) for step in shares] == pytest.approx([1, 1, 1], abs=1e-6)
    assert max(found["dual_requests"]) > 0, "no dual was ever asked"
    assert max(found["reward"]) > 0, "nothing was ever rewarded"


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
