"""The image, the Kubernetes job and the Slurm job, as far as they can be looked at without what they are for."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.recipes.conftest import value_of

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def steps() -> list[tuple[str, str]]:
    """The instructions of the Dockerfile, in order, without comments."""
    lines = (ROOT / "recipes/Dockerfile").read_text(encoding="utf-8").splitlines()
    text = "\n".join(line for line in lines if line and line[0] != "#").replace("\\\n", " ")
    return [(name, rest) for name, _, rest in (line.partition(" ") for line in text.splitlines())]


def told(steps: list[tuple[str, str]], name: str) -> list[str]:
    return [rest for step, rest in steps if step == name]


def test_the_base_is_pinned_and_its_compiler_as_old_as_that_of_the_lock(steps):
    [base] = told(steps, "FROM")
    found = re.fullmatch(r"nvidia/cuda:(\d+\.\d+)\.\d+-devel-ubuntu24\.04@sha256:[0-9a-f]{64}", base)
    assert found
    assert f"\nnvidia-cuda-nvcc=={found[1]}." in (ROOT / "recipes/requirements/gpu.lock").read_text(encoding="utf-8")


def test_what_is_copied_is_the_users_and_no_secret_is_named(steps):
    [added] = [command for command in told(steps, "RUN") if "useradd" in command]
    user = re.search(f"--uid {told(steps, 'USER')[-1]} ([a-z]+) ", added)[1]
    assert not told(steps, "ADD"), "nothing is fetched but by the set-up"
    assert all(f"--chown={user}:{user}" in copied for copied in told(steps, "COPY"))
    secrets = re.compile("TOKEN|KEY|PASSWORD|SECRET")
    assert not [rest for name, rest in steps if name in ("ARG", "ENV") and secrets.search(rest)]


def test_the_set_up_needs_no_more_than_what_is_copied_before_it(steps, tmp_path):
    """The real recipes/setup.sh on the copied files, with a stand-in for Python, up to what it would install."""
    project, site = tmp_path / "image", tmp_path / "site/nvidia/cu13/lib"
    [command] = [rest for name, rest in steps if name == "RUN" and "setup.sh" in rest]
    for at, rest in ((at, rest) for at, (name, rest) in enumerate(steps) if name == "COPY"):
        *paths, to = shlex.split(rest)[1:]
        assert all((ROOT / path).exists() for path in paths), rest
        for path in map(Path, paths if at < steps.index(("RUN", command)) else ()):
            target = project / (path.name if to == "./" else path)
            target.parent.mkdir(parents=True, exist_ok=True)
            (shutil.copytree if (ROOT / path).is_dir() else shutil.copy)(ROOT / path, target)
    site.mkdir(parents=True)
    for library in ("libcudart.so.13", "libcurand.so.10", "libcublas.so.13"):
        (site / library).touch()
    python = project / ".venv/bin/python"
    python.parent.mkdir(parents=True)
    python.write_text(
        f'#!/bin/sh\necho "$*" >>"{tmp_path}/calls"\ncase "$*" in *purelib*) echo "{tmp_path}/site" ;; esac\n'
    )
    python.chmod(0o755)
    (python.parent / "nvidia-smi").symlink_to("/bin/false")  # as where an image is built
    variables = dict(shlex.split(rest)[0].split("=", 1) for rest in told(steps, "ARG"))
    done = subprocess.run(
        ["sh", "-c", command], cwd=project, capture_output=True, text=True, timeout=60,
        env={"PATH": os.defpath, "PYTHON": sys.executable, "HOME": str(tmp_path), "CXX": "true", **variables},
    )  # fmt: skip
    calls = (tmp_path / "calls").read_text()
    assert done.returncode == 0, done.stderr
    assert "torch==2.13.0" in calls
    assert f"--editable {project}" in calls
    assert calls.count("compileall") == 1
    assert (project / ".venv/.cellduality-setup").is_file()


# The fields of ray.io/v1 and of a pod that are used, by their types in KubeRay's resource definition.
MOUNTS = [{"name": str, "mountPath": str}]
RESOURCES = {"requests": {...: str}, "limits": {...: str}}
VOLUME = {"name": str, "persistentVolumeClaim": {"claimName": str}, "emptyDir": {"medium": str, "sizeLimit": str}}
POD = {
    "securityContext": {"runAsUser": int, "fsGroup": int, "runAsNonRoot": bool},
    "containers": [{"name": str, "image": str, "resources": RESOURCES, "volumeMounts": MOUNTS}],
    "volumes": [VOLUME],
}
GROUP = {"rayStartParams": {"dashboard-host": str}, "template": {"spec": POD}}
OTHERS = {"groupName": str, "replicas": int, "minReplicas": int, "maxReplicas": int, **GROUP}
CLUSTER = {"rayVersion": str, "headGroupSpec": GROUP, "workerGroupSpecs": [OTHERS]}
RETRIES = {"backoffLimit": int, "ttlSecondsAfterFinished": int, "shutdownAfterJobFinishes": bool}
RAY_JOB = {"entrypoint": str, "runtimeEnvYAML": str, "rayClusterSpec": CLUSTER, **RETRIES}


def fits(value: Any, kind: Any) -> bool:
    """Return whether a value has no other fields than its kind, and those of their types."""
    if isinstance(kind, dict):
        return all(fits(each, kind.get(name, kind.get(...))) for name, each in value.items())
    return all(fits(each, kind[0]) for each in value) if isinstance(kind, list) else type(value) is kind


@pytest.fixture(scope="module")
def job() -> dict[str, Any]:
    return yaml.safe_load((ROOT / "recipes/kubernetes/rayjob.yaml").read_text(encoding="utf-8"))


def test_the_job_has_fields_of_its_kind_alone_and_those_that_have_to_be_there(job):
    assert (job["apiVersion"], job["kind"], *job["metadata"]) == ("ray.io/v1", "RayJob", "name")
    assert fits(job["spec"], RAY_JOB)
    cluster = job["spec"]["rayClusterSpec"]
    assert GROUP.keys() == cluster["headGroupSpec"].keys()
    assert all(OTHERS.keys() == group.keys() for group in cluster["workerGroupSpecs"])


def test_the_job_is_stage_2_of_as_many_cards_as_its_pods_have(job, steps, dry):
    cluster = job["spec"]["rayClusterSpec"]
    [others] = cluster["workerGroupSpecs"]
    variables = yaml.safe_load(job["spec"]["runtimeEnvYAML"])["env_vars"]
    assert int(variables["NODES"]) == 1 + others["replicas"] == 1 + others["minReplicas"]
    for group in (cluster["headGroupSpec"], others):
        pod = group["template"]["spec"]
        [container] = pod["containers"]
        assert container["resources"]["limits"]["nvidia.com/gpu"] == variables["GPUS"]
        assert int(container["resources"]["limits"]["cpu"]) >= int(variables["GPUS"]), "a CPU for each rank"
        mounts = [mount["mountPath"] for mount in container["volumeMounts"]]
        assert any(Path(variables["RUN_DIR"]).is_relative_to(path) for path in mounts), "the same folder on all nodes"
        assert {mount["name"] for mount in container["volumeMounts"]} == {volume["name"] for volume in pod["volumes"]}
        assert any(f"--uid {pod['securityContext']['runAsUser']} " in command for command in told(steps, "RUN"))
    shell, script = job["spec"]["entrypoint"].split()
    assert (shell, Path(script).relative_to(told(steps, "WORKDIR")[0])) == ("bash", Path("recipes/grpo.sh"))
    printed = dry("grpo", profile=variables.pop("PROFILE"), **variables)
    *_, words = (shlex.split(line) for line in printed.splitlines() if line.startswith("ray job submit"))
    assert [value_of(flag, words) for flag in ("--actor.num_nodes", "--actor.num_gpus_per_node")] == ["2", "8"]
    assert "--ckpt.load_enable" in words
    lock = (ROOT / "recipes/requirements/gpu.lock").read_text(encoding="utf-8")
    assert f"\nray=={cluster['rayVersion']}\n" in lock


@pytest.fixture
def submitted(project, program, run):
    """Return a function that runs the Slurm job on so many nodes, of which Ray sees so many cards."""
    (project / "recipes" / "setup.sh").write_text("exit 0\n")
    program("srun", 'while [ "${1#--}" != "$1" ]; do shift; done\nexec "$@"')
    program("scontrol", 'printf "a1\\na2\\n"')

    def submit(nodes: int, cards: int, **variables: str) -> tuple[subprocess.CompletedProcess[str], list[str]]:
        program("ray", f'if [ "$1" = status ]; then echo " 0.0/{cards}.0 GPU"; else exec sleep 30; fi')
        slurm = {"SUBMIT_DIR": str(project), "NNODES": str(nodes), "JOB_NODELIST": "a[1-2]", "GPUS_ON_NODE": "4"}
        variables |= {f"SLURM_{name}": value for name, value in slurm.items()}
        variables |= {"PATH": f"{project / '.venv/bin'}:{os.defpath}", "SET_UP": "0", "DRY_RUN": "1"}
        done = run("slurm/grpo_duality.sbatch", "--train.seed", "3", **({"profile": ""} | variables))
        path = project / "calls"
        return done, sorted(path.read_text().splitlines()) if path.exists() else []

    return submit


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
