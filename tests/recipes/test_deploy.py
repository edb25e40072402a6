"""The image and the Kubernetes job, as far as they can be looked at without Docker, KubeRay and a card."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

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


def test_it_ends_as_a_user_without_rights_and_fetches_nothing_by_itself(steps):
    user = told(steps, "USER")[-1]
    assert any(f"--uid 10001 {user} " in command for command in told(steps, "RUN"))
    assert not told(steps, "ADD")
    assert all(f"--chown={user}:{user}" in copied for copied in told(steps, "COPY"))
    [apt] = [command for command in told(steps, "RUN") if "apt-get" in command]
    assert "--no-install-recommends" in apt
    assert "rm -rf /var/lib/apt/lists/*" in apt
    assert json.loads(told(steps, "CMD")[-1])[0] == "bash"
    secrets = re.compile("TOKEN|KEY|PASSWORD|SECRET")
    assert not [rest for name, rest in steps if name in ("ARG", "ENV") and secrets.search(rest)]


def test_every_command_is_sound_shell(steps):
    for command in told(steps, "RUN"):
        for checker in (["bash", "-n"], ["shellcheck", "--shell=sh", "-"]):
            done = subprocess.run(checker, input=command, capture_output=True, text=True, timeout=60)
            assert done.returncode == 0, done.stdout + done.stderr


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
        env={"PATH": os.defpath, "HOME": str(tmp_path), "CXX": "true", **variables},
    )  # fmt: skip
    calls = (tmp_path / "calls").read_text()
    assert done.returncode == 0, done.stderr
    assert "torch==2.13.0" in calls
    assert f"--editable {project}" in calls
    assert calls.count("compileall") == 1
    assert (project / ".venv/.cellduality-setup").is_file()


# The fields of ray.io/v1 and of a pod that are used, with their types in KubeRay's resource definition: {below: names}.
POD = {
    "securityContext": {"runAsNonRoot": bool, "runAsUser": int, "fsGroup": int},
    "containers": [{
        "name": str, "image": str, "resources": {"requests": dict, "limits": dict},
        "volumeMounts": [{"name": str, "mountPath": str}],
    }],
    "volumes": [{
        "name": str, "persistentVolumeClaim": {"claimName": str}, "emptyDir": {"medium": str, "sizeLimit": str},
    }],
}  # fmt: skip
GROUP = {"rayStartParams": dict, "template": {"spec": POD}}
WORKERS = {**GROUP, "groupName": str, "replicas": int, "minReplicas": int, "maxReplicas": int}
RAY_JOB = {
    "apiVersion": str, "kind": str, "metadata": {"name": str},
    "spec": {
        "entrypoint": str, "runtimeEnvYAML": str, "backoffLimit": int, "shutdownAfterJobFinishes": bool,
        "ttlSecondsAfterFinished": int,
        "rayClusterSpec": {"rayVersion": str, "headGroupSpec": GROUP, "workerGroupSpecs": [WORKERS]},
    },
}  # fmt: skip


def wrong_fields(value: Any, known: Any, path: str = "") -> list[str]:
    """Return what is no field there, or of another type; of a map all values are texts."""
    if known is dict:
        return [] if isinstance(value, dict) and all(isinstance(each, str) for each in value.values()) else [path]
    if isinstance(known, type):
        return [] if type(value) is known else [path]
    if type(value) is not type(known):
        return [path]
    if isinstance(known, list):
        return [wrong for each in value for wrong in wrong_fields(each, known[0], path)]
    new = [f"{path}.{name}" for name in value if name not in known]
    return new + [
        w for name in value if name in known for w in wrong_fields(value[name], known[name], f"{path}.{name}")
    ]


@pytest.fixture(scope="module")
def job() -> dict[str, Any]:
    return yaml.safe_load((ROOT / "recipes/kubernetes/rayjob.yaml").read_text(encoding="utf-8"))


def test_the_job_has_fields_of_its_kind_alone_and_those_that_have_to_be_there(job):
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    assert wrong_fields(job, RAY_JOB) == []
    assert wrong_fields({"spec": {"entryPoint": "", "backoffLimit": "2"}}, RAY_JOB) == [
        ".spec.entryPoint", ".spec.backoffLimit",
    ]  # fmt: skip
    cluster = job["spec"]["rayClusterSpec"]
    assert {"rayStartParams", "template"} <= cluster["headGroupSpec"].keys()
    for group in cluster["workerGroupSpecs"]:
        assert {"groupName", "minReplicas", "maxReplicas", "rayStartParams", "template"} <= group.keys()


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
    flags = words[words.index("openrlhf.cli.train_ppo_ray") :]
    assert flags[flags.index("--actor.num_nodes") + 1 : flags.index("--actor.num_nodes") + 4 : 2] == ["2", "8"]
    assert "--ckpt.load_enable" in flags
    lock = (ROOT / "recipes/requirements/gpu.lock").read_text(encoding="utf-8")
    assert f"\nray=={cluster['rayVersion']}\n" in lock
