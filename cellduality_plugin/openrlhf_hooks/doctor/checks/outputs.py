"""What a run writes and resumes from, and evaluation inside it."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from cellduality_plugin.openrlhf_hooks.doctor.check import Found, check, error, note, warning
from cellduality_plugin.openrlhf_hooks.doctor.command import RL
from cellduality_plugin.openrlhf_hooks.doctor.machine import GIB
from cellduality_plugin.openrlhf_hooks.doctor.model import Model
from cellduality_plugin.openrlhf_hooks.doctor.run import Run

_FOLDERS = ("ckpt.output_dir", "ckpt.path", "logger.tensorboard_dir")


@check()
def checkpoints_there(run: Run) -> Found:
    """Checkpoints that are not resumed from, or that should be and are not there. A run that starts anew in a used
    folder counts, rotates and deletes the old run's checkpoints as its own. One that should load from an empty folder
    starts from nothing, with a line in the log."""
    folder = Path(run.get("ckpt.path"), "_actor" if run.is_rl else "")
    loads, there = run.get("ckpt.load_enable"), folder.is_dir() and any(folder.iterdir())
    if there and not loads:
        hint = "add --ckpt.load_enable, or use another folder"
        yield warning(f"checkpoints of an earlier run are in {folder}", "--ckpt.path", hint)
    elif loads and not there:
        yield warning(f"no checkpoint to load in {folder}", "--ckpt.load_enable", "check --ckpt.path")


@check(RL)
def resumed_model(run: Run, model: Model) -> Found:
    """A run that is resumed with another model than it began with. The weights come out of the checkpoint; the model
    that is named is the reference policy, and has to stay the one SFT made."""
    named, written = Path(model.name).resolve(), (Path(run.get(name)).resolve() for name in _FOLDERS[:2])
    if run.get("ckpt.load_enable") and any(folder in (named, *named.parents) for folder in written):
        what = f"the reference policy would be {model.name}, which this run writes"
        yield error(what, run.model_flag, "pass the SFT model")


@check()
def no_checkpoints(run: Run) -> Found:
    """A run of which nothing is kept until its end."""
    if not _saves(run):
        yield note("a stopped run cannot be resumed", "--ckpt.save_steps", "pass how often to save, e.g. 20")


@check()
def folders_can_be_written(run: Run) -> Found:
    """A folder that cannot be made or written to. The model is saved once, at the end."""
    for name in _FOLDERS:
        path = run.get(name)
        if not path or run.command.submitted:
            continue
        above = _nearest(Path(path))
        if not above.is_dir():
            yield error(f"{above} is a file", f"--{name} {path}", "choose another folder")
        elif not os.access(above, os.W_OK | os.X_OK):
            yield error(f"{above} cannot be written to", f"--{name} {path}", "choose another folder")


@check(RL)
def relative_paths(run: Run) -> Found:
    """A relative path that is read or written by workers. Ray's workers have a working directory of their own: on other
    nodes, and wherever a job brings one, which is deleted."""
    given = {"ckpt.output_dir": run.get("ckpt.output_dir"), **run.flags.given}
    names = (*_FOLDERS, "train.agent_func_path", run.rows_flag[2:], "reward.remote_url")
    for name, value in ((name, str(given.get(name) or "")) for name in names):
        is_path = value and "://" not in value and (name != run.rows_flag[2:] or value.endswith(".jsonl"))
        if run.is_elsewhere and is_path and not os.path.isabs(value):
            yield warning(f"the path {value} is relative", f"--{name}", "pass an absolute path that every node sees")


@check()
def unrotated_copies(run: Run) -> Found:
    """Copies in Hugging Face's format, which are never deleted. `--ckpt.max_num` rotates DeepSpeed's checkpoints;
    `--ckpt.save_hf` writes a whole model beside each and keeps them all."""
    steps, model = run.get("ckpt.save_steps"), run.model
    if run.get("ckpt.save_hf") and steps != -1:
        size = f" of {2 * model.parameters / GIB:.1f} GiB" if model and model.parameters else ""
        yield warning(f"a copy{size} is kept every {steps} steps", "--ckpt.save_hf", "delete old ones")


@check()
def disk_space(run: Run, model: Model) -> Found:
    """Less space than checkpoints and the model take. Bytes = parameters x (2 for the model + 14 for each checkpoint
    kept: weights in bf16, and master weights and both moments in fp32). A full disk ends the run at its last step."""
    if run.command.submitted or model.parameters is None:
        return
    kept = run.get("ckpt.max_num") if _saves(run) else 0
    needed, free = model.parameters * (2 + 14 * kept), shutil.disk_usage(_nearest(Path(run.get("ckpt.path")))).free
    if free < needed:
        what = f"{free / GIB:.1f} GiB are free, and {kept} checkpoints and the model take about {needed / GIB:.1f}"
        yield warning(what, "--ckpt.path", "free some space, or lower --ckpt.max_num")


@check()
def evaluation_without_rows(run: Run) -> Found:
    """Evaluation steps without rows, or rows without steps. Without the other neither does anything."""
    rows, steps = run.get("eval.dataset"), run.get("eval.steps") != -1
    if rows and not steps:
        yield warning("rows for evaluation, and no step at which it happens", "--eval.steps", "pass how often, e.g. 20")
    elif steps and not rows:
        yield warning("steps for evaluation, and no rows", "--eval.dataset", "pass rows, or leave out --eval.steps")


@check(RL)
def meaning_of_evaluation(run: Run) -> Found:
    """Evaluation that goes through the agent. What is logged as pass1 is then the mean dual reward, not accuracy; there
    is none before the first update; the same prompt in two data sources is counted under the last; the best checkpoint
    is chosen by it."""
    if run.get("eval.dataset") and run.is_ours:
        what = "eval_*_pass1 is the mean dual reward, not accuracy, and has no step 0"
        yield note(what, "--eval.dataset", "cellduality evaluate measures accuracy, before and after")


def _saves(run: Run) -> bool:
    return run.get("ckpt.save_steps") != -1 and not run.get("ckpt.disable_ds")


def _nearest(path: Path) -> Path:
    """Return the path, or the nearest folder above it that is there."""
    path = path.absolute()
    return next(folder for folder in (path, *path.parents) if folder.exists())
