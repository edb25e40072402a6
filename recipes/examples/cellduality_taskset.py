"""Dual rewards in verifiers: RL rows as a taskset, whose rewards ask an endpoint to play the dual.

Prepare the data and train SFT as usual, serve runs/cpu/sft by vLLM as "sft", and name it as `dual.endpoint` in
runs/cpu/data/cellduality.json: {"urls": ["http://localhost:8000/v1"], "model": "sft", "tokenizer": "runs/cpu/sft"}.
Then, where verifiers is installed (0.4; beside it transformers and aiohttp, and no trainer of ours), in this folder:
vf-eval cellduality_taskset --env.taskset.data ../../runs/cpu/data -m sft -r 8 --client.base-url http://localhost:8000/v1
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path

import verifiers.v1 as vf

from cellduality_plugin.config import Config
from cellduality_plugin.files import read_jsonl
from cellduality_plugin.hub import read_tokenizer
from cellduality_plugin.policies.endpoint import EndpointPolicy
from cellduality_plugin.reward_function import DualReward

__all__ = ["CellTaskset"]


@cache  # one judge, and one set of connections, for all rollouts
def reward_of(data: Path) -> DualReward:
    config = Config.load(data / "cellduality.json")
    endpoint = config.dual.endpoint
    assert endpoint, f"name an endpoint that plays the dual in {data}/cellduality.json"
    tokenizer = read_tokenizer(endpoint.tokenizer or endpoint.model)
    return DualReward(config, EndpointPolicy(tokenizer, endpoint, config.dual))


class CellData(vf.TaskData):
    label: str
    data_folder: str


class CellTask(vf.Task[CellData]):
    @vf.reward
    async def cellduality(self, trace: vf.Trace) -> float:
        reward = reward_of(Path(self.data.data_folder))
        return (await reward([""], [trace.last_reply], [self.data.label]))[0]


class CellTasksetConfig(vf.TasksetConfig):
    data: Path = Path("runs/cpu/data")


class CellTaskset(vf.Taskset[CellTask, CellTasksetConfig]):
    def load(self) -> Iterator[CellTask]:
        for row in read_jsonl(self.config.data / "rl.jsonl"):
            data = CellData(prompt=row["input"], label=row["label"], data_folder=str(self.config.data))
            yield CellTask(data, self.config.task)
