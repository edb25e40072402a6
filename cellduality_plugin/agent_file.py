"""Where OpenRLHF finds the agent and the reward function; needs neither openrlhf nor torch to tell."""

from __future__ import annotations

from pathlib import Path

from cellduality_plugin.config import Config
from cellduality_plugin.errors import CellDualityError
from cellduality_plugin.files import write_text

_AGENT = '''"""Written by `cellduality agent-path`: the dual reward, bound to one configuration."""

from cellduality_plugin.openrlhf_hooks.executor import DualityExecutor


class AgentExecutor(DualityExecutor):
    def __init__(self):
        super().__init__({path!r})
'''

_REWARD = '''"""Written by `cellduality reward-path`: the dual reward at an endpoint, bound to one configuration."""

from cellduality_plugin.openrlhf_hooks.reward_func import RewardFunction

reward_func = RewardFunction({path!r})
'''


def packaged_agent_file() -> Path:
    """Return the agent file of the package; it reads the configuration that ``CELLDUALITY_CONFIG`` names."""
    return Path(__file__).parent / "openrlhf_hooks" / "agent.py"


def packaged_reward_file() -> Path:
    """Return the reward file of the package; it reads the configuration that ``CELLDUALITY_CONFIG`` names."""
    return Path(__file__).parent / "openrlhf_hooks" / "reward.py"


def bound_agent_file(config: Path) -> Path:
    """Return an agent file written beside ``config`` that reads just that configuration, wherever it is run.

    Raises
    ------
    CellDualityError
        If the configuration or what it names cannot be loaded.
    """
    _check(config)
    return _written(config, ".agent.py", _AGENT)


def bound_reward_file(config: Path) -> Path:
    """Return a reward file written beside ``config`` that reads just that configuration, wherever it is run.

    Raises
    ------
    CellDualityError
        If the configuration or what it names cannot be loaded, or it names no endpoint.
    """
    loaded = _check(config)
    if loaded.dual.endpoint is None:
        raise CellDualityError(
            "no endpoint that plays the dual",
            where=f"{config}: dual.endpoint",
            mend='add "endpoint": {"urls": ["http://host:8000/v1"], "model": NAME}',
        )
    return _written(config, ".reward.py", _REWARD)


def _check(config: Path) -> Config:
    loaded = Config.load(config.resolve())
    loaded.load_vocabulary()
    loaded.load_rewards(loaded.load_tasks())
    return loaded


def _written(config: Path, suffix: str, text: str) -> Path:
    path = config.resolve()
    file = path.with_suffix(suffix)
    write_text(file, text.format(path=str(path)))
    return file
