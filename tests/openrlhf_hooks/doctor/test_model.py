"""Sizes of a model: counted where its weights are, reckoned where only its config.json is."""

from __future__ import annotations

import json

import pytest

from cellduality_plugin.openrlhf_hooks.doctor.model import _KNOWN, Model, count_parameters

# as published on the models' pages, in millions
PUBLISHED = {
    "meta-llama/Llama-3.2-1B-Instruct": 1236, "meta-llama/Llama-3.2-3B-Instruct": 3213,
    "meta-llama/Llama-3.1-8B-Instruct": 8030, "Qwen/Qwen2.5-0.5B-Instruct": 494, "Qwen/Qwen2.5-1.5B-Instruct": 1544,
    "Qwen/Qwen2.5-3B-Instruct": 3086, "Qwen/Qwen2.5-7B-Instruct": 7616, "HuggingFaceTB/SmolLM2-135M-Instruct": 135,
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(PUBLISHED))
def test_the_formula_gives_the_published_sizes(name):
    found = Model.read(name)
    assert found.parameters is not None
    assert round(found.parameters / 1e6) == PUBLISHED[name]
    assert not found.is_local
    assert PUBLISHED.keys() == _KNOWN.keys()


def test_the_formula_gives_what_a_folder_holds(small_world):
    config = json.loads((small_world.model / "config.json").read_text())
    assert Model.read(str(small_world.model)).parameters == count_parameters(config)


def test_a_token_of_llama_3b_takes_112_kib_of_cache():
    assert Model.read("meta-llama/Llama-3.2-3B-Instruct").cache_bytes == 112 * 1024


@pytest.mark.parametrize("name", ["nobody/nothing", "not a name of the hub at all/x/y"])
def test_what_is_not_known_is_not_guessed(name):
    found = Model.read(name)
    assert (found.parameters, found.positions, found.layers, found.cache_bytes) == (None, None, 0, 0)


def test_weights_that_cannot_be_read_are_reckoned_from_the_config(tmp_path, small_world):
    config = json.loads((small_world.model / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config))
    for content in (b"", b"\xff" * 64, (8).to_bytes(8, "little") + b"no json "):
        (tmp_path / "model.safetensors").write_bytes(content)
        assert Model.read(str(tmp_path)).parameters == count_parameters(config)


@pytest.mark.parametrize("text", ["", "{", "[1]", "\x00"])
def test_a_config_that_is_cut_is_no_config(text, tmp_path):
    (tmp_path / "config.json").write_text(text)
    assert Model.read(str(tmp_path)).is_missing
