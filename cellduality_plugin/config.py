"""One validated configuration, read from one file that every worker can see."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from pydantic import Field, PrivateAttr, field_validator

from cellduality_plugin.errors import CellDualityError
from cellduality_plugin.examples import Example
from cellduality_plugin.files import write_text
from cellduality_plugin.import_paths import FORMS
from cellduality_plugin.parsing import OneOf
from cellduality_plugin.policies.settings import DualSettings
from cellduality_plugin.profiles import Profiles
from cellduality_plugin.reward_names import read_reward
from cellduality_plugin.rewards import REWARDS, Reward, get_reward, scored_kind
from cellduality_plugin.settings import Settings
from cellduality_plugin.tasks import DualTask, get_task
from cellduality_plugin.vocabulary import Vocabulary

PATH_VARIABLE = "CELLDUALITY_CONFIG"
"""Names the configuration file; set it where Ray starts (or in the job's runtime environment)."""

EVERY_TASK = "*"  # in settings by task: every task that is not named


class RecordSettings(Settings):
    """Which rollouts are kept in files, to be looked at and re-scored; see :mod:`.records`."""

    folder: str = Field(min_length=1)  # where they go, relative to the configuration file
    every: int = Field(8, ge=1)  # one of so many groups is kept, whole
    limit: int = Field(1000, ge=1)  # rollouts that a process keeps, at most; a group that was begun is kept whole


class TaskSettings(Settings):
    """One dual pair of a run."""

    pair: str  # a built-in name, ``"module:Class"`` or ``"file.py:Class"`` (relative to the configuration file)
    # A key of :data:`cellduality_plugin.rewards.REWARDS` (the README lists them), ``"module:Class"`` or
    # ``"file.py:Class"``; products of powers of any of these, ``"posterior*profile^0.3"``, and {reward: weight}.
    reward: str | dict[str, float] = "duality"
    # With s the share: reward = validity ** power x ((1 - s) similarity + s). Power 0 and share 0 are the paper's
    # reward. A share above 0 lets form count where the dual says nothing, in groups whose duals all fail.
    validity_power: float = Field(1.0, ge=0)
    validity_share: float = Field(0.0, ge=0, lt=1)
    # For answers that are labels: r = n s / (sum of s over the group), with s what the reward says of an answer and n
    # how many of the group gave it. With ``"posterior"`` the prior is then the group's own votes. Not in the paper.
    votes: bool = False
    # Where the largest and the smallest reward of a group are nearer than this, all get their mean, and with it no
    # advantage: a difference that is noise is not trained on. 0 leaves every reward as it is.
    minimum_spread: float = Field(0.0, ge=0, le=1)
    # The share of a cell's genes that the dual has to rebuild, up to 1 for all of them, in place of the splits that the
    # row holds; None leaves these. Every group of a row has the same.
    hidden: float | None = Field(None, gt=0, le=1)
    # So many reasoning traces the policy draws from its own dual, and what is hidden is scored after each of them
    # (``"likelihood"``, ``"posterior"``); 0 scores it after the empty trace.
    traces: int = Field(0, ge=0)
    # Over the traces: ``"log"`` the mean of the log-likelihoods, ``"probability"`` the log of the mean likelihood.
    trace_mean: Literal["log", "probability"] = "log"
    # The answered label is compared with so many others, drawn once for a row; None: with all others of its set, or
    # where no question lists the set with 15. There the other answers of the group are among them in any case.
    negatives: int | None = Field(None, ge=1)

    @field_validator("reward")
    @classmethod
    def _is_known(cls, reward: str | dict[str, float]) -> str | dict[str, float]:
        for text in [reward] if isinstance(reward, str) else reward:
            try:
                kinds = [factor.kind for term in read_reward(text) for factor in term.factors]
            except CellDualityError as error:
                raise ValueError(error.what) from error
            for kind in kinds:
                if kind not in REWARDS and ":" not in kind:
                    raise ValueError(f"no reward {kind!r}: use one of {', '.join(REWARDS)}, or {FORMS}")
        if not isinstance(reward, str) and not (reward and all(0 < weight < math.inf for weight in reward.values())):
            raise ValueError("a sum needs one reward at least, and weights above 0")
        return reward


class Config(Settings):
    """What the reward needs to know: the vocabulary, the dual pairs, how duals are asked."""

    vocabulary: str = "vocabulary.json"  # file, relative to that of the configuration
    tasks: dict[str, TaskSettings]  # the pairs by name
    dual: DualSettings = DualSettings()
    records: RecordSettings | None = None  # which rollouts are kept; None keeps none
    profiles: str | None = None  # file of the class profiles; None: there is none

    _folder: Path = PrivateAttr(default=Path())

    @classmethod
    def load(cls, path: str | os.PathLike[str] | None = None) -> Config:
        """Return the configuration in ``path``, or the one ``CELLDUALITY_CONFIG`` names, once it is checked."""
        found = path or os.environ.get(PATH_VARIABLE)
        if not found:
            what = f"no configuration: {PATH_VARIABLE} is not set"
            hint = f"export {PATH_VARIABLE}=DATA/cellduality.json, or use: cellduality agent-path --config FILE"
            raise CellDualityError(what, code="no-config", hint=hint)
        try:
            values = json.loads(Path(found).read_bytes())
        except OSError as error:
            what, hint = f"cannot read the configuration: {error.strerror}", "prepare the data first"
            raise CellDualityError(what, code="unreadable-file", where=str(found), hint=hint) from error
        except ValueError as error:  # not JSON, or not even text
            what, hint = f"not JSON: {error}", "prepare the data again"
            raise CellDualityError(what, code="not-json", where=str(found), hint=hint) from error
        config = cls.read(values, where=str(found))
        config._folder = Path(found).resolve().parent
        return config

    @property
    def folder(self) -> Path:
        """What relative paths in the configuration are relative to."""
        return self._folder

    def with_each(self, setting: str, values: Mapping[str, object], where: str) -> Config:
        """Return the same configuration with a setting changed for some of its tasks; ``"*"`` stands for all others.

        A CellDualityError says that there is no such task, or that a value is wrong; it came from ``where``.
        """
        if unknown := values.keys() - self.tasks.keys() - {EVERY_TASK}:
            what, hint = f"no task {min(unknown)!r}", f"the tasks are {', '.join(self.tasks)}"
            raise CellDualityError(what, code="unknown-task", where=where, hint=hint)
        changes = {
            name: {setting: values.get(name, values.get(EVERY_TASK, getattr(task, setting)))}
            for name, task in self.tasks.items()
        }
        return self.with_tasks(changes, where)

    def with_tasks(self, changes: Mapping[str, Mapping[str, object]], where: str = "tasks") -> Config:
        """Return the configuration of a run on the tasks in ``changes`` alone, with these of their settings changed."""
        values = self.model_dump()
        tasks = {name: {**task, **changes[name]} for name, task in values["tasks"].items() if name in changes}
        return self._read_again({**values, "tasks": tasks}, where)

    def with_settings(self, **settings: Mapping[str, object]) -> Config:
        """Return the same configuration with some settings of ``dual`` or ``records`` changed."""
        values = self.model_dump()
        changed = {part: {**(values[part] or {}), **changes} for part, changes in settings.items()}
        return self._read_again({**values, **changed}, ", ".join(settings))

    def _read_again(self, values: dict[str, object], where: str) -> Config:
        changed = self.read(values, where=where)
        changed._folder = self._folder
        return changed

    def save(self, path: Path) -> None:
        write_text(path, self.text)

    @property
    def text(self) -> str:
        return self.model_dump_json(indent=2) + "\n"

    def load_vocabulary(self) -> Vocabulary:
        return Vocabulary.load(self._folder / self.vocabulary)

    def load_tasks(self) -> dict[str, DualTask]:
        """Return {task name: dual pair} in their order; a CellDualityError if one does not load under its name."""
        pairs = {name: get_task(settings.pair, self._folder) for name, settings in self.tasks.items()}
        for name, pair in pairs.items():
            if pair.name != name:
                what = f"the pair {self.tasks[name].pair!r} is called {pair.name!r}, not {name!r}"
                hint = "use its own name as key"
                raise CellDualityError(what, code="renamed-pair", where=f"tasks.{name}", hint=hint)
        return pairs

    def split(self, task: DualTask, example: Example) -> Example:
        """Return ``example`` with the split of its cell that the settings of its task ask for."""
        share = self.tasks[task.name].hidden
        return example if share is None else task.hide(example, share)

    def load_profiles(self) -> Profiles:
        """Return the class profiles; a CellDualityError if the configuration names none or they cannot be read."""
        if self.profiles is None:
            what = "a reward reads class profiles, and the configuration names no file of them"
            hint = 'prepare the data again (cellduality data prepare), or set profiles to "profiles.npz"'
            raise CellDualityError(what, code="no-profiles", where="profiles", hint=hint)
        return Profiles.load(self._folder / self.profiles)

    def needs_gold(self) -> tuple[str, ...]:
        """Return the names of the tasks whose reward needs the true answer in the row."""
        return tuple(name for name, task in self.tasks.items() if get_reward(task.reward, self._folder).needs_gold)

    def load_rewards(self, tasks: Mapping[str, DualTask], *, prepared: bool = True) -> dict[str, Reward]:
        """Return {task name: its reward}; if the data are ``prepared``, class profiles are looked at, too.

        A CellDualityError is raised if a reward cannot be loaded, cannot judge its task, asks what the endpoint cannot
        answer, or reads profiles that are not there.
        """
        rewards = {name: get_reward(self.tasks[name].reward, self._folder) for name in tasks}
        only_chats = self.dual.player == "frozen" and self.dual.endpoint and self.dual.endpoint.kind == "chat"
        for name, reward in rewards.items():
            reward.check(tasks[name])
            if self.tasks[name].votes and not isinstance(tasks[name].answer, OneOf):
                what = f"votes are counted where the answer is a label, and {name} answers with a list"
                raise CellDualityError(what, code="needs-labels", where=f"tasks.{name}.votes", hint="leave it out")
            if only_chats and reward.asks_log_probs:
                what = "a chat endpoint cannot tell how likely a given text is, and the reward asks for it"
                hint = 'use duality, or a vLLM server (dual.endpoint.kind "vllm")'
                raise CellDualityError(what, code="needs-log-probs", where=f"tasks.{name}.reward", hint=hint)
        kinds = {scored_kind(tasks[name]) for name, reward in rewards.items() if reward.needs_profiles}
        if prepared and kinds:
            profiles, vocabulary = self.load_profiles(), self.load_vocabulary()
            for kind in sorted(kinds):
                labels, own = vocabulary.labels[kind], profiles.by_kind.get(kind)
                if missing := sorted({*labels} - {*(own.labels if own else ())}):
                    what = f"no profile of {len(missing)} of {len(labels)} labels of {kind!r}: {', '.join(missing):.60}"
                    again = "prepare the data again, or " if vocabulary.tables(kind) else "a set so large has none: "
                    where, hint = str(self._folder / str(self.profiles)), f"{again}leave profile out of the reward"
                    raise CellDualityError(what, code="no-profiles", where=where, hint=hint)
        return rewards
