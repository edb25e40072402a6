"""Where OpenRLHF finds the agent and the reward function; needs neither openrlhf nor torch to tell."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

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

_CLIENT = '''"""Written by `cellduality reward-path --server`: the dual reward of whichever server is there."""

from cellduality_plugin.openrlhf_hooks.reward_client import RewardClient

reward_func = RewardClient({urls!r})
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
    return _written(config, ".agent.py", _AGENT, path=str(config.resolve()))


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
    return _written(config, ".reward.py", _REWARD, path=str(config.resolve()))


def bound_client_file(config: Path, servers: Sequence[str]) -> Path:
    """Return a reward file written beside ``config`` that asks just those reward servers, wherever it is run.

    Raises
    ------
    CellDualityError
        If the configuration or what it names cannot be loaded, or an address is none that can be written down.
    """
    _check(config)
    for server in servers:
        _check_server(server)
    return _written(config, ".servers.py", _CLIENT, urls=list(servers))


def _check(config: Path) -> Config:
    loaded = Config.load(config.resolve())
    loaded.load_vocabulary()
    loaded.load_rewards(loaded.load_tasks())
    return loaded


def _check_server(url: str) -> None:
    try:
        parts = urlsplit(url)
        good, secret = parts.scheme in ("http", "https") and bool(parts.hostname), parts.username is not None
    except ValueError:
        good, secret = False, False
    if secret:
        raise CellDualityError(
            "the address of a reward server holds its token, which would be written into a file",
            where="--server",
            mend="leave it out of the address, and set CELLDUALITY_TOKEN where the trainer and Ray run",
        )
    if not good:
        raise CellDualityError(f"{url!r:.80} is no http address", where="--server", mend="write http://host:5000/")


def _written(config: Path, suffix: str, text: str, **values: object) -> Path:
    file = config.resolve().with_suffix(suffix)
    write_text(file, text.format(**values))
    return file
