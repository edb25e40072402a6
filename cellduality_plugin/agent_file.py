"""Where OpenRLHF finds the agent and the reward function; imports neither openrlhf nor torch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from cellduality_plugin.config import Config
from cellduality_plugin.errors import CellDualityError
from cellduality_plugin.files import write_text
from cellduality_plugin.policies.addresses import checked_url

# Those of the package, which read the configuration that ``CELLDUALITY_CONFIG`` names.
AGENT_FILE, REWARD_FILE = (Path(__file__).parent / "openrlhf_hooks" / name for name in ("agent.py", "reward.py"))
_HEAD = '''"""Written by `cellduality {}`: the dual reward {}."""

from cellduality_plugin.openrlhf_hooks.{} import {}

'''
_AGENT = """
class AgentExecutor(DualityExecutor):
    def __init__(self):
        super().__init__({!r})
"""


def bound_agent_file(config: Path) -> Path:
    """Return an agent file written beside ``config`` that reads just that configuration, which has to load."""
    _load(config)
    head = _HEAD.format("agent-path", "bound to one configuration", "executor", "DualityExecutor")
    return _written(config, ".agent.py", head + _AGENT.format(str(config.resolve())))


def bound_reward_file(config: Path, servers: Sequence[str] = ()) -> Path:
    """Return a reward file written beside ``config``: it reads just that configuration, or asks just those ``servers``.

    A CellDualityError as for an agent file, or if no endpoint is named, or an address is none or has a token.
    """
    endpoint = _load(config).dual.endpoint
    for server in servers:
        if "@" in server:
            what = "the address of a reward server holds its token, which would be written into a file"
            hint = "leave it out of the address, and set CELLDUALITY_TOKEN where the trainer and Ray run"
            raise CellDualityError(what, code="token-in-address", where="--server", hint=hint)
        checked_url(server, "--server")
    if servers:
        head = _HEAD.format("reward-path --server", "of whichever server is there", "reward_client", "RewardClient")
        return _written(config, ".servers.py", f"{head}reward_func = RewardClient({list(servers)!r})\n")
    if endpoint is None:
        what = "no endpoint that plays the dual"
        hint = 'add "endpoint": {"urls": ["http://host:8000/v1"], "model": NAME}'
        raise CellDualityError(what, code="no-endpoint", where=f"{config}: dual.endpoint", hint=hint)
    head = _HEAD.format("reward-path", "at an endpoint, bound to one configuration", "reward_func", "RewardFunction")
    return _written(config, ".reward.py", f"{head}reward_func = RewardFunction({str(config.resolve())!r})\n")


def _load(config: Path) -> Config:
    loaded = Config.load(config.resolve())
    loaded.load_vocabulary()
    loaded.load_rewards(loaded.load_tasks())
    return loaded


def _written(config: Path, suffix: str, text: str) -> Path:
    file = config.resolve().with_suffix(suffix)
    write_text(file, text)
    return file
