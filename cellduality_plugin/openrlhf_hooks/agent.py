"""The file for ``--train.agent_func_path``, executed outside any package: names the executor of the installed one."""

from cellduality_plugin.openrlhf_hooks.executor import DualityExecutor as AgentExecutor

__all__ = ["AgentExecutor"]
