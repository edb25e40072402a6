"""The file for ``--train.agent_func_path``.

OpenRLHF executes it outside any package, so it only names the executor of the installed one.
"""

from cellduality_plugin.openrlhf_hooks.executor import DualityExecutor as AgentExecutor

__all__ = ["AgentExecutor"]
