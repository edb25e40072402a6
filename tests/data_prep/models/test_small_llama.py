from __future__ import annotations

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from cellduality_plugin.examples import Example
from cellduality_plugin.tasks import TASKS
from data_prep.models.small_llama import ROWS, build_small_llama, words_of
from tests.refused import refused


@pytest.fixture(scope="module")
def tokenizer(small_llama):
    return AutoTokenizer.from_pretrained(small_llama)


def test_no_prompt_answer_or_dual_prompt_holds_an_unknown_word(prepared, tokenizer):
    texts = [text for name in ROWS for row in prepared.rows(name) for text in (row["input"], row.get("output", ""))]
    for row in prepared.rows("eval_test.jsonl"):
        example, task = Example.from_label(row["label"]), TASKS[row["datasource"]]
        texts.append(task.answer_response(example.gold))
        texts.append(task.dual_prompt(example.known, example.gold, prepared.vocabulary))
        texts.append(task.rebuilt_response(example.unknown))
    assert not [text for text in texts if tokenizer.unk_token_id in tokenizer(text).input_ids]
    assert tokenizer("an-unheard-of-word").input_ids == [tokenizer.unk_token_id]


def test_turn_ends_in_eos_and_the_prompt_is_a_prefix_of_the_conversation(prepared, tokenizer):
    row = prepared.rows("sft.jsonl")[0]
    question = [{"role": "user", "content": row["input"]}]
    prompt = tokenizer.apply_chat_template(question, tokenize=False, add_generation_prompt=True)
    whole = tokenizer.apply_chat_template([*question, {"role": "assistant", "content": row["output"]}], tokenize=False)
    assert whole == prompt + row["output"] + tokenizer.eos_token
    prompt_ids = tokenizer(prompt, add_special_tokens=False).input_ids
    whole_ids = tokenizer(whole, add_special_tokens=False).input_ids
    assert whole_ids[: len(prompt_ids)] == prompt_ids
    assert whole_ids[-1] == tokenizer.eos_token_id
    assert whole_ids.count(tokenizer.bos_token_id) == 1


def test_special_tokens_are_apart_and_vanish_and_response_tags_stay(tokenizer):
    marks = [tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id, tokenizer.unk_token_id]
    assert len(set(marks)) == 4
    text = "<s><|system|><|user|><|assistant|><think></think><answer><|end|><pad></answer>"
    decoded = tokenizer.decode(tokenizer(text).input_ids, skip_special_tokens=True)
    assert decoded.split() == ["<think>", "</think>", "<answer>", "</answer>"]


def test_model_loads_as_small_tied_bf16_llama_and_runs(small_llama, tokenizer):
    model = AutoModelForCausalLM.from_pretrained(small_llama)
    assert model.dtype == torch.bfloat16
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight
    assert model.config.vocab_size == len(tokenizer)
    assert model.num_parameters() < 2_000_000
    assert model.generation_config.eos_token_id == tokenizer.eos_token_id
    logits = model(**tokenizer("Cell: CD74", return_tensors="pt", return_token_type_ids=False)).logits
    assert logits.shape == (1, 2, len(tokenizer))
    assert torch.isfinite(logits).all()


def test_same_seed_gives_the_same_bytes_and_a_second_run_does_nothing(prepared, small_llama, tmp_path):
    torch.manual_seed(7)
    state = torch.random.get_rng_state()
    build_small_llama(prepared.folder, tmp_path / "again")
    assert torch.equal(torch.random.get_rng_state(), state)
    first, again = (
        {path.name: path.read_bytes() for path in folder.iterdir()} for folder in (small_llama, tmp_path / "again")
    )
    assert first == again
    times = {path: path.stat().st_mtime_ns for path in small_llama.iterdir()}
    build_small_llama(prepared.folder, small_llama)
    assert {path: path.stat().st_mtime_ns for path in small_llama.iterdir()} == times
    build_small_llama(prepared.folder, tmp_path / "again", seed=1)
    assert (tmp_path / "again" / "model.safetensors").read_bytes() != first["model.safetensors"]


def test_words_are_split_where_the_tokenizer_splits_them_and_a_label_is_one_token(prepared, tokenizer):
    for row in prepared.rows("sft.jsonl")[:50]:
        tags = {"<think>", "</think>", "<answer>", "</answer>"}
        tokens = [token for token in tokenizer.tokenize(row["input"]) if token not in tags]
        assert words_of(row["input"]) == [word for token in tokens for word in token.split()]
    for label in {row["cell_type"] for row in prepared.rows("cells.jsonl")}:
        assert tokenizer.tokenize(f"<answer>{label}</answer>") == ["<answer>", label, "</answer>"]


def test_missing_data_and_uneven_heads_are_refused(prepared, tmp_path):
    with refused("missing-file"):
        build_small_llama(tmp_path, tmp_path / "out")
    with refused("uneven-heads"):
        build_small_llama(prepared.folder, tmp_path / "out", hidden_size=100, heads=3)
    assert not (tmp_path / "out").exists()
