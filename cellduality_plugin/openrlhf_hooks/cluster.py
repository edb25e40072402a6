"""What a Ray cluster has and what waits for a place in it, by the report that Ray itself prints."""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
import sys
import urllib.request
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from cellduality_plugin.openrlhf_hooks.doctor.flags import value_of

_USAGE = re.compile(r"^ ([\d.]+)/([\d.]+) (CPU|GPU)\b(?: \(([\d.]+) used of ([\d.]+) reserved)?", re.MULTILINE)
_WAITING = re.compile(r"^ (\{.*'GPU.*\}.*): \d+\+ pending", re.MULTILINE)


@dataclass(frozen=True)
class Cluster:
    """The cards and processors of a cluster, {"GPU": 2.0, "CPU": 8.0}; on a CPU its slots are cards."""

    total: Mapping[str, float]
    free: Mapping[str, float]  # neither held nor reserved
    waiting: tuple[str, ...] = ()  # what has been asked for and not been given, in Ray's words

    @classmethod
    def read(cls, report: str) -> Cluster | None:
        """Return what a report of ``ray status`` says; None if it is none yet."""
        total, free = {}, {}
        for used, of, name, inside, reserved in _USAGE.findall(report):
            total[name] = float(of)
            # Ray counts a reserved card as used only once something runs there.
            free[name] = float(of) - float(used) + float(inside or 0) - float(reserved or 0)
        return cls(total, free, tuple(_WAITING.findall(report))) if total else None

    @classmethod
    def look(cls, address: str) -> Cluster | None:
        """Return the cluster at ``address``, of its dashboard (http://...) or its head; None if it cannot be seen."""
        command = [sys.executable, "-m", "ray.scripts.scripts", "status", "--address", address]
        url = f"{address.rstrip('/')}/api/cluster_status?format=1"
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError, subprocess.SubprocessError):
            if not url.startswith(("http://", "https://")):
                return cls.read(subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout)
            with urllib.request.urlopen(url, timeout=20) as reply:
                return cls.read(str(json.load(reply)["data"]["clusterStatus"]))
        return None

    def __str__(self) -> str:
        return ", ".join(f"{self.free[name]:g} of {total:g} {name} free" for name, total in sorted(self.total.items()))


def address_of(words: Sequence[str], variables: Mapping[str, str], processes: Iterable[Sequence[str]] = ()) -> str:
    """Return where the cluster is that a command joins or has started; empty if it will start one of its own.

    ``words`` are ``ray job submit --address ADDRESS -- ...`` or the trainer itself, ``variables`` its environment,
    ``processes`` the command lines of what it has started.
    """
    started = (value_of(line, "--gcs-address") for line in processes)
    return value_of(words, "--address") or variables.get("RAY_ADDRESS", "") or next(filter(None, started), "")
