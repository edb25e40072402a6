"""One validated configuration, read from one file that every worker can see."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Collection, Mapping
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

EVERY_TASK = "*"
"""In rewards by task: every task that is not named."""


class RecordSettings(Settings):
    """Which rollouts are kept in files, to be looked at and re-scored; see :mod:`cellduality_plugin.records`.

    Parameters
    ----------
    folder
        Where they go, relative to the configuration file.
    every
        Of so many groups one is kept, whole.
    limit
        Rollouts that a process keeps, at most; a group that was begun is kept whole.
    """

    folder: str = Field(min_length=1)
    every: int = Field(8, ge=1)
    limit: int = Field(1000, ge=1)


class TaskSettings(Settings):
    """One dual pair of a run.

    Parameters
    ----------
    pair
        A built-in name, ``"module:Class"`` or ``"file.py:Class"`` (relative to the configuration file).
    reward
        A key of :data:`cellduality_plugin.rewards.REWARDS`: ``"duality"`` generates the reconstruction and compares it
        (the paper), by the pair's own similarity or another (``"duality-rbo"``); ``"likelihood"`` reads the probability
        of the true x_u off one prefill; ``"posterior"`` is the probability of the true label among all of its set;
        ``"profile"`` the same by class profiles, without a model; ``"consistency"`` by the policy's own answer about
        the whole cell; ``"oracle"`` the ground truth. Or ``"module:Class"``, ``"file.py:Class"``; products of powers of
        any of these, ``"posterior*profile^0.3"``, and {any of those: weight}.
    validity_power, validity_share
        With s the share: reward = validity ** power x ((1 - s) similarity + s). Power 0 and share 0 are the paper's
        reward. A share above 0 lets form count where the dual says nothing, in groups whose duals all fail.
    votes
        For answers that are labels: r = n s / (sum of s over the group), with s what the reward says of an answer and n
        how many of the group gave it. With ``"posterior"`` this is the posterior whose prior is the group's own votes:
        evidence corrects the majority, and where it says nothing the majority stands. Not in the paper.
    minimum_spread
        Where the largest and the smallest reward of a group are nearer than this, all get their mean, and with it no
        advantage: a difference that is noise is not trained on. 0 leaves every reward as it is.
    hidden
        The share of a cell's genes that the dual has to rebuild, up to 1 for all of them, in place of the splits that
        the row holds; None leaves these. Every group of a row has the same.
    traces
        So many reasoning traces the policy draws from its own dual, and what is hidden is scored after each of them
        (``"likelihood"``, ``"posterior"``); 0 scores it after the empty trace.
    trace_mean
        Over the traces: ``"log"`` the mean of the log-likelihoods, ``"probability"`` the log of the mean likelihood.
    negatives
        Of a large label set the answered label is held against so many others, which are drawn for a row once; None
        holds it against all others.
    """

    pair: str
    reward: str | dict[str, float] = "duality"
    validity_power: float = Field(1.0, ge=0)
    validity_share: float = Field(0.0, ge=0, lt=1)
    votes: bool = False
    minimum_spread: float = Field(0.0, ge=0, le=1)
    hidden: float | None = Field(None, gt=0, le=1)
    traces: int = Field(0, ge=0)
    trace_mean: Literal["log", "probability"] = "log"
    negatives: int | None = Field(None, ge=1)

    @field_validator("reward")
    @classmethod
    def _is_known(cls, reward: str | dict[str, float]) -> str | dict[str, float]:
        for text in [reward] if isinstance(reward, str) else reward:
            for kind in kinds_in(text):
                if kind not in REWARDS and ":" not in kind:
                    raise ValueError(f"no reward {kind!r}: use one of {', '.join(REWARDS)}, or {FORMS}")
        if not isinstance(reward, str) and not (reward and all(0 < weight < math.inf for weight in reward.values())):
            raise ValueError("a sum needs one reward at least, and weights above 0")
        return reward


class Config(Settings):
    """What the reward needs to know: the vocabulary, the dual pairs, how duals are asked.

    Parameters
    ----------
    vocabulary
        The vocabulary file, relative to the configuration file.
    tasks
        The pairs by name.
    records
        Which rollouts are kept; None keeps none.
    profiles
        The file of class profiles, relative to the configuration file; None: there is none.
    """

    vocabulary: str = "vocabulary.json"
    tasks: dict[str, TaskSettings]
    dual: DualSettings = DualSettings()
    records: RecordSettings | None = None
    profiles: str | None = None

    _folder: Path = PrivateAttr(default=Path())

    @classmethod
    def load(cls, path: str | os.PathLike[str] | None = None) -> Config:
        """Return the configuration in ``path``, or in the file that ``CELLDUALITY_CONFIG`` names.

        Raises
        ------
        CellDualityError
            If there is no such file, or a setting in it is wrong.
        """
        found = path or os.environ.get(PATH_VARIABLE)
        if not found:
            raise CellDualityError(
                f"no configuration: {PATH_VARIABLE} is not set",
                mend=f"export {PATH_VARIABLE}=DATA/cellduality.json, or use: cellduality agent-path --config FILE",
            )
        try:
            content = Path(found).read_bytes()
        except OSError as error:
            raise CellDualityError(
                f"cannot read the configuration: {error.strerror}", where=str(found), mend="prepare the data first"
            ) from error
        try:
            values = json.loads(content)
        except ValueError as error:  # not JSON, or not even text
            raise CellDualityError(f"not JSON: {error}", where=str(found), mend="prepare the data again") from error
        config = cls.read(values, where=str(found))
        config._folder = Path(found).resolve().parent
        return config

    @property
    def folder(self) -> Path:
        """What relative paths in the configuration are relative to."""
        return self._folder

    def with_rewards(self, rewards: Mapping[str, str | dict[str, float]]) -> Config:
        """Return the same configuration with other rewards for some of its tasks; see :meth:`with_each`."""
        return self.with_each("reward", rewards, "--rewards")

    def with_each(self, setting: str, values: Mapping[str, object], where: str) -> Config:
        """Return the same configuration with a setting changed for some of its tasks; ``"*"`` stands for all others.

        Raises
        ------
        CellDualityError
            If there is no such task, or a value is wrong.
        """
        if strangers := values.keys() - self.tasks.keys() - {EVERY_TASK}:
            raise CellDualityError(
                f"no task {min(strangers)!r}", where=where, mend=f"the tasks are {', '.join(self.tasks)}"
            )
        content = self.model_dump()
        for name, task in content["tasks"].items():
            task[setting] = values.get(name, values.get(EVERY_TASK, task[setting]))
        return self._changed(content, where)

    def with_votes(self, names: Collection[str]) -> Config:
        """Return the same configuration with votes in the tasks ``names`` and in no other task."""
        return self.with_tasks({name: {"votes": name in names} for name in self.tasks}, "--votes")

    def with_tasks(self, changes: Mapping[str, Mapping[str, object]], where: str = "tasks") -> Config:
        """Return the configuration of a run on the tasks in ``changes`` alone, with these of their settings changed.

        Raises
        ------
        CellDualityError
            If a setting is wrong.
        """
        values = self.model_dump()
        values["tasks"] = {name: {**task, **changes[name]} for name, task in values["tasks"].items() if name in changes}
        return self._changed(values, where)

    def with_settings(self, **settings: Mapping[str, object]) -> Config:
        """Return the same configuration with some settings of ``dual`` or ``records`` changed.

        Raises
        ------
        CellDualityError
            If a setting is wrong.
        """
        values = self.model_dump()
        for part, changes in settings.items():
            values[part] = {**(values[part] or {}), **changes}
        return self._changed(values, ", ".join(settings))

    def _changed(self, values: dict[str, object], where: str) -> Config:
        changed = self.read(values, where=where)
        changed._folder = self._folder
        return changed

    def record_folder(self) -> Path | None:
        """Return where rollouts are kept, None if they are not."""
        return None if self.records is None else self._folder / self.records.folder

    def save(self, path: Path) -> None:
        """Write the configuration as JSON, whole or not at all."""
        write_text(path, self.model_dump_json(indent=2) + "\n")

    def load_vocabulary(self) -> Vocabulary:
        """Return the vocabulary the configuration names."""
        return Vocabulary.load(self._folder / self.vocabulary)

    def load_tasks(self) -> dict[str, DualTask]:
        """Return {task name: dual pair}, in the configured order.

        Raises
        ------
        CellDualityError
            If a pair cannot be loaded or calls itself otherwise than the configuration does.
        """
        pairs = {}
        for name, settings in self.tasks.items():
            pair = get_task(settings.pair, self._folder)
            if pair.name != name:
                raise CellDualityError(
                    f"the pair {settings.pair!r} is called {pair.name!r}, not {name!r}",
                    where=f"tasks.{name}",
                    mend="use its own name as key",
                )
            pairs[name] = pair
        return pairs

    def split(self, task: DualTask, example: Example) -> Example:
        """Return ``example`` with the split of its cell that the settings of its task ask for."""
        share = self.tasks[task.name].hidden
        return example if share is None else task.hide(example, share)

    def load_profiles(self) -> Profiles:
        """Return the class profiles the configuration names.

        Raises
        ------
        CellDualityError
            If it names none, or the file cannot be read.
        """
        if self.profiles is None:
            raise CellDualityError(
                "a reward reads class profiles, and the configuration names no file of them",
                where="profiles",
                mend='prepare the data again (cellduality data prepare), or set profiles to "profiles.npz"',
            )
        return Profiles.load(self._folder / self.profiles)

    def needs_gold(self) -> tuple[str, ...]:
        """Return the names of the tasks whose reward needs the true answer in the row."""
        return tuple(name for name, task in self.tasks.items() if get_reward(task.reward, self._folder).needs_gold)

    def load_rewards(self, tasks: Mapping[str, DualTask], *, prepared: bool = True) -> dict[str, Reward]:
        """Return {task name: its reward}.

        Parameters
        ----------
        prepared
            Whether the data are there, so that what rewards read of them can be looked at.

        Raises
        ------
        CellDualityError
            If a reward cannot be loaded, cannot judge its task, asks what the endpoint cannot answer, or reads
            profiles that are not there.
        """
        rewards = {name: get_reward(self.tasks[name].reward, self._folder) for name in tasks}
        only_chats = self.dual.player == "frozen" and self.dual.endpoint and self.dual.endpoint.kind == "chat"
        for name, reward in rewards.items():
            reward.check(tasks[name])
            if self.tasks[name].votes and not isinstance(tasks[name].answer, OneOf):
                raise CellDualityError(
                    f"votes are counted where the answer is a label, and {name} answers with a list",
                    where=f"tasks.{name}.votes",
                    mend="leave it out",
                )
            if only_chats and reward.asks_log_probs:
                raise CellDualityError(
                    "a chat endpoint cannot tell how likely a given text is, and the reward asks for it",
                    where=f"tasks.{name}.reward",
                    mend='use duality, or a vLLM server (dual.endpoint.kind "vllm")',
                )
        if prepared:
            self._check_profiles({scored_kind(tasks[name]) for name in rewards if rewards[name].needs_profiles})
        return rewards

    def _check_profiles(self, kinds: Collection[str]) -> None:
        """Raise if a label of ``kinds`` has no profile."""
        if not kinds:
            return
        profiles, labels = self.load_profiles(), self.load_vocabulary().labels
        for kind in sorted(kinds):
            profiled = profiles.by_kind[kind].labels if kind in profiles.kinds else ()
            if lacking := sorted({*labels[kind]} - {*profiled}):
                raise CellDualityError(
                    f"no profile of {len(lacking)} of {len(labels[kind])} labels of {kind!r}: {', '.join(lacking):.60}",
                    where=str(self._folder / str(self.profiles)),
                    mend="prepare the data again, or leave profile out of the reward",
                )


def kinds_in(reward: str) -> list[str]:
    """Return the kinds that a reward is made of; ValueError if it cannot be read."""
    try:
        return [factor.kind for term in read_reward(reward) for factor in term.factors]
    except CellDualityError as error:
        raise ValueError(error.what) from error
