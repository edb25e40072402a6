"""A run as the checks see it: its command, what OpenRLHF makes of the flags, configuration, rows and model."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cellduality_plugin.config import PATH_VARIABLE, Config
from cellduality_plugin.errors import CellDualityError
from cellduality_plugin.openrlhf_hooks import preflight
from cellduality_plugin.openrlhf_hooks.cluster import Cluster, address_of
from cellduality_plugin.openrlhf_hooks.doctor.agent import AgentFile
from cellduality_plugin.openrlhf_hooks.doctor.command import RL, Command
from cellduality_plugin.openrlhf_hooks.doctor.flags import Flags, read_flags
from cellduality_plugin.openrlhf_hooks.doctor.machine import Machine
from cellduality_plugin.openrlhf_hooks.doctor.model import Model


@dataclass(frozen=True)
class Run:
    """What there is to look at. What takes seconds is made when it is first asked for, and once.

    A property is None where there is nothing of the kind, and an error where there is something wrong with it.
    """

    command: Command
    flags: Flags
    machine: Machine

    @classmethod
    def of(cls, command: Command, machine: Machine) -> Run:
        return cls(command, read_flags(command.trainer, command.flags), machine)

    def get(self, name: str, default: Any = None) -> Any:
        """Return the flag called ``name``, as the trainer sees it."""
        return self.flags.get(name, default)

    @property
    def variables(self) -> Mapping[str, str]:
        return {**self.machine.variables, **self.command.variables}

    @property
    def is_rl(self) -> bool:
        return self.command.trainer == RL

    @property
    def on_cpu(self) -> bool:
        return self.command.on_cpu and not self.machine.gpus

    @functools.cached_property
    def agent(self) -> AgentFile | None:
        path = self.get("train.agent_func_path") if self.is_rl else None
        return AgentFile.read(path) if path else None

    @property
    def is_ours(self) -> bool:
        return self.agent is not None and self.agent.is_ours

    @property
    def config_path(self) -> Path | None:
        """Return the configuration file that the agent will read."""
        if self.agent is not None and self.agent.bound is not None:
            return self.agent.bound
        named = (self.command.variables if self.command.submitted else self.variables).get(PATH_VARIABLE)
        return Path(named) if named else None

    @functools.cached_property
    def config(self) -> Config | CellDualityError | None:
        """Return the configuration of the dual, with all it names loaded once."""
        if not self.is_ours or self.config_path is None:
            return None
        try:
            config = Config.load(self.config_path)
            config.load_vocabulary()
            config.load_rewards(config.load_tasks())
        except CellDualityError as failure:
            return failure
        return config

    @property
    def model_flag(self) -> str:
        return "--actor.model_name_or_path" if self.is_rl else "--model.model_name_or_path"

    @property
    def model_place(self) -> str:
        """Return flag and model, for a finding."""
        return f"{self.model_flag} {self.get(self.model_flag[2:])}"

    @functools.cached_property
    def model(self) -> Model | None:
        """Return the model the trainer starts from."""
        name = self.get(self.model_flag[2:])
        return Model.read(name) if name else None

    @functools.cached_property
    def tokenizer(self) -> Any | CellDualityError | None:
        if self.model is None:
            return None
        try:
            return preflight.load_tokenizer(self.model.name, self.get("data.tokenizer_chat_template"))
        except CellDualityError as failure:
            return failure

    @property
    def rows_flag(self) -> str:
        return "--data.prompt_dataset" if self.is_rl else "--data.dataset"

    @property
    def rows(self) -> tuple[str, ...]:
        """Return the data sets, as OpenRLHF splits their names."""
        named = self.get(self.rows_flag[2:]) or ""
        return tuple(part.split("@")[0].strip() for part in named.split(",") if part.strip())

    @property
    def row_files(self) -> tuple[Path, ...]:
        """Return those of the data sets whose rows can be looked at."""
        return tuple(Path(name) for name in self.rows if name.endswith(".jsonl") and Path(name).is_file())

    @functools.cached_property
    def row_count(self) -> int | None:
        """Return how many rows are trained on, None if they cannot be counted."""
        mixed = self.get("data.prompt_probs", self.get("data.dataset_probs"))
        if not self.rows or len(self.row_files) < len(self.rows) or mixed:
            return None
        limit, total = self.get("data.max_samples"), 0
        for path in self.row_files:
            with path.open("rb") as stream:
                total += min(limit, sum(1 for line in stream if line.strip()))
        return int(min(limit, total))

    @property
    def devices(self) -> int | None:
        """Return the processes that share a training batch, None if the launcher decides."""
        if self.is_rl:
            return int(self.get("actor.num_nodes") * self.get("actor.num_gpus_per_node"))
        return self.command.processes

    @property
    def shares(self) -> int | None:
        """Return the parts a batch is cut into: devices, less those that hold one sample together."""
        together = int(self.get("ds.ring_attn_size", 1) * self.get("ds.tensor_parallel_size", 1))
        return None if self.devices is None else max(1, self.devices // together)

    @property
    def colocated(self) -> bool:
        """Return whether engines and trainer take turns on the same cards."""
        return bool(self.get("train.colocate_all")) and not self.get("train.async_enable")

    @property
    def has_reference(self) -> bool:
        return self.is_rl and bool(self.get("algo.kl.init_coef") > 0)

    @property
    def address(self) -> str:
        """Return where the Ray cluster is that the run joins, empty if it starts one of its own."""
        if not self.is_rl:
            return ""
        before = self.command.words[: self.command.words.index(self.command.trainer)]
        return address_of(before, self.variables) or ("http://127.0.0.1:8265" if self.command.submitted else "")

    @functools.cached_property
    def cluster(self) -> Cluster | None:
        """Return the cluster the run joins, as it is now; None if it joins none, or it cannot be seen."""
        return Cluster.look(self.address) if self.address else None

    @property
    def is_elsewhere(self) -> bool:
        """Return whether the run may be on other machines than this one."""
        return self.command.submitted or self.get("actor.num_nodes", 1) > 1
