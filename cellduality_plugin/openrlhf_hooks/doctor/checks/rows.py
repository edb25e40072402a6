"""Who gives the reward; the rows, and how a question is framed: in SFT, in a rollout and in its dual."""

from __future__ import annotations

import contextlib
import datetime
import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

from cellduality_plugin.config import PATH_VARIABLE, Config
from cellduality_plugin.errors import CellDualityError
from cellduality_plugin.files import read_jsonl
from cellduality_plugin.openrlhf_hooks import preflight
from cellduality_plugin.openrlhf_hooks.doctor.check import Found, check, error, finding_of, note, warning
from cellduality_plugin.openrlhf_hooks.doctor.flags import RL, SFT
from cellduality_plugin.openrlhf_hooks.doctor.run import AgentFile, Run, names_in, read_python

_CELL = re.compile(rb'\{"id": ("(?:[^"\\]|\\.)*"), "split": "(\w+)"')


@check(RL)
def agent_file(agent: AgentFile) -> Found:
    for what, hint in agent.problems:
        yield error(what, f"--train.agent_func_path {agent.path}", hint)
    if not agent.is_ours and not agent.problems:
        yield note("another agent than the dual's: its rows and reward were not checked", "--train.agent_func_path")


@check(RL)
def reward_file(run: Run) -> Found:
    first, *others = str(run.flags.given.get("reward.remote_url") or "").split(",")
    if run.agent is not None or not first.endswith(".py"):
        return
    if others:
        yield error("of several reward files only the first is loaded", "--reward.remote_url", "pass one file")
    tree = read_python(first)
    if isinstance(tree, str):
        yield error(f"no reward function: {tree}", f"--reward.remote_url {first}", "check the path")
    # A module's `__getattr__` gives the function as well: the file of this package has one.
    elif not names_in(tree) & {"reward_func", "__getattr__"}:
        yield error("the reward file defines no reward_func", first, "define reward_func(queries, prompts, labels)")


@check(RL)
def configuration(run: Run) -> Found:
    if isinstance(run.config, CellDualityError):
        yield finding_of(run.config, str(run.config_path))
    elif run.is_ours and run.config_path is None and not run.submitted:
        hint = f"export {PATH_VARIABLE}=DATA/cellduality.json, or bind the agent: cellduality agent-path --config FILE"
        yield error(f"no configuration: {PATH_VARIABLE} is not set", "--train.agent_func_path", hint)


@check(RL)
def dual_timeout(run: Run, config: Config) -> Found:
    where, hint = f"{run.config_path}: dual.timeout_seconds", "lower it to a few times the metric dual_seconds"
    if config.dual.timeout_seconds > 600:
        yield warning(f"one stuck dual holds up a step for {config.dual.timeout_seconds:g} s", where, hint)


@check(RL)
def dual_calls(run: Run, config: Config) -> Found:
    tasks, vocabulary = config.load_tasks(), config.load_vocabulary()
    rewards, group = config.load_rewards(tasks), run.get("rollout.n_samples_per_prompt")
    for name, settings in config.tasks.items():
        if not settings.traces or not rewards[name].asks_log_probs:
            continue
        asked, of_what = preflight.asked_about(tasks[name], rewards[name], settings, vocabulary, group)
        hint = f"lower traces{', or negatives' if of_what == 'labels' else ''}"
        once = ", the traces once a step" if settings.hidden == 1 else ""
        what = f"a group of {name} asks the dual up to {2 * asked * settings.traces} times: {asked} {of_what} x "
        what += f"{settings.traces} traces, each decoded and then read on from{once}"
        yield note(what, f"{run.config_path}: tasks.{name}.traces", hint)


@check(RL)
def length_of_traces(run: Run, config: Config) -> Found:
    where = f"{run.config_path}: dual.max_new_tokens"
    hint = "set what a trace needs (data prepare --dual-max-new-tokens)"
    for name, settings in config.tasks.items():
        if settings.traces and config.dual.max_new_tokens is None:
            yield warning(f"the dual of {name} reasons without a limit", where, hint)


@check(RL)
def configuration_reaches_workers(run: Run, agent: AgentFile) -> Found:
    if not agent.is_ours or agent.bound is not None or isinstance(run.job_variables, str):
        return
    joins = run.submitted or run.variables.get("RAY_ADDRESS")
    if joins and not (run.submitted and PATH_VARIABLE in run.own_variables):
        hint = "name it in --runtime-env-json, or bind the agent: cellduality agent-path --config FILE"
        what = f"{PATH_VARIABLE} may not reach the workers of a Ray that runs already"
        yield warning(what, "--runtime-env-json", hint)
    elif run.config_path is not None and not run.config_path.is_absolute():
        yield warning(f"{PATH_VARIABLE} is a relative path", str(run.config_path), "make it absolute")


@check()
def data_files(run: Run) -> Found:
    if not run.rows:
        yield error("no rows to train on", run.rows_flag, "pass the rows that cellduality data prepare wrote")
    is_split = len(run.rows) > 1 or "@" in str(run.get(run.rows_flag[2:]))
    hint = f"prepare the data first (bash recipes/prepare.sh){is_split * '; OpenRLHF splits a name at , and @'}"
    for name in run.rows:
        if Path(name).exists():
            continue
        if Path(name).is_absolute() or name.endswith((".jsonl", ".json")) or name.startswith("."):
            yield error("no such file", f"{run.rows_flag} {name}", hint)
        else:
            yield note("rows of the hub could not be checked", f"{run.rows_flag} {name}")


@check()
def model_folder(run: Run) -> Found:
    problem = run.tokenizer
    if run.model is None:
        yield error("no model to start from", run.model_flag, "name a folder or a model of the hub")
    elif isinstance(problem, CellDualityError) and (run.model.is_local or "chat template" in problem.what):
        yield finding_of(problem)
    elif isinstance(problem, CellDualityError):
        what = f"{problem.what}: lengths and chat template could not be checked"
        yield note(what, run.model_place, "download it first, or check the name and the network")


@check(RL)
def rl_rows(run: Run, config: Config, tokenizer: Any) -> None:
    limit = run.get("rollout.max_new_tokens") or 0
    for path in run.row_files:
        questions = preflight.rl_questions(path, config, preflight.Lengths(tokenizer), limit)
        preflight.longest_of(questions, run.get("data.max_len"), path)


@check()
def held_out_rows(run: Run) -> Found:
    hint = "pass the rows that were prepared with this configuration; choose traces again (cellduality traces filter)"
    for path in run.row_files:
        where, beside = f"{run.rows_flag} {path}", run.config_path if run.is_ours and run.config_path else path
        cells, found = beside.parent / "cells.jsonl", Counter[str]()
        if splits := _splits(cells):
            with contextlib.suppress(CellDualityError):  # another check says so
                found.update(splits.get(str(row["id"]), "") for row in read_jsonl(path) if "id" in row)
        held = ", ".join(f"{count} {split}" for split, count in sorted(found.items()) if split not in ("", "train"))
        if held:
            yield error(f"rows are about cells that are kept for evaluation ({held})", where, hint)
        elif found[""]:
            what = f"{found['']} of {found.total()} rows are about cells that this preparation does not have"
            yield error(what, where, hint)
        elif splits and _vocabulary(path) not in ("", _vocabulary(cells)):
            yield error("rows were prepared with another vocabulary", where, hint)


def _splits(path: Path) -> dict[str, str]:
    """Return the split of each cell of a preparation, none if there is no such file."""
    if not path.is_file():
        return {}
    with path.open("rb") as stream:  # a line begins with both, and the genes behind them need not be read
        return {json.loads(each[1]): each[2].decode() for each in map(_CELL.match, stream) if each}


def _vocabulary(path: Path) -> str:
    """Return the fingerprint in the manifest of a prepared file, empty if there is none."""
    try:
        manifest = json.loads(path.with_name(f"{path.name}.manifest.json").read_bytes())
        return str(manifest.get("vocabulary", ""))
    except (OSError, ValueError, AttributeError):
        return ""


@check(SFT)
def sft_rows(run: Run, tokenizer: Any) -> None:
    for path in run.row_files:
        questions = preflight.sft_questions(path, preflight.Lengths(tokenizer))
        preflight.longest_of(questions, run.get("data.max_len"), path)


@check()
def date_in_template(run: Run, tokenizer: Any) -> Found:
    turn = [{"role": "user", "content": "Which type is the cell?"}]
    days = (datetime.datetime(2001, 2, 3), datetime.datetime(2034, 11, 25))
    texts = {_framed(tokenizer, turn, add_generation_prompt=True, strftime_now=day.strftime) for day in days}
    if len(texts) > 1:
        pin = "replace it in the model's folder" if run.is_rl else "pass a --data.tokenizer_chat_template without it"
        yield warning("the chat template inserts today's date", run.model_place, pin)


@check(SFT)
def end_of_response(run: Run, tokenizer: Any) -> Found:
    from jinja2 import TemplateError

    if not run.get("data.apply_chat_template") or not run.row_files:
        return
    try:
        row = next(preflight.rows(run.row_files[0], "SFT", "output"))[1]
    except (CellDualityError, StopIteration):  # another check says so
        return
    answer = row["output"]
    turns = [{"role": "user", "content": row["input"]}, {"role": "assistant", "content": answer}]
    try:
        prompt, both = _framed(tokenizer, turns[:1], add_generation_prompt=True), _framed(tokenizer, turns)
    except TemplateError as failure:
        prompt, both = "", str(failure)
    if not both.startswith(prompt) or answer.strip() not in both[len(prompt) :]:
        what = "the chat template does not put the answer behind the prompt as it is"
        yield error(what, run.model_place, "pass a --data.tokenizer_chat_template that does")
    elif not both.rstrip("\n").endswith(str(tokenizer.eos_token)):
        what = f"answers do not end in the tokenizer's end token {tokenizer.eos_token!r}"
        yield warning(what, run.model_place, "make the token that ends a turn the tokenizer's eos_token")


def _framed(tokenizer: Any, turns: list[dict[str, str]], **settings: Any) -> str:
    return str(tokenizer.apply_chat_template(turns, tokenize=False, **settings))
