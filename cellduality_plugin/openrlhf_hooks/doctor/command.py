"""The command of a run: launchers in front, the trainer, its flags."""

from __future__ import annotations

import itertools
import json
import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cellduality_plugin.errors import CellDualityError

SFT, RL = "openrlhf.cli.train_sft", "openrlhf.cli.train_ppo_ray"
TRAINERS = (SFT, RL)


@dataclass(frozen=True)
class Command:
    """One run, as it would be typed."""

    words: tuple[str, ...]
    trainer: str  # the module that is run: SFT or RL
    flags: tuple[str, ...]  # what stands behind it
    variables: Mapping[str, str] = field(default_factory=dict)  # set by NAME=VALUE or the job's runtime environment
    submitted: bool = False  # Ray starts it elsewhere (ray job submit), where this shell's variables do not reach
    on_cpu: bool = False  # cellduality-cpu stands in front
    processes: int | None = 1  # that share a batch of SFT; None if the launcher decides by the machine it finds
    unreadable: str = ""  # the flag of the runtime environment that could not be read

    @classmethod
    def read(cls, words: Sequence[str]) -> Command:
        """Return the command in ``words``; a CellDualityError if it runs neither trainer."""
        at = next((place for place, word in enumerate(words) if word in TRAINERS), None)
        if at is None:
            what = "the command runs no trainer that can be examined"
            hint = f"cellduality doctor -- python -m {RL} --flags ... (or {SFT})"
            raise CellDualityError(what, code="no-trainer", where=" ".join(words[:4]) or "nothing behind --", hint=hint)
        before, names = list(words[:at]), [os.path.basename(word) for word in words[:at]]
        submitted = "ray job submit" in " ".join(names)
        variables = dict(word.split("=", 1) for word in before if re.match(r"[A-Za-z_]\w*=", word))
        by_job, unreadable = _job_variables(before) if submitted else ({}, "")
        return cls(
            words=tuple(words),
            trainer=words[at],
            flags=tuple(words[at + 1 :]),
            variables={**variables, **by_job},
            submitted=submitted,
            on_cpu="cellduality-cpu" in names,
            processes=_processes(before, names),
            unreadable=unreadable,
        )


def value_of(words: Sequence[str], *flags: str) -> str | None:
    """Return what follows the last of ``flags``, after a blank or an equals sign; None if none is there.

    Examples
    --------
    >>> value_of(["--nnodes", "2", "--nnodes=3"], "--nnodes"), value_of(["--nnodes"], "--nproc")
    ('3', None)
    """
    found = None
    for word, following in itertools.zip_longest(words, words[1:], fillvalue=""):
        name, equals, value = word.partition("=")
        if name in flags:
            found = value if equals else following
    return found


def _job_variables(before: Sequence[str]) -> tuple[dict[str, str], str]:
    """Return the variables of the job's runtime environment, and the flag that could not be read."""
    if value_of(before, "--runtime-env") is not None:
        return {}, "--runtime-env"
    try:
        values: Any = json.loads(value_of(before, "--runtime-env-json") or "{}")
        variables = values.get("env_vars")
    except (ValueError, AttributeError):
        return {}, "--runtime-env-json"
    return {name: str(value) for name, value in variables.items()} if isinstance(variables, dict) else {}, ""


def _processes(before: Sequence[str], names: Sequence[str]) -> int | None:
    """Return how many processes the launcher starts, None if it asks the machine."""
    counts = ["1"]
    if "deepspeed" in names:
        counts = [value_of(before, "--num_gpus") or ""]
    elif "torchrun" in names or "torch.distributed.run" in names:
        per_node = value_of(before, "--nproc-per-node", "--nproc_per_node")
        counts = [value_of(before, "--nnodes") or "1", per_node or "1"]
    return math.prod(map(int, counts)) if all(map(str.isdigit, counts)) else None
