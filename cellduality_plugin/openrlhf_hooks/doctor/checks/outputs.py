"""What a run writes, and what it takes up."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from cellduality_plugin.openrlhf_hooks.doctor.finding import Finding, error, note, warning
from cellduality_plugin.openrlhf_hooks.doctor.machine import GIB
from cellduality_plugin.openrlhf_hooks.doctor.run import Run

_FOLDERS = ("ckpt.output_dir", "ckpt.path", "logger.tensorboard_dir")


def checkpoints_there(run: Run) -> Iterator[Finding]:
    """Checkpoints that are not taken up, or that are to be and are not there.

    A run that starts anew in a used folder counts, rotates and deletes the old run's checkpoints as its own. One that
    is told to load from an empty folder starts from nothing, with a line in the log.
    """
    folder = _checkpoints(run)
    loads, there = run.get("ckpt.load_enable"), folder.is_dir() and any(folder.iterdir())
    if there and not loads:
        yield warning(
            f"checkpoints of an earlier run are in {folder}",
            "--ckpt.path",
            "add --ckpt.load_enable, or use another folder",
        )
    elif loads and not there:
        yield warning(f"no checkpoint to load in {folder}", "--ckpt.load_enable", "check --ckpt.path")


def resumed_model(run: Run) -> Iterator[Finding]:
    """A run that is taken up with another model than it began with.

    The weights come out of the checkpoint; the model that is named is the reference policy, and has to stay the one SFT
    made.
    """
    name = run.get("actor.model_name_or_path")
    if not run.get("ckpt.load_enable") or not name:
        return
    made = [Path(run.get(flag)).resolve() for flag in ("ckpt.output_dir", "ckpt.path")]
    folder = Path(name).resolve()
    if any(folder == other or other in folder.parents for other in made):
        yield error(
            f"the reference policy would be {name}, which this run writes",
            "--actor.model_name_or_path",
            "pass the SFT model",
        )


def no_checkpoints(run: Run) -> Iterator[Finding]:
    """A run of which nothing is kept until its end."""
    if run.get("ckpt.save_steps") == -1 or run.get("ckpt.disable_ds"):
        yield note("a stopped run cannot be taken up", "--ckpt.save_steps", "pass how often to save, e.g. 20")


def folders_can_be_written(run: Run) -> Iterator[Finding]:
    """A folder that cannot be made or written to.

    The model is saved once, at the end.
    """
    if run.command.submitted:
        return
    for name in _FOLDERS:
        path = run.get(name)
        if path and (obstacle := _obstacle(Path(path))):
            yield error(obstacle, f"--{name} {path}", "choose another folder")


def relative_paths(run: Run) -> Iterator[Finding]:
    """A relative path that is read or written by workers.

    Ray's workers have a working directory of their own: on other nodes, and wherever a job brings one, which is
    deleted.
    """
    if not run.is_elsewhere:
        return
    for name in (*_FOLDERS, "train.agent_func_path", run.rows_flag[2:], "reward.remote_url"):
        value = run.flags.given.get(name)
        if name == "ckpt.output_dir" and not value:
            value = run.get(name)
        is_path = value and "://" not in str(value) and (name != run.rows_flag[2:] or str(value).endswith(".jsonl"))
        if is_path and not os.path.isabs(str(value)):
            yield warning(f"the path {value} is relative", f"--{name}", "pass an absolute path that every node sees")


def unrotated_copies(run: Run) -> Iterator[Finding]:
    """Copies in Hugging Face's format, which are never deleted.

    `--ckpt.max_num` rotates DeepSpeed's checkpoints; `--ckpt.save_hf` writes a whole model beside each and keeps them
    all.
    """
    if run.get("ckpt.save_hf") and run.get("ckpt.save_steps") != -1:
        size = f" of {2 * run.model.parameters / GIB:.1f} GiB" if run.model and run.model.parameters else ""
        yield warning(
            f"a copy{size} is kept every {run.get('ckpt.save_steps')} steps", "--ckpt.save_hf", "delete old ones"
        )


def disk_space(run: Run) -> Iterator[Finding]:
    """Less space than checkpoints and the model take.

    Bytes = parameters x (2 for the model + 14 for each checkpoint kept: weights in bf16, and master weights and both
    moments in fp32). A full disk ends the run at its last step.
    """
    if run.command.submitted or run.model is None or run.model.parameters is None:
        return
    kept = 0 if run.get("ckpt.save_steps") == -1 or run.get("ckpt.disable_ds") else run.get("ckpt.max_num")
    needed = run.model.parameters * (2 + 14 * kept)
    free = shutil.disk_usage(_nearest(Path(run.get("ckpt.path")))).free
    if free < needed:
        yield warning(
            f"{free / GIB:.1f} GiB are free, and {kept} checkpoints and the model take about {needed / GIB:.1f}",
            "--ckpt.path",
            "free some space, or lower --ckpt.max_num",
        )


def _checkpoints(run: Run) -> Path:
    folder = Path(run.get("ckpt.path"))
    return folder / "_actor" if run.is_rl else folder


def _nearest(path: Path) -> Path:
    """Return the nearest folder above that is there."""
    path = path.absolute()
    return next(folder for folder in (path, *path.parents) if folder.exists())


def _obstacle(path: Path) -> str:
    above = _nearest(path)
    if not above.is_dir():
        return f"{above} is a file"
    return "" if os.access(above, os.W_OK | os.X_OK) else f"{above} cannot be written to"
