"""What a kind of reward costs: seconds a GRPO step, beside the same step with a reward that asks nobody.

Run by recipes/benchmark_reward.sh. Each arm is a real run of OpenRLHF from the same checkpoint, on the same rows, with
a learning rate of 0: all arms sample from the same policy, and differ in what their reward asks of it.
"""

from __future__ import annotations

import json
import shutil
import statistics
from pathlib import Path

from shared import options

from cellduality_plugin.evaluation.curves import Curves, read_curves
from cellduality_plugin.evaluation.tables import markdown
from cellduality_plugin.files import read_jsonl, write_jsonl, write_text
from cellduality_plugin.parsing import OneOf
from cellduality_plugin.tasks import TASKS

FREE = "random"
GOALS, EXACT_GOAL = {"posterior": 1.25, "likelihood": 1.5}, 1.25


def write_arm(root: Path, folder: Path, rows: int) -> None:
    """Write the folder of a run, TASK/CACHING/KIND: the shared model, so many rows of the task, that kind of reward."""
    shared, task, kind = root / "shared", folder.parts[-3], folder.name
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "data").mkdir(parents=True)
    config = json.loads((shared / "data/cellduality.json").read_text())
    config["tasks"][task]["reward"] = kind
    for path in (shared / "data").iterdir():  # what rewards read, and what is packed into the model
        if path.name not in ("cellduality.json", "rl.jsonl"):
            (folder / "data" / path.name).symlink_to(path.resolve())
    write_text(folder / "data/cellduality.json", json.dumps(config, indent=2))
    mine = [row for row in read_jsonl(shared / "data/rl.jsonl") if json.loads(row["label"])["task"] == task]
    write_jsonl(folder / "data/rl.jsonl", (mine[number % len(mine)] for number in range(rows)))
    (folder / "sft").symlink_to((shared / "sft").resolve())


def table(root: Path, group_size: int) -> str:
    """Return a Markdown table of all finished arms under ``root``: TASK/CACHING/KIND."""
    rows = []
    for folder in sorted(root.glob("*/*/")):
        if folder.parent.name == "shared":
            continue
        arms = {path.name: read_curves(path / "tensorboard/grpo") for path in sorted(folder.iterdir()) if path.is_dir()}
        free = _median(arms[FREE], "timing/step_total")
        for kind, curves in sorted(arms.items(), key=lambda item: (item[0] != FREE, item[0])):
            step, task = _median(curves, "timing/step_total"), folder.parent.name
            # Where the hidden part is a label, `duality` compares it exactly.
            exact = kind == "duality" and isinstance(TASKS[task].unknown, OneOf)
            goal = EXACT_GOAL if exact else GOALS.get(kind)
            distinct = _mean(curves, "dual_distinct_answers") / _mean(curves, "dual_groups")
            rows.append({
                "task": task, "prefix caching": folder.name, "reward": kind, "s a step": f"{step:.1f}",
                "of which rollouts": f"{_median(curves, 'timing/generation'):.1f}", "ratio": f"{step / free:.2f}",
                "goal": "–" if goal is None else f"≤ {goal}",
                "distinct answers a group": f"{distinct:.2f}",
                "dual requests a group": f"{_mean(curves, 'dual_requests') * group_size:.2f}",
            })  # fmt: skip
    return markdown([*rows[0]], *([*row.values()] for row in rows)) + "\n"


def _median(curves: Curves, name: str) -> float:
    # The first step pays for what is compiled and allocated once.
    return statistics.median(value for _, value in curves[name][1:])


def _mean(curves: Curves, name: str) -> float:
    return statistics.fmean(value for _, value in curves[name])


if __name__ == "__main__":
    given = options(__doc__, root=Path, group_size=8, arm="", rows=0)
    if given.arm:
        write_arm(given.root, given.root / given.arm, given.rows)
    else:
        written = table(given.root, given.group_size)
        write_text(given.root / "reward.md", written)
        print(written, end="")
