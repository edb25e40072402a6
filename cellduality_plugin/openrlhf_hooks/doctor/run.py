"""A run as the checks see it: its command, what OpenRLHF makes of the flags, agent, configuration, rows and model."""

from __future__ import annotations

import ast
import functools
import json
import math
import os
import re
import symtable
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cellduality_plugin.config import PATH_VARIABLE, Config
from cellduality_plugin.errors import CellDualityError
from cellduality_plugin.openrlhf_hooks import preflight
from cellduality_plugin.openrlhf_hooks.cluster import Cluster, address_of
from cellduality_plugin.openrlhf_hooks.doctor.flags import RL, SFT, TRAINERS, read_flags, value_of
from cellduality_plugin.openrlhf_hooks.doctor.machine import Machine, Model

_OURS = "cellduality_plugin.openrlhf_hooks.executor"
_PACKAGED = Path(__file__).parents[1] / "agent.py"
PASS_AGENT = 'pass --train.agent_func_path "$(cellduality agent-path --config DATA/cellduality.json)"'


class Run:
    """A command as it would be typed, and what there is to look at; what takes seconds is made when it is asked for.

    A property is None where there is nothing of the kind, and an error where there is something wrong with it. A
    CellDualityError is raised if the command runs neither trainer.
    """

    def __init__(self, words: Sequence[str], machine: Machine) -> None:
        at = next((place for place, word in enumerate(words) if word in TRAINERS), None)
        if at is None:
            what = "the command runs no trainer that can be examined"
            hint = f"cellduality doctor -- python -m {RL} --flags ... (or {SFT})"
            raise CellDualityError(what, code="no-trainer", where=" ".join(words[:4]) or "nothing behind --", hint=hint)
        self.words, self.machine, self.trainer = tuple(words), machine, words[at]
        self.flags = read_flags(self.trainer, words[at + 1 :])
        self.launch = self.words[:at]  # what stands before the trainer
        self.launchers = [os.path.basename(word) for word in self.launch]
        self.submitted = "ray job submit" in " ".join(self.launchers)  # where this shell's variables do not reach
        self.on_cpu = "cellduality-cpu" in self.launchers and not machine.gpus
        self.is_rl = self.trainer == RL
        role = "actor" if self.is_rl else "model"
        self.model_flag = f"--{role}.model_name_or_path"
        self.model_place = f"{self.model_flag} {self.get(self.model_flag[2:])}"
        self.saves_activations = self.get(f"{role}.gradient_checkpointing_enable")
        self.has_reference = self.is_rl and (self.get("algo.kl.init_coef") or 0) > 0
        self.is_elsewhere = self.submitted or self.get("actor.num_nodes", 1) > 1  # maybe on other machines than this
        # Engines and trainer take turns on the same cards.
        self.colocated = bool(self.get("train.colocate_all")) and not self.get("train.async_enable")
        self.rows_flag = f"--data.{'prompt_' * self.is_rl}dataset"
        named = (self.get(self.rows_flag[2:]) or "").split(",")
        self.rows = [part.split("@")[0].strip() for part in named if part.strip()]  # as OpenRLHF splits them

    def get(self, name: str, default: Any = None) -> Any:
        """Return the flag called ``name``, as the trainer sees it."""
        return self.flags.get(name, default)

    @functools.cached_property
    def job_variables(self) -> dict[str, str] | str:
        """Return the variables of the job's runtime environment, or the flag of one that could not be read."""
        if not self.submitted:
            return {}
        if value_of(self.launch, "--runtime-env") is not None:
            return "--runtime-env"
        try:
            values: Any = json.loads(value_of(self.launch, "--runtime-env-json") or "{}").get("env_vars")
        except (ValueError, AttributeError):
            return "--runtime-env-json"
        return {name: str(value) for name, value in values.items()} if isinstance(values, dict) else {}

    @property
    def own_variables(self) -> dict[str, str]:
        """Return the variables that the command itself sets."""
        typed = dict(word.split("=", 1) for word in self.launch if re.match(r"[A-Za-z_]\w*=", word))
        return {**typed, **({} if isinstance(self.job_variables, str) else self.job_variables)}

    @property
    def variables(self) -> dict[str, str]:
        return {**self.machine.variables, **self.own_variables}

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
        named = (self.own_variables if self.submitted else self.variables).get(PATH_VARIABLE)
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
    def row_files(self) -> list[Path]:
        """Return those of the data sets whose rows can be looked at."""
        return [Path(name) for name in self.rows if name.endswith(".jsonl") and Path(name).is_file()]

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
        """Return the processes that share a training batch, None if the launcher asks the machine how many."""
        counts = ["1"]
        if self.is_rl:
            counts = [str(self.get("actor.num_nodes")), str(self.get("actor.num_gpus_per_node"))]
        elif "deepspeed" in self.launchers:
            counts = [value_of(self.launch, "--num_gpus") or ""]
        elif {"torchrun", "torch.distributed.run"} & {*self.launchers}:
            per_node = value_of(self.launch, "--nproc-per-node", "--nproc_per_node")
            counts = [value_of(self.launch, "--nnodes") or "1", per_node or "1"]
        return math.prod(map(int, counts)) if all(map(str.isdigit, counts)) else None

    @property
    def shares(self) -> int | None:
        """Return the parts a batch is cut into: devices, less those that hold one sample together."""
        together = int(self.get("ds.ring_attn_size", 1) * self.get("ds.tensor_parallel_size", 1))
        return None if self.devices is None else max(1, self.devices // together)

    @property
    def address(self) -> str:
        """Return where the Ray cluster is that the run joins, empty if it starts one of its own."""
        if not self.is_rl:
            return ""
        return address_of(self.launch, self.variables) or ("http://127.0.0.1:8265" if self.submitted else "")

    @functools.cached_property
    def cluster(self) -> Cluster | None:
        """Return the cluster the run joins, as it is now; None if it joins none, or it cannot be seen."""
        return Cluster.look(self.address) if self.address else None


@dataclass(frozen=True)
class AgentFile:
    """The file given as ``--train.agent_func_path``, as its text shows it: running it would load vLLM."""

    path: str
    problems: tuple[tuple[str, str], ...] = ()  # (what, hint) of each reason why OpenRLHF could not load it
    is_ours: bool = False  # whether it asks the dual of this package
    bound: Path | None = None  # its configuration; None if it reads the one that CELLDUALITY_CONFIG names

    @classmethod
    def read(cls, path: str) -> AgentFile:
        """Return what the file at ``path`` holds."""
        tree = read_python(path) if path.endswith(".py") else "the agent is no Python file"
        if isinstance(tree, str):
            return cls(path, ((tree, PASS_AGENT),))
        nodes, names, problems = list(ast.walk(tree)), names_in(tree), []
        imports = [node for node in nodes if isinstance(node, ast.ImportFrom)]
        classes = [node for node in nodes if isinstance(node, ast.ClassDef)]
        # It is executed as a module in no package and not in sys.modules.
        if any(node.level for node in imports):
            what = "the agent file has a relative import, and is loaded outside any package"
            problems.append((what, "import by the full name of an installed package"))
        decorated = any("dataclass" in ast.unparse(each) for node in classes for each in node.decorator_list)
        if decorated and any(node.module == "__future__" for node in imports):
            what = "a dataclass with postponed annotations looks up its module, and the agent file is none"
            hint = "move the class into an installed package and import it, or drop the __future__ import"
            problems.append((what, hint))
        if "AgentExecutor" not in names:
            problems.append(("the agent file defines no AgentExecutor", PASS_AGENT))
        executors = [node for node in classes if node.name == "AgentExecutor"]
        bases = {ast.unparse(base) for executor in executors for base in executor.bases}
        of_us = [each for node in imports if (node.module or "").startswith(_OURS) for each in node.names]
        named = {each.asname or each.name for each in of_us} & {"AgentExecutor", *bases}
        is_ours = bool(named) or Path(path).resolve() == _PACKAGED
        # `cellduality agent-path --config` writes the file into the call of the constructor.
        calls = [node for each in executors for node in ast.walk(each) if isinstance(node, ast.Call) and node.args]
        given = next((call.args[0] for call in calls if ast.unparse(call.func) == "super().__init__"), None)
        return cls(path, tuple(problems), is_ours, Path(str(given.value)) if isinstance(given, ast.Constant) else None)


def read_python(path: str) -> ast.Module | str:
    """Return what a Python file holds, or why it cannot be read."""
    try:
        return ast.parse(Path(path).read_text(encoding="utf-8"))
    except (OSError, SyntaxError, ValueError) as failure:
        return f"the file cannot be read: {failure}"


def names_in(tree: ast.Module) -> set[str]:
    """Return what a module defines, imports and assigns, as its text shows it."""
    found = symtable.symtable(ast.unparse(tree), "", "exec").get_symbols()
    return {symbol.get_name() for symbol in found if symbol.is_assigned() or symbol.is_imported()}
