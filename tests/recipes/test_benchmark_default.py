"""The benchmark of default rewards: its tables and curves, from planted runs of two seeds."""

from __future__ import annotations

from pathlib import Path

import pytest
from torch.utils.tensorboard import SummaryWriter

TASK = "cell_type_annotation"


@pytest.fixture
def benchmark(benchmarks):
    return benchmarks("default")


def audit(auc: float, reward: str = "likelihood") -> dict:
    value = {"value": auc, "interval": [0.0, 1.0]}
    return {"findings": [{"task": TASK, "reward": reward, "auc": value, "zero_variance": {"value": None}}]}


def test_the_table_is_over_seeds_and_leaves_out_what_an_audit_lacks(benchmark) -> None:
    *_, row = benchmark.audits_table([audit(0.6), audit(0.8)]).splitlines()
    assert row == "| cell type annotation | likelihood | 0.70 ± 0.14 | – | – | – | – | – |"


def test_audits_of_different_rewards_are_not_averaged(benchmark) -> None:
    with pytest.raises(SystemExit, match="audit all seeds alike"):
        benchmark.audits_table([audit(0.6), audit(0.8, "posterior")])


def test_curves_show_every_arm_beside_the_oracle(benchmark, tmp_path: Path) -> None:
    seeds, arms = ["1", "2"], ["oracle", "posterior", "posterior-frozen"]
    for seed in seeds:
        for arm in arms:
            with SummaryWriter(str(tmp_path / seed / "arms" / arm / "tensorboard/grpo")) as writer:
                for step in range(1, 4):
                    for name in ("dual_reward", "dual_share", "dual_truth", "dual_truth_share"):
                        writer.add_scalar(f"train/{name}/{TASK}", 0.25 * step, step)
    paths = tmp_path / "curves.svg", tmp_path / "curves.png"
    benchmark.save_curves(tmp_path, seeds, arms, *paths)
    drawn = paths[0].read_text(encoding="utf-8")
    assert "cell type annotation, moving dual" in drawn
    assert "cell type annotation, frozen dual" in drawn
    assert "accuracy" in drawn  # what the truth of a label is
    assert paths[1].read_bytes().startswith(b"\x89PNG")
    benchmark.save_curves(tmp_path, seeds, arms, again := tmp_path / "again.svg")
    assert again.read_text(encoding="utf-8") == drawn
