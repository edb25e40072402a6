"""One validated configuration, read from one file that every worker can see."""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Mapping
from pathlib import Path

from pydantic import PrivateAttr

from cellduality_plugin.errors import CellDualityError
from cellduality_plugin.examples import Example
from cellduality_plugin.files import write_text
from cellduality_plugin.parsing import OneOf
from cellduality_plugin.policies.settings import DualSettings
from cellduality_plugin.profiles import Profiles
from cellduality_plugin.rewards import Reward, get_reward, scored_kind
from cellduality_plugin.settings import Settings
from cellduality_plugin.task_settings import RecordSettings, TaskSettings
from cellduality_plugin.tasks import DualTask, get_task
from cellduality_plugin.vocabulary import Vocabulary

PATH_VARIABLE = "CELLDUALITY_CONFIG"
"""Names the configuration file; set it where Ray starts (or in the job's runtime environment)."""

EVERY_TASK = "*"
"""In rewards by task: every task that is not named."""


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
                hint=f"export {PATH_VARIABLE}=DATA/cellduality.json, or use: cellduality agent-path --config FILE",
            )
        try:
            content = Path(found).read_bytes()
        except OSError as error:
            raise CellDualityError(
                f"cannot read the configuration: {error.strerror}", where=str(found), hint="prepare the data first"
            ) from error
        try:
            values = json.loads(content)
        except ValueError as error:  # not JSON, or not even text
            raise CellDualityError(f"not JSON: {error}", where=str(found), hint="prepare the data again") from error
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
                f"no task {min(strangers)!r}", where=where, hint=f"the tasks are {', '.join(self.tasks)}"
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
                    hint="use its own name as key",
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
                hint='prepare the data again (cellduality data prepare), or set profiles to "profiles.npz"',
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
                    hint="leave it out",
                )
            if only_chats and reward.asks_log_probs:
                raise CellDualityError(
                    "a chat endpoint cannot tell how likely a given text is, and the reward asks for it",
                    where=f"tasks.{name}.reward",
                    hint='use duality, or a vLLM server (dual.endpoint.kind "vllm")',
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
                    hint="prepare the data again, or leave profile out of the reward",
                )
