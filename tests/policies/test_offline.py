from __future__ import annotations

from pathlib import Path

import pytest

from cellduality_plugin.errors import CellDualityError
from cellduality_plugin.framing import render
from cellduality_plugin.policies.offline import EngineSettings, vllm_decoder

TEMPLATE = (
    "<s>{% for m in messages %}[{{ m['role'] }}]{{ m['content'] }}{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% endif %}"
)


def make_tokenizer(chat_template: str | None = TEMPLATE):
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    words = ["<pad>", "<s>", "</s>", "<unk>", "[user]", "[assistant]", *(f"G{number}" for number in range(20))]
    backend = Tokenizer(models.WordLevel({word: place for place, word in enumerate(words)}, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    backend.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        additional_special_tokens=["[user]", "[assistant]"],
    )
    tokenizer.chat_template = chat_template
    return tokenizer


def save_checkpoint(folder: Path, seed: int) -> Path:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = make_tokenizer()
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=64,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
    LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def test_a_prompt_is_rendered_by_the_template_with_no_second_bos() -> None:
    tokenizer = make_tokenizer()
    ids = render(tokenizer, "G1 G2")
    assert tokenizer.convert_ids_to_tokens(ids) == ["<s>", "[user]", "G1", "G2", "[assistant]"]


def test_what_is_no_checkpoint_is_told(tmp_path: Path) -> None:
    with pytest.raises(CellDualityError, match="no checkpoint"), vllm_decoder(tmp_path, EngineSettings()):
        pass


def test_a_checkpoint_without_a_chat_template_is_told(tmp_path: Path) -> None:
    make_tokenizer(chat_template=None).save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(CellDualityError, match="no chat template"), vllm_decoder(tmp_path, EngineSettings()):
        pass


def test_a_checkpoint_without_a_tokenizer_is_told(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(CellDualityError, match="cannot serve"), vllm_decoder(tmp_path, EngineSettings()):
        pass
