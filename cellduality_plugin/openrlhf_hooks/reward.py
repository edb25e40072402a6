"""The file for ``--reward.remote_url``.

OpenRLHF executes it outside any package, so it only names the function of the installed one. The function is made when
it is asked for, and not when the file is merely looked at: it needs the configuration.
"""

from typing import Any

from cellduality_plugin.openrlhf_hooks.reward_func import RewardFunction


def __getattr__(name: str) -> Any:
    if name == "reward_func":
        return RewardFunction()
    raise AttributeError(name)
