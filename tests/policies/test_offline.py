"""What vLLM cannot serve, and one decoder over several processes, which say where they are."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable
from pathlib import Path

import pytest

from cellduality_plugin.policies.offline import EngineSettings, Request, card_groups, sharded_decoder, vllm_decoder
from tests.refused import refused


@pytest.mark.parametrize(
    ("config", "template", "code"),
    [(False, True, "no-checkpoint"), (True, False, "no-chat-template"), (True, True, "not-servable")],
)
def test_a_folder_that_cannot_be_served(
    config: bool, template: bool, code: str, small_world, monkeypatch, tmp_path: Path
) -> None:
    tokenizer = small_world.tokenizer
    monkeypatch.setattr(tokenizer, "chat_template", tokenizer.chat_template if template else None)
    tokenizer.save_pretrained(tmp_path)
    if config:
        (tmp_path / "config.json").write_text('{"model_type": "no such model"}')
    with refused(code), vllm_decoder(tmp_path, EngineSettings()):
        pass


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> Callable[..., object]:
    monkeypatch.syspath_prepend(Path(__file__).parent)
    return importlib.import_module("named_decoder").opened


def asked(count: int) -> list[Request]:
    return [Request(str(number), 0.0, 0) for number in range(count)]


def test_answers_are_in_order_each_engine_has_cards_of_its_own_and_none_outlives_the_block(opened):
    with sharded_decoder(opened, ["0,1", "2,3"]) as decoder:
        assert decoder.generate(asked(3), "") == ["0,1: 0", "2,3: 1", "0,1: 2"]
        assert decoder.generate(asked(1), "") == ["0,1: 0"]
        with refused("engine-died"):
            decoder.generate(asked(2), "die")


def test_what_an_engine_says_of_its_failure_is_what_is_said(opened):
    with refused("not-servable") as told, sharded_decoder(functools.partial(opened, fails=True), ["0", "1"]):
        pass
    assert (told.value.where, told.value.hint) == ("here", "buy one")


@pytest.mark.parametrize(
    ("each", "visible", "groups"),
    [(1, "", ["0", "1", "2"]), (2, "", ["0,1"]), (1, "GPU-a,GPU-b", ["GPU-a", "GPU-b"]), (4, "", [])],
)
def test_engines_have_the_cards_that_are_visible(each, visible, groups, monkeypatch):
    from vllm import platforms

    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    monkeypatch.setattr(platforms.current_platform, "is_cuda_alike", lambda: True)
    monkeypatch.setattr(type(platforms.current_platform), "device_count", lambda *_: 3, raising=False)
    assert card_groups(each) == groups


def test_without_a_gpu_there_is_one_engine():

    assert card_groups(1) == []
