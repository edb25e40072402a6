"""Who gives the reward, and with which configuration."""

from __future__ import annotations

from cellduality_plugin.config import PATH_VARIABLE, Config, TaskSettings
from cellduality_plugin.duals import held_against
from cellduality_plugin.errors import CellDualityError
from cellduality_plugin.openrlhf_hooks.doctor.agent import AgentFile, names_in, read_python
from cellduality_plugin.openrlhf_hooks.doctor.check import Found, check, error, finding_of, note, warning
from cellduality_plugin.openrlhf_hooks.doctor.command import RL
from cellduality_plugin.openrlhf_hooks.doctor.run import Run
from cellduality_plugin.parsing import OneOf
from cellduality_plugin.rewards import Reward
from cellduality_plugin.tasks import DualTask
from cellduality_plugin.vocabulary import Vocabulary


@check(RL)
def agent_and_url(run: Run, agent: AgentFile) -> Found:
    """An agent together with a reward URL or a reward model. The agent wins without a word: the URL is never asked and
    the reward model is never loaded."""
    for name in ("reward.remote_url", "reward.model_name_or_path"):
        if given := run.flags.given.get(name):
            yield warning(f"the agent overrides --{name} {given}", f"--{name}", "leave out one of the two")


@check(RL)
def no_reward(run: Run) -> Found:
    """Neither an agent, nor a reward URL, nor a reward model. Actors of a reward model without a model are started, and
    fail at the first rollout."""
    if not any(run.get(name) for name in ("train.agent_func_path", "reward.remote_url", "reward.model_name_or_path")):
        hint = 'pass --train.agent_func_path "$(cellduality agent-path --config DATA/cellduality.json)"'
        yield error("nothing gives a reward", "--train.agent_func_path", hint)


@check(RL)
def agent_file(agent: AgentFile) -> Found:
    """An agent file that OpenRLHF cannot load, or that is not of this package. It is executed as `agent_module`, in no
    package and not in `sys.modules`, in every engine, once Ray has started."""
    for what, hint in agent.problems:
        yield error(what, f"--train.agent_func_path {agent.path}", hint)
    if not agent.is_ours and not agent.problems:
        yield note("another agent than the dual's: its rows and reward were not checked", "--train.agent_func_path")


@check(RL)
def reward_file(run: Run) -> Found:
    """A reward FILE.py that is not there, has no `reward_func`, or stands beside others. An exception in it is logged
    at INFO and leaves no reward, which ends the run under another name; of several, only the first is loaded."""
    named = str(run.flags.given.get("reward.remote_url") or "")
    first, *others = named.split(",")
    if run.agent is not None or not first.endswith(".py"):
        return
    if others:
        yield error("of several reward files only the first is loaded", f"--reward.remote_url {named}", "pass one file")
    tree = read_python(first)
    if isinstance(tree, str):
        yield error(f"the reward file cannot be loaded: {tree}", f"--reward.remote_url {first}", "check the path")
    # A module's `__getattr__` gives the function as well: the file of this package has one.
    elif not names_in(tree) & {"reward_func", "__getattr__"}:
        yield error("the reward file defines no reward_func", first, "define reward_func(queries, prompts, labels)")


@check(RL)
def configuration(run: Run) -> Found:
    """A configuration of the dual that is missing or wrong. That is also one with a pair that cannot be loaded, or a
    reward that cannot judge its pair. The agent reads it when the engines start, minutes into a run."""
    if isinstance(run.config, CellDualityError):
        yield finding_of(run.config, str(run.config_path))
    elif run.is_ours and run.config_path is None and not run.command.submitted:
        hint = f"export {PATH_VARIABLE}=DATA/cellduality.json, or bind the agent: cellduality agent-path --config FILE"
        yield error(f"no configuration: {PATH_VARIABLE} is not set", "--train.agent_func_path", hint)


@check(RL)
def dual_timeout(run: Run, config: Config) -> Found:
    """A dual that may hold up a whole step for more than ten minutes. OpenRLHF waits for every sample of a rollout and
    has no time limit of its own for an agent: `dual.timeout_seconds` is the only one."""
    seconds, hint = config.dual.timeout_seconds, "lower it to a few times what a dual takes (the metric dual_seconds)"
    if seconds > 600:
        yield warning(
            f"one stuck dual holds up a step for {seconds:g} s", f"{run.config_path}: dual.timeout_seconds", hint
        )


@check(RL)
def dual_calls(run: Run, config: Config) -> Found:
    """Duals that reason: how many calls they cost a group. For every label a trace is decoded so many times, and what
    is hidden is read after each; a trace of a dual that sees no gene is decoded once a step, whatever the number of
    cells. Where a cell is the answer it is once for each answer."""
    tasks, vocabulary = config.load_tasks(), config.load_vocabulary()
    rewards, group = config.load_rewards(tasks), run.get("rollout.n_samples_per_prompt")
    for name, settings in config.tasks.items():
        if not settings.traces or not rewards[name].asks_log_probs:
            continue
        asked, of_what = _dual_prompts(tasks[name], rewards[name], settings, vocabulary, group)
        once = ", the traces once a step" if settings.hidden == 1 else ""
        yield note(
            f"a group of {name} asks the dual up to {2 * asked * settings.traces} times: {asked} {of_what} x "
            f"{settings.traces} traces, each decoded and then read on from{once}",
            f"{run.config_path}: tasks.{name}.traces",
            "lower traces, or negatives" if of_what == "labels" else "lower traces",
        )


def _dual_prompts(
    task: DualTask, reward: Reward, settings: TaskSettings, vocabulary: Vocabulary, group: int
) -> tuple[int, str]:
    """Return the most dual prompts that ``group`` rollouts of a row ask, and what each of them is about."""
    if not isinstance(task.answer, OneOf):
        return group, "answers"
    labels = len(vocabulary.labels[task.answer.kind])
    if not reward.asks_every_label:
        return min(labels, group), "answers"
    rivals = held_against(vocabulary, task.answer.kind, settings.negatives)
    return min(labels, (rivals or labels) + group), "labels"


@check(RL)
def length_of_traces(run: Run, config: Config) -> Found:
    """Reasoning of the dual without a limit. It is drawn with the answer behind it, to the end of the context, and may
    leave no room for what is scored after it."""
    where = f"{run.config_path}: dual.max_new_tokens"
    hint = "set what a trace needs (data prepare --dual-max-new-tokens)"
    for name, settings in config.tasks.items():
        if settings.traces and config.dual.max_new_tokens is None:
            yield warning(f"the dual of {name} reasons without a limit", where, hint)


@check(RL)
def configuration_reaches_workers(run: Run, agent: AgentFile) -> Found:
    """A configuration that is named where the workers cannot see it. OpenRLHF hands three variables to Ray's workers,
    and CELLDUALITY_CONFIG is none of them: it has to be in the job's runtime environment, or in the shell that started
    Ray. A bound agent needs neither."""
    if not agent.is_ours or agent.bound is not None or run.command.unreadable:
        return
    joins = run.command.submitted or run.variables.get("RAY_ADDRESS")
    if joins and not (run.command.submitted and PATH_VARIABLE in run.command.variables):
        hint = "name it in --runtime-env-json, or bind the agent: cellduality agent-path --config FILE"
        what = f"{PATH_VARIABLE} may not reach the workers of a Ray that runs already"
        yield warning(what, "--runtime-env-json", hint)
    elif run.config_path is not None and not run.config_path.is_absolute():
        hint = "make it absolute: workers run elsewhere"
        yield warning(f"{PATH_VARIABLE} is a relative path", str(run.config_path), hint)
