"""Flags are read by OpenRLHF's own parser, and nothing of OpenRLHF is started or imported for it."""

from __future__ import annotations

import subprocess
import sys

import pytest

from cellduality_plugin.openrlhf_hooks.doctor.flags import RL, SFT, read_flags

GROUPS = ["--algo.advantage.estimator", "group_norm", "--rollout.n_samples_per_prompt", "8"]
GROUPS += ["--rollout.batch_size", "8", "--algo.kl.use_loss", "--algo.kl.estimator", "k3"]


def test_neither_torch_nor_ray_nor_transformers_is_imported():
    text = (
        "import sys; from cellduality_plugin.openrlhf_hooks.doctor.flags import read_flags\n"
        f"assert read_flags({RL!r}, []).args.data.max_len == 2048\n"
        f"assert read_flags({SFT!r}, []).args.data.max_len == 2048\n"
        "print({'torch', 'ray', 'transformers', 'vllm'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("set()\n", "")


def test_values_have_their_types_and_what_was_given_is_known():
    flags = read_flags(
        RL, [*GROUPS, "--actor.eps_clip", "0.1", "--train.agent_func_path=a.py", "--reward.remote_url", "b"]
    )
    assert flags.get("actor.eps_clip") == 0.1
    assert flags.get("actor.eps_clip_low_high") == (0.1, 0.1)
    assert (flags.get("reward.remote_url"), flags.given["reward.remote_url"]) == (["agent"], "b")
    assert flags.get("no.such.flag", 7) == 7
    assert "data.max_len" not in flags.given
    assert read_flags(SFT, ["--data.max_len", "2048"]).given == {"data.max_len": 2048}, "its default, and given"
    assert (flags.refusals, flags.corrections, flags.unknown) == ((), (), {})


def test_unknown_flags_are_named_with_the_nearest_and_the_others_still_count():
    flags = read_flags(RL, [*GROUPS, "--agent_func_path", "a.py", "--micro_train_batch_size=2", "--data.max_len", "9"])
    assert flags.unknown == {
        "--agent_func_path": "--train.agent_func_path",
        "--micro_train_batch_size": "--train.micro_batch_size",
    }
    assert flags.get("data.max_len") == 9


@pytest.mark.parametrize(
    ("trainer", "words", "what"),
    [
        (RL, ["--data.max_len", "x"], "invalid int value"),
        (SFT, ["-h"], "only ask for help"),
    ],
)
def test_what_the_parser_gives_up_on(trainer, words, what, capsys):
    flags = read_flags(trainer, words)
    assert flags.args is None
    assert what in flags.refusals[0]
    assert capsys.readouterr().err == ""


def test_a_refused_or_corrected_combination_still_shows_the_flags_and_prints_nothing(capsys):
    flags = read_flags(RL, [*GROUPS, "--rollout.n_samples_per_prompt", "1"])
    assert flags.refusals == ("group_norm requires n_samples_per_prompt > 1",)
    assert flags.get("rollout.n_samples_per_prompt") == 1
    flags = read_flags(SFT, ["--ds.packing_samples", "--ds.attn_implementation", "sdpa"])
    assert len(flags.corrections) == 1
    assert flags.get("ds.attn_implementation") == "flash_attention_2"
    assert capsys.readouterr().out == ""
