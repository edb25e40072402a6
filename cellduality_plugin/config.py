"""One validated configuration, read from one file that every worker can see."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Literal

from pydantic import Field, PrivateAttr

from cellduality_plugin.errors import CellDualityError
from cellduality_plugin.files import write_text
from cellduality_plugin.settings import Settings
from cellduality_plugin.tasks import DualTask, get_task
from cellduality_plugin.vocabulary import Vocabulary

PATH_VARIABLE = "CELLDUALITY_CONFIG"
"""Names the configuration file; set it where Ray starts (or in the job's runtime environment)."""

RewardName = Literal["duality", "likelihood"]


class DualSettings(Settings):
    """How the dual is asked.

    Parameters
    ----------
    temperature
        0 asks for the most likely reconstruction.
    max_new_tokens
        Longest dual response; None allows what the context leaves.
    timeout_seconds
        After this the dual counts as failed: one stuck call must not hold up a training step.
    """

    temperature: float = Field(0.0, ge=0)
    max_new_tokens: int | None = Field(None, ge=1)
    timeout_seconds: float = Field(120.0, gt=0)


class TaskSettings(Settings):
    """One dual pair of a run.

    Parameters
    ----------
    pair
        A built-in name, ``"module:Class"`` or ``"file.py:Class"`` (relative to the configuration file).
    reward
        ``"duality"`` generates the reconstruction and compares it (the paper); ``"likelihood"`` reads the
        probability of the true x_u off one prefill.
    validity_power, validity_share
        With s the share: reward = validity ** power x ((1 - s) similarity + s). Power 0 and share 0 are the paper's
        reward. A share above 0 lets form count where the dual says nothing, in groups whose duals all fail.
    """

    pair: str
    reward: RewardName = "duality"
    validity_power: float = Field(1.0, ge=0)
    validity_share: float = Field(0.0, ge=0, lt=1)


class Config(Settings):
    """What the reward needs to know: the vocabulary, the dual pairs, how duals are asked.

    Parameters
    ----------
    vocabulary
        The vocabulary file, relative to the configuration file.
    tasks
        The pairs by name. The order fixes the order of the logged metrics.
    """

    vocabulary: str = "vocabulary.json"
    tasks: dict[str, TaskSettings]
    dual: DualSettings = DualSettings()

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
