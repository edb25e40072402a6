"""The Slurm job against a scripted srun, scontrol and ray; the recipes it calls only print what they would do."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

CALLS = '#!/bin/sh\necho "$(basename "$0") $*" >>"{folder}/calls"\n'


@pytest.fixture
def submitted(project, program):
    """Return a function that runs the job on so many nodes, of which Ray sees so many cards."""
    calls = CALLS.format(folder=project)
    program("srun", f'{calls}while [ "${{1#--}}" != "$1" ]; do shift; done\nexec "$@"\n')
    program("scontrol", '#!/bin/sh\nprintf "a1\\na2\\n"\n')

    def run(nodes: int, cards: int, **variables: str) -> tuple[subprocess.CompletedProcess[str], list[str]]:
        program("ray", f'{calls}if [ "$1" = status ]; then echo " 0.0/{cards}.0 GPU"; else exec sleep 30; fi\n')
        done = subprocess.run(
            ["bash", str(project / "recipes/slurm/grpo_duality.sbatch"), "--train.seed", "3"],
            env={
                "PATH": f"{project / '.venv/bin'}:{os.defpath}", "HOME": str(project), "SLURM_SUBMIT_DIR": str(project),
                "SLURM_NNODES": str(nodes), "SLURM_JOB_NODELIST": "a[1-2]", "SLURM_GPUS_ON_NODE": "4", "SET_UP": "0",
                "DRY_RUN": "1", **variables,
            },
            capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        path = project / "calls"
        return done, sorted(path.read_text().splitlines()) if path.exists() else []

    return run


@pytest.fixture(autouse=True)
def nothing_to_set_up(project: Path):
    (project / "recipes" / "setup.sh").write_text("exit 0\n")


def test_several_nodes_are_one_ray_cluster_and_the_job_goes_to_it(submitted):
    done, calls = submitted(2, 8)
    assert done.returncode == 0, done.stderr
    assert any(call.startswith("ray start --block --head --port 6379") for call in calls)
    assert "ray start --block --address a1:6379 --num-gpus 4" in calls
    assert [call.split("--nodelist=")[1][:2] for call in calls if call.startswith("srun")] == ["a1", "a2"]
    assert "--actor.num_nodes 2 --actor.num_gpus_per_node 4 " in done.stdout
    assert "--train.seed 3" in done.stdout
    assert "--ckpt.load_enable" not in done.stdout


def test_one_node_needs_no_ray_and_a_job_that_is_requeued_resumes(submitted):
    done, calls = submitted(1, 0, PROFILE="gpu1", SLURM_RESTART_COUNT="1")
    assert (done.returncode, calls) == (0, [])
    assert "--ckpt.load_enable" in done.stdout


def test_a_node_that_does_not_join_is_said_and_nothing_trains(submitted):
    done, _ = submitted(2, 4, SECONDS_TO_JOIN="0")
    assert done.returncode == 1
    assert "a1 a2" in done.stderr
    assert "openrlhf" not in done.stdout
