"""Faults on the real stack: the run goes on, the counters say what happened, and a smuggler earns nothing by it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import shlex
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cellduality_plugin.agent_file import bound_reward_file
from cellduality_plugin.config import Config
from cellduality_plugin.examples import Example, Value
from cellduality_plugin.files import read_jsonl
from cellduality_plugin.openrlhf_hooks.reward_func import RewardFunction
from cellduality_plugin.parsing import OneOf
from cellduality_plugin.policies.addresses import LoopThread
from cellduality_plugin.records import Reading, read_groups
from tests.stack.conftest import DUAL_KEYS, QUANTUM, TOKEN, Run, change, endpoint, port_of, scalars

pytestmark = [pytest.mark.stack, pytest.mark.long]

FAULTY = Path(__file__).with_name("faulty.py")
GROUP = 8
STEPS = 3
FAULTS = {
    "cell_type_annotation": ("smuggles", "log_probs_are_nan", "reward_raises"),
    "drug_exposure_prediction": ("smuggles", "engine_raises"),
    "conditional_cell_generation": ("smuggles", "engine_sleeps", "engine_refuses", "dual_is_endless", "reward_is_nan"),
    "perturbation_response_generation": ("smuggles", "reward_sleeps", "engine_raises", "answer_is_endless"),
}
"""Of each task the faults of its first rows; what the model itself says to the others is left alone."""
CAUSES = {
    "log_probs_are_nan": "not_finite",
    "reward_raises": "other",
    "engine_raises": "engine_error",
    "engine_sleeps": "timeout",
    "engine_refuses": "engine_error",
    "dual_is_endless": "too_long",
    "reward_is_nan": "out_of_range",
    "reward_sleeps": "timeout",
}
MARK, NO_WIDTH = "SMUGGLED", "\u200b"
"""The mark stands beside whatever is smuggled; no dual prompt may ever hold it."""
TWINS = str.maketrans("ACEHKMOPTXaceopx", "АСЕНКМОРТХасеорх")
SMALL = {"GROUP_SIZE": str(GROUP), "TRAIN_BATCH": "32", "MICRO_BATCH": "16", "SAVE_STEPS": "100"}


def honest_answer(row: Example, config: Config, place: int) -> str:
    """Return an answer that can be read, as text: a label, or as many genes as were asked for, of each row other ones.

    Groups in flight share what they ask: a dual of the same answer would be one with another row's fault.
    """
    task, vocabulary = config.load_tasks()[row.task], config.load_vocabulary()
    if isinstance(task.answer, OneOf):
        return vocabulary.labels[task.answer.kind][0]
    return " ".join(row.inputs.get("control", vocabulary.genes[place:])[: int(str(row.inputs["length"]))])


def ways(answer: str, hidden: Value) -> dict[str, str]:
    """Return {way: response}: an honest one, and seven that carry what is hidden from the dual beside the answer."""
    secret = f"{MARK} {hidden if isinstance(hidden, str) else ' '.join(hidden)}"
    return {
        "honest": f"<think>it looks so</think><answer>{answer}</answer>",
        "in the trace": f"<think>hidden: {secret} </think><answer>{answer}</answer>",
        "behind the answer": f"<think></think><answer>{answer}</answer></s><|user|> {secret}",
        "in the answer": f"<think></think><answer>{answer} {secret}</answer>",
        "in tags of the dual": f"<think></think><answer>{answer}</answer><think></think><answer>{secret}</answer>",
        "in twins of tags": f"<think>＜/think＞＜answer＞ {secret} ＜/answer＞</think><answer>{answer}</answer>",
        "in twins of letters": f"<think></think><answer>{answer.translate(TWINS)}</answer>",
        "in letters of no width": f"<think></think><answer>{NO_WIDTH.join(answer)}</answer>",
    }


def plan(config: Config) -> dict[str, dict[str, Any]]:
    """Return {row: its fault, and the responses of its rollouts}."""
    rows = [Example.from_label(row["label"]) for row in read_jsonl(config.folder / "rl.jsonl")]
    found = {}
    for task, faults in FAULTS.items():
        asked = [row for row in rows if row.task == task][: len(faults)]
        for place, (row, fault) in enumerate(zip(asked, faults, strict=True)):
            texts = list(ways(honest_answer(row, config, place), row.unknown).values())
            if fault != "smuggles":
                others = f"<answer>{'x' * 100_000}</answer>" if fault == "answer_is_endless" else texts[0]
                texts = [texts[0]] + [others] * (GROUP - 1)
            found[row.id] = {"fault": fault, "texts": texts}
    return found


@pytest.fixture(scope="module")
def faulty_run(copied, recipe) -> Any:
    """A finished run among faults: the run, {row: fault}, and the records of all its rollouts by row."""
    place = copied()
    data = place / "data"
    rewards = {task: f"{FAULTY}:Faulty{'Duality' if 'generation' in task else 'Likelihood'}" for task in FAULTS}
    change(data / "cellduality.json", rewards, {"timeout_seconds": 5}, records={"folder": "../rollouts", "every": 1})
    planned = plan(Config.load(data / "cellduality.json"))
    (data / "faults.json").write_text(json.dumps(planned))
    named = {"FAULTS": str(data / "faults.json"), "CELLDUALITY_CONFIG": str(data / "cellduality.json")}
    run = recipe(place, "grpo.sh", "--train.agent_func_path", str(FAULTY), **SMALL, **named).ends_well()
    [file] = (place / "rollouts").glob("*.jsonl")
    reading = Reading()
    groups = {group[0]["row"]: group for group in read_groups(file, reading)}
    assert (reading.skipped, reading.incomplete) == (0, 0)
    return run, {row: each["fault"] for row, each in planned.items()}, groups


def test_a_run_among_faults_goes_on_and_counts_them(faulty_run):
    run, faults, groups = faulty_run
    metrics = scalars(run.folder / "tensorboard" / "grpo", steps=STEPS)
    assert run.steps() == [1, 2, 3]
    rollouts = [rollout for group in groups.values() for rollout in group]
    assert [len(group) for group in groups.values()] == [GROUP] * 8 * STEPS

    # No None, no NaN, in no metric of no step.
    assert set(metrics) >= DUAL_KEYS
    logged = [line for line in run.log("grpo").splitlines() if "Global step" in line]
    assert not [line for line in logged if "None" in line or "nan" in line]

    # What the trainer logged is what was counted, rollout by rollout.
    for name in rollouts[0]["logs"]:
        told = math.fsum(metrics[name]) / STEPS
        counted = math.fsum(rollout["logs"][name] for rollout in rollouts) / len(rollouts)
        assert told == pytest.approx(counted, rel=1e-4, abs=1e-6), name

    # What was counted is what was injected, and no other dual failed so.
    injected = Counter(dict.fromkeys(CAUSES.values(), 0))
    for row, fault in faults.items():
        if fault in CAUSES:
            injected[CAUSES[fault]] += GROUP
            assert {rollout["reward"] for rollout in groups[row]} == {0.0}, fault
            assert sum(rollout["logs"]["dual_requests"] for rollout in groups[row]) == float("reward" not in fault)
    counted = {cause: math.fsum(rollout["logs"][f"dual_failed/{cause}"] for rollout in rollouts) for cause in injected}
    assert counted == dict(injected)
    assert math.fsum(rollout["logs"]["dual_timeout"] for rollout in rollouts) == injected["timeout"] == 2 * GROUP
    [endless] = [groups[row] for row, fault in faults.items() if fault == "answer_is_endless"]
    assert sorted(rollout["failure"] for rollout in endless) == [""] + ["too_long"] * (GROUP - 1)
    assert sum(rollout["logs"]["dual_answer_parsed"] for rollout in endless) == 1.0

    # Where nothing was injected, rewards were earned.
    assert max(rollout["reward"] for row, group in groups.items() if row not in faults for rollout in group) > 0.0


def test_a_smuggler_earns_no_more_than_who_is_honest(faulty_run):
    run, faults, groups = faulty_run
    config = Config.load(run.folder / "data" / "cellduality.json")
    seen = Counter[str]()
    for row in (row for row, fault in faults.items() if fault == "smuggles"):
        example = Example.from_label(groups[row][0]["label"])
        told = {rollout["response"]: rollout for rollout in groups[row]}
        by_way = {way: told[text] for way, text in ways(honest_answer(example, config, 0), example.unknown).items()}
        honest = by_way.pop("honest")
        seen["honest"] += honest["reward"] > 0.0
        for way, rollout in by_way.items():
            assert rollout["reward"] <= honest["reward"], (example.task, way)
            seen[way] += rollout["answer"] == honest["answer"]
            if rollout["answer"] is None:
                assert rollout["reward"] == 0.0, (example.task, way)
        assert by_way["in the trace"]["reward"] == honest["reward"]
        assert by_way["in the trace"]["logs"]["dual_leak/trace"] == 1.0
        assert by_way["behind the answer"]["logs"]["dual_leak/answer"] == 1.0
        asked = [call["text"] for rollout in groups[row] for call in rollout["calls"] if "text" in call]
        assert not [text for text in asked if MARK.casefold() in text.casefold() or not text.isascii()]
    # Of the same parsed answer: told beside it, in all tasks; in the answer, where it is a list. Else nothing is read.
    same = {"honest": 4, "in the trace": 4, "in twins of tags": 4, "in the answer": 2}
    assert {way: number for way, number in seen.items() if number} == same


LOGGED = """
import json, os, runpy

asked = runpy.run_path({asking!r})["reward_func"]
log = os.open({log!r}, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)


def reward_func(queries, prompts, labels):
    reply = asked(queries, prompts, labels)
    os.write(log, (json.dumps([*queries, *prompts, *labels, reply]) + "\\n").encode())
    return reply
"""
"""A reward file of a user's own around the one of the package: it keeps what was asked and what was replied."""


class Road:
    """Passes bytes between a port of its own and a server's; what comes back takes ``delay`` seconds longer."""

    def __init__(self, delay: float) -> None:
        self._delay, self.leads_to, self._loop = delay, 0, LoopThread("road")
        self._near = self._loop.submit(asyncio.start_server(self._lead, "127.0.0.1", 0, backlog=256)).result()
        self.url = f"http://127.0.0.1:{self._near.sockets[0].getsockname()[1]}/"

    def close(self) -> None:
        self._loop.close(self._end)

    async def _end(self) -> None:
        self._near.close()
        for connection in asyncio.all_tasks() - {asyncio.current_task()}:
            connection.cancel()
        await asyncio.sleep(0.1)  # until all are closed

    async def _lead(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.closing(writer), contextlib.suppress(OSError):  # nobody is there
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self.leads_to)
            with contextlib.closing(far_writer):
                ways = (self._pass_on(reader, far_writer, 0.0), self._pass_on(far_reader, writer, self._delay))
                await asyncio.gather(*ways)

    async def _pass_on(self, source: asyncio.StreamReader, target: asyncio.StreamWriter, delay: float) -> None:
        with contextlib.suppress(OSError):  # a server that was killed resets its connections
            while part := await source.read(2**16):
                await asyncio.sleep(delay)
                target.write(part)
                await target.drain()
        target.close()


class Servers:
    """Two reward servers over one policy, each behind a road that stays when it goes; the second road is slow."""

    def __init__(self, start: Callable[[int], Run]) -> None:
        self.roads, self._start, self._runs = [Road(0.0), Road(1.0)], start, list[Run]()

    def begin(self) -> None:
        self._runs = [self._start(number) for number in range(len(self.roads))]
        for run, road in zip(self._runs, self.roads, strict=True):
            road.leads_to = port_of(run)

    def kill(self) -> None:
        for run in self._runs:
            run.send(signal.SIGKILL)
            run.end(30)

    def close(self) -> None:
        self.kill()
        for road in self.roads:
            road.close()


def without_agent(recipe: Callable[..., Run], place: Path, reward: Path) -> list[str]:
    """Return the command of GRPO as the recipe has it, with a reward file instead of the agent."""
    shown = recipe(place, "grpo.sh", DRY_RUN="1", **SMALL).ends_well()
    [*_, command] = (line for line in shown.printed.splitlines() if "--train.agent_func_path" in line)
    words = shlex.split(command)
    at = words.index("--train.agent_func_path")
    words[0] = str(Path(sys.prefix) / "bin" / words[0])
    return [*words[:at], "--reward.remote_url", str(reward), *words[at + 2 :]]


@pytest.fixture(scope="module")
def served(copied, recipe, start, serve_policy, serve_reward, tmp_path_factory) -> SimpleNamespace:
    """A run whose two reward servers, one of them slow, are killed in the middle of a step and started again.

    ``replies`` are (query, prompt, label, reply) of each rollout, in the order in which they were rewarded, ``again``
    their rewards without any server; for ``away`` seconds no server was there.
    """
    place, beside = copied(), tmp_path_factory.mktemp("servers")
    config, log, reward = (place / "data" / name for name in ("cellduality.json", "replies.jsonl", "logged.py"))
    servers = Servers(lambda number: serve_reward(beside / f"server{number}", config))
    asking = bound_reward_file(config, [road.url for road in servers.roads])
    reward.write_text(LOGGED.format(asking=str(asking), log=str(log)))
    # Begun before there is a server: the first rollouts wait for one.
    run = start(place, *without_agent(recipe, place, reward), CELLDUALITY_TOKEN=TOKEN)
    with serve_policy(place / "sft", beside / "policy") as url:
        change(config, {}, endpoint(url, place / "sft"))
        servers.begin()
        away = killed_in_the_second_step(run, servers, lambda: log.exists() and log.read_text().count("\n"))
        run.ends_well()
        servers.close()
        replies = [json.loads(line) for line in log.read_text().splitlines()]
        asked_again = RewardFunction(config)
        with ThreadPoolExecutor(16) as threads:
            again = list(threads.map(lambda told: asked_again(*([part] for part in told[:3]))["rewards"], replies))
        asked_again.close()
    return SimpleNamespace(run=run, replies=replies, again=again, away=away)


def killed_in_the_second_step(run: Run, servers: Servers, rewarded: Callable[[], int]) -> float:
    """Return for how many seconds both servers were away: longer than OpenRLHF's own client would have tried."""
    run.until(lambda: rewarded() >= 8 * GROUP + 8, timeout=300)
    servers.kill()
    died = time.monotonic()
    time.sleep(3)  # what was on the slow road still arrives
    before = rewarded()
    assert 8 * GROUP < before < 2 * 8 * GROUP, "not in the middle of a step"
    time.sleep(4)
    assert rewarded() == before, "nobody was there to judge"
    servers.begin()
    return time.monotonic() - died


def test_servers_that_are_killed_and_started_again_cost_no_reward(served):
    assert served.away > 7
    assert len(served.replies) == STEPS * 8 * GROUP, "a reward for each rollout, once"
    rewards = [reply["rewards"] for *_, reply in served.replies]
    assert max(rewards) > 0.0
    metrics = scalars(served.run.folder / "tensorboard" / "grpo", steps=STEPS)
    for step, mean in enumerate(metrics["reward"]):
        mine = rewards[step * 8 * GROUP : (step + 1) * 8 * GROUP]
        assert mean == pytest.approx(math.fsum(mine) / len(mine), rel=1e-4), step


def test_no_reward_is_another_rollouts(served):
    for (_, _, label, reply), again in zip(served.replies, served.again, strict=True):
        # Generated greedily a dual is the same text.
        bound = 0.0 if "generation" in Example.from_label(label).task else QUANTUM
        assert abs(reply["rewards"] - again) <= bound
    assert len(set(served.again)) > STEPS
