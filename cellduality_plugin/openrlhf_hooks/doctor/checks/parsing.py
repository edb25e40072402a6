"""What OpenRLHF itself says of the flags."""

from __future__ import annotations

from collections.abc import Iterator

from cellduality_plugin.errors import CellDualityError
from cellduality_plugin.openrlhf_hooks.cpu.launch import refuse_gpu_only
from cellduality_plugin.openrlhf_hooks.doctor.finding import Finding, error, note, told, warning
from cellduality_plugin.openrlhf_hooks.doctor.run import Run


def unknown_flags(run: Run) -> Iterator[Finding]:
    """A flag that this OpenRLHF does not have.

    Flags got their dotted names in 2026; guides and example scripts still show older ones.
    """
    for flag, nearest in run.flags.unknown.items():
        yield error(
            f"OpenRLHF has no flag {flag}", flag, f"did you mean {nearest}?" if nearest else "see --help of the trainer"
        )


def refused_flags(run: Run) -> Iterator[Finding]:
    """A combination that OpenRLHF itself refuses.

    Its own assertions are run, so that they are met before a cluster is asked for.
    """
    for refusal in run.flags.refusals:
        yield error(f"OpenRLHF refuses: {refusal}", run.command.trainer, "change the flags it names")


def corrected_flags(run: Run) -> Iterator[Finding]:
    """A flag that OpenRLHF changes or advises against.

    It prints so among thousands of lines of a log, and goes on with another value.
    """
    for line in run.flags.corrections:
        yield warning(f"OpenRLHF says: {line.removeprefix('[Warning]').strip()}", run.command.trainer, _SAY)


def flags_for_a_gpu(run: Run) -> Iterator[Finding]:
    """A flag that computes on GPUs only, behind `cellduality-cpu`; or no GPU and no `cellduality-cpu`."""
    if run.command.on_cpu and not run.machine.gpus:
        try:
            refuse_gpu_only(run.command.words)
        except CellDualityError as refusal:
            yield told(refusal)
    elif not run.machine.gpus and not run.is_elsewhere:
        yield warning(
            "no GPU was found on this machine",
            run.command.words[0],
            "run it where the GPUs are, or put cellduality-cpu in front",
        )


def readable_environment(run: Run) -> Iterator[Finding]:
    """A runtime environment of the job that cannot be read here."""
    if run.command.unreadable == "--runtime-env-json":
        yield error(
            "the runtime environment is not a JSON object", "--runtime-env-json", "quote it: '{\"env_vars\": {}}'"
        )
    elif run.command.unreadable:
        yield note("a runtime environment in a file was not read", run.command.unreadable, "pass --runtime-env-json")


_SAY = "say what you mean, so that the log and the run agree"
