"""What OpenRLHF's own parser makes of the flags, without importing what it imports.

A trainer of OpenRLHF ends in a block that builds the parser, parses, corrects and asserts, and calls `train(args)`.
That block is run as it stands, with a `train` that does nothing.
"""

from __future__ import annotations

import argparse
import ast
import builtins
import contextlib
import difflib
import functools
import importlib
import importlib.util
import io
import itertools
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import CodeType, ModuleType, SimpleNamespace
from typing import Any, NoReturn

from cellduality_plugin.errors import CellDualityError

SFT, RL = TRAINERS = ("openrlhf.cli.train_sft", "openrlhf.cli.train_ppo_ray")
_VERSION = "install openrlhf==0.11.2"


def value_of(words: Sequence[str], *flags: str) -> str | None:
    """Return what follows the last of ``flags``, after a blank or an equals sign; None if none is there."""
    found = None
    for word, following in itertools.zip_longest(words, words[1:], fillvalue=""):
        name, equals, value = word.partition("=")
        if name in flags:
            found = value if equals else following
    return found


@dataclass(frozen=True)
class Flags:
    """The flags of a run."""

    args: SimpleNamespace | None  # what `train` would get, after OpenRLHF's corrections; None if the parser gives up
    given: Mapping[str, Any] = field(default_factory=dict)  # {name: value} on the command line, before any correction
    corrections: tuple[str, ...] = ()  # what OpenRLHF prints while it corrects flags
    refusals: tuple[str, ...] = ()  # what it refuses, in its own words
    unknown: Mapping[str, str] = field(default_factory=dict)  # {flag it does not have: the nearest one it has}

    def get(self, name: str, default: Any = None) -> Any:
        """Return the value at a dotted ``name``; ``default`` where this trainer has no such flag."""
        found: Any = self.args
        for part in name.split("."):
            if not hasattr(found, part):
                return default
            found = getattr(found, part)
        return found

    @property
    def cards(self) -> int:
        """Return how many cards stage 2 asks Ray for: every group of actors its own, but for those that share."""

        shared, pair = self.get("train.colocate_all"), self.get("train.colocate_critic_reward")
        critic, engines = self.get("critic.model_name_or_path"), self.get("vllm.num_engines") or 0
        own = {
            "actor": True,
            "ref": not (shared or self.get("train.colocate_actor_ref")) and self.get("algo.kl.init_coef") > 0,
            "critic": critic and (pair or not shared),
            "reward": not self.get("reward.remote_url") and not shared and not (critic and pair),
        }
        groups = [self.get(f"{each}.num_nodes") * self.get(f"{each}.num_gpus_per_node") for each in own if own[each]]
        apart = not shared or self.get("train.async_enable")
        return int(sum(groups) + (engines * self.get("vllm.tensor_parallel_size") if apart else 0))


class _RefusedError(Exception):
    """The parser gives up."""


def read_flags(trainer: str, words: Sequence[str]) -> Flags:
    """Return what the module ``trainer`` makes of the flags ``words``; another OpenRLHF is an error."""
    found: list[SimpleNamespace] = []
    unknown: list[str] = []
    given: dict[str, Any] = {}
    options: list[str] = []

    class Parser(argparse.ArgumentParser):
        """The standard parser on these words; a flag it does not have is remembered instead of ending the process."""

        def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
            options.extend(self._option_string_actions)
            absent = object()
            marked = argparse.Namespace(**{action.dest: absent for action in self._actions})
            super().parse_known_args(list(words), marked)
            given.update({name: value for name, value in vars(marked).items() if value is not absent})
            parsed, extra = super().parse_known_args(list(words))
            unknown.extend(word.partition("=")[0] for word in extra if word.startswith("-"))
            return parsed

        def error(self, message: str) -> NoReturn:
            raise _RefusedError(message)

        def exit(self, status: int = 0, message: str | None = None) -> NoReturn:
            raise _RefusedError(message or "the flags only ask for help")

    namespace: dict[str, Any] = {
        "__name__": "__main__",
        "__builtins__": {**vars(builtins), "__import__": functools.partial(_import, Parser)},
        "train": found.append,
    }
    said, refusals = io.StringIO(), []
    with contextlib.redirect_stdout(said):
        try:
            exec(_main_block(trainer), namespace)
        except _RefusedError as refusal:
            refusals.append(str(refusal))
        except AssertionError as refusal:
            refusals.append(str(refusal) or "an assertion without words")
        except (AttributeError, TypeError) as refusal:  # it looks into a flag that was not given
            refusals.append(f"{type(refusal).__name__}: {refusal}")
    args = found[0] if found else namespace.get("args")
    return Flags(
        args if isinstance(args, SimpleNamespace) else None,
        given,
        tuple(line for line in said.getvalue().splitlines() if line.strip()),
        tuple(refusals),
        {flag: nearest(flag, options) for flag in unknown},
    )


def nearest(flag: str, options: Sequence[str]) -> str:
    """Return the option most like ``flag``, empty if none is; older versions had the same words in another order."""
    own, *others = (" ".join(sorted(re.split(r"[._-]+", name.lstrip("-")))) for name in (flag, *options))
    return next((options[others.index(each)] for each in difflib.get_close_matches(own, others, 1)), "")


@functools.cache
def _main_block(trainer: str) -> CodeType:
    path = _file_of(trainer)
    tree = ast.parse(path.read_text(encoding="utf-8"))
    block = tree.body[-1]
    if not isinstance(block, ast.If) or ast.unparse(block.body[-1]) != "train(args)":
        what = f"{trainer} no longer ends in train(args)"
        raise CellDualityError(what, code="wrong-version", where=str(path), hint=_VERSION)
    standard = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom) and _is_standard(node)]
    return compile(ast.Module(body=[*standard, block], type_ignores=[]), str(path), "exec")


def _is_standard(node: ast.Import | ast.ImportFrom) -> bool:
    names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
    return all(name.split(".")[0] in sys.stdlib_module_names for name in names)


def _import(parser: type[argparse.ArgumentParser], name: str, *rest: Any) -> Any:
    """Import as the block would, but for the parser's class and for OpenRLHF, of which one file is wanted."""
    if name == "argparse":
        ours = ModuleType(name)
        vars(ours).update(vars(argparse), ArgumentParser=parser)
        return ours
    if name.startswith("openrlhf."):
        module = ModuleType(name)
        exec(compile(_file_of(name).read_text(encoding="utf-8"), name, "exec"), vars(module))
        return module
    if name.startswith("modelscope"):  # --use_ms fetches models: not now
        return SimpleNamespace(patch_hub=lambda: None)
    return builtins.__import__(name, *rest)


def _file_of(module: str) -> Path:
    """Return the file of a module of OpenRLHF, which is not imported for it."""
    spec = importlib.util.find_spec("openrlhf")
    if spec is None or spec.origin is None:
        what = "OpenRLHF is not installed here, so its flags cannot be read"
        hint = "run the doctor where the trainer is installed (bash recipes/setup.sh)"
        raise CellDualityError(what, code="not-installed", where=sys.executable, hint=hint)
    path = Path(spec.origin).parent.joinpath(*module.split(".")[1:]).with_suffix(".py")
    if not path.is_file():
        raise CellDualityError(f"this OpenRLHF has no {module}", code="wrong-version", where=str(path), hint=_VERSION)
    return path
