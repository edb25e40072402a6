"""What is read out of lines as OpenRLHF 0.11.2 writes them under torchrun and under Ray."""

from __future__ import annotations

import math

import pytest

from cellduality_plugin.openrlhf_hooks import run_progress
from cellduality_plugin.openrlhf_hooks.run_progress import Display, Progress

TRAINER = "\x1b[36m(PPOTrainer pid=7)\x1b[0m "


def fed(*lines: str) -> Progress:
    progress = Progress()
    for line in lines:
        progress.feed(line)
    return progress


METRICS = "{'reward': 0.25, 'dual_validity': 0.8, 'dual_succeeded': 0.4, 'dual_answer_parsed': 0.5, "
METRICS += "'dual_zero_variance': 0.25, 'dual_groups': 0.5}"
HOW_FAR = [
    (["Train step of epoch 0:  12%|█▎     | 2/16 [00:00<00:01, 11.92it/s, gpt_loss=5.5, lr=0]"], "step 2/16, loss 5.5"),
    ([f"{TRAINER}INFO x.py:551] ✨ Global step 7: {{'kl': -0.1, 'reward': 0.03125}}"], "step 7, reward 0.0312"),
    (["✨ Global step 1: {'kl': 0.0, 'reward': -1.5e-05, 'score': 0}"], "step 1, reward -0.0000"),
    (["[sft] 0:12 of about 0:40, step 2/32"], "[sft] 0:12 of about 0:40, step 2/32"),
    (["[SFT] primal:  48%|███▊   | 512/1062 [00:07<00:07, 73.11it/s]INFO [pool.py:797]"], "[SFT] primal 512/1062"),
    (
        [
            "Train epoch:   0%|          | 0/2 [00:00<?, ?it/s]",
            "Train step of epoch 1:  50%|█████     | 8/16 [00:00<00:00, 15.5it/s, gpt_loss=3.88, lr=0]\x1b[A",
        ],
        "step 24/32, loss 3.88",
    ),
    (
        [f"{TRAINER}Episode [1/2]:  33%|███▎      | 16/48 [00:25<00:50,  1.58s/it]", f"Global step 2: {METRICS}"],
        "step 2, prompts 16/96, reward 0.2500, validity 0.80, duals 0.80, no spread 0.50",
    ),
    (["loss of connection 3/4", "Generate samples: 6%|▋  | 1/16 [0", "[MoE] experts (resolved): eager"], "starting"),
]


@pytest.mark.parametrize(("lines", "text"), HOW_FAR)
def test_how_far_a_run_is(lines, text):
    assert fed(*lines).text == text


HINTS = {
    "RuntimeError: [enforce fail] . PytorchStreamWriter failed writing file: ENOSPC": "the disk is full",
    "torch.cuda.OutOfMemoryError: CUDA out of memory.": "a GPU ran out of memory",
    "  exitcode  : -9 (pid: 4242)": "the machine ran out of memory",
    "RuntimeError: [alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory": "the machine ran out",
    "OSError: [Errno 98] Address already in use": "a network port is taken",
    "ModuleNotFoundError: No module named 'openrlhf'": "a package is missing",
    "vllm.v1.engine.exceptions.EngineDeadError: EngineCore.": "a vLLM engine died; RESUME=1 goes on",
    "ray.exceptions.ActorUnavailableError: An actor is unavailable": "a process of the run died; RESUME=1 goes on",
    "ValueError: something else, 98 of 28": "",
}


@pytest.mark.parametrize(("line", "hint"), HINTS.items())
def test_known_failures_have_a_hint(line, hint):
    progress = fed(line)
    found = progress.hint(1)
    assert (found[: len(hint)], bool(found)) == (hint, bool(hint))
    assert hint or progress.hint(137).startswith("the machine ran out of memory"), "killed, whatever was said"
    assert (progress.doomed_since < math.inf) == ("engine died" in hint)


def test_a_dead_actor_is_named():
    lines = [
        "pid: 1", "ray.exceptions.ActorDiedError: The actor died unexpectedly before finishing this task.",
        "\tclass_name: RolloutRayActor", "\tactor_id: 0af3", "\tpid: 4242", "\tclass_name: PolicyModelActor",
        "\tpid: 4243", "There are some potential root causes. (1) The process is killed by SIGKILL by OOM killer",
    ]  # fmt: skip
    hint = fed(*(TRAINER + line for line in lines)).hint(1)
    assert hint.startswith("a vLLM engine (process 4242) died: the machine ran out of memory, or a process")
    assert hint.endswith("; RESUME=1 goes on from the last checkpoint")


def test_the_last_words_are_fifteen_lines_and_end_with_the_error():
    lines = [f"line {number}" for number in range(100)]
    assert fed(*lines).last_words() == lines[85:]
    words = fed("INFO noise", "Traceback:", "ValueError: why", "ending").last_words()
    assert words == ["Traceback:", "ValueError: why"]


def test_plain_lines_come_every_few_seconds_and_only_when_new(capsys, monkeypatch):
    display = Display("grpo", expected=90.0)
    clock = iter([display.began + 1, display.began + 6, display.began + 6, display.began + 12])
    monkeypatch.setattr(run_progress.time, "monotonic", lambda: next(clock))
    for _ in range(3):
        display.show("step 1")
    assert capsys.readouterr().out == "[grpo] 0:06 of about 1:30, step 1\n"
