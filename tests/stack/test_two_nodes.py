"""Two Ray nodes on one machine, each with a rank of the trainer and an engine: one run, and a clear end if one dies."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from cellduality_plugin.files import read_jsonl
from cellduality_plugin.hub import read_tokenizer
from cellduality_plugin.openrlhf_hooks.cluster import Cluster
from cellduality_plugin.records import Reading, Row, read_groups
from tests.stack.conftest import CPU, QUANTUM, free_port, kill, processes_of, scalars
from tests.stack.score_in_engine import asked

pytestmark = [pytest.mark.stack, pytest.mark.long]

GROUP, PROMPTS = 4, 8
ROWS, STEPS = 20, 3
"""Of eight prompts a step: the last has four, whose sixteen samples still part into a micro-batch of eight a rank."""
SPREAD = {"NODES": "2", "GPUS": "1", "ENGINES": "2"}
LEARNING = {"ACTOR_LR": "1e-3", "LR_WARMUP": "0", "KL": "0"}
"""Updates so large that an engine with the weights of the step before would be noticed; no reference model to start."""
FLAGS = ("--data.max_samples", str(ROWS), "--algo.advantage.is_correction_level", "token")
"""The correction is why the trainer asks the engines for log-probabilities, and logs how far they are from its own."""
ENGINE, RANK, CORE = "ray::RolloutRayActor", "ray::PolicyModelActor", "VLLM::EngineCore"
"""As processes are called: Ray's actor of an engine, that of a rank, and vLLM's own process below the first."""
BOUND = 0.05
"""On the mean difference of log-probability between engine and trainer, in nats a token; see test_weights."""


@pytest.fixture(scope="module")
def cluster(start, tmp_path_factory) -> Iterator[tuple[str, list[Path]]]:
    """Two Ray nodes on this machine with a slot each, started as on two: the head's address, and where they started."""
    place, address = tmp_path_factory.mktemp("cluster"), f"127.0.0.1:{free_port()}"
    # A folder of their own: with Ray's every other run on this machine would join the cluster. It has a short name,
    # because sockets are in it, whose paths cannot be long.
    sessions = Path(tempfile.mkdtemp(prefix="ray"))
    size = ("--num-gpus=1", "--num-cpus=4", "--object-store-memory=200000000", "--node-ip-address=127.0.0.1")
    # A node waits for no more than 15 s for its agents to say which ports they chose; a busy machine takes longer.
    agents = ("dashboard-agent-grpc", "dashboard-agent-listen", "metrics-export", "runtime-env-agent")
    head = ("--head", f"--port={address.partition(':')[2]}", "--include-dashboard=false", f"--temp-dir={sessions}")
    nodes = []
    for name, words in {"head": head, "other": (f"--address={address}",)}.items():
        ports = tuple(f"--{agent}-port={free_port()}" for agent in agents)
        command = (*CPU, "ray", "start", *words, *size, *ports, "--block")
        nodes.append(start(place / name, *command))
        nodes[-1].until(lambda: "--block" in nodes[-1].printed)
    nodes[-1].until(lambda: getattr(Cluster.look(address), "total", {}).get("GPU") == 2)
    yield address, [node.folder for node in nodes]
    for node in nodes:
        kill(node.folder)
    shutil.rmtree(sessions)


def named(nodes: list[Path], name: str) -> list[list[int]]:
    """Return the processes of this name, node by node, without those that one of them has forked."""
    found = [[int(line.split()[0]) for line in processes_of(folder) if name in line] for folder in nodes]
    return [[each for each in of if psutil.pid_exists(each) and psutil.Process(each).ppid() not in of] for of in found]


def recorded(folder: Path) -> int:
    """Return how many rollouts all engines have recorded."""
    return sum(file.read_text().count("\n") for file in (folder / "rollouts").glob("*.jsonl"))


def steps_of(run: Any) -> list[int]:
    """Return the steps in the log: two nodes of one machine share a folder of logs, and each shows every line of it."""
    return list(dict.fromkeys(run.steps()))


@pytest.fixture(scope="module")
def folder(copied) -> Path:
    """A run folder with the data and the SFT model of the shared run, that keeps all rollouts."""
    made = copied()
    config = made / "data" / "cellduality.json"
    settings = {**json.loads(config.read_text()), "records": None}
    config.with_name("unrecorded.json").write_text(json.dumps(settings))
    config.write_text(json.dumps({**settings, "records": {"folder": "../rollouts", "every": 1}}))
    return made


@pytest.fixture(scope="module")
def killed(folder, cluster, recipe) -> SimpleNamespace:
    """A run over both nodes, an engine of which is killed in the middle of the second step, and that is resumed.

    ``placed`` are processes of engines and ranks, by name and node; ``code`` came ``seconds`` after the kill, and
    ``left`` outlived it; ``rollouts`` were recorded then, in ``records``, one an engine, and ``steps`` logged.
    """
    address, nodes = cluster
    settings = {**SPREAD, **LEARNING, "RAY_ADDRESS": address}
    latest = folder / "checkpoints" / "grpo" / "_actor" / "latest"
    run = recipe(folder, "grpo.sh", *FLAGS, **settings)
    run.until(lambda: latest.exists() and recorded(folder) > PROMPTS * GROUP, timeout=600)
    placed = {name: named(nodes, name) for name in (ENGINE, RANK, CORE)}
    engine = placed[ENGINE][1][0]
    os.kill(engine, signal.SIGKILL)
    began, rollouts = time.monotonic(), recorded(folder)
    code = run.end(180)
    seconds, left = time.monotonic() - began, processes_of(folder)
    # What Ray holds for the run it takes down when the command has ended; the nodes stay.
    latest_end = time.monotonic() + 120
    while any(any(named(nodes, name)) for name in placed):
        assert time.monotonic() < latest_end, "not within 120 s"
        time.sleep(0.1)
    step = int(latest.read_text().removeprefix("global_step"))
    steps, records = steps_of(run), sorted((folder / "rollouts").glob("*.jsonl"))
    resumed = recipe(folder, "grpo.sh", *FLAGS, **settings, RESUME="1").ends_well(600)
    return SimpleNamespace(
        run=run, resumed=resumed, placed=placed, engine=engine, rollouts=rollouts, steps=steps, code=code,
        seconds=seconds, left=left, checkpoint=step, records=records,
    )  # fmt: skip


def test_each_node_has_a_rank_and_an_engine(killed):
    for name in (ENGINE, RANK):
        assert [len(there) for there in killed.placed[name]] == [1, 1], name


def test_an_engine_killed_in_the_middle_of_a_step_ends_the_run_and_is_named(killed):
    print(f"ended {killed.seconds:.1f} s after the kill, at {killed.rollouts} rollouts, code {killed.code}")
    assert PROMPTS * GROUP < killed.rollouts <= 2 * PROMPTS * GROUP, "not in the middle of the second step"
    assert killed.code not in (0, None)
    assert killed.seconds < 120
    told = killed.run.printed.splitlines()[-1]
    # Ray does not say which where the trainer loses an engine in the middle of a request.
    assert f"a vLLM engine (process {killed.engine}) died" in told or "a process of the run died" in told
    assert "RESUME=1 goes on from the last checkpoint" in told
    assert killed.left == []


def test_resume_goes_on_to_the_end(killed):
    assert killed.steps == [1] == list(range(1, killed.checkpoint + 1))
    assert steps_of(killed.resumed) == list(range(killed.checkpoint + 1, STEPS + 1))
    assert (killed.resumed.folder / "grpo" / "config.json").is_file()
    assert processes_of(killed.resumed.folder) == []


@pytest.fixture(scope="module")
def metrics(killed) -> dict[str, list[float]]:
    return scalars(killed.run.folder / "tensorboard" / "grpo", steps=STEPS)


def test_both_engines_have_the_weights_of_the_trainer_in_every_step(metrics):
    far = metrics["vllm_kl"]
    print("vllm_kl", *(f"{value:.4f}" for value in far))
    assert max(map(abs, far)) < BOUND


@pytest.fixture(scope="module")
def first(killed) -> list[Row]:
    """The rollouts of the first step, of which every engine has the same share."""
    groups = [list(read_groups(file, Reading()))[: PROMPTS // len(killed.records)] for file in killed.records]
    return [row for of_engine in groups for group in of_engine for row in group]


def test_the_first_step_logged_what_both_engines_recorded(killed, first, metrics):
    assert len(killed.records) == 2
    assert len({tuple(row["logs"]) for row in first}) == 1, "ranks add metrics up in the order in which they hold them"
    assert len(first) == PROMPTS * GROUP, "a rollout is lost, or there twice"
    for name in ("reward", *first[0]["logs"]):
        counted = math.fsum(row["logs"].get(name, row["reward"]) for row in first) / len(first)
        assert metrics[name][0] == pytest.approx(counted, rel=1e-4, abs=1e-6), name


@pytest.fixture(scope="module")
def again(first, folder, score_in_engine, tmp_path_factory) -> list[tuple[Row, float]]:
    """Each rollout of the first step, and the reward that one engine gives it, which asks the duals itself."""
    tokenizer = read_tokenizer(str(folder / "sft"))
    inputs = {row["label"]: row["input"] for row in read_jsonl(folder / "data" / "rl.jsonl")}
    rollouts = []
    for row in first:
        prompt, question = asked(tokenizer, inputs[row["label"]])
        answer = tokenizer(row["response"], add_special_tokens=False)["input_ids"]
        assert tokenizer.decode(answer) == row["response"]
        rollouts.append({"prompt": prompt, "label": row["label"], "question": question, "answer": answer})
    place, config = tmp_path_factory.mktemp("one") / "engine", folder / "data" / "unrecorded.json"
    [rewards] = score_in_engine(place, folder / "sft", rollouts, config).values()
    return list(zip(first, rewards, strict=True))


def test_two_engines_give_the_rewards_that_one_gives(folder, again):
    tasks = json.loads((folder / "data" / "cellduality.json").read_text())["tasks"]
    far: dict[str, list[float]] = {}
    for row, reward in again:
        far.setdefault(tasks[row["task"]]["reward"], []).append(abs(row["reward"] - reward))
    print("furthest from one engine:", *(f"{kind} {max(of) / QUANTUM:g} steps" for kind, of in far.items()))
    for kind, differences in far.items():
        # Generated greedily a dual is the same text.
        assert max(differences) <= (0.0 if kind == "duality" else QUANTUM), kind
    rewards = [reward for _, reward in again]
    assert max(rewards) > 0.0
    assert len(set(rewards)) > 1
    assert len(rewards) == PROMPTS * GROUP
