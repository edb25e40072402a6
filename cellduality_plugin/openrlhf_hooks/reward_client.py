"""Where files of `cellduality reward-path --server` find the client."""

from cellduality_plugin.openrlhf_hooks.reward_func import RewardClient

__all__ = ["RewardClient"]
