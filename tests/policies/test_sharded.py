"""One decoder and one engine over several processes, which say where they are; and what vLLM cannot serve."""

from __future__ import annotations

import asyncio
import functools
import importlib
from pathlib import Path
from types import ModuleType

import pytest

from cellduality_plugin.policies.local import LocalModel
from cellduality_plugin.policies.offline import EngineSettings, several_cards, vllm_decoder
from cellduality_plugin.policies.sharded import Request, sharded_decoder, sharded_engine
from tests.refused import refused


@pytest.fixture
def named(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(Path(__file__).parent)
    return importlib.import_module("named_engine")


def asked(count: int) -> list[Request]:
    return [Request(str(number), 0.0, 0) for number in range(count)]


def test_answers_are_in_order_each_engine_has_cards_of_its_own_and_none_outlives_the_block(named):
    with sharded_decoder(named.opened, ["0,1", "2,3"]) as decoder:
        assert decoder.generate(asked(3), "") == ["0,1: 0", "2,3: 1", "0,1: 2"]
        assert decoder.generate(asked(1), "") == ["0,1: 0"]
        with refused("engine-died"):
            decoder.generate(asked(2), "die")


@pytest.mark.parametrize(("sharded", "opener"), [(sharded_decoder, "opened"), (sharded_engine, "opened_engine")])
def test_what_an_engine_says_of_its_failure_is_what_is_said(sharded, opener, named):
    fails = functools.partial(getattr(named, opener), fails=True)
    with refused("not-servable") as told, sharded(fails, ["0", "1"]):
        pass
    assert (told.value.where, told.value.hint) == ("here", "buy one")


def test_requests_go_to_engines_in_turn_and_each_gets_its_own_answer(named):
    with sharded_engine(named.opened_engine, ["0", "1"]) as engine:

        async def ask(*prompts):
            waiting = (engine.generate(prompt, named.Params()) for prompt in prompts)
            return await asyncio.wait_for(asyncio.gather(*waiting, return_exceptions=True), 300)

        async def given_up():
            first, second = (asyncio.ensure_future(engine.generate([number], named.Params())) for number in (6, 7))
            await asyncio.sleep(0)
            first.cancel()
            return await second

        found = asyncio.run(ask([1], [2], [0], [3], [4]))
        assert [(each.tokens, each.cards) for each in found[:2]] == [([1], "0"), ([2], "1")]
        assert isinstance(found[2], ValueError)  # of that request alone
        assert [each.tokens for each in found[3:]] == [[3], [4]]
        more_than_a_pipe_holds = [list(range(10, 5000))] * 200
        assert {len(each.tokens) for each in asyncio.run(ask(*more_than_a_pipe_holds))} == {4990}
        assert asyncio.run(given_up()).tokens == [7]
        for prompts in ([[9], [9]], [[8]]):  # and so it stays
            told = asyncio.run(ask(*prompts))
            assert {getattr(each, "code", each) for each in told} == {"engine-died"}


@pytest.mark.parametrize(
    ("each", "visible", "groups"),
    [(2, "", ["0,1", "2,3"]), (1, "GPU-a,GPU-b", ["GPU-a", "GPU-b"]), (4, "", [])],
)
def test_engines_have_the_cards_that_are_visible(each, visible, groups, monkeypatch):
    from vllm import platforms

    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    monkeypatch.setattr(platforms.current_platform, "is_cuda_alike", lambda: True)
    monkeypatch.setattr(type(platforms.current_platform), "device_count", lambda *_: 5, raising=False)
    assert several_cards(EngineSettings(tensor_parallel_size=each)) == groups


@pytest.mark.parametrize(
    ("config", "template", "code"),
    [(False, True, "no-checkpoint"), (True, False, "no-chat-template"), (True, True, "not-servable")],
)
def test_a_folder_that_cannot_be_served(config, template, code, small_world, monkeypatch, tmp_path):
    tokenizer = small_world.tokenizer
    monkeypatch.setattr(tokenizer, "chat_template", tokenizer.chat_template if template else None)
    tokenizer.save_pretrained(tmp_path)
    if config:
        (tmp_path / "config.json").write_text('{"model_type": "no such model"}')
    with refused(code), vllm_decoder(tmp_path, EngineSettings()):
        pass
    with refused(code.replace("not-servable", "broken-checkpoint")):
        LocalModel.load(tmp_path, max_model_len=256, max_new_tokens=6)
