"""The file for ``--reward.remote_url``, executed outside any package: names the function, made when it is asked for."""

from typing import Any

from cellduality_plugin.openrlhf_hooks.reward_func import RewardFunction


def __getattr__(name: str) -> Any:
    if name == "reward_func":
        return RewardFunction()
    raise AttributeError(name)
