"""Where OpenRLHF finds the agent; needs neither openrlhf nor torch to tell."""

from __future__ import annotations

from pathlib import Path

from cellduality_plugin.config import Config
from cellduality_plugin.files import write_text

_BOUND = '''"""Written by `cellduality agent-path`: the dual reward, bound to one configuration."""

from cellduality_plugin.openrlhf_hooks.executor import DualityExecutor


class AgentExecutor(DualityExecutor):
    def __init__(self):
        super().__init__({path!r})
'''


def packaged_agent_file() -> Path:
    """Return the agent file of the package; it reads the configuration that ``CELLDUALITY_CONFIG`` names."""
    return Path(__file__).parent / "openrlhf_hooks" / "agent.py"


def bound_agent_file(config: Path) -> Path:
    """Return an agent file written beside ``config`` that reads just that configuration, wherever it is run.

    Raises
    ------
    CellDualityError
        If the configuration or what it names cannot be loaded.
    """
    path = config.resolve()
    loaded = Config.load(path)
    loaded.load_vocabulary()
    loaded.load_rewards(loaded.load_tasks())
    agent = path.with_suffix(".agent.py")
    write_text(agent, _BOUND.format(path=str(path)))
    return agent
