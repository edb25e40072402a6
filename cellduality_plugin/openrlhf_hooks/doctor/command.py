"""The command of a run, taken apart: launchers in front, the trainer, its flags."""

from __future__ import annotations

import itertools
import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cellduality_plugin.errors import CellDualityError

SFT, RL = "openrlhf.cli.train_sft", "openrlhf.cli.train_ppo_ray"
TRAINERS = (SFT, RL)
_CPU = "cellduality-cpu"


@dataclass(frozen=True)
class Command:
    """One run, as it would be typed.

    Parameters
    ----------
    words
        All of it.
    trainer
        The module that is run: :data:`SFT` or :data:`RL`.
    flags
        What stands behind the trainer.
    variables
        Environment variables the command itself sets: ``NAME=VALUE`` in front, or a job's runtime environment.
    submitted
        Whether Ray starts it elsewhere (``ray job submit``), where this shell's variables do not reach.
    working_dir
        Whether the job's runtime environment brings a folder of its own, which becomes the working directory.
    on_cpu
        Whether ``cellduality-cpu`` stands in front.
    processes
        Processes that share a batch of SFT; None if the launcher decides by the machine it finds.
    unreadable
        What of the runtime environment could not be read; empty if all could.
    """

    words: tuple[str, ...]
    trainer: str
    flags: tuple[str, ...]
    variables: Mapping[str, str] = field(default_factory=dict)
    submitted: bool = False
    working_dir: bool = False
    on_cpu: bool = False
    processes: int | None = 1
    unreadable: str = ""

    @classmethod
    def read(cls, words: Sequence[str]) -> Command:
        """Return the command in ``words``.

        Raises
        ------
        CellDualityError
            If it runs neither trainer.

        Examples
        --------
        >>> run = Command.read(["cellduality-cpu", "python", "-m", SFT, "--data.max_len", "64"])
        >>> run.on_cpu, run.flags
        (True, ('--data.max_len', '64'))
        """
        at = next((place for place, word in enumerate(words) if word in TRAINERS), None)
        if at is None:
            raise CellDualityError(
                "the command runs no trainer that can be examined",
                where=" ".join(words[:4]) or "nothing behind --",
                mend=f"cellduality doctor -- python -m {RL} --flags ... (or {SFT})",
            )
        before = list(words[:at])
        submitted = _submitted(before)
        environment, unreadable = _runtime_environment(before) if submitted else ({}, "")
        variables = dict(word.split("=", 1) for word in before if re.match(r"[A-Za-z_]\w*=", word))
        set_there = environment.get("env_vars")
        if isinstance(set_there, dict):
            variables |= {str(name): str(value) for name, value in set_there.items()}
        return cls(
            tuple(words),
            words[at],
            tuple(words[at + 1 :]),
            variables,
            submitted,
            "working_dir" in environment or _value(before, "--working-dir") is not None,
            any(os.path.basename(word) == _CPU for word in before),
            _processes(before),
            unreadable,
        )


def _submitted(before: Sequence[str]) -> bool:
    names = [os.path.basename(word) for word in before]
    return any(names[place : place + 3] == ["ray", "job", "submit"] for place in range(len(names)))


def _value(words: Sequence[str], *flags: str) -> str | None:
    """Return what follows the last of ``flags``, after a blank or an equals sign."""
    found = None
    for word, following in itertools.zip_longest(words, words[1:], fillvalue=""):
        name, equals, value = word.partition("=")
        if name in flags:
            found = value if equals else following
    return found


def _runtime_environment(before: Sequence[str]) -> tuple[dict[str, Any], str]:
    """Return the job's runtime environment, and what of it could not be read."""
    if _value(before, "--runtime-env") is not None:
        return {}, "--runtime-env"
    text = _value(before, "--runtime-env-json")
    if text is None:
        return {}, ""
    try:
        values = json.loads(text)
    except ValueError:
        return {}, "--runtime-env-json"
    return (values, "") if isinstance(values, dict) else ({}, "--runtime-env-json")


def _processes(before: Sequence[str]) -> int | None:
    """Return how many processes the launcher starts, None if it asks the machine."""
    names = {os.path.basename(word) for word in before}
    if "deepspeed" in names:
        return _number(_value(before, "--num_gpus"))
    if "torchrun" in names or "torch.distributed.run" in names:
        nodes = _number(_value(before, "--nnodes") or "1")
        here = _number(_value(before, "--nproc-per-node", "--nproc_per_node") or "1")
        return None if nodes is None or here is None else nodes * here
    return 1


def _number(text: str | None) -> int | None:
    return int(text) if text and text.isdigit() else None
