"""A Llama small enough for two processor cores, whose words are the genes, the labels and the words of the prompts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cellduality_plugin.errors import CellDualityError
from cellduality_plugin.examples import Example
from cellduality_plugin.files import read_jsonl
from cellduality_plugin.vocabulary import Vocabulary
from data_prep.models import is_there, made_of, write_model
from data_prep.rows import PRETRAIN_FILE
from data_prep.sources import file_sha256

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

ROWS = ("sft.jsonl", "rl.jsonl", "eval_validation.jsonl", "eval_test.jsonl")
OPTIONAL = ("sft_traces.jsonl", PRETRAIN_FILE)

BEGIN, END, PAD, UNKNOWN = "<s>", "<|end|>", "<pad>", "<unk>"
ROLES = ("<|system|>", "<|user|>", "<|assistant|>")
TAGS = ("<think>", "</think>", "<answer>", "</answer>")

# No date and no default system prompt: the same question is the same tokens on any day. Nothing follows the
# end of a turn, so that a response in training ends exactly where generation stops.
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}<|end|>"
    "{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def words_of(text: str) -> list[str]:
    """Return the words of ``text`` as the tokenizer sees them: between white space, response tags set apart."""
    for tag in TAGS:
        text = text.replace(tag, " ")
    return text.split()


def build_small_llama(
    data: Path,
    out: Path,
    *,
    hidden_size: int = 128,
    layers: int = 4,
    heads: int = 4,
    seed: int = 0,
    max_len: int = 1024,
) -> None:
    """Write an untrained Llama and its word-level tokenizer for the prepared rows in ``data``, if they are not there.

    The same data and arguments give identical files. The inner layer is three times ``hidden_size``; ``max_len`` is the
    most tokens of a prompt with its response. A CellDualityError is raised if rows are missing, the heads do not divide
    the width, or the folder cannot be written.
    """
    if min(hidden_size, layers, heads, max_len) < 1 or hidden_size % (2 * heads):
        what = f"hidden size {hidden_size} does not split into {heads} heads of even width"
        hint = "choose a hidden size that is a multiple of twice the heads"
        raise CellDualityError(what, code="uneven-heads", where="small Llama", hint=hint)
    files = ["vocabulary.json", *ROWS, *(name for name in OPTIONAL if (data / name).is_file())]
    if missing := [name for name in files if not (data / name).is_file()]:
        hint = "prepare the data first (cellduality data prepare)"
        raise CellDualityError("no such file", code="missing-file", where=str(data / missing[0]), hint=hint)
    shape = {"hidden_size": hidden_size, "layers": layers, "heads": heads, "seed": seed, "max_len": max_len}
    origin = made_of(__file__, settings=shape, data_sha256={name: file_sha256(data / name) for name in files})
    if is_there(out, origin):
        return
    vocabulary = Vocabulary.load(data / "vocabulary.json")
    # The labels of a set that no question lists are written word by word, as by any other model.
    labels = {label for kind, names in vocabulary.labels.items() if vocabulary.lists(kind) for label in names}
    written = (label for kind, names in vocabulary.labels.items() if not vocabulary.lists(kind) for label in names)
    words = {*vocabulary.genes, *(word for label in written for word in label.split())}
    for name in files[1:]:
        for row in read_jsonl(data / name):
            words.update(word for text in _texts(row) for word in words_of(text))
            if name == PRETRAIN_FILE:  # its types are clusters, whose names are labels too
                cluster = Example.from_label(row["label"]).unknown
                labels |= {cluster} if isinstance(cluster, str) else set()
    tokenizer = _tokenizer(sorted(words), sorted(labels), max_len)
    model = _model(tokenizer, hidden_size, layers, heads, seed, max_len)
    write_model(out, model, tokenizer, origin, plain=True)


def _texts(row: dict[str, Any]) -> Iterator[str]:
    """Yield what a policy reads or writes in a row; of a label's parts, all it may be shown or asked."""
    yield row["input"]
    if "output" in row:
        yield row["output"]
    if "label" in row:
        example = Example.from_label(row["label"])
        for value in (*example.inputs.values(), *example.known.values(), example.unknown, example.gold or ""):
            yield value if isinstance(value, str) else " ".join(value)


def _tokenizer(words: list[str], labels: list[str], max_len: int) -> PreTrainedTokenizerFast:
    from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    special = [UNKNOWN, PAD, BEGIN, END, *ROLES]
    names = dict.fromkeys([*special, *TAGS, *labels, *words])
    inner = Tokenizer(models.WordLevel({name: place for place, name in enumerate(names)}, unk_token=UNKNOWN))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    inner.add_special_tokens([AddedToken(name, normalized=False, special=True) for name in special])
    # Not special: they are part of what the policy says, and must outlive skip_special_tokens.
    inner.add_tokens([AddedToken(name, normalized=False, special=False) for name in TAGS])
    # A label is one token: a choice among labels is then one draw, and half a label cannot be said.
    inner.add_tokens([AddedToken(label, normalized=False, special=False, single_word=True) for label in labels])
    return PreTrainedTokenizerFast(
        tokenizer_object=inner,
        unk_token=UNKNOWN,
        pad_token=PAD,
        bos_token=BEGIN,
        eos_token=END,
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
        padding_side="left",
        model_max_length=max_len,
    )


def _model(
    tokenizer: PreTrainedTokenizerFast, hidden_size: int, layers: int, heads: int, seed: int, max_len: int
) -> Any:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=hidden_size,
        intermediate_size=3 * hidden_size,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        max_position_embeddings=max_len,
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
    )
    with torch.random.fork_rng(devices=[]):  # the caller's own randomness goes on as if nothing had happened
        torch.manual_seed(seed)
        return LlamaForCausalLM(config).to(torch.bfloat16)  # what OpenRLHF trains in and vLLM serves
