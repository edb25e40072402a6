"""What a trainer's output says: how far it is, and why it failed; and the one line that shows it."""

from __future__ import annotations

import collections
import math
import re
import time
from dataclasses import dataclass, field

from rich.console import Console
from rich.live import Live

from cellduality_plugin.alarms import Alarm, Watch, step_metrics, with_ratios

_ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
_RAY_PREFIX = re.compile(r"^\((?:\w+ )?pid=\d+(?:, ip=[\d.]+)?\)\s*")
_ACTOR = re.compile(r"^\(\w+ pid=\d")
_SFT_EPOCHS = re.compile(r"Train epoch:\s+\d+%\|.*?\| \d+/(\d+) \[")
_SFT_STEP = re.compile(r"Train step of epoch (\d+):\s+\d+%\|.*?\| (\d+)/(\d+) \[")
_SFT_LOSS = re.compile(r"gpt_loss=([-+]?(?:nan|inf|[\d.]+(?:e[-+]?\d+)?))")
_GRPO_PROMPTS = re.compile(r"Episode \[(\d+)/(\d+)\]:\s+\d+%\|.*?\| (\d+)/(\d+) \[")
_INNER = re.compile(r"^(\[[^\]]+\] \d+:\d\d.*)$")  # of a supervisor inside
_ASKED = re.compile(r"^(\[[^\]]+\] [\w ]+):\s+\d+%\|.*?\| (\d+/\d+) \[")  # vLLM may write on behind it
_NOISE = re.compile(r"\d+%\|.*\||it/s|s/it|\b(INFO|DEBUG|WARNING)\b|Warning:|^warnings\.warn|\[repeated \d+x")
_ERROR = re.compile(r"^[\w.]*(?:Error|Exception|Killed|Refused)\b")
# An actor is gone for good. The trainer notices when it next asks it, after ten minutes of waiting for its weights.
_DOOMED = re.compile(
    r"Exception raised in creation task: The actor died|A worker died or was killed while executing a task"
    r"|EngineDeadError"
)
# The trainer has found or started Ray, and then asks it for all its cards at once: until it has them, no actor speaks.
_RAY_IS_THERE = re.compile(r"Started a local Ray instance|Connect(?:ed|ing) to (?:existing )?Ray cluster")
_DEAD_CLASS, _DEAD_PROCESS = re.compile(r"^class_name: (\w+)"), re.compile(r"^pid: (\d+)")
_ROLES = {
    "RolloutRayActor": "a vLLM engine",
    "PolicyModelActor": "a rank of the trainer",
    "ReferenceModelActor": "a rank of the reference model",
    "PPOTrainer": "the trainer",
}
_SHOWN_RATIOS = {"dual_validity": "validity", "dual_success": "duals", "dual_zero_variance": "no spread"}
_PLAIN_EVERY = 5.0  # seconds between two lines when there is no terminal

_MEMORY = (
    "the machine ran out of memory, or a process was killed: end other programs, lower batches, or the model's size"
)
# What a line shows -> what to do. The first that any line shows counts.
KNOWN_FAILURES = {
    r"No space left on device|ENOSPC|Errno 28\b|Disk quota exceeded":
        "the disk is full: free some space (old checkpoints first) and run the same command again",
    r"CUDA out of memory|CUDA error: out of memory|torch\.(cuda\.)?OutOfMemoryError":
        "a GPU ran out of memory: lower --train.micro_batch_size, --data.max_len or --vllm.gpu_memory_utilization",
    r"Cannot allocate memory|MemoryError|OutOfMemoryError|running low on memory|can't allocate memory"
    r"|is less than (requested|desired) .*memory|exitcode\s*: -9|signal: 9|SIGKILL|^Killed": _MEMORY,
    r"Address already in use|EADDRINUSE|Errno 98\b":
        "a network port is taken by another run: wait for it to end, then run the same command again",
    r"Bus error|/dev/shm.*(full|space)":
        "shared memory is too small: in a container, start it with a larger /dev/shm (--shm-size 4g)",
    r"No module named": "a package is missing from this environment: install again as the README says",
}  # fmt: skip


@dataclass
class Progress:
    """The state of a run as shown by its output so far; feed it lines in order, take the alarms it puts aside.

    ``text`` is how far the run is. ``doomed_since`` and ``waits_since`` are the seconds of the monotonic clock at which
    it could not succeed any more, and began to wait for cards of Ray's; infinite if that is not so. Set ``no_room`` to
    what it waits for in vain.
    """

    text: str = "starting"
    doomed_since: float = math.inf
    waits_since: float = math.inf
    no_room: str = ""
    alarms: list[Alarm] = field(default_factory=list)
    lines: collections.deque[str] = field(default_factory=lambda: collections.deque(maxlen=400))
    _watch: Watch = field(default_factory=Watch)
    _epochs: int = 1
    _shown: dict[str, str] = field(default_factory=lambda: {"step": "step 0", "prompts": "", "reward": "", "duals": ""})
    _dead: str = ""

    def feed(self, raw: str) -> None:
        """Take in one line of output; a line that says nothing about progress is only kept for `last_words`."""
        raw = _ANSI.sub("", raw).strip()
        line = _RAY_PREFIX.sub("", raw).rstrip()  # without the name Ray puts in front of a worker's output
        if not line:
            return
        self.lines.append(line)
        if _RAY_IS_THERE.search(line):
            self.waits_since = min(self.waits_since, time.monotonic())
        elif _ACTOR.match(raw):
            self.waits_since = math.inf
        if _DOOMED.search(line):
            self.doomed_since = min(self.doomed_since, time.monotonic())
        self._feed_death(line)
        self._feed_grpo(line)
        if found := _SFT_EPOCHS.search(line):
            self._epochs = int(found[1])
        if found := _SFT_STEP.search(line):
            epoch, done, total = map(int, found.groups())
            loss = _SFT_LOSS.search(line)
            self.text = f"step {epoch * total + done}/{self._epochs * total}" + (f", loss {loss[1]}" if loss else "")
        if found := _INNER.match(line) or _ASKED.match(line):
            self.text = " ".join(found.groups())

    def _feed_death(self, line: str) -> None:
        """Take in Ray's word on an actor that is gone: its class in one line, its process in a later one."""
        if self._dead.endswith(")"):
            return
        if found := _DEAD_CLASS.match(line):
            self._dead = _ROLES.get(found[1], found[1])
        elif self._dead and (found := _DEAD_PROCESS.match(line)):
            self._dead += f" (process {found[1]})"
        elif "EngineDeadError" in line:
            self._dead = self._dead or _ROLES["RolloutRayActor"]
        elif "ActorUnavailableError" in line:  # the trainer lost it before Ray could say which
            self._dead = self._dead or "a process of the run"

    def _feed_grpo(self, line: str) -> None:
        logged, prompts = step_metrics(line), _GRPO_PROMPTS.search(line)  # one line may hold both
        if logged:
            step, metrics = logged
            ratios, self._shown["step"] = with_ratios(metrics), f"step {step}"
            if "reward" in metrics:
                self._shown["reward"] = f"reward {metrics['reward']:.4f}"
            duals = (f"{name} {ratios[key]:.2f}" for key, name in _SHOWN_RATIOS.items() if key in ratios)
            self._shown["duals"] = ", ".join(duals)
            self.alarms += self._watch.step(step, metrics)
        if prompts:
            episode, episodes, done, total = map(int, prompts.groups())
            self._shown["prompts"] = f"prompts {(episode - 1) * total + done}/{episodes * total}"
        if logged or prompts:
            self.text = ", ".join(filter(None, self._shown.values()))

    def last_words(self) -> list[str]:
        """Return the last lines that say something, at most 15: up to the last error if there is one."""
        lines = [line for line in self.lines if not _NOISE.search(line)]
        ends = [number for number, line in enumerate(lines, start=1) if _ERROR.match(line)]
        return lines[: ends[-1] if ends else len(lines)][-15:]

    def hint(self, exit_code: int) -> str:
        """Return one line: what Ray had no room for, else who died and what to do; ``exit_code`` is as a shell's."""
        if self.no_room:
            return self.no_room
        seen = (hint for shown, hint in KNOWN_FAILURES.items() if any(re.search(shown, line) for line in self.lines))
        known = next(seen, _MEMORY if exit_code == 137 else "")
        if not self._dead:
            return known
        return f"{self._dead} died{known and f': {known}'}; RESUME=1 goes on from the last checkpoint"


class Display:
    """One live line on a terminal; elsewhere the same line every few seconds."""

    def __init__(self, stage: str, expected: float | None) -> None:
        self.stage, self.expected = stage, expected
        self.console = Console(highlight=False, markup=False)
        self.live = Live(console=self.console, transient=True, auto_refresh=False)
        self.began = self.shown_at = time.monotonic()
        self.shown = ""

    def line(self, text: str) -> str:
        of = f" of about {_clock(self.expected)}" if self.expected else ""
        return f"[{self.stage}] {_clock(time.monotonic() - self.began)}{of}, {text}"

    def show(self, text: str) -> None:
        """Show `text` behind stage and time, if it is time to show anything."""
        now, on_terminal = time.monotonic(), self.console.is_terminal
        if now - self.shown_at <= (0.25 if on_terminal else _PLAIN_EVERY) or (not on_terminal and text == self.shown):
            return
        if on_terminal:
            self.live.update(self.line(text)[: self.console.width - 1], refresh=True)
        else:
            print(self.line(text), flush=True)
        self.shown_at, self.shown = now, text


def _clock(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"
