"""One command from nothing to the report, with the real trainer."""

from __future__ import annotations

import json

import anndata
import pytest

from cellduality_plugin.alarms import BY_TASK, with_ratios
from cellduality_plugin.config import Config
from cellduality_plugin.files import read_jsonl
from cellduality_plugin.inference.annotating import UNASSIGNED
from cellduality_plugin.replay import Replay, record_files
from tests.stack.conftest import DUAL_KEYS, adata_of, processes_of, scalars

pytestmark = pytest.mark.stack

GROUP = 4
TASKS = (
    "cell_type_annotation",
    "conditional_cell_generation",
    "drug_exposure_prediction",
    "perturbation_response_generation",
)


@pytest.fixture(scope="module")
def logged(whole_run) -> dict[str, list[float]]:
    """The scalars of its three steps."""
    assert whole_run.steps() == [1, 2, 3]
    return scalars(whole_run.folder / "tensorboard" / "grpo", steps=3)


def test_it_prints_a_table_of_the_three_models_and_leaves_no_process(whole_run):
    assert processes_of(whole_run.folder) == []
    table = whole_run.printed.rpartition("[8/8]")[2]
    header = next(line for line in table.splitlines() if "GRPO" in line)
    assert header.index("SFT") < header.index("refit") < header.index("GRPO")
    assert "accuracy" in table
    assert "MMD²" in table


def test_it_writes_metrics_and_a_report(whole_run):
    metrics = json.loads((whole_run.folder / "test" / "metrics.json").read_text())
    checkpoints = {name for name, column in metrics["columns"].items() if column["kind"] == "checkpoint"}
    assert checkpoints == {"SFT", "refit", "GRPO"}
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
    assert "model-index" in (whole_run.folder / "grpo" / "README.md").read_text()


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
    rows = list(read_jsonl(whole_run.folder / "data" / "sft_traces.jsonl"))
    taught = [row for row in rows if row["teacher"] == "rule"]
    assert len(taught) > 0.9 * len(rows)
    # With the whole cell hidden, to rebuild a cell from its type is to write one: it is taught once, as the latter.
    assert {(row["datasource"], row["direction"]) for row in taught} == {
        (task, direction) for task in TASKS for direction in ("primal", "dual")
    } - {("cell_type_annotation", "dual")}
    assert not any("<think></think>" in row["output"] for row in taught)


def test_rewards_and_every_dual_key_of_every_step_reach_tensorboard(logged):
    found, of_tasks = logged, {f"{kind}/{task}" for task in TASKS for kind in ("dual_share", *BY_TASK)}
    assert {"reward", *DUAL_KEYS, *of_tasks} <= found.keys()
    assert found["reward"] == pytest.approx(found["dual_reward"], abs=1e-6)
    assert all(0 <= reward <= 1 for reward in found["reward"])
    shares = zip(*(found[f"dual_share/{task}"] for task in TASKS), strict=True)
    assert [sum(step) for step in shares] == pytest.approx([1, 1, 1], abs=1e-6)
    assert max(found["dual_requests"]) > 0, "no dual was ever asked"
    assert max(found["reward"]) > 0, "nothing was ever rewarded"


def test_monitors_of_every_step_are_what_their_names_say(logged):
    found = logged
    assert found["dual_truncated"] == pytest.approx(found["truncated"], abs=1e-6), "OpenRLHF counts them, too"
    assert found["dual_groups"] == pytest.approx([1.0] * 3, abs=1e-6), "each group has had its last rollout"
    assert max(found["dual_label_groups"]) > 0, "no label was ever answered twice in a group"
    for step in range(3):
        metrics = {name: values[step] for name, values in found.items()}
        read = with_ratios(metrics)
        for name in ("success", "failures", "zero_variance", "time_share", "consistency"):
            assert 0 <= read[f"dual_{name}"] <= 1, name
        # A step of so few groups may have none of labels, and then says nothing of their entropy.
        assert ("dual_label_entropy" in read) == (metrics["dual_label_groups"] > 0)
        assert 0 <= read.get("dual_label_entropy", 0) <= 1
        assert read["dual_success"] + read["dual_failures"] == pytest.approx(1, abs=1e-5)
        assert 0 <= read["dual_distinct_answers"] <= GROUP, "a group of which no answer can be read has none"
        failed = sum(value for name, value in metrics.items() if name.startswith("dual_failed/"))
        assert failed == pytest.approx(metrics["dual_failed"], abs=1e-5)
        assert not any(name.startswith("dual_truth/") for name in read), "rows for RL hold no gold"
        # group_reward_std is OpenRLHF's own view of the same groups
        if metrics["group_reward_std"] == 0:
            assert read["dual_zero_variance"] == pytest.approx(1, abs=1e-6)
        else:
            assert read["dual_zero_variance"] < 1


def test_recorded_rollouts_have_the_same_rewards_without_the_model(whole_run):
    folder = whole_run.folder
    kept = [row for path in (folder / "rollouts").glob("*.jsonl") for row in read_jsonl(path)]
    assert 3 <= len(kept) / GROUP <= 4, "one in eight of each engine's share of 24 groups"
    assert len({(row["group"], row["label"]) for row in kept}) == len(kept) / GROUP
    work = Replay(Config.load(folder / "data" / "cellduality.json"), {})
    results = [result for group in work.run(record_files([folder / "rollouts"])) for result in group]
    assert len(results) == len(kept)
    assert all(result["reward"] == result["recorded"] for result in results)
    assert work.reading.skipped == work.reading.incomplete == 0


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


def test_greedy_annotation_is_that_of_evaluation_cell_for_cell(whole_run, cellduality, tmp_path):
    cells = {row["id"]: row["genes"] for row in read_jsonl(whole_run.folder / "data" / "cells.jsonl")}
    said = {
        row["id"]: row["answer"] or UNASSIGNED
        for row in read_jsonl(whole_run.folder / "test" / "predictions" / "GRPO.jsonl")
        if row["task"] == "cell_type_annotation" and not row["drawn"]
    }
    adata_of({cell: cells[cell] for cell in said}).write_h5ad(new := tmp_path / "new.h5ad")
    # The engine of the evaluation: in another precision two labels that are as likely may change places.
    words = ("--model", whole_run.folder / "grpo", "--out", tmp_path / "out.h5ad", "--backend", "vllm", "--verify", 0)
    cellduality(tmp_path / "run", "annotate", new, *words)
    named = anndata.read_h5ad(tmp_path / "out.h5ad").obs["cell_type_cellduality"]
    assert named.tolist() == list(said.values())


@pytest.mark.long
def test_every_stage_of_the_smoke_test_passes_on_a_cpu_and_the_numbers_are_kept(recipe, tmp_path):
    recipe(tmp_path / "smoke", "smoke_gpu.sh", SET_UP="0").ends_well(1200)
    found = json.loads((tmp_path / "smoke" / "smoke" / "smoke.json").read_text())
    assert found["passed"]
    ran = ["card", "prepare", "traces", "sft", "probe", "grpo", "weights", "evaluate"]
    assert [stage["stage"] for stage in found["stages"]] == ran
    assert found["probe"]["prefill"]["mean"] < found["probe"]["tolerance"]
    assert len(found["weights"]["reward"]) == 2
