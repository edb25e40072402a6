"""Versions, and what reaches Ray's workers."""

from __future__ import annotations

from collections.abc import Iterator

from cellduality_plugin.config import PATH_VARIABLE
from cellduality_plugin.openrlhf_hooks.doctor.finding import Finding, error, warning
from cellduality_plugin.openrlhf_hooks.doctor.machine import PYTHONS, TESTED
from cellduality_plugin.openrlhf_hooks.doctor.run import Run


def versions(run: Run) -> Iterator[Finding]:
    """Another version than the contract tests ran on.

    What this package leans on beyond OpenRLHF's documentation is tested on these versions.
    """
    if not PYTHONS[0] <= run.machine.python <= PYTHONS[1]:
        yield warning("Python {}.{}".format(*run.machine.python), "python", "use 3.10, 3.11 or 3.12")
    for name, tested in TESTED.items():
        found = run.machine.versions.get(name)
        if found is None:
            if run.is_rl or name not in ("vllm", "ray"):
                yield warning(f"{name} is not installed here", name, f"install {name}=={tested} where the run is")
        elif found != tested:
            yield warning(
                f"{name} {found}; tested was {tested}", name, f"install {name}=={tested}, or run tests/contract"
            )


def flash_attention(run: Run) -> Iterator[Finding]:
    """Flash attention that is not installed.

    OpenRLHF imports `flash_attn` whatever attention is chosen; without a GPU `cellduality-cpu` stands in for it.
    """
    if run.machine.gpus and not run.is_elsewhere and not run.machine.has_flash_attention:
        yield error("flash_attn is not installed", "flash_attn", "pip install flash-attn --no-build-isolation")


def configuration_reaches_workers(run: Run) -> Iterator[Finding]:
    """A configuration that is named where the workers cannot see it.

    OpenRLHF hands three variables to Ray's workers, and CELLDUALITY_CONFIG is none of them: it has to be in the job's
    runtime environment, or in the shell that started Ray. A bound agent needs neither.
    """
    if not run.is_ours or run.agent is None or run.agent.bound is not None or run.command.unreadable:
        return
    mend = "name it in --runtime-env-json, or bind the agent: cellduality agent-path --config FILE"
    address = {**run.machine.variables, **run.command.variables}.get("RAY_ADDRESS")
    reached = run.command.submitted and PATH_VARIABLE in run.command.variables
    if (run.command.submitted or address) and not reached:
        yield warning(
            f"{PATH_VARIABLE} may not reach the workers of a Ray that runs already", "--runtime-env-json", mend
        )
    elif run.config_path is not None and not run.config_path.is_absolute():
        yield warning(
            f"{PATH_VARIABLE} is a relative path", str(run.config_path), "make it absolute: workers run elsewhere"
        )
