"""What a configuration says of one dual pair, and of the rollouts that are kept."""

from __future__ import annotations

import math
from typing import Literal

from pydantic import Field, field_validator

from cellduality_plugin.errors import CellDualityError
from cellduality_plugin.import_paths import FORMS
from cellduality_plugin.reward_names import read_reward
from cellduality_plugin.rewards import REWARDS
from cellduality_plugin.settings import Settings


class RecordSettings(Settings):
    """Which rollouts are kept in files, to be looked at and re-scored; see :mod:`cellduality_plugin.records`.

    Parameters
    ----------
    folder
        Where they go, relative to the configuration file.
    every
        One of so many groups is kept, whole.
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
        A key of :data:`cellduality_plugin.rewards.REWARDS` (the README lists them), ``"module:Class"`` or
        ``"file.py:Class"``; products of powers of any of these, ``"posterior*profile^0.3"``, and {reward: weight}.
    validity_power, validity_share
        With s the share: reward = validity ** power x ((1 - s) similarity + s). Power 0 and share 0 are the paper's
        reward. A share above 0 lets form count where the dual says nothing, in groups whose duals all fail.
    votes
        For answers that are labels: r = n s / (sum of s over the group), with s what the reward says of an answer and n
        how many of the group gave it. With ``"posterior"`` the prior is then the group's own votes. Not in the paper.
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
        The answered label is compared with so many others, drawn once for a row; None: with all others of its set, or
        where no question lists the set with 15. There the other answers of the group are among them in any case.
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
