"""One command of a run, watched: a lock on the run's folder, a log, one line of progress, and nothing left behind.

`python -m cellduality_plugin.openrlhf_hooks.supervise --run-dir DIR --stage NAME -- COMMAND...`
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import dataclasses
import fcntl
import json
import os
import select
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

import psutil

from cellduality_plugin.errors import CellDualityError
from cellduality_plugin.openrlhf_hooks.cluster import Cluster, address_of
from cellduality_plugin.openrlhf_hooks.doctor.flags import value_of
from cellduality_plugin.openrlhf_hooks.run_progress import Display, Progress

ALARMS = "alarms.jsonl"  # in a run's folder: every alarm is added to it
LOCK_VARIABLE = "CELLDUALITY_LOCK_HELD"
EXIT_LOCKED, EXIT_LOG = 75, 74  # EX_TEMPFAIL: try again later; EX_IOERR: the log cannot be written
_PATIENCE = 8.0  # seconds a command has to end by itself after a signal
_JOB_STOP = 60.0  # seconds that Ray has to end a job
_GRACE = 20.0  # seconds a command has to fail by itself once it cannot succeed any more
_PLACEMENT_VARIABLE, _PLACEMENT = "CELLDUALITY_PLACEMENT_SECONDS", 300.0  # that a run may wait for cards of Ray's
_PR_SET_CHILD_SUBREAPER = 36
_CLOCK = "%Y-%m-%d %H:%M:%S"
Stops = list[tuple[int, float]]  # signals that asked this process to end, and when; a second one means at once


@contextlib.contextmanager
def lock(run_dir: Path) -> Iterator[list[int]]:
    """Hold `run_dir` for this run alone; a CellDualityError with the process that holds it if another does.

    Yields the descriptor of its file `.lock`, or nothing if an outer run holds it; the kernel lets go when the last
    process that has it ends.
    """
    if os.environ.get(LOCK_VARIABLE) == str(run_dir):
        yield []
        return
    with open(run_dir / ".lock", "a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            what = f"another run is using this folder ({file.read().strip() or 'it has just begun'})"
            hint = "wait for it to end, or choose another folder"
            raise CellDualityError(what, code="folder-in-use", where=str(run_dir), hint=hint) from None
        file.truncate(0)
        file.write(f"process {os.getpid()} since {time.strftime(_CLOCK)}\n")
        file.flush()
        yield [file.fileno()]


class Command:
    """A command in a session of its own, its output, all that descends from it; it inherits the files ``keep``."""

    def __init__(self, words: Sequence[str], environment: dict[str, str], keep: Sequence[int]) -> None:
        if sys.platform == "linux":
            # Orphans become our children instead of init's, so none of them can slip away.
            ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        self.words, self.environment = words, environment
        self.process = subprocess.Popen(
            words, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            start_new_session=True, pass_fds=keep,
        )  # fmt: skip
        assert self.process.stdout is not None
        self._output, self._at_end = self.process.stdout.fileno(), False

    def read(self, wait: float) -> bytes:
        """Return output that has come within `wait` seconds, empty if none has."""
        if self._at_end:
            time.sleep(wait)
        elif select.select([self._output], [], [], wait)[0]:
            chunk = os.read(self._output, 1 << 16)
            self._at_end = not chunk
            return chunk
        return b""

    def without_room(self) -> str:
        """Return what the command asks of Ray and is not there, as one line; empty if it waits for nothing."""
        started = []
        for process in _living_descendants():
            with contextlib.suppress(psutil.Error):
                started.append(process.cmdline())
        address = address_of(self.words, self.environment, started)
        cluster = Cluster.look(address) if address else None
        if cluster is None or not cluster.waiting:
            return ""
        hint = f"lower GPUS and ENGINES, let other runs end, or wait longer ({_PLACEMENT_VARIABLE})"
        return f"Ray at {address} has no room: asked for {'; '.join(cluster.waiting)}; there is {cluster}: {hint}"

    def stop_job(self) -> str:
        """Stop the Ray job that the command has submitted, which goes on without it; return what is to be said."""
        name, address = value_of(self.words, "--submission-id"), value_of(self.words, "--address")
        if list(self.words[:3]) != ["ray", "job", "submit"] or not name:
            return ""
        words = ["ray", "job", "stop", *(("--address", address) if address else ()), name]
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            subprocess.run(words, env=self.environment, capture_output=True, timeout=_JOB_STOP, check=True)
            return f"stopped the job {name}"
        return f"the job may still be running; stop it: {shlex.join(words)}"

    def clear(self) -> None:
        """End every descendant that is still there, politely and then not, and return when none is."""
        number, wait = signal.SIGTERM, 2.0
        while living := _living_descendants():
            for process in living:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.send_signal(number)
            psutil.wait_procs(living, timeout=wait)
            number, wait = signal.SIGKILL, 0.2
        self.process.wait()
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG) != (0, 0):
                pass


def _living_descendants() -> list[psutil.Process]:
    living = []
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            if process.status() != psutil.STATUS_ZOMBIE:
                living.append(process)
    return living


def watch(command: Command, log: IO[bytes], progress: Progress, display: Display, stops: Stops, alarms: Path) -> int:
    """Return the exit code of `command`, once it has ended or was asked to and its patience is over; 1 if it hangs.

    The code is as a shell gives it, 128 + N for signal N. Output goes to `log` unchanged, and to `progress` by line;
    alarms are shown, and added to `alarms`.
    """
    rest, interrupted, placement = "", False, float(command.environment.get(_PLACEMENT_VARIABLE, _PLACEMENT))
    while True:
        chunk = command.read(wait=0.25)
        code = None if chunk else command.process.poll()
        log.write(chunk)
        *lines, rest = (rest + chunk.decode("utf-8", "replace")).replace("\r", "\n").split("\n")
        for line in lines if code is None else [*lines, rest]:
            progress.feed(line)
        _show_alarms(progress, display, alarms)
        display.show("stopping" if stops else progress.text)
        if code is not None:
            code = 128 - code if code < 0 else code
            return 128 + stops[0][0] if stops else code
        now = time.monotonic()
        if now - progress.waits_since > placement:
            progress.waits_since, progress.no_room = now, command.without_room()
        if progress.no_room or now - progress.doomed_since > _GRACE:
            return 1
        if stops and not interrupted:  # as a terminal would
            interrupted = True
            with contextlib.suppress(ProcessLookupError):
                os.killpg(command.process.pid, stops[0][0])
        if len(stops) > 1 or (stops and now - stops[0][1] > _PATIENCE):
            return 128 + stops[0][0]


def supervise(words: Sequence[str], run_dir: Path, stage: str, log_path: Path, expected: float | None) -> int:
    """Return the exit code of the command `words`, run under the lock of `run_dir`; see the module's first lines."""
    stops: Stops = []
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
        run_dir = run_dir.resolve()
        log_path.parent.mkdir(parents=True, exist_ok=True)
        with lock(run_dir) as held, open(log_path, "ab", buffering=0) as log:
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                signal.signal(number, lambda number, _: stops.append((number, time.monotonic())))
            progress, display = Progress(), Display(stage, expected)
            command, code = Command(words, {**os.environ, LOCK_VARIABLE: str(run_dir)}, held), 1
            try:
                with display.live if display.console.is_terminal else contextlib.nullcontext():
                    code = watch(command, log, progress, display, stops, run_dir / ALARMS)
            finally:
                if (stops or code) and (said := command.stop_job()):
                    print(display.line(said), flush=True)
                command.clear()
    except FileNotFoundError as error:
        raise CellDualityError(f"no such command: {error.filename}", code="no-such-command", where=stage) from None
    except OSError as error:
        what, hint = f"cannot write: {error.strerror}", "free some space or choose another folder"
        raise CellDualityError(what, code="unwritable-file", where=str(log_path), hint=hint) from error
    if stops:
        print(display.line(f"stopped, nothing is left running; log: {log_path}"), flush=True)
    elif code == 0:
        print(display.line(f"done ({progress.text})"), flush=True)
    else:
        print(*(f"    {line}" for line in progress.last_words()), sep="\n")
        print(display.line(f"failed with exit code {code}; log: {log_path}"), flush=True)
        if hint := progress.hint(code):
            print(f"[{stage}] {hint}", flush=True)
    return code


def _show_alarms(progress: Progress, display: Display, path: Path) -> None:
    for alarm in progress.alarms:
        print(f"[{display.stage}] {alarm}", flush=True)
        row = {"stage": display.stage, "time": time.strftime(_CLOCK), **dataclasses.asdict(alarm)}
        with open(path, "a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
    progress.alarms = []


def main(arguments: Sequence[str] | None = None) -> int:
    """Return the exit code of the command given after `--`; 75 if the run's folder is taken."""
    parser = argparse.ArgumentParser(prog="supervise", description=__doc__)
    parser.add_argument("--run-dir", type=Path, required=True, help="folder of the run; one run at a time may use it")
    parser.add_argument("--stage", required=True, help="name shown in front of the progress")
    parser.add_argument("--log", type=Path, help="default: RUN_DIR/STAGE.log; appended to")
    parser.add_argument("--expect", type=float, metavar="SECONDS", help="how long the stage is expected to take")
    parser.add_argument("command", nargs=argparse.REMAINDER, help="-- COMMAND...")
    options = parser.parse_args(arguments)
    words = options.command[1:] if options.command[:1] == ["--"] else options.command
    if not words:
        parser.error("no command given after --")
    log_path = options.log or options.run_dir / f"{options.stage}.log"
    try:
        return supervise(words, options.run_dir, options.stage, log_path, options.expect)
    except CellDualityError as error:
        print(f"[{options.stage}] {error}", file=sys.stderr)
        return EXIT_LOCKED if error.code == "folder-in-use" else EXIT_LOG


if __name__ == "__main__":
    sys.exit(main())
