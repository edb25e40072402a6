"""What vLLM cannot serve."""

from __future__ import annotations

from pathlib import Path

import pytest

from cellduality_plugin.policies.offline import EngineSettings, vllm_decoder
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
