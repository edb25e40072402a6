"""The file for ``--reward.remote_url``.

OpenRLHF executes it outside any package, so it only names the function of the installed one.
"""

from cellduality_plugin.openrlhf_hooks.reward_func import RewardFunction

reward_func = RewardFunction()

__all__ = ["reward_func"]
