"""Who gives the reward."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from cellduality_plugin.config import PATH_VARIABLE, Config, TaskSettings
from cellduality_plugin.errors import CellDualityError
from cellduality_plugin.openrlhf_hooks.doctor.finding import Finding, error, note, told, warning
from cellduality_plugin.openrlhf_hooks.doctor.run import Run
from cellduality_plugin.parsing import OneOf
from cellduality_plugin.rewards import Reward
from cellduality_plugin.tasks import DualTask
from cellduality_plugin.vocabulary import Vocabulary


def agent_and_url(run: Run) -> Iterator[Finding]:
    """An agent together with a reward URL or a reward model.

    The agent wins without a word: the URL is never asked and the reward model is never loaded.
    """
    if not run.get("train.agent_func_path"):
        return
    for name in ("reward.remote_url", "reward.model_name_or_path"):
        if run.flags.given.get(name):
            yield warning(
                f"the agent overrides --{name} {run.flags.given[name]}", f"--{name}", "leave out one of the two"
            )


def no_reward(run: Run) -> Iterator[Finding]:
    """Neither an agent, nor a reward URL, nor a reward model.

    Actors of a reward model without a model are started, and fail at the first rollout.
    """
    if not any(run.get(name) for name in ("train.agent_func_path", "reward.remote_url", "reward.model_name_or_path")):
        yield error(
            "nothing gives a reward",
            "--train.agent_func_path",
            'pass --train.agent_func_path "$(cellduality agent-path --config DATA/cellduality.json)"',
        )


def agent_file(run: Run) -> Iterator[Finding]:
    """An agent file that OpenRLHF cannot load, or that is not of this package.

    It is executed as `agent_module`, in no package and not in `sys.modules`, in every engine, once Ray has started.
    """
    if run.agent is None:
        return
    for what, mend in run.agent.problems:
        yield error(what, f"--train.agent_func_path {run.agent.path}", mend)
    if not run.agent.is_ours and not run.agent.problems:
        yield note("another agent than the dual's: its rows and reward were not checked", "--train.agent_func_path")


def reward_file(run: Run) -> Iterator[Finding]:
    """A reward FILE.py that is not there, has no `reward_func`, or stands beside others.

    An exception in it is logged at INFO and leaves no reward, which ends the run under another name; of several, only
    the first is loaded.
    """
    named = run.flags.given.get("reward.remote_url")
    if not named or run.agent is not None:
        return
    first, *others = str(named).split(",")
    if not first.endswith(".py"):
        return
    if others:
        yield error("of several reward files only the first is loaded", f"--reward.remote_url {named}", "pass one file")
    try:
        tree = ast.parse(Path(first).read_text(encoding="utf-8"))
    except (OSError, SyntaxError, ValueError) as failure:
        yield error(f"the reward file cannot be loaded: {failure}", f"--reward.remote_url {first}", "check the path")
        return
    # A module's `__getattr__` gives the function as well: the file of this package has one.
    if not _names(tree) & {"reward_func", "__getattr__"}:
        yield error("the reward file defines no reward_func", first, "define reward_func(queries, prompts, labels)")


def _names(tree: ast.Module) -> set[str]:
    """Return what a module defines, imports and assigns, as its text shows it."""
    found = set()
    for node in tree.body:
        if isinstance(node, ast.FunctionDef):
            found.add(node.name)
        elif isinstance(node, ast.ImportFrom):
            found |= {alias.asname or alias.name for alias in node.names}
        elif isinstance(node, ast.Assign):
            found |= {target.id for target in node.targets if isinstance(target, ast.Name)}
    return found


def configuration(run: Run) -> Iterator[Finding]:
    """A configuration of the dual that is missing or wrong.

    That is also one with a pair that cannot be loaded, or a reward that cannot judge its pair. The agent reads it when
    the engines start, minutes into a run.
    """
    if not run.is_ours:
        return
    if isinstance(run.config, CellDualityError):
        yield told(run.config, str(run.config_path))
    elif run.config_path is None and not run.command.submitted:
        yield error(
            f"no configuration: {PATH_VARIABLE} is not set",
            "--train.agent_func_path",
            f"export {PATH_VARIABLE}=DATA/cellduality.json, or bind the agent: cellduality agent-path --config FILE",
        )


def dual_timeout(run: Run) -> Iterator[Finding]:
    """A dual that may hold up a whole step for more than ten minutes.

    OpenRLHF waits for every sample of a rollout and has no time limit of its own for an agent: `dual.timeout_seconds`
    is the only one.
    """
    if isinstance(run.config, Config) and run.config.dual.timeout_seconds > 600:
        yield warning(
            f"one stuck dual holds up a step for {run.config.dual.timeout_seconds:g} s",
            f"{run.config_path}: dual.timeout_seconds",
            "lower it to a few times what a dual takes (the metric dual_seconds)",
        )


def dual_calls(run: Run) -> Iterator[Finding]:
    """Duals that reason: how many calls they cost a group.

    For every label a trace is decoded so many times, and what is hidden is read after each; a trace of a dual that sees
    no gene is decoded once a step, whatever the number of cells. Where a cell is the answer it is once for each answer.
    """
    if not isinstance(run.config, Config):
        return
    tasks, vocabulary = run.config.load_tasks(), run.config.load_vocabulary()
    rewards, group = run.config.load_rewards(tasks), run.get("rollout.n_samples_per_prompt")
    for name, settings in run.config.tasks.items():
        if not settings.traces or not rewards[name].asks_log_probs:
            continue
        asked, what = _prompts(tasks[name], rewards[name], settings, vocabulary, group)
        once = ", the traces once a step" if settings.hidden == 1 else ""
        yield note(
            f"a group of {name} asks the dual up to {2 * asked * settings.traces} times: {asked} {what} x "
            f"{settings.traces} traces, each decoded and then read on from{once}",
            f"{run.config_path}: tasks.{name}.traces",
            "lower traces, or negatives" if what == "labels" else "lower traces",
        )


def _prompts(
    task: DualTask, reward: Reward, settings: TaskSettings, vocabulary: Vocabulary, group: int
) -> tuple[int, str]:
    """Return the most dual prompts that so many rollouts of a row ask, and what each of them is about."""
    if not isinstance(task.answer, OneOf):
        return group, "answers"
    labels = len(vocabulary.labels[task.answer.kind])
    if not reward.asks_every_label:
        return min(labels, group), "answers"
    return min(labels, (settings.negatives or labels) + group), "labels"


def length_of_traces(run: Run) -> Iterator[Finding]:
    """Reasoning of the dual without a limit.

    It is drawn with the answer behind it, to the end of the context, and may leave no room for what is scored after it.
    """
    if isinstance(run.config, Config) and run.config.dual.max_new_tokens is None:
        for name, settings in run.config.tasks.items():
            if settings.traces:
                yield warning(
                    f"the dual of {name} reasons without a limit",
                    f"{run.config_path}: dual.max_new_tokens",
                    "set it to what a trace needs (data prepare --dual-max-new-tokens)",
                )
