from __future__ import annotations

from pathlib import Path

import pytest

from cellduality_plugin.chat import render
from cellduality_plugin.errors import CellDualityError
from cellduality_plugin.policies.offline import EngineSettings, vllm_decoder

TEMPLATE = (
    "<s>{% for m in messages %}[{{ m['role'] }}]{{ m['content'] }}{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% endif %}"
)


def make_tokenizer(chat_template: str | None = TEMPLATE):
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    words = ["<unk>", "<s>", "[user]", "[assistant]", "G1", "G2"]
    backend = Tokenizer(models.WordLevel({word: place for place, word in enumerate(words)}, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    backend.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    special = {"bos_token": "<s>", "unk_token": "<unk>", "additional_special_tokens": ["[user]", "[assistant]"]}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, **special)
    tokenizer.chat_template = chat_template
    return tokenizer


def test_a_prompt_is_rendered_by_the_template_with_no_second_bos() -> None:
    tokenizer = make_tokenizer()
    tokens = tokenizer.convert_ids_to_tokens(render(tokenizer, "G1 G2"))
    assert tokens == ["<s>", "[user]", "G1", "G2", "[assistant]"]


@pytest.mark.parametrize(
    ("config", "tokenizer", "what"),
    [
        (False, True, "no checkpoint"),
        (True, True, "no chat template"),
        (True, False, "cannot serve"),
    ],
)
def test_a_folder_that_cannot_be_served_is_told(config: bool, tokenizer: bool, what: str, tmp_path: Path) -> None:
    if tokenizer:
        make_tokenizer(chat_template=None).save_pretrained(tmp_path)
    if config:
        (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(CellDualityError, match=what), vllm_decoder(tmp_path, EngineSettings()):
        pass
